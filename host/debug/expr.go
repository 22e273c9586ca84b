package debug

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/host/clone"
	"labctl/host/kernel/ctype"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/text"
)

// expression is an expression in C's syntax, as far as that is Go's, too: names, numbers,
// texts, operators, members with "." or "->", elements, "*" before a pointer. A name is an
// argument of the function at whose first instruction the CPU stands; else comm, pid, tid,
// cpu, hits or current, a constant (CLONE_VM, SIGCHLD, an enum's), or a variable of the
// kernel's. $NAME is a register.
type expression struct {
	tree ast.Expr
	text string
}

// registerMark marks the name of a register, and nameEnd ends every name: words that are
// Go's own are names, too.
const (
	registerMark = "ʀ"
	nameEnd      = "ˍ"
)

// maxExpression limits an expression, in bytes.
const maxExpression = 1000

// parseExpression parses an expression.
func parseExpression(s string) (*expression, error) {
	if len(s) > maxExpression {
		return nil, outcome.Inputf("expression: more than %d bytes", maxExpression)
	}
	src, err := goSyntax(s)
	if err != nil {
		return nil, err
	}
	tree, err := parser.ParseExpr(src)
	if err != nil {
		return nil, outcome.Inputf("expression %q: want names, numbers and operators, as in: args->flags & CLONE_VM != 0", text.Line(s, 80))
	}
	return &expression{tree, s}, nil
}

// goSyntax turns C's syntax into Go's.
func goSyntax(s string) (string, error) {
	var b strings.Builder
	isName := func(c byte) bool {
		return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	}
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\'':
			end := strings.IndexByte(s[i+1:], c)
			if end < 0 {
				return "", outcome.Inputf("expression: a quote is not closed: %s", text.Line(s[i:], 80))
			}
			b.WriteString(strconv.Quote(s[i+1 : i+1+end]))
			i += end + 2
		case strings.HasPrefix(s[i:], "->"):
			b.WriteByte('.')
			i += 2
		case c == '$' || isName(c):
			j := i + 1
			for j < len(s) && isName(s[j]) {
				j++
			}
			name := s[i:j]
			switch {
			case c == '$':
				b.WriteString(registerMark + name[1:] + nameEnd)
			case c >= '0' && c <= '9':
				b.WriteString(strings.TrimRight(name, "uUlL"))
			default:
				b.WriteString(name + nameEnd)
			}
			i = j
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String(), nil
}

// scope is what an expression is evaluated in.
type scope struct {
	ctx  context.Context
	p    *place
	args []operand
	hits int
}

// scope returns the scope of a place.
func (p *place) scope(ctx context.Context, hits int) *scope {
	sc := &scope{ctx: ctx, p: p, hits: hits}
	if f, ok := p.lookup()(p.pc); ok && f.Start == p.pc {
		sc.args, _ = p.params(f.Name)
	}
	return sc
}

// eval evaluates.
func (e *expression) eval(sc *scope) (operand, error) {
	v, err := sc.eval(e.tree, 0)
	if err != nil {
		return v, fmt.Errorf("%s: %w", text.Line(e.text, 80), outcome.Default(outcome.BadInput, err))
	}
	return v, nil
}

// maxNesting limits how deep an expression is nested.
const maxNesting = 100

