package debug

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/host/debug/command"
	"labctl/host/kernel/ctype"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/outside/ring"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/ui/table"
)

// size is that of a type, in bytes.
func (p *place) size(t btf.Type) int {
	if t == nil {
		return 0
	}
	return ctype.Size(t, 8*p.l.K.Word())
}

func (p *place) isPointer(t btf.Type) bool {
	if t == nil {
		return false
	}
	_, ok := btf.UnderlyingType(t).(*btf.Pointer)
	return ok
}

// explain adds the nearest names to the error of a type or member that is not known.
func (p *place) explain(typ, member string, err error) error {
	var no *kern.NoMemberError
	if !errors.As(err, &no) || len(no.Known) > 0 {
		return err
	}
	r, rerr := p.reader()
	if rerr != nil {
		return err
	}
	t, terr := r.Type(typ)
	if terr != nil {
		return terr
	}
	if _, perr := r.Path(t, 0, member); perr != nil && errors.As(perr, &no) {
		return perr
	}
	return err
}

// watched formats what is watched.
func (p *place) watched(w *Point, v uint64) string {
	if w.typ == nil {
		return number(v)
	}
	return p.format(operand{num: v, typ: w.typ})
}

// returned is what a function has returned, " 153"; "" if it returns nothing.
func (s *Session) returned(function string) string {
	v := s.place.regs[s.row.result]
	op := operand{num: v}
	if spec, err := s.g.Types(); err == nil {
		var fn *btf.Func
		if spec.TypeByName(function, &fn) == nil {
			if proto, ok := fn.Type.(*btf.FuncProto); ok {
				if _, void := proto.Return.(*btf.Void); void {
					return ""
				}
				if size := s.place.size(proto.Return); size > 0 && size <= 8 {
					op.typ = proto.Return
					if size < 8 {
						op.num &= 1<<(8*size) - 1
					}
				}
			}
		}
	}
	return " " + s.place.format(op)
}

// showPoint tells of a new point.
func (s *Session) showPoint(c *command.Command, p *Point) error {
	if s.o.JSON {
		return s.json(&Event{Event: "output", CPU: s.place.cpu, Command: c.Line, Point: p})
	}
	return s.say(c, p.String())
}

// String is one line: "breakpoint 1 at kernel_clone, 0xffffffff81095c40, of task sh".
func (p *Point) String() string {
	kind := "breakpoint"
	if p.Access != "" {
		kind = "watchpoint"
	}
	out := fmt.Sprintf("%s %d at %s", kind, p.Number, p.Name)
	if p.Access != "" {
		out = fmt.Sprintf("%s %d on %s of %s, %d bytes", kind, p.Number, p.Access, p.Name, p.Size)
	}
	for _, a := range p.Addrs {
		out += fmt.Sprintf(", 0x%x", a)
	}
	if p.Task != "" {
		out += ", of task " + text.Line(p.Task, 80)
	}
	if p.PID != 0 {
		out += fmt.Sprintf(", of pid %d", p.PID)
	}
	if p.If != "" {
		out += ", if " + text.Line(p.If, 200)
	}
	if p.Count > 1 {
		out += fmt.Sprintf(", from hit %d on", p.Count)
	}
	if p.Once {
		out += ", once"
	}
	if p.Disabled {
		out += ", disabled"
	}
	return out
}

// list is the command breaks.
func (s *Session) list(_ context.Context, c *command.Command) error {
	if len(s.points) == 0 {
		return s.say(c, "there are no breakpoints")
	}
	var b strings.Builder
	for _, p := range s.points {
		fmt.Fprintf(&b, "%s; hits: %d\n", p, p.Hits)
	}
	return s.say(c, b.String())
}

