package printfmt

import "strings"

// Binary prints what trace_printk left in a bprint record: a format of the
// kernel's and its arguments, packed one after the other (lib/vsprintf.c,
// vbin_printf).
func Binary(env *Env, form string, args []byte) string {
	items, err := slots(env, form)
	if err != nil {
		return line([]byte(form))
	}
	r := packed{env: env, b: args}
	var dst []byte
	c := ctx{env: env}
	for _, it := range items {
		dst = append(dst, it.lit...)
		if it.conv == nil || len(dst) > maxOutput {
			continue
		}
		r.fill(it.conv)
		dst = it.conv.append(dst, &c)
	}
	return line(dst)
}

// slots compiles a format whose arguments are all slots.
func slots(env *Env, form string) (items []item, err error) {
	p := parser{env: env}
	defer p.catch(&err)
	return p.items(form, func() node { return &slot{} }), nil
}

// slot is an argument that is not known before the record is read.
type slot struct{ v value }

func (s *slot) eval(*ctx) value { return s.v }

type packed struct {
	env *Env
	b   []byte
	at  int
}

// fill reads a conversion's arguments in their order.
func (r *packed) fill(c *conv) {
	for _, n := range []node{c.width, c.prec} {
		if s, ok := n.(*slot); ok {
			s.v = r.number(4)
		}
	}
	s, ok := c.arg.(*slot)
	switch {
	case !ok:
	case c.verb == 's':
		s.v = r.text()
	case c.verb == 'c':
		s.v = r.number(1)
	case c.verb != 'p':
		s.v = r.number(c.size)
	case c.ext == "" || strings.IndexByte("SsFfxKe", c.ext[0]) >= 0:
		s.v = r.number(r.env.LongSize)
	default: // the kernel has printed it already
		s.v = r.text()
		c.verb = 's'
	}
}

// number is aligned to its size, one of 8 bytes to 4.
func (r *packed) number(size int) value {
	align := min(size, 4)
	r.at = (r.at + align - 1) / align * align
	if r.at+size > len(r.b) {
		return missing
	}
	n, _ := r.env.Uint(r.b[r.at:], size)
	r.at += size
	return value{n: n, size: size}
}

func (r *packed) text() value {
	if r.at > len(r.b) {
		return missing
	}
	s := cstring(r.b[r.at:])
	r.at += len(s) + 1
	return value{kind: str, s: s}
}