func (sc *scope) eval(e ast.Expr, depth int) (operand, error) {
	if depth++; depth > maxNesting {
		return operand{}, outcome.Inputf("it is nested too deep")
	}
	switch e := e.(type) {
	case *ast.ParenExpr:
		return sc.eval(e.X, depth)
	case *ast.BasicLit:
		return literal(e)
	case *ast.Ident:
		return sc.name(strings.TrimSuffix(e.Name, nameEnd))
	case *ast.SelectorExpr:
		x, err := sc.eval(e.X, depth)
		if err != nil {
			return x, err
		}
		return sc.member(x, strings.TrimSuffix(e.Sel.Name, nameEnd))
	case *ast.IndexExpr:
		x, err := sc.eval(e.X, depth)
		if err != nil {
			return x, err
		}
		i, err := sc.eval(e.Index, depth)
		if err != nil {
			return x, err
		}
		return sc.element(x, i.num)
	case *ast.StarExpr:
		x, err := sc.eval(e.X, depth)
		if err != nil {
			return x, err
		}
		return sc.element(x, 0)
	case *ast.UnaryExpr:
		return sc.unary(e, depth)
	case *ast.BinaryExpr:
		return sc.binary(e, depth)
	}
	return operand{}, outcome.Inputf("a %s is not for expressions here", strings.TrimPrefix(fmt.Sprintf("%T", e), "*ast."))
}

func literal(e *ast.BasicLit) (operand, error) {
	switch e.Kind {
	case token.INT:
		n, err := strconv.ParseUint(e.Value, 0, 64)
		if err != nil {
			return operand{}, outcome.Inputf("%s is not a number of 64 bits", text.Line(e.Value, 40))
		}
		return operand{num: n}, nil
	case token.STRING:
		s, err := strconv.Unquote(e.Value)
		return operand{isText: true, text: s}, err
	}
	return operand{}, outcome.Inputf("%s is neither a number nor a text", text.Line(e.Value, 40))
}

// ownNames are names that the debugger gives a meaning.
var ownNames = []string{"comm", "pid", "tid", "cpu", "hits", "current"}

// name looks a name up.
func (sc *scope) name(name string) (operand, error) {
	p := sc.p
	if reg, ok := strings.CutPrefix(name, registerMark); ok {
		return sc.register(reg)
	}
	for _, a := range sc.args {
		if a.name == name {
			return a, nil
		}
	}
	switch name {
	case "cpu":
		return operand{name: name, num: uint64(p.cpu)}, nil
	case "hits":
		return operand{name: name, num: uint64(sc.hits)}, nil
	case "comm", "pid", "tid", "current":
		who, err := p.task(sc.ctx)
		if err != nil {
			return operand{}, err
		}
		switch name {
		case "comm":
			return operand{name: name, isText: true, text: who.comm}, nil
		case "pid":
			return operand{name: name, num: uint64(who.pid)}, nil
		case "tid":
			return operand{name: name, num: uint64(who.tid)}, nil
		}
		t, err := sc.typeOf("struct task_struct")
		return operand{name: name, typ: &btf.Pointer{Target: t}, num: who.addr}, err
	}
	if n, ok := clone.Constant(name); ok {
		return operand{num: n}, nil
	}
	if v, ok := sc.enum(name); ok {
		return v, nil
	}
	return sc.variable(name)
}

func (sc *scope) register(name string) (operand, error) {
	name = strings.ToLower(name)
	v, ok := sc.p.regs[name]
	if !ok {
		var err error
		if v, err = sc.p.s.c.Register(sc.ctx, sc.p.cpu, name); err != nil {
			var known []string
			for r := range sc.p.regs {
				known = append(known, r)
			}
			return operand{}, outcome.Inputf("there is no register %s%s", text.Line(name, 40), nearest.Hint(name, known))
		}
	}
	return operand{name: "$" + name, num: v, reg: name}, nil
}

// enum looks a constant of the kernel's enums up.
func (sc *scope) enum(name string) (v operand, ok bool) {
	if strings.ToUpper(name) != name {
		return v, false
	}
	spec, err := sc.p.l.K.Types()
	if err != nil {
		return v, false
	}
	for t, err := range spec.All() {
		if err != nil {
			return v, false
		}
		e, is := t.(*btf.Enum)
		if !is {
			continue
		}
		for _, one := range e.Values {
			if one.Name == name {
				return operand{num: one.Value, typ: e}, true
			}
		}
	}
	return v, false
}

