package printfmt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// conv is one conversion of a format with its arguments.
type conv struct {
	minus, plus, space, alt, zero bool
	width, prec                   node // nil when not given
	size                          int  // bytes of a number by its length modifier; 0: as the argument
	verb                          byte
	ext                           string // what follows %p: "S", "I4"
	arg                           node   // nil for %%
}

// field is the field that is the conversion's whole argument; nil when it is more.
func (c *conv) field() any {
	n := c.arg
	for {
		switch t := n.(type) {
		case castNode:
			n = t.x
			continue
		case fieldNode:
			return t.f
		}
		return nil
	}
}

// items splits a format at its conversions and gives them their arguments.
func (p *parser) items(form string, arg func() node) []item {
	var out []item
	var lit strings.Builder
	for i := 0; i < len(form); {
		if form[i] != '%' {
			lit.WriteByte(form[i])
			i++
			continue
		}
		i++
		if i < len(form) && form[i] == '%' {
			lit.WriteByte('%')
			i++
			continue
		}
		c := &conv{}
		i = c.flags(form, i)
		number := func() node {
			if i < len(form) && form[i] == '*' {
				i++
				return arg()
			}
			start := i
			for i < len(form) && form[i] >= '0' && form[i] <= '9' {
				i++
			}
			if start == i {
				return nil
			}
			n, err := strconv.Atoi(form[start:i])
			if err != nil || n > maxWidth {
				p.fail("a conversion is %s wide", form[start:i])
			}
			return constant{value{n: uint64(n), size: 4, signed: true}}
		}
		c.width = number()
		if i < len(form) && form[i] == '.' {
			i++
			if c.prec = number(); c.prec == nil {
				c.prec = constant{value{size: 4, signed: true}}
			}
		}
		i = c.length(form, i, p.env.LongSize)
		if i == len(form) {
			p.fail("the format ends in a conversion")
		}
		c.verb = form[i]
		i++
		switch c.verb {
		case 'd', 'i', 'u', 'x', 'X', 'o', 'c', 's':
		case 'p':
			c.ext = extension(form[i:])
			i += len(c.ext)
		default:
			p.fail("conversion %%%c is not known", c.verb)
		}
		c.arg = arg()
		out = append(out, item{lit.String(), c})
		lit.Reset()
	}
	return append(out, item{lit.String(), nil})
}

func (c *conv) flags(form string, i int) int {
	for ; i < len(form); i++ {
		switch form[i] {
		case '-':
			c.minus = true
		case '+':
			c.plus = true
		case ' ':
			c.space = true
		case '#':
			c.alt = true
		case '0':
			c.zero = true
		default:
			return i
		}
	}
	return i
}

func (c *conv) length(form string, i, long int) int {
	for _, m := range []struct {
		mod  string
		size int
	}{{"hh", 1}, {"h", 2}, {"ll", 8}, {"l", long}, {"L", 8}, {"z", long}, {"Z", long}, {"t", long}, {"j", 8}} {
		if strings.HasPrefix(form[i:], m.mod) {
			c.size = m.size
			return i + len(m.mod)
		}
	}
	c.size = 4
	return i
}

// extensions of %p that are printed, the longest of a beginning first; others
// print the pointer.
var extensions = []string{
	"ISpfsc", "ISpfc", "ISpsc", "ISpc", "ISfc", "ISsc", "ISp", "ISc", "IS", "I4", "i4", "I6c", "I6", "i6",
	"Ub", "UB", "Ul", "UL", "U", "MF", "MR", "M", "m", "hC", "hD", "hN", "h", "bl", "b",
	"SR", "SB", "S", "sB", "s", "FR", "F", "f", "B", "K", "x",
}

func extension(s string) string {
	for _, e := range extensions {
		if strings.HasPrefix(s, e) {
			return e
		}
	}
	return ""
}

