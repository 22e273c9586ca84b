package printfmt

import (
	"encoding/hex"
	"strconv"
	"strings"

	"labctl/host/trace/format"
)

// value is a C value: a number, a string constant, or memory of the record.
type value struct {
	kind   kind
	n      uint64 // number, sign-extended when signed; address
	size   int    // bytes of the number, or of an element of the memory
	signed bool   // the number, or the elements
	s      string
	b      []byte
	bad    bool // it is not in the record
}

type kind uint8

const (
	num kind = iota
	str
	mem
)

type ctx struct {
	env  *Env
	data []byte
}

type node interface{ eval(c *ctx) value }

type (
	constant   struct{ v value }
	recordNode struct{}
	fieldNode  struct{ f *format.Field }
	placeNode  struct{ f *format.Field } // the word that tells a dynamic field's place
	address    struct{ f *format.Field }
	lengthNode struct{ f *format.Field }
	unary      struct {
		op string
		x  node
	}
	operation struct {
		op   string
		x, y node
	}
	cond     struct{ test, yes, no node }
	index    struct{ x, i node }
	castNode struct {
		t ctype
		x node
	}
	getString struct {
		f     *format.Field
		quote bool
	}
	bitmask struct{ f *format.Field }
	flags   struct {
		arg   node
		delim string
		pairs []pair
	}
	symbolic struct {
		arg   node
		pairs []pair
	}
	hexBytes struct {
		buf, len node
		sep      string
	}
	array struct{ buf, count, size node }
)

// isConstant reports whether n, whose operands are folded, is the same for all records.
func isConstant(n node) bool {
	is := func(nodes ...node) bool {
		for _, n := range nodes {
			if _, ok := n.(constant); !ok {
				return false
			}
		}
		return true
	}
	switch n := n.(type) {
	case constant:
		return true
	case unary:
		return is(n.x)
	case operation:
		return is(n.x, n.y)
	case cond:
		return is(n.test, n.yes, n.no)
	case castNode:
		return is(n.x)
	}
	return false
}

var missing = value{kind: str, s: "(not in the record)", bad: true}

func (n constant) eval(*ctx) value { return n.v }

func (recordNode) eval(c *ctx) value { return value{kind: mem, b: c.data, size: 1} }

// bytes are those of a field, wherever they are.
func (c *ctx) bytes(f *format.Field) ([]byte, bool) {
	start, size, ok := f.Span(c.data, func(b []byte) uint32 { v, _ := c.env.Uint(b, 4); return uint32(v) })
	if !ok {
		return nil, false
	}
	return c.data[start : start+size], true
}

func (n fieldNode) eval(c *ctx) value {
	b, ok := c.bytes(n.f)
	if !ok {
		return missing
	}
	if n.f.Array || n.f.Size > 8 {
		return value{kind: mem, b: b, size: n.f.Elem, signed: n.f.Signed}
	}
	v, ok := c.env.Uint(b, n.f.Size)
	if !ok { // 3, 5, 6 or 7 bytes: a structure
		return value{kind: mem, b: b, size: 1}
	}
	return number(v, n.f.Size, n.f.Signed)
}

func (n placeNode) eval(c *ctx) value {
	if n.f.Offset+4 > len(c.data) {
		return missing
	}
	v, _ := c.env.Uint(c.data[n.f.Offset:], 4)
	return number(v, 4, false)
}

func (n address) eval(c *ctx) value {
	b, ok := c.bytes(n.f)
	if !ok {
		return missing
	}
	return value{kind: mem, b: b, size: n.f.Elem, signed: n.f.Signed}
}

func (n lengthNode) eval(c *ctx) value {
	b, ok := c.bytes(n.f)
	if !ok {
		return missing
	}
	return number(uint64(len(b)), 4, true)
}

// number is v as a C value of a type.
func number(v uint64, size int, signed bool) value {
	if size < 8 {
		shift := 64 - 8*size
		if signed {
			v = uint64(int64(v<<shift) >> shift)
		} else {
			v = v << shift >> shift
		}
	}
	return value{n: v, size: size, signed: signed}
}

// promote is C's: what is smaller than int becomes int.
func (v value) promote() value {
	if v.kind == num && v.size < 4 {
		v.size, v.signed = 4, true
	}
	return v
}

func (v value) truth() bool { return v.kind != num || v.n != 0 }

func boolean(b bool) value {
	if b {
		return value{n: 1, size: 4, signed: true}
	}
	return value{size: 4, signed: true}
}

func (n unary) eval(c *ctx) value {
	v := n.x.eval(c)
	if n.op == "!" {
		return boolean(!v.truth())
	}
	if v.kind != num {
		return v
	}
	v = v.promote()
	switch n.op {
	case "-":
		return number(-v.n, v.size, v.signed)
	case "~":
		return number(^v.n, v.size, v.signed)
	}
	return v
}

