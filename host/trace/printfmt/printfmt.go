// Package printfmt prints a trace record as the kernel does, by the "print fmt"
// line of its event's format: a format of the kernel's own printf
// (Documentation/core-api/printk-formats.rst) and C expressions for its
// arguments, with the helpers of include/trace/stages/stage3_trace_output.h.
//
// The line comes from a guest or a file and so do the records: what is compiled
// is bounded, and printing reads nothing outside the record.
package printfmt

import (
	"bytes"
	"fmt"
	"strings"

	"labctl/host/text"
	"labctl/host/trace/format"
)

// Env is what the recorded kernel knows beside the record.
type Env struct {
	Uint     func(b []byte, size int) (uint64, bool) // of 1, 2, 4 or 8 bytes, in its byte order
	LongSize int
	// Symbol names an address: "vfs_read+0x4/0x120 [m]", without place and
	// size when offset is false.
	Symbol func(addr uint64, offset bool) (string, bool)
	// String is the constant string at an address.
	String func(addr uint64) (string, bool)
}

// Program is a compiled print format. It is not safe for use by two at once.
type Program struct {
	env   *Env
	items []item
	keys  []key
	err   error // of an argument that prints as "?"
	ctx   ctx
	buf   []byte
}

// item is a piece of literal text, then one conversion unless conv is nil.
type item struct {
	lit  string
	conv *conv
}

// key is a place where "key=" of a field stands: in literal text only, so that
// no value can make one.
type key struct {
	name       string
	item       int // of items, in whose lit the key is
	start, end int // in lit: of the key, and of the value
}

// Bounds on what is compiled and printed.
const (
	maxNodes  = 1 << 16
	maxDepth  = 100
	maxWidth  = 1024
	maxOutput = 64 << 10
)

// Compile reads the print format of e. An error is a format beyond this package,
// with the place in it.
func Compile(e *format.Event, env *Env) (*Program, error) {
	p := parser{event: e, env: env}
	prog, err := p.program(e.Print)
	if err != nil {
		return nil, fmt.Errorf("print fmt of event %s: %w", e, err)
	}
	if prog.err != nil {
		prog.err = fmt.Errorf("print fmt of event %s: %w", e, prog.err)
	}
	prog.env = env
	prog.ctx.env = env
	probe(e, prog)
	prog.findKeys()
	return prog, nil
}

// Err is the first argument that is beyond this package, and prints as "?".
func (p *Program) Err() error { return p.err }

// Text prints a record, on one line and clean for terminals.
func (p *Program) Text(data []byte) string {
	p.buf = p.append(p.buf[:0], data, 0, len(p.items))
	return line(p.buf)
}

// line is the output without what would break it up.
func line(b []byte) string {
	b = bytes.TrimRight(b, "\n")
	plain := true
	for _, c := range b {
		if c < ' ' || c > '~' {
			plain = false
			break
		}
	}
	if plain {
		return string(b)
	}
	s := text.Clean(string(b))
	if strings.ContainsAny(s, "\n\t") {
		s = oneLine.Replace(s)
	}
	return s
}

var oneLine = strings.NewReplacer("\n", "\uFFFD", "\t", " ")

func (p *Program) append(dst, data []byte, from, to int) []byte {
	p.ctx.data = data
	for i := from; i < to && len(dst) < maxOutput; i++ {
		dst = append(dst, p.items[i].lit...)
		if c := p.items[i].conv; c != nil {
			dst = c.append(dst, &p.ctx)
		}
	}
	return dst
}

// findKeys finds " key=" in the literals.
func (p *Program) findKeys() {
	for i, it := range p.items {
		for at := 0; at < len(it.lit); at++ {
			if it.lit[at] != '=' {
				continue
			}
			start := at
			for start > 0 && isWord(it.lit[start-1]) {
				start--
			}
			if start < at && (start == 0 && i == 0 || start > 0 && it.lit[start-1] == ' ') {
				p.keys = append(p.keys, key{it.lit[start:at], i, start, at + 1})
			}
		}
	}
}

// Fields goes through the "key=value" pairs that the format has, values as
// printed, without quotes.
func (p *Program) Fields(data []byte, yield func(key, value string)) {
	p.ctx.data = data
	for n, k := range p.keys {
		lastItem, lastEnd := len(p.items)-1, -1
		if n+1 < len(p.keys) {
			lastItem, lastEnd = p.keys[n+1].item, p.keys[n+1].start
		}
		b := p.buf[:0]
		for i := k.item; i <= lastItem; i++ {
			lit, from := p.items[i].lit, 0
			if i == k.item {
				from = k.end
			}
			if i == lastItem && lastEnd >= 0 {
				b = append(b, lit[from:lastEnd]...)
				break
			}
			b = append(b, lit[from:]...)
			if c := p.items[i].conv; c != nil && len(b) < maxOutput {
				b = c.append(b, &p.ctx)
			}
		}
		p.buf = b
		v := strings.TrimRight(line(b), " ")
		if l := len(v); l >= 2 && v[0] == '"' && v[l-1] == '"' {
			v = v[1 : l-1]
		}
		yield(k.name, v)
	}
}

// Head prints what stands in parentheses at the front, where a probe's event has
// the place that it fired at; "" when there is none.
func (p *Program) Head(data []byte) string {
	if len(p.items) == 0 || !strings.HasPrefix(p.items[0].lit, "(") {
		return ""
	}
	for i := 1; i < len(p.items); i++ {
		if before, _, ok := strings.Cut(p.items[i].lit, ")"); ok {
			b := p.append(p.buf[:0], data, 0, i)
			b = append(b, before...)
			return strings.TrimPrefix(line(b), "(")
		}
	}
	return ""
}

// probe makes the program print what the kernel prints of a kprobe event, whose
// print fmt is for tools that know no symbols (kernel/trace/trace_kprobe.c,
// print_kprobe_event and print_kretprobe_event; trace_probe_tmpl.h).
func probe(e *format.Event, p *Program) {
	ip, fn, ret := e.Field("__probe_ip"), e.Field("__probe_func"), e.Field("__probe_ret_ip")
	if ip == nil && (fn == nil || ret == nil) {
		return
	}
	for i := range p.items {
		c := p.items[i].conv
		if c == nil {
			continue
		}
		switch c.field() {
		case nil:
		case ip:
			*c = conv{verb: 'p', ext: "S", arg: fieldNode{ip}}
		case fn: // it returns to here, from there
			*c = conv{verb: 'p', ext: "S", arg: fieldNode{ret}}
		case ret:
			*c = conv{verb: 'p', ext: "s", arg: fieldNode{fn}}
		}
		// A string that could not be fetched has no bytes at all, not even
		// its NUL, and is printed without quotes.
		if call, ok := c.arg.(*getString); ok && c.verb == 's' && i+1 < len(p.items) &&
			strings.HasSuffix(p.items[i].lit, `"`) && strings.HasPrefix(p.items[i+1].lit, `"`) {
			p.items[i].lit = strings.TrimSuffix(p.items[i].lit, `"`)
			p.items[i+1].lit = strings.TrimPrefix(p.items[i+1].lit, `"`)
			call.quote = true
		}
	}
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