// showStack is the command stack.
func (s *Session) showStack(ctx context.Context, c *command.Command) error {
	style := s.o.Style
	if name, ok := c.Options["style"]; ok {
		if style, ok = stack.FindStyle(name); !ok {
			var known []string
			for _, st := range stack.Styles {
				known = append(known, st.Name)
			}
			return nearest.Unknown("style", name, known)
		}
	}
	which := c.Options["task"]
	if len(c.Args) > 0 {
		which = c.Args[0]
	}
	if which == "" {
		st, err := s.place.stack(ctx)
		if err != nil {
			return err
		}
		if s.o.JSON {
			return s.json(&Event{Event: "output", CPU: s.place.cpu, Command: c.Line, Stack: st})
		}
		if st.Note != "" {
			return s.say(c, "// "+st.Note)
		}
		return s.say(c, style.Print(st))
	}
	tasks, err := s.place.allTasks(ctx)
	if err != nil {
		return err
	}
	var b strings.Builder
	chosen, err := choose(tasks, which)
	if err != nil {
		return err
	}
	for i, one := range chosen {
		if i > 0 {
			b.WriteString("\n")
		}
		if err := tasks.WriteStack(&b, one, style); err != nil {
			return err
		}
	}
	return s.say(c, b.String())
}

// choose chooses tasks: by number, by name, by the address of their task_struct, or all.
func choose(tasks *task.Tasks, which string) (chosen []*task.Task, err error) {
	n, nerr := strconv.ParseUint(strings.TrimSuffix(which, "."), 0, 64)
	var names []string
	for _, one := range tasks.ByTID() {
		names = append(names, one.Comm)
		switch {
		case which == "all", nerr == nil && (uint64(one.TID) == n && !one.Idle() || one.Addr == n), nerr != nil && one.Comm == which:
			chosen = append(chosen, one)
		}
	}
	if len(chosen) == 0 {
		slices.Sort(names)
		return nil, outcome.Inputf("there is no task %s%s (ps lists them)", text.Line(which, 80), nearest.Hint(which, slices.Compact(names)))
	}
	return chosen, nil
}

// showRegisters is the command registers.
func (s *Session) showRegisters(ctx context.Context, c *command.Command) error {
	var b strings.Builder
	width := 2 * s.g.Word()
	sc := s.place.scope(ctx, 0)
	for _, name := range c.Args {
		v, err := sc.register(strings.TrimPrefix(name, "$"))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%-6s 0x%0*x\n", strings.TrimPrefix(v.name, "$"), width, v.num)
	}
	if len(c.Args) > 0 {
		return s.say(c, b.String())
	}
	n := 0
	for _, r := range s.c.Known() {
		v, ok := s.place.regs[r.Name]
		if !ok || !r.Core {
			continue
		}
		cell := fmt.Sprintf("%-7s 0x%0*x", r.Name, r.Bits/4, v)
		if n++; n%3 == 0 {
			b.WriteString(cell + "\n")
		} else {
			fmt.Fprintf(&b, "%-*s", width+13, cell)
		}
	}
	fmt.Fprintf(&b, "\n%s is %s", s.row.pc, s.place.at(s.place.pc))
	return s.say(c, strings.ReplaceAll(b.String(), "\n\n", "\n"))
}

// chooseCPU is the command cpu.
func (s *Session) chooseCPU(ctx context.Context, c *command.Command) error {
	if len(c.Args) > 0 {
		n, err := strconv.Atoi(c.Args[0])
		if err != nil || n < 0 || n >= s.c.CPUs() || len(c.Args) > 1 {
			return outcome.Inputf("cpu %s: want a number from 0 to %d", text.Line(strings.Join(c.Args, " "), 40), s.c.CPUs()-1)
		}
		if err := s.look(ctx, n); err != nil {
			return err
		}
	}
	chosen := s.place
	var b strings.Builder
	for cpu := range s.c.CPUs() {
		p := chosen
		if cpu != chosen.cpu {
			if err := s.look(ctx, cpu); err != nil {
				return err
			}
			p = s.place
		}
		mark := " "
		if cpu == chosen.cpu {
			mark = "*"
		}
		what := ""
		if who, err := p.task(ctx); err == nil {
			what = ", " + who.String()
		}
		fmt.Fprintf(&b, "%s CPU %d%s, at %s\n", mark, cpu, what, p.at(p.pc))
	}
	s.place = chosen
	return s.say(c, b.String())
}

// print is the command print.
func (s *Session) print(ctx context.Context, c *command.Command) error {
	src := strings.Join(c.Args, " ")
	if strings.HasPrefix(src, "%") { // TRACE32's format of Var.View
		_, src, _ = strings.Cut(src, " ")
	}
	if src == "" {
		return outcome.Inputf("print: want an expression, as in: print current->comm")
	}
	e, err := parseExpression(src)
	if err != nil {
		return err
	}
	v, err := e.eval(s.place.scope(ctx, 0))
	if err != nil {
		return err
	}
	return s.say(c, text.Clean(src+" = "+s.place.show(v)))
}