// variable looks a variable of the kernel's up, or a function, whose address it is.
func (sc *scope) variable(name string) (operand, error) {
	p := sc.p
	addr, err := p.l.Variable(name, p.cpu)
	if err != nil {
		known := append([]string{}, ownNames...)
		for _, a := range sc.args {
			known = append(known, a.name)
		}
		if near := nearest.Name(name, known); near != "" {
			return operand{}, outcome.Inputf("%s is not known here, did you mean %s?", text.Line(name, 80), near)
		}
		return operand{}, err
	}
	for _, g := range kern.Globals {
		if g.Name != name {
			continue
		}
		c := strings.TrimSuffix(g.Type, " *")
		t, err := sc.typeOf(c)
		if err != nil {
			return operand{}, err
		}
		if c != g.Type {
			t = &btf.Pointer{Target: t}
		}
		return sc.at(name, t, addr)
	}
	return operand{name: name, num: addr}, nil
}

func (sc *scope) typeOf(name string) (btf.Type, error) {
	r, err := sc.p.reader()
	if err != nil {
		return nil, err
	}
	return r.Type(name)
}

// at reads a value from memory.
func (sc *scope) at(name string, t btf.Type, addr uint64) (operand, error) {
	v := operand{name: name, typ: t, addr: addr, inMem: true}
	size := ctype.Size(t, 8*sc.p.l.K.Word())
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Struct, *btf.Union:
		return v, nil
	case *btf.Array:
		if i, ok := btf.UnderlyingType(u.Type).(*btf.Int); ok && i.Size == 1 {
			s, err := sc.p.l.CString(addr, min(int(u.Nelems), 256))
			v.isText, v.text = true, s
			return v, err
		}
		return v, nil
	}
	if size < 1 || size > 8 {
		return v, nil
	}
	n, err := sc.p.l.Uint(addr, size)
	v.num = n
	return v, err
}

// member is x.name, x a structure or a pointer to one.
func (sc *scope) member(x operand, name string) (operand, error) {
	t, addr := x.typ, x.addr
	if t == nil {
		return x, outcome.Inputf("%s is a number, and has no member %s", text.Line(cmp.Or(x.name, number(x.num)), 40), text.Line(name, 40))
	}
	if ptr, ok := btf.UnderlyingType(t).(*btf.Pointer); ok {
		if t, addr = ptr.Target, x.num; addr == 0 {
			return x, outcome.Inputf("%s is null", text.Line(x.name, 40))
		}
	} else if !x.inMem {
		return x, outcome.Inputf("%s has no members", text.Line(x.name, 40))
	}
	members := ctype.MembersOf(btf.UnderlyingType(t), 8*sc.p.l.K.Word())
	var known []string
	for _, m := range members {
		if known = append(known, m.Name); m.Name != name {
			continue
		}
		at := addr + uint64(m.Offset)
		if m.Bits == 0 {
			return sc.at(name, m.Type, at)
		}
		n, err := sc.p.l.Uint(at, min(m.Size, 8))
		return operand{name: name, typ: m.Type, num: n >> m.Shift & (1<<m.Bits - 1)}, err
	}
	return x, &kern.NoMemberError{Type: ctype.String(t, ""), Member: text.Line(name, 80), Known: known}
}

// element is x[i], x an array or a pointer.
func (sc *scope) element(x operand, i uint64) (operand, error) {
	if x.typ != nil {
		switch u := btf.UnderlyingType(x.typ).(type) {
		case *btf.Pointer:
			if size := ctype.Size(u.Target, 8*sc.p.l.K.Word()); size > 0 {
				return sc.at(x.name, u.Target, x.num+i*uint64(size))
			}
		case *btf.Array:
			size := ctype.Size(u.Type, 8*sc.p.l.K.Word())
			if x.inMem && size > 0 && i < uint64(max(u.Nelems, 1)) {
				return sc.at(x.name, u.Type, x.addr+i*uint64(size))
			}
			return x, outcome.Inputf("%s has %d elements", text.Line(x.name, 40), u.Nelems)
		}
	}
	return x, outcome.Inputf("%s is neither a pointer nor an array", text.Line(cmp.Or(x.name, number(x.num)), 40))
}

