package printfmt

import (
	"fmt"
	"strconv"
	"strings"

	"labctl/host/trace/format"
)

// parser reads `"format", expression, …` by recursive descent.
type parser struct {
	event *format.Event
	env   *Env
	src   string
	pos   int // after tok
	tok   token
	nodes int
	depth int
}

type token struct {
	kind byte // 'i' identifier, 'n' number, 's' string, 'o' operator, 0 the end
	text string
	at   int
	num  value
}

type syntaxError struct {
	at  int
	msg string
}

func (p *parser) fail(form string, args ...any) {
	panic(syntaxError{p.tok.at, fmt.Sprintf(form, args...)})
}

func (p *parser) program(src string) (prog *Program, err error) {
	defer p.catch(&err)
	p.src = src
	p.next()
	form := p.strings()
	var args []node
	prog = &Program{}
	for p.take(",") {
		n, err := p.argument()
		if p.nodes > maxNodes {
			return nil, err
		}
		if err != nil && prog.err == nil {
			prog.err = err
		}
		args = append(args, n)
	}
	if p.tok.kind != 0 {
		p.fail("%q is not expected", p.tok.text)
	}
	given := len(args)
	prog.items = p.items(form, func() node {
		if len(args) == 0 {
			p.fail("the format has more conversions than there are arguments")
		}
		a := args[0]
		args = args[1:]
		return a
	})
	if len(args) > 0 {
		p.fail("%d arguments, and the format takes %d", given, given-len(args))
	}
	return prog, nil
}

// catch makes an error of what fail threw.
func (p *parser) catch(err *error) {
	switch e := recover().(type) {
	case nil:
	case syntaxError:
		*err = fmt.Errorf("at byte %d: %s", e.at, e.msg)
	default:
		panic(e)
	}
}

func (p *parser) next() {
	for p.pos < len(p.src) && strings.IndexByte(" \t\n\r\\", p.src[p.pos]) >= 0 {
		p.pos++
	}
	at := p.pos
	p.tok = token{at: at}
	if at == len(p.src) {
		return
	}
	c := p.src[at]
	switch {
	case c == '"':
		p.tok.kind, p.tok.text = 's', p.quoted('"')
		return
	case c == '\'':
		s := p.quoted('\'')
		if len(s) != 1 {
			p.fail("a character constant of %d bytes", len(s))
		}
		p.tok.kind, p.tok.num = 'n', value{n: uint64(s[0]), size: 4, signed: true}
		return
	case c >= '0' && c <= '9':
		p.number()
		return
	case isWord(c):
		for p.pos < len(p.src) && isWord(p.src[p.pos]) {
			p.pos++
		}
		p.tok.kind = 'i'
	default:
		p.tok.kind = 'o'
		p.pos++
		if p.pos < len(p.src) {
			switch p.src[at : p.pos+1] {
			case "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||":
				p.pos++
			}
		}
	}
	p.tok.text = p.src[at:p.pos]
}

func (p *parser) number() {
	at := p.pos
	for p.pos < len(p.src) && isWord(p.src[p.pos]) {
		p.pos++
	}
	word := p.src[at:p.pos]
	digits := strings.TrimRight(word, "uUlL")
	suffix := strings.ToLower(word[len(digits):])
	n, err := strconv.ParseUint(digits, 0, 64)
	if err != nil || strings.ContainsAny(digits, "_oO") {
		p.fail("%q is no number", word)
	}
	v := value{n: n, size: 4, signed: !strings.Contains(suffix, "u")}
	switch {
	case strings.Contains(suffix, "ll"):
		v.size = 8
	case strings.Contains(suffix, "l"):
		v.size = p.env.LongSize
	}
	if n > 1<<32-1 {
		v.size = 8
	} else if n > 1<<31-1 && v.size == 4 {
		v.signed = false
	}
	p.tok.kind, p.tok.text, p.tok.num = 'n', word, v
}

// quoted reads a string or character constant with C's escapes.
func (p *parser) quoted(end byte) string {
	var b strings.Builder
	for p.pos++; p.pos < len(p.src); p.pos++ {
		c := p.src[p.pos]
		if c == end {
			p.pos++
			return b.String()
		}
		if c != '\\' || p.pos+1 == len(p.src) {
			b.WriteByte(c)
			continue
		}
		p.pos++
		switch c = p.src[p.pos]; c {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'x', '0', '1', '2', '3', '4', '5', '6', '7':
			start, base, most := p.pos, 8, 3
			if c == 'x' {
				start, base, most = p.pos+1, 16, 2
			}
			i := start
			for i < len(p.src) && i < start+most {
				if _, err := strconv.ParseUint(p.src[i:i+1], base, 8); err != nil {
					break
				}
				i++
			}
			n, _ := strconv.ParseUint(p.src[start:i], base, 16)
			b.WriteByte(byte(n))
			p.pos = i - 1
		default:
			b.WriteByte(c)
		}
	}
	p.fail("a string without an end")
	return ""
}