// show formats a value in full.
func (p *place) show(v operand) string {
	switch {
	case v.isText:
		return strconv.Quote(v.text)
	case v.typ == nil && v.num > 9:
		return fmt.Sprintf("0x%x (%d)", v.num, v.num)
	case v.typ == nil:
		return fmt.Sprint(v.num)
	}
	if v.inMem {
		if f, ok := p.special(v); ok {
			return f
		}
		if r, err := p.reader(); err == nil {
			return r.At(v.typ, v.addr).String()
		}
	}
	return p.format(v)
}

// showStruct is the command struct.
func (s *Session) showStruct(ctx context.Context, c *command.Command) error {
	if len(c.Args) > 1 && (c.Args[0] == "struct" || c.Args[0] == "union") {
		c.Args = append([]string{c.Args[0] + " " + c.Args[1]}, c.Args[2:]...)
	}
	if len(c.Args) == 0 || c.Options["of"] == "" && c.Options["at"] == "" {
		return outcome.Inputf("struct: want TYPE [MEMBER…] of TID, or at ADDRESS")
	}
	r, err := s.place.reader()
	if err != nil {
		return err
	}
	t, err := r.Type(c.Args[0])
	if err != nil {
		return err
	}
	addr, _, err := s.base(ctx, c, strings.TrimPrefix(c.Args[0], "struct "))
	if err != nil {
		return err
	}
	v := value.Value{Type: ctype.String(t, ""), Addr: addr}
	if len(c.Args) == 1 {
		v = r.At(t, addr)
	}
	for _, m := range c.Args[1:] {
		one, err := r.Path(t, addr, m)
		if err != nil {
			return err
		}
		v.Members = append(v.Members, one)
	}
	return s.say(c, fmt.Sprintf("%s at 0x%x = %s", v.Type, v.Addr, v))
}

// maxDump limits what dump shows, in bytes.
const maxDump = 64 << 10

// dump is the command dump.
func (s *Session) dump(ctx context.Context, c *command.Command) error {
	if len(c.Args) == 0 || len(c.Args) > 2 {
		return outcome.Inputf("dump: want ADDRESS [BYTES]")
	}
	addr, err := s.address(ctx, c.Args[0])
	if err != nil {
		return err
	}
	n := 128
	if len(c.Args) > 1 {
		v, err := strconv.ParseUint(c.Args[1], 0, 32)
		if err != nil || v == 0 || v > maxDump {
			return outcome.Inputf("dump: bytes %q: want a number from 1 to %d", text.Line(c.Args[1], 40), maxDump)
		}
		n = int(v)
	}
	word := s.g.Word()
	n = (n + word - 1) / word * word
	data := make([]byte, n)
	if err := s.place.l.Read(data, addr); err != nil {
		return err
	}
	var b strings.Builder
	for at := 0; at < n; at += 16 {
		row := data[at:min(at+16, n)]
		fmt.Fprintf(&b, "0x%0*x|", 2*word, addr+uint64(at))
		for w := 0; w+word <= len(row); w += word {
			v := uint64(0)
			for i := word - 1; i >= 0; i-- {
				v = v<<8 | uint64(row[w+i])
			}
			fmt.Fprintf(&b, " %0*X", 2*word, v)
		}
		b.WriteString("  ")
		for _, ch := range row {
			if ch < ' ' || ch > '~' {
				ch = '.'
			}
			b.WriteByte(ch)
		}
		b.WriteString("\n")
	}
	return s.say(c, b.String())
}

// address is a place in memory: an expression, whose value is it, or which is in memory
// itself.
func (s *Session) address(ctx context.Context, src string) (uint64, error) {
	e, err := parseExpression(src)
	if err != nil {
		return 0, err
	}
	v, err := e.eval(s.place.scope(ctx, 0))
	if err != nil {
		return 0, err
	}
	if v.inMem && !s.place.isPointer(v.typ) {
		return v.addr, nil
	}
	return v.num, nil
}