func (c *conv) append(dst []byte, x *ctx) []byte {
	width, prec := 0, -1
	minus := c.minus
	if c.width != nil {
		if width = int(int32(c.width.eval(x).n)); width < 0 {
			width, minus = -width, true
		}
	}
	if c.prec != nil {
		prec = int(int32(c.prec.eval(x).n))
	}
	v := c.arg.eval(x)
	if c.verb == 'p' && (strings.HasPrefix(c.ext, "h") || strings.HasPrefix(c.ext, "b")) {
		return c.buffer(dst, x, v, width) // the width is the buffer's
	}
	width = min(width, maxWidth)
	start := len(dst)
	switch {
	case v.bad:
		dst = append(dst, v.s...)
	case c.verb == 's':
		s := c.text(x, v)
		if prec >= 0 && prec < len(s) {
			s = s[:prec]
		}
		dst = append(dst, s...)
	case c.verb == 'c':
		dst = append(dst, byte(v.n))
	case c.verb == 'p':
		dst = c.pointer(dst, x, v)
	case v.kind != num:
		dst = append(dst, c.text(x, v)...)
	default:
		return c.number(dst, v, width, prec, minus)
	}
	return pad(dst, start, width, minus)
}

// pad makes what was appended since start width wide.
func pad(dst []byte, start, width int, left bool) []byte {
	n := width - (len(dst) - start)
	if n <= 0 {
		return dst
	}
	fill := strings.Repeat(" ", n)
	dst = append(dst, fill...)
	if !left {
		copy(dst[start+n:], dst[start:len(dst)-n])
		copy(dst[start:], fill)
	}
	return dst
}

func (c *conv) text(x *ctx, v value) string {
	switch v.kind {
	case str:
		return v.s
	case mem:
		return cstring(v.b)
	}
	if v.n == 0 {
		return "(null)"
	}
	if s, ok := x.env.String(v.n); ok {
		return s
	}
	return "0x" + strconv.FormatUint(v.n, 16)
}

func (c *conv) number(dst []byte, v value, width, prec int, minus bool) []byte {
	signed := c.verb == 'd' || c.verb == 'i'
	v = number(v.n, c.size, signed)
	var digits [72]byte
	sign, prefix := "", ""
	var d []byte
	switch c.verb {
	case 'x', 'X':
		d = strconv.AppendUint(digits[:0], v.n, 16)
		if c.alt {
			prefix = "0x"
		}
		if c.verb == 'X' {
			d = []byte(strings.ToUpper(string(d)))
			prefix = strings.ToUpper(prefix)
		}
	case 'o':
		d = strconv.AppendUint(digits[:0], v.n, 8)
		if c.alt && v.n != 0 {
			prefix = "0"
		}
	default:
		n := v.n
		if signed && int64(n) < 0 {
			sign, n = "-", -n
		} else if signed && c.plus {
			sign = "+"
		} else if signed && c.space {
			sign = " "
		}
		d = strconv.AppendUint(digits[:0], n, 10)
	}
	zeros := min(prec, maxWidth) - len(d)
	if c.zero && !minus && prec < 0 {
		zeros = width - len(sign) - len(prefix) - len(d)
	}
	start := len(dst)
	dst = append(dst, sign...)
	dst = append(dst, prefix...)
	for ; zeros > 0; zeros-- {
		dst = append(dst, '0')
	}
	dst = append(dst, d...)
	return pad(dst, start, width, minus)
}

// pointer prints %p and what may follow it.
func (c *conv) pointer(dst []byte, x *ctx, v value) []byte {
	e := c.ext
	switch {
	case e == "" || e == "K" || e == "x":
		if v.kind == mem {
			return append(dst, "(in the record)"...)
		}
		if c.alt {
			dst = append(dst, "0x"...)
		}
		return appendHex(dst, v.n, 2*x.env.LongSize)
	case strings.IndexByte("sSfFB", e[0]) >= 0:
		addr := v.n
		if e[0] == 'B' || len(e) > 1 && e[1] == 'B' {
			addr-- // a return address
		}
		if name, ok := x.env.Symbol(addr, e[0] == 'S' || e[0] == 'F' || e[0] == 'B'); ok {
			return append(dst, name...)
		}
		return appendHex(append(dst, "0x"...), v.n, 1)
	case v.kind != mem:
		return appendHex(dst, v.n, 2*x.env.LongSize)
	case strings.HasPrefix(e, "IS"):
		return c.sockaddr(dst, x, v.b)
	case e[1:] == "4" && len(v.b) >= 4:
		if e[0] == 'i' {
			return fmt.Appendf(dst, "%03d.%03d.%03d.%03d", v.b[0], v.b[1], v.b[2], v.b[3])
		}
		return netip.AddrFrom4([4]byte(v.b)).AppendTo(dst)
	case strings.HasPrefix(e[1:], "6") && len(v.b) >= 16:
		if e == "I6c" {
			return netip.AddrFrom16([16]byte(v.b)).AppendTo(dst)
		}
		for i := 0; i < 16; i += 2 {
			if i > 0 && e[0] == 'I' {
				dst = append(dst, ':')
			}
			dst = append(dst, hex.EncodeToString(v.b[i:i+2])...)
		}
		return dst
	case e[0] == 'U' && len(v.b) >= 16:
		return uuid(dst, v.b[:16], e)
	case (e[0] == 'M' || e[0] == 'm') && len(v.b) >= 6:
		sep := map[string]string{"M": ":", "MR": ":", "MF": "-", "m": ""}[e]
		return append(dst, joinHex(v.b[:6], sep)...)
	}
	return append(dst, missing.s...)
}

