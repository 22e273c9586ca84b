package stack

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"labctl/host/text"
)

// TRACE32 prints the stack as the debugger's Frame.view does:
//
//	-000|kernel_clone(flags = CLONE_VM|CLONE_VFORK, exit_signal = 17, ...)
//	-001|__do_sys_clone(...)
//	-002|el0t_64_sync(asm)
//	 -->|exception
//	 ---|end of frame
//
// "()" is a list that is known to be empty; "..." stands for arguments that are
// not known, because a trace holds no locals. A frame without a symbol has its
// address in the debugger's notation for Arm, NSX for kernel and NUX for user
// code, whatever the architecture. What the notation has no word for is a
// comment: "// truncated" after the last line, and a frame's Note.
func (s *Stack) TRACE32() string {
	var b strings.Builder
	number := 0
	for _, f := range s.Frames {
		fmt.Fprintf(&b, "-%03d|%s", number, f.trace32())
		if f.Note != "" {
			b.WriteString("  // " + f.Note)
		}
		b.WriteByte('\n')
		if f.Exception {
			b.WriteString(" -->|exception\n")
		}
		if f.Kind != Inline {
			number++
		}
	}
	b.WriteString(" ---|end of frame")
	if s.Truncated {
		b.WriteString("  // truncated")
	}
	b.WriteByte('\n')
	return b.String()
}