func (sc *scope) unary(e *ast.UnaryExpr, depth int) (operand, error) {
	x, err := sc.eval(e.X, depth)
	if err != nil {
		return x, err
	}
	if e.Op == token.AND {
		if !x.inMem {
			return x, outcome.Inputf("%s has no address", text.Line(x.name, 40))
		}
		return operand{typ: &btf.Pointer{Target: x.typ}, num: x.addr}, nil
	}
	if x.isText {
		return x, outcome.Inputf("%s is a text", text.Line(x.name, 40))
	}
	switch e.Op {
	case token.SUB:
		return operand{num: -x.num}, nil
	case token.XOR: // Go's ~
		return operand{num: ^x.num}, nil
	case token.NOT:
		return truth(x.num == 0), nil
	case token.ADD:
		return x, nil
	}
	return x, outcome.Inputf("%s is no operator here", e.Op)
}

func truth(b bool) operand {
	if b {
		return operand{num: 1}
	}
	return operand{}
}

// true reports whether a value is not 0 or "".
func (v operand) true() bool {
	if v.isText {
		return v.text != ""
	}
	return v.num != 0
}

// wide is the value as a number of 64 bits, and whether its type is signed.
func (sc *scope) wide(v operand) (n uint64, signed bool) {
	if v.typ == nil {
		return v.num, false
	}
	i, ok := btf.UnderlyingType(v.typ).(*btf.Int)
	if !ok || i.Encoding != btf.Signed || i.Size > 8 {
		return v.num, false
	}
	shift := 64 - 8*i.Size
	return uint64(int64(v.num<<shift) >> shift), true
}

func (sc *scope) binary(e *ast.BinaryExpr, depth int) (operand, error) {
	x, err := sc.eval(e.X, depth)
	if err != nil {
		return x, err
	}
	switch e.Op {
	case token.LAND:
		if !x.true() {
			return truth(false), nil
		}
	case token.LOR:
		if x.true() {
			return truth(true), nil
		}
	}
	y, err := sc.eval(e.Y, depth)
	if err != nil {
		return y, err
	}
	if e.Op == token.LAND || e.Op == token.LOR {
		return truth(y.true()), nil
	}
	if x.isText || y.isText {
		if x.isText && y.isText {
			switch e.Op {
			case token.EQL:
				return truth(x.text == y.text), nil
			case token.NEQ:
				return truth(x.text != y.text), nil
			}
		}
		return x, outcome.Inputf("texts can be compared with texts, by == and !=")
	}
	a, sa := sc.wide(x)
	b, sb := sc.wide(y)
	less := a < b
	if sa || sb {
		less = int64(a) < int64(b)
	}
	switch e.Op {
	case token.EQL:
		return truth(a == b), nil
	case token.NEQ:
		return truth(a != b), nil
	case token.LSS:
		return truth(less), nil
	case token.GEQ:
		return truth(!less), nil
	case token.GTR:
		return truth(!less && a != b), nil
	case token.LEQ:
		return truth(less || a == b), nil
	case token.AND:
		return operand{num: a & b}, nil
	case token.OR:
		return operand{num: a | b}, nil
	case token.XOR:
		return operand{num: a ^ b}, nil
	case token.ADD:
		return operand{num: a + b}, nil
	case token.SUB:
		return operand{num: a - b}, nil
	case token.MUL:
		return operand{num: a * b}, nil
	case token.SHL:
		return operand{num: a << min(b, 64)}, nil
	case token.SHR:
		return operand{num: a >> min(b, 64)}, nil
	case token.QUO, token.REM:
		if b == 0 {
			return x, outcome.Inputf("a division by 0")
		}
		if e.Op == token.QUO {
			return operand{num: a / b}, nil
		}
		return operand{num: a % b}, nil
	}
	return x, outcome.Inputf("%s is no operator here", e.Op)
}