// strings reads one string constant of one or more parts.
func (p *parser) strings() string {
	if p.tok.kind != 's' {
		p.fail("no string where one is expected")
	}
	var b strings.Builder
	for p.tok.kind == 's' {
		b.WriteString(p.tok.text)
		p.next()
	}
	return b.String()
}

func (p *parser) is(op string) bool { return p.tok.kind == 'o' && p.tok.text == op }

func (p *parser) take(op string) bool {
	if p.is(op) {
		p.next()
		return true
	}
	return false
}

func (p *parser) want(op string) {
	if !p.take(op) {
		p.fail("%q where %q is expected", p.tok.text, op)
	}
}

// enter bounds recursion and size; leave undoes the former.
func (p *parser) enter() {
	p.depth++
	p.nodes++
	if p.depth > maxDepth || p.nodes > maxNodes {
		p.fail("too large an expression")
	}
}

func (p *parser) leave() { p.depth-- }

// precedence of C's binary operators.
var precedence = map[string]int{
	"||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6,
	"<": 7, ">": 7, "<=": 7, ">=": 7, "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}

func (p *parser) expr() node {
	p.enter()
	defer p.leave()
	n := p.binary(1)
	if !p.take("?") {
		return n
	}
	c := cond{test: n, yes: n}
	if !p.is(":") { // GNU's "a ?: b"
		c.yes = p.expr()
	}
	p.want(":")
	c.no = p.expr()
	return p.fold(c)
}

// fold evaluates what is constant once: kernels leave long sums of macros.
func (p *parser) fold(n node) node {
	if isConstant(n) {
		return constant{n.eval(&ctx{env: p.env})}
	}
	return n
}

func (p *parser) binary(least int) node {
	p.enter()
	defer p.leave()
	left := p.unary()
	for p.tok.kind == 'o' {
		prec := precedence[p.tok.text]
		if prec < least || prec == 0 {
			break
		}
		op := p.tok.text
		p.next()
		p.nodes++
		left = p.fold(operation{op, left, p.binary(prec + 1)})
	}
	return left
}

func (p *parser) unary() node {
	p.enter()
	defer p.leave()
	if p.tok.kind == 'o' {
		switch op := p.tok.text; op {
		case "-", "~", "!", "+":
			p.next()
			return p.fold(unary{op, p.unary()})
		case "*":
			p.next()
			return index{p.unary(), constant{value{size: 4}}}
		case "&":
			p.next()
			if n, ok := p.unary().(fieldNode); ok {
				return address(n)
			}
			p.fail("the address of something that is no field")
		case "(":
			if t, ok := p.cast(); ok {
				return p.fold(castNode{t, p.unary()})
			}
		}
	}
	return p.postfix()
}

// ctype is a type in a cast.
type ctype struct {
	size            int // 0: not known, the value stays as it is
	signed, pointer bool
	elem            int
	elemSigned      bool
}

// kernelTypes are typedefs of the kernel's by their size.
var kernelTypes = map[string]int{
	"gfp_t": 4, "dev_t": 4, "pid_t": 4, "umode_t": 2, "loff_t": 8, "sector_t": 8, "uid_t": 4, "gid_t": 4,
}

// cast reads "(type)" when that is what stands here: words that are no value,
// and stars.
func (p *parser) cast() (ctype, bool) {
	pos, tok := p.pos, p.tok
	back := func() (ctype, bool) {
		p.pos, p.tok = pos, tok
		return ctype{}, false
	}
	p.next()
	var words []string
	for p.tok.kind == 'i' && p.tok.text != "REC" && p.tok.text != "sizeof" {
		if w := p.tok.text; w != "const" && w != "volatile" && w != "__force" && w != "__user" {
			words = append(words, w)
		}
		p.next()
	}
	stars := 0
	for p.take("*") {
		stars++
	}
	if len(words) == 0 || !p.is(")") {
		return back()
	}
	p.next()
	// "(X) + 1" is no cast: a value follows a cast.
	if !(p.tok.kind == 'i' || p.tok.kind == 'n' || p.tok.kind == 's' || p.is("(") || stars > 0 && p.is("&") || p.is("-") || p.is("~") || p.is("!")) {
		return back()
	}
	return p.ctype(strings.Join(words, " "), stars), true
}

func (p *parser) ctype(name string, stars int) ctype {
	size := format.SizeOf(name, p.env.LongSize)
	if size == 0 {
		size = kernelTypes[name]
	}
	if strings.HasPrefix(name, "enum ") {
		size = 4
	}
	base := strings.TrimLeft(name, "_")
	signed := !strings.HasPrefix(base, "u") && !strings.HasPrefix(base, "bool") && !strings.HasPrefix(base, "Bool") &&
		base != "size_t" && base != "gfp_t" && base != "dev_t" && base != "sector_t" && !strings.HasPrefix(base, "be") && !strings.HasPrefix(base, "le")
	if stars > 0 {
		if stars > 1 {
			size = p.env.LongSize
		}
		return ctype{size: p.env.LongSize, pointer: true, elem: max(size, 1), elemSigned: signed}
	}
	return ctype{size: size, signed: signed}
}

func (p *parser) postfix() node {
	n := p.primary()
	for {
		switch {
		case p.take("["):
			i := p.expr()
			p.want("]")
			p.nodes++
			n = index{n, i}
		case p.is("->"), p.is("."):
			if _, ok := n.(recordNode); !ok {
				p.fail("a member of something that is not the record")
			}
			p.next()
			n = p.member()
		default:
			return n
		}
	}
}

func (p *parser) member() node {
	if p.tok.kind != 'i' {
		p.fail("no field's name after REC->")
	}
	name := p.tok.text
	if loc, ok := strings.CutPrefix(name, "__data_loc_"); ok {
		if f := p.event.Field(loc); f != nil && f.Loc != format.Here {
			p.next()
			return placeNode{f}
		}
	}
	f := p.event.Field(name)
	if f == nil && name == "ent" { // struct trace_entry, which the common fields are
		p.next()
		p.want(".")
		name = "common_" + p.tok.text
		f = p.event.Field(name)
	}
	if f == nil {
		p.fail("the event has no field %s", name)
	}
	p.next()
	return fieldNode{f}
}

func (p *parser) primary() node {
	tok := p.tok
	switch tok.kind {
	case 'n':
		p.next()
		return constant{tok.num}
	case 's':
		return constant{value{kind: str, s: p.strings()}}
	case 'i':
		p.next()
		switch {
		case tok.text == "REC":
			return recordNode{}
		case tok.text == "true" || tok.text == "false":
			return constant{value{n: uint64(len("false") - len(tok.text)), size: 4, signed: true}}
		case tok.text == "NULL":
			return constant{value{size: p.env.LongSize}}
		case p.take("("):
			n := p.call(tok.text)
			p.want(")")
			return n
		}
		if n, ok := enums[tok.text]; ok {
			return constant{value{n: n, size: 4, signed: true}}
		}
		p.tok.at = tok.at
		p.fail("%s is not known", tok.text)
	case 'o':
		if p.take("(") {
			n := p.expr()
			for p.take(",") { // C's comma
				n = p.expr()
			}
			p.want(")")
			return n
		}
	}
	p.fail("%q where a value is expected", tok.text)
	return nil
}

// call reads the arguments of a helper, up to its closing parenthesis.
func (p *parser) call(name string) node {
	p.enter()
	defer p.leave()
	name = strings.Replace(name, "__get_rel_", "__get_", 1)
	switch name {
	case "__get_str", "__get_dynamic_array", "__get_dynamic_array_len", "__get_bitmask", "__get_cpumask", "__get_sockaddr":
		f := p.fieldName()
		switch name {
		case "__get_str":
			return &getString{f: f}
		case "__get_dynamic_array_len":
			return lengthNode{f}
		case "__get_bitmask", "__get_cpumask":
			return bitmask{f}
		}
		return fieldNode{f}
	case "__print_flags", "__print_flags_u64":
		n := flags{arg: p.expr()}
		p.want(",")
		if p.tok.kind == 's' {
			n.delim = p.strings()
		} else {
			p.expr() // NULL
		}
		n.pairs = p.pairs()
		return n
	case "__print_symbolic", "__print_symbolic_u64", "__print_symbolic64":
		n := symbolic{arg: p.expr()}
		n.pairs = p.pairs()
		return n
	case "__print_hex", "__print_hex_str":
		n := hexBytes{buf: p.expr()}
		p.want(",")
		n.len = p.expr()
		if name == "__print_hex" {
			n.sep = " "
		}
		return n
	case "__print_array":
		n := array{buf: p.expr()}
		p.want(",")
		n.count = p.expr()
		p.want(",")
		n.size = p.expr()
		return n
	case "__print_dynamic_array":
		f := p.fieldName()
		p.want(",")
		size := p.expr()
		return array{buf: fieldNode{f}, count: operation{"/", lengthNode{f}, size}, size: size}
	case "__print_ns_to_secs":
		return operation{"/", castNode{ctype{size: 8}, p.expr()}, constant{value{n: 1e9, size: 8}}}
	case "__print_ns_without_secs":
		return castNode{ctype{size: 4}, operation{"%", castNode{ctype{size: 8}, p.expr()}, constant{value{n: 1e9, size: 8}}}}
	case "__builtin_expect":
		n := p.expr()
		p.want(",")
		p.expr()
		return n
	case "__builtin_constant_p":
		p.expr()
		return constant{value{size: 4, signed: true}}
	case "sizeof":
		var words []string
		for p.tok.kind == 'i' && p.tok.text != "REC" {
			words = append(words, p.tok.text)
			p.next()
		}
		size := 0
		if len(words) > 0 {
			stars := 0
			for p.take("*") {
				stars++
			}
			size = p.ctype(strings.Join(words, " "), stars).size
		} else if n, ok := p.expr().(fieldNode); ok {
			size = n.f.Size
		}
		if size == 0 {
			p.fail("sizeof something unknown")
		}
		return constant{value{n: uint64(size), size: p.env.LongSize}}
	case "__fls", "ilog2", "fls":
		p.fail("function %s is beyond what is evaluated", name)
	}
	p.fail("function %s is not known", name)
	return nil
}

// enums are enumerators that some kernels leave in their print formats by name
// (include/linux/hrtimer.h).
var enums = map[string]uint64{
	"HRTIMER_MODE_ABS": 0, "HRTIMER_MODE_REL": 1, "HRTIMER_MODE_ABS_PINNED": 2, "HRTIMER_MODE_REL_PINNED": 3,
	"HRTIMER_MODE_ABS_SOFT": 4, "HRTIMER_MODE_REL_SOFT": 5, "HRTIMER_MODE_ABS_PINNED_SOFT": 6, "HRTIMER_MODE_REL_PINNED_SOFT": 7,
	"HRTIMER_MODE_ABS_HARD": 8, "HRTIMER_MODE_REL_HARD": 9, "HRTIMER_MODE_ABS_PINNED_HARD": 10, "HRTIMER_MODE_REL_PINNED_HARD": 11,
}

// fieldName is a field by its bare name, as the __get_ helpers take it.
func (p *parser) fieldName() *format.Field {
	name := p.tok.text
	if p.tok.kind != 'i' {
		p.fail("no field's name in __get_…()")
	}
	f := p.event.Field(name)
	if f == nil {
		p.fail("the event has no field %s", name)
	}
	p.next()
	return f
}

// pair is one { value, "name" } of __print_flags and __print_symbolic.
type pair struct {
	n    uint64
	name string
}

func (p *parser) pairs() []pair {
	var out []pair
	for p.take(",") {
		braces := 0
		for p.take("{") {
			braces++
		}
		if braces == 0 {
			p.fail("%q where { value, name } is expected", p.tok.text)
		}
		v, known := p.constantName()
		p.want(",")
		name := ""
		if p.tok.kind == 's' {
			name = p.strings()
		} else {
			p.expr() // NULL ends a list
		}
		for range braces {
			p.want("}")
		}
		if known {
			out = append(out, pair{v.n, name})
		}
	}
	return out
}

// constantName reads the value of a name. Kernels leave some by the names of
// their macros, which nobody outside knows the values of: such a value is passed
// over, and prints as a number.
func (p *parser) constantName() (v value, known bool) {
	var err error
	p.attempt(func() {
		n, ok := p.fold(p.expr()).(constant)
		if !ok {
			p.fail("a value of a name is not constant")
		}
		v = n.v
	}, &err)
	return v, err == nil
}

// argument is one of the format's. One that is beyond this package prints as
// "?", and the others as they should.
func (p *parser) argument() (n node, err error) {
	p.attempt(func() { n = p.expr() }, &err)
	if err != nil {
		n = constant{value{kind: str, s: "?", bad: true}}
	}
	return n, err
}

// attempt reads an expression; one that cannot be read is passed over, up to the
// comma or brace that ends it.
func (p *parser) attempt(read func(), err *error) {
	pos, tok, depth := p.pos, p.tok, p.depth
	func() {
		defer p.catch(err)
		read()
		if !(p.is(",") || p.is("}") || p.tok.kind == 0) {
			p.fail("%q is not expected", p.tok.text)
		}
	}()
	if *err == nil || p.nodes > maxNodes {
		return
	}
	p.pos, p.tok, p.depth = pos, tok, depth
	for open := 0; p.tok.kind != 0; p.next() {
		switch {
		case p.is("(") || p.is("{"):
			open++
		case open > 0 && (p.is(")") || p.is("}")):
			open--
		case open == 0 && (p.is(",") || p.is("}")):
			return
		}
	}
}