// appendHex prints v with digits digits at least.
func appendHex(dst []byte, v uint64, digits int) []byte {
	for n := max((bits.Len64(v)+3)/4, digits) - 1; n >= 0; n-- {
		dst = append(dst, "0123456789abcdef"[v>>(4*n)&15])
	}
	return dst
}

// sockaddr prints a struct sockaddr_in or _in6: the family in the kernel's own
// byte order, port and address in the network's.
func (c *conv) sockaddr(dst []byte, x *ctx, b []byte) []byte {
	family := uint64(0)
	if len(b) >= 2 {
		family, _ = x.env.Uint(b, 2)
	}
	port := strings.Contains(c.ext, "p")
	switch {
	case family == 2 && len(b) >= 8:
		dst = netip.AddrFrom4([4]byte(b[4:])).AppendTo(dst)
	case family == 10 && len(b) >= 24:
		if port {
			dst = append(dst, '[')
		}
		dst = netip.AddrFrom16([16]byte(b[8:])).AppendTo(dst)
		if port {
			dst = append(dst, ']')
		}
	case family == 0:
		return append(dst, "(einval)"...)
	default:
		return append(dst, "(unknown family)"...)
	}
	if port {
		dst = fmt.Appendf(dst, ":%d", binary.BigEndian.Uint16(b[2:]))
	}
	return dst
}

func uuid(dst, b []byte, e string) []byte {
	order := [16]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if e == "Ul" || e == "UL" {
		order = [16]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}
	}
	start := len(dst)
	for i, at := range order {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hex.EncodeToString(b[at:at+1])...)
	}
	if e == "UB" || e == "UL" {
		copy(dst[start:], strings.ToUpper(string(dst[start:])))
	}
	return dst
}

// buffer prints %*ph and %*pb, whose width is the buffer's size in bytes or bits.
func (c *conv) buffer(dst []byte, x *ctx, v value, n int) []byte {
	if v.kind != mem {
		return append(dst, v.s...)
	}
	if c.ext[0] == 'h' {
		sep := map[string]string{"h": " ", "hC": ":", "hD": "-", "hN": ""}[c.ext]
		if n == 0 {
			n = 1
		}
		return append(dst, joinHex(v.b[:min(n, len(v.b), 64)], sep)...)
	}
	return appendBitmap(dst, x, v.b, min(n, len(v.b)*8), c.ext == "bl")
}

// appendBitmap prints the first n bits of unsigned longs: as hexadecimal numbers
// of 32 bits, highest first, or as a list, "0-3,5".
func appendBitmap(dst []byte, x *ctx, b []byte, n int, list bool) []byte {
	long := x.env.LongSize
	word := func(i int) uint64 { // 32 bits
		at := i * 4 / long * long
		if at+long > len(b) {
			return 0
		}
		v, _ := x.env.Uint(b[at:], long)
		return v >> (i * 32 % (long * 8)) & (1<<32 - 1)
	}
	if list {
		first := true
		for i := 0; i < n; i++ {
			if word(i/32)>>(i%32)&1 == 0 {
				continue
			}
			end := i
			for end+1 < n && word((end+1)/32)>>((end+1)%32)&1 != 0 {
				end++
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = strconv.AppendInt(dst, int64(i), 10)
			if end > i {
				dst = append(dst, '-')
				dst = strconv.AppendInt(dst, int64(end), 10)
			}
			i = end
		}
		return dst
	}
	for i := (n+31)/32 - 1; i >= 0; i-- {
		digits := 8
		if (i+1)*32 > n {
			digits = (n%32 + 3) / 4
		}
		v := word(i)
		if rest := n - i*32; rest < 32 {
			v &= 1<<rest - 1
		}
		dst = appendHex(dst, v, digits)
		if i > 0 {
			dst = append(dst, ',')
		}
	}
	return dst
}