func (n operation) eval(c *ctx) value {
	x := n.x.eval(c)
	switch n.op {
	case "&&":
		return boolean(x.truth() && n.y.eval(c).truth())
	case "||":
		return boolean(x.truth() || n.y.eval(c).truth())
	}
	y := n.y.eval(c)
	if x.bad || y.bad {
		return missing
	}
	// A pointer into the record, moved on.
	if x.kind == mem && y.kind == num && n.op == "+" {
		by := y.n * uint64(max(x.size, 1))
		if by > uint64(len(x.b)) {
			return missing
		}
		x.b = x.b[by:]
		return x
	}
	if x.kind != num || y.kind != num {
		return missing
	}
	x, y = x.promote(), y.promote()
	size, signed := x.size, x.signed
	if n.op != "<<" && n.op != ">>" {
		switch {
		case y.size > x.size:
			size, signed = y.size, y.signed
		case y.size == x.size:
			signed = x.signed && y.signed
		}
	}
	a, b := number(x.n, size, signed).n, number(y.n, size, signed).n
	less := a < b
	if signed {
		less = int64(a) < int64(b)
	}
	var v uint64
	switch n.op {
	case "==":
		return boolean(a == b)
	case "!=":
		return boolean(a != b)
	case "<":
		return boolean(less)
	case ">=":
		return boolean(!less)
	case ">":
		return boolean(!less && a != b)
	case "<=":
		return boolean(less || a == b)
	case "+":
		v = a + b
	case "-":
		v = a - b
	case "*":
		v = a * b
	case "/", "%":
		switch {
		case b == 0:
			return value{kind: str, s: "(division by 0)", bad: true}
		case signed && n.op == "/":
			v = uint64(int64(a) / int64(b))
		case signed:
			v = uint64(int64(a) % int64(b))
		case n.op == "/":
			v = a / b
		default:
			v = a % b
		}
	case "&":
		v = a & b
	case "|":
		v = a | b
	case "^":
		v = a ^ b
	case "<<":
		v = a << (y.n & 63)
	case ">>":
		if v = a >> (y.n & 63); signed {
			v = uint64(int64(a) >> (y.n & 63))
		}
	}
	return number(v, size, signed)
}

func (n cond) eval(c *ctx) value {
	if n.test.eval(c).truth() {
		return n.yes.eval(c)
	}
	return n.no.eval(c)
}

func (n index) eval(c *ctx) value {
	x, i := n.x.eval(c), n.i.eval(c)
	switch {
	case x.bad || i.bad || i.kind != num:
		return missing
	case x.kind == str && i.n < uint64(len(x.s)):
		return number(uint64(x.s[i.n]), 1, true)
	case x.kind != mem || x.size <= 0 || i.n >= uint64(len(x.b)/x.size):
		return missing
	}
	v, ok := c.env.Uint(x.b[i.n*uint64(x.size):], x.size)
	if !ok {
		return missing
	}
	return number(v, x.size, x.signed)
}

func (n castNode) eval(c *ctx) value {
	v := n.x.eval(c)
	switch {
	case v.bad || n.t.size == 0:
		return v
	case v.kind == mem && n.t.pointer:
		v.size, v.signed = n.t.elem, n.t.elemSigned
		return v
	case v.kind != num:
		return v
	case n.t.pointer:
		return number(v.n, n.t.size, false)
	}
	return number(v.n, n.t.size, n.t.signed)
}

func (n *getString) eval(c *ctx) value {
	b, ok := c.bytes(n.f)
	if !ok {
		return missing
	}
	if !n.quote {
		return value{kind: mem, b: b, size: 1}
	}
	if len(b) == 0 {
		return value{kind: str, s: "(fault)"}
	}
	return value{kind: str, s: `"` + cstring(b) + `"`}
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func (n bitmask) eval(c *ctx) value {
	b, ok := c.bytes(n.f)
	if !ok {
		return missing
	}
	return value{kind: str, s: string(appendBitmap(nil, c, b, len(b)*8, false))}
}

func (n flags) eval(c *ctx) value {
	v := n.arg.eval(c)
	if v.kind != num {
		return v
	}
	var b strings.Builder
	left, first := v.n, true
	add := func(s string) {
		if !first {
			b.WriteString(n.delim)
		}
		first = false
		b.WriteString(s)
	}
	for _, p := range n.pairs {
		if left == 0 {
			break
		}
		if left&p.n == p.n && p.name != "" {
			add(p.name)
			left &^= p.n
		}
	}
	if left != 0 {
		add("0x" + strconv.FormatUint(left, 16))
	}
	return value{kind: str, s: b.String()}
}

func (n symbolic) eval(c *ctx) value {
	v := n.arg.eval(c)
	if v.kind != num {
		return v
	}
	for _, p := range n.pairs {
		if p.n == v.n && p.name != "" {
			return value{kind: str, s: p.name}
		}
	}
	return value{kind: str, s: "0x" + strconv.FormatUint(v.n, 16)}
}

func (n hexBytes) eval(c *ctx) value {
	buf, l := n.buf.eval(c), n.len.eval(c)
	if buf.kind != mem || l.kind != num || l.n > uint64(len(buf.b)) {
		return missing
	}
	return value{kind: str, s: joinHex(buf.b[:l.n], n.sep)}
}

func joinHex(b []byte, sep string) string {
	if sep == "" {
		return hex.EncodeToString(b)
	}
	var s strings.Builder
	for i, c := range b {
		if i > 0 {
			s.WriteString(sep)
		}
		s.WriteString(hex.EncodeToString([]byte{c}))
	}
	return s.String()
}

func (n array) eval(c *ctx) value {
	buf, count, size := n.buf.eval(c), n.count.eval(c), n.size.eval(c)
	if buf.kind != mem || count.kind != num || size.kind != num || size.n == 0 || count.n > uint64(len(buf.b))/size.n {
		return missing
	}
	var b strings.Builder
	b.WriteByte('{')
	for i := range count.n {
		if i > 0 {
			b.WriteByte(',')
		}
		v, ok := c.env.Uint(buf.b[i*size.n:], int(size.n))
		if !ok {
			return missing
		}
		b.WriteString("0x" + strconv.FormatUint(v, 16))
	}
	b.WriteByte('}')
	return value{kind: str, s: b.String()}
}