// set is the command set: also TRACE32's "Register.Set RAX 1" and "Data.Set ADDRESS VALUE".
func (s *Session) set(ctx context.Context, c *command.Command) error {
	src := strings.Join(c.Args, " ")
	left, right, ok := strings.Cut(src, "=")
	if !ok && len(c.Args) == 2 {
		left, right, ok = c.Args[0], c.Args[1], true
	}
	if !ok {
		return outcome.Inputf("set: want PLACE = VALUE, as in: set args->flags = CLONE_VM|CLONE_VFORK")
	}
	sc := s.place.scope(ctx, 0)
	left = strings.TrimSpace(left)
	if _, is := s.place.regs[strings.ToLower(left)]; is {
		left = "$" + left
	}
	to, err := parseExpression(left)
	if err != nil {
		return err
	}
	from, err := parseExpression(strings.TrimSpace(right))
	if err != nil {
		return err
	}
	place, err := to.eval(sc)
	if err != nil {
		return err
	}
	v, err := from.eval(sc)
	if err != nil {
		return err
	}
	if v.isText {
		return outcome.Inputf("set: want a number, got %q", text.Line(v.text, 40))
	}
	cpu := s.place.cpu
	switch size := s.place.size(place.typ); {
	case place.inMem && size >= 1 && size <= 8:
		err = s.c.Write(ctx, cpu, place.addr, little(v.num, size))
	case place.inMem:
		return outcome.Inputf("set: %s has %d bytes; name a member of 1, 2, 4 or 8", text.Line(left, 80), size)
	case place.reg != "":
		err = s.c.SetRegister(ctx, cpu, place.reg, v.num)
	case place.typ == nil && place.num != 0:
		err = s.c.Write(ctx, cpu, place.num, little(v.num, s.g.Word()))
	default:
		return outcome.Inputf("set: %s is neither a register nor in memory", text.Line(left, 80))
	}
	if err != nil {
		return err
	}
	if err := s.look(ctx, cpu); err != nil {
		return err
	}
	if !place.inMem && place.reg == "" { // an address
		now, err := s.place.l.Pointer(place.num)
		if err != nil {
			return err
		}
		return s.say(c, left+" has "+number(now))
	}
	again, err := to.eval(s.place.scope(ctx, 0))
	if err != nil {
		return err
	}
	return s.say(c, left+" = "+s.place.show(again))
}

func little(v uint64, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

// showTasks is the command ps.
func (s *Session) showTasks(ctx context.Context, c *command.Command) error {
	tasks, err := s.place.allTasks(ctx)
	if err != nil {
		return err
	}
	list := tasks.ByTID()
	if len(c.Args) > 0 {
		if list, err = choose(tasks, c.Args[0]); err != nil {
			return err
		}
	}
	w := table.New(0, append([]string{"MAGIC"}, task.Columns...)...)
	for _, one := range list {
		w.Row(append([]any{fmt.Sprintf("0x%x", one.Addr)}, one.Row()...)...)
	}
	var b strings.Builder
	if err := w.Write(&b); err != nil {
		return err
	}
	if tasks.Torn != "" {
		fmt.Fprintf(&b, "the list is not whole: %s\n", tasks.Torn)
	}
	return s.say(c, b.String())
}

// showModules is the command modules.
func (s *Session) showModules(_ context.Context, c *command.Command) error {
	mods, err := s.place.l.Modules()
	if err != nil {
		return err
	}
	if len(mods) == 0 {
		return s.say(c, "no modules are loaded")
	}
	w := table.New(0, "MODULE", "SIZE", "ADDRESS")
	for _, m := range mods {
		start := uint64(0)
		if len(m.Ranges) > 0 {
			start = m.Ranges[0].Start
		}
		w.Row(m.Name, m.Size, fmt.Sprintf("0x%x", start))
	}
	var b strings.Builder
	if err := w.Write(&b); err != nil {
		return err
	}
	return s.say(c, b.String())
}

// showLog is the command dmesg.
func (s *Session) showLog(_ context.Context, c *command.Command) error {
	lines := 20
	if len(c.Args) > 0 {
		n, err := strconv.Atoi(c.Args[0])
		if err != nil || n < 1 || len(c.Args) > 1 {
			return outcome.Inputf("dmesg: want a number of lines")
		}
		lines = n
	}
	log, err := ring.Read(s.place.l)
	if err != nil {
		return err
	}
	var b strings.Builder
	if _, err := log.WriteTo(&b); err != nil {
		return err
	}
	all := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	return s.say(c, strings.Join(all[max(0, len(all)-lines):], "\n"))
}

// showSymbol is the command symbol.
func (s *Session) showSymbol(_ context.Context, c *command.Command) error {
	if len(c.Args) != 1 {
		return outcome.Inputf("symbol: want a name or an address")
	}
	what := c.Args[0]
	if n, err := strconv.ParseUint(what, 0, 64); err == nil {
		f := stack.At(s.place.lookup(), n, true)
		if f.Name == "" {
			return outcome.Inputf("0x%x is in no symbol of the kernel or of its modules", n)
		}
		return s.say(c, fmt.Sprintf("0x%x %s", n, f))
	}
	name, addrs, err := s.resolve(what)
	if err != nil {
		addr, verr := s.place.l.Variable(what, s.place.cpu)
		if verr != nil {
			return err
		}
		name, addrs = what, []uint64{addr}
	}
	var b strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&b, "0x%x %s\n", a, name)
	}
	if spec, err := s.g.Types(); err == nil {
		var fn *btf.Func
		if spec.TypeByName(name, &fn) == nil {
			fmt.Fprintf(&b, "%s\n", prototype(fn))
		}
	}
	return s.say(c, b.String())
}