func (f Frame) trace32() string {
	name := f.Name
	switch {
	case name == "" && f.Kind == User:
		return fmt.Sprintf("NUX:0x%X(asm)", f.PC)
	case name == "":
		return fmt.Sprintf("NSX:0x%X(asm)", f.PC)
	case f.Kind == Asm:
		return name + "(asm)"
	case f.Kind == Inline:
		return name + "(inline)"
	}
	var args []string
	for _, a := range f.Args {
		if a.Name == "" {
			args = append(args, a.Value)
		} else {
			args = append(args, a.Name+" = "+a.Value)
		}
	}
	if !f.AllArgs {
		args = append(args, "...")
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}

// Bounds on what ParseTRACE32 takes.
const (
	maxText   = 16 << 20 // bytes
	maxFrames = 1 << 16  // in all stacks of a text
	maxWrap   = 16       // lines that one frame may be wrapped over
	maxValue  = 512      // bytes of an argument's value or a comment
)

// ParseTRACE32 reads the stacks in a text that was copied out of the debugger,
// as leniently as people paste it: behind the quoting of a mail, among other
// text, with the first "-" lost, wrapped lines, locals ("|  name = value") and
// "//" comments. It reads its own output back whole. Registers and addresses in
// front of an argument ("[X19] ") are dropped. A stack ends at "end of frame"
// or where the numbers start again.
//
//	frame  = "-" NNN "|" name "(" args ")"     NNN repeats for inlined frames
//	args   = "inline" | "asm" | [arg ("," arg)*]
//	arg    = "?" | "..." | [loc] name "=" value
//	except = "-->|exception"
//	end    = "---|end of frame"
func ParseTRACE32(paste string) ([]Stack, error) {
	if len(paste) > maxText {
		return nil, fmt.Errorf("parse TRACE32 text: more than %d MB", maxText>>20)
	}
	p := t32Parser{}
	for _, line := range strings.Split(paste, "\n") {
		p.line(strings.TrimRight(line, " \t\r"))
		if p.frames > maxFrames {
			return nil, fmt.Errorf("parse TRACE32 text: more than %d frames", maxFrames)
		}
	}
	p.endStack()
	if len(p.stacks) == 0 {
		return nil, errors.New("parse TRACE32 text: no frame like \"-000|name()\" in it")
	}
	return p.stacks, nil
}

type t32Parser struct {
	stacks []Stack
	cur    Stack
	frames int
	number int    // of the frame that open belongs to
	open   string // a frame's text that still lacks its ")"
	wraps  int
}

func (p *t32Parser) line(line string) {
	bare := strings.TrimLeft(line, "> \t")
	mark := strings.TrimLeft(bare, "-> ")
	exception, end := strings.HasPrefix(mark, "|exception"), strings.HasPrefix(mark, "|end of frame")
	if p.open != "" {
		more := bare // the rest of a wrapped frame, if it is that
		n, rest, numbered := cutFrame(bare)
		if numbered {
			more = rest
		}
		if p.wraps < maxWrap && bare != "" && !exception && !end && !strings.HasPrefix(bare, "|") &&
			(!numbered || n == p.number && !startsFrame(rest)) {
			p.open += " " + more
			p.wraps++
			p.closeIfWhole()
			return
		}
		p.endFrame()
	}
	switch {
	case exception:
		if n := len(p.cur.Frames); n > 0 {
			p.cur.Frames[n-1].Exception = true
		}
		return
	case end:
		p.cur.Truncated = strings.Contains(mark, "// truncated")
		p.endStack()
		return
	}
	n, rest, ok := cutFrame(bare)
	if !ok || !startsFrame(rest) {
		return
	}
	// Numbers never fall within a stack; equal ones are inlined frames.
	if n < p.number && len(p.cur.Frames) > 0 {
		p.endStack()
	}
	p.number, p.open, p.wraps = n, rest, 0
	p.closeIfWhole()
}

// cutFrame takes "-NNN|" off a line.
func cutFrame(line string) (number int, rest string, ok bool) {
	num, rest, ok := strings.Cut(strings.TrimPrefix(line, "-"), "|")
	if !ok || len(num) < 3 || len(num) > 5 {
		return 0, "", false
	}
	n, err := strconv.ParseUint(num, 10, 16)
	return int(n), rest, err == nil
}

// startsFrame says whether the text is a frame's own, not the rest of one.
func startsFrame(rest string) bool {
	i := strings.IndexByte(rest, '(')
	return i > 0 && !strings.ContainsAny(rest[:i], " =,")
}

// closeIfWhole ends the open frame once its parentheses are balanced.
func (p *t32Parser) closeIfWhole() {
	if closing(p.open) >= 0 {
		p.endFrame()
	}
}

// closing is the place of the parenthesis that ends a frame's arguments, or -1.
func closing(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func (p *t32Parser) endFrame() {
	raw := p.open
	p.open = ""
	head, args, _ := strings.Cut(raw, "(")
	f := Frame{Kind: Function}
	if end := closing(raw); end >= 0 {
		args = raw[len(head)+1 : end]
		f.AllArgs = true
		if _, note, ok := strings.Cut(raw[end+1:], "//"); ok {
			f.Note = text.Line(note, maxValue)
		}
	}
	switch args = strings.TrimSpace(args); args {
	case "asm":
		f.Kind, f.AllArgs = Asm, false
		args = ""
	case "inline":
		f.Kind, f.AllArgs = Inline, false
		args = ""
	}
	if class, addr, ok := strings.Cut(head, ":"); ok {
		// class:space::0xADDR, or without the space. The second letter of
		// an Arm class is the mode: U is user.
		if i := strings.LastIndexByte(addr, ':'); i >= 0 {
			addr = addr[i+1:]
		}
		if pc, valid := parseHex(addr); valid {
			f.PC, f.Kind = pc, Unknown
			if len(class) == 3 && class[1] == 'U' {
				f.Kind = User
			}
		}
	}
	if f.Kind != Unknown && f.Kind != User {
		f.Name = Sanitise(head)
	}
	for _, a := range splitArgs(args) {
		if a == "..." {
			f.AllArgs = false
		} else if arg := parseArg(a); arg != (Arg{}) {
			f.Args = append(f.Args, arg)
		}
	}
	p.cur.Frames = append(p.cur.Frames, f)
	p.frames++
}

// splitArgs cuts at the commas that are in no parentheses, at most 64 times.
func splitArgs(s string) []string {
	var args []string
	depth, from := 0, 0
	for i := 0; i <= len(s) && len(args) < 64; i++ {
		if i < len(s) && (s[i] != ',' || depth > 0) {
			switch s[i] {
			case '(':
				depth++
			case ')':
				depth--
			}
			continue
		}
		if a := strings.TrimSpace(s[from:i]); a != "" {
			args = append(args, a)
		}
		from = i + 1
	}
	return args
}

func parseArg(a string) Arg {
	// Where the value lies comes first: ":", "[X19] ", "[NSD:0xADDR] ", "[?] ".
	for strings.HasPrefix(a, "[") {
		_, rest, _ := strings.Cut(a, "]")
		a = strings.TrimLeft(rest, ":= ")
	}
	name, value, ok := strings.Cut(strings.TrimLeft(a, ":= "), "=")
	if !ok {
		name, value = "", name
	}
	return Arg{Name: Sanitise(strings.TrimSpace(name)), Value: argText(value)}
}

// argText is a value as one line of printable ASCII that ends where it ends in
// any list: parentheses that are no pairs, and commas outside them, become "?".
func argText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text.Line(s, maxValue))
	depth, whole := 0, true
	for i := 0; i < len(s) && whole; i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
			whole = depth >= 0
		case ',':
			whole = depth > 0
		}
	}
	if whole && depth == 0 {
		return s
	}
	return strings.NewReplacer("(", "?", ")", "?", ",", "?").Replace(s)
}

func (p *t32Parser) endStack() {
	if p.open != "" {
		p.endFrame()
	}
	if len(p.cur.Frames) > 0 {
		p.stacks = append(p.stacks, p.cur)
	}
	p.cur, p.number = Stack{}, 0
}