// prototype is a function's declaration in C.
func prototype(fn *btf.Func) string {
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return fn.Name
	}
	var params []string
	for _, p := range proto.Params {
		if _, void := p.Type.(*btf.Void); void {
			params = append(params, "...")
			continue
		}
		params = append(params, ctype.String(p.Type, p.Name))
	}
	if len(params) == 0 {
		params = []string{"void"}
	}
	return ctype.String(proto.Return, fn.Name+"("+strings.Join(params, ", ")+")")
}

// maxFound limits the symbols that are listed.
const maxFound = 200

// findSymbols is the command symbols.
func (s *Session) findSymbols(_ context.Context, c *command.Command) error {
	if len(c.Args) != 1 {
		return outcome.Inputf("symbols: want a pattern, as in: symbols '*_fork'")
	}
	pattern := c.Args[0]
	if !strings.ContainsAny(pattern, "*?[") {
		pattern = "*" + pattern + "*"
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return outcome.Inputf("symbols: pattern %q: %w", text.Line(pattern, 80), err)
	}
	var b strings.Builder
	n := 0
	for sym := range s.place.l.AllSymbols() {
		if ok, _ := path.Match(pattern, sym.Name); !ok {
			continue
		}
		if n++; n > maxFound {
			b.WriteString("and more\n")
			break
		}
		fmt.Fprintf(&b, "0x%x %c %s", sym.Addr, sym.Type, stack.Sanitise(sym.Name))
		if sym.Module != "" {
			b.WriteString(" [" + stack.Sanitise(sym.Module) + "]")
		}
		b.WriteString("\n")
	}
	if n == 0 {
		return outcome.Inputf("the kernel has no symbol %s%s", text.Line(c.Args[0], 80), nearest.Hint(c.Args[0], s.g.SymbolNames()))
	}
	return s.say(c, b.String())
}

// help is the command help.
func (s *Session) help(_ context.Context, c *command.Command) error {
	var b strings.Builder
	if len(c.Args) > 0 {
		w := command.Find(c.Args[0])
		if w == nil {
			_, err := command.Parse(c.Args[0])
			return err
		}
		fmt.Fprintf(&b, "%s %s\n  %s\n", w.Name, w.Usage, w.Help)
		if len(w.Short) > 0 {
			fmt.Fprintf(&b, "  also: %s\n", strings.Join(w.Short, ", "))
		}
		if len(w.Lauterbach) > 0 {
			fmt.Fprintf(&b, "  in TRACE32's words: %s\n", strings.Join(w.Lauterbach, ", "))
		}
		return s.say(c, b.String())
	}
	for _, w := range command.Words {
		fmt.Fprintf(&b, "%-11s %-22s %s\n", w.Name, strings.Join(w.Lauterbach, " "), w.Help)
	}
	return s.say(c, b.String())
}
