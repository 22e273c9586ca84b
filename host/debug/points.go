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

	"labctl/guest/ksym"
	"labctl/host/debug/command"
	"labctl/host/kernel/ctype"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/outside/task"
	"labctl/host/text"
	"labctl/host/vm/gdb"
)

// Point is a breakpoint or a watchpoint.
type Point struct {
	Number int    `json:"number"`
	What   string `json:"what"` // as the user wrote it
	Name   string `json:"name"` // what it is on this kernel: "kernel_clone", "task_struct.__state of 152"
	// Addrs are where it is: several for functions of the same name.
	Addrs    []uint64 `json:"addrs"`
	Size     int      `json:"size,omitempty"` // bytes, of memory that is watched
	Access   string   `json:"access,omitempty"`
	Task     string   `json:"task,omitempty"` // a name; may be a pattern of a shell
	PID      int      `json:"pid,omitempty"`  // a task or a process
	If       string   `json:"if,omitempty"`
	Count    int      `json:"count,omitempty"` // stops at this hit and each later one
	Hits     int      `json:"hits"`            // those that the filters let through
	Disabled bool     `json:"disabled,omitempty"`
	Once     bool     `json:"once,omitempty"`

	kind gdb.Kind
	cond *expression
	old  uint64   // value of what is watched
	typ  btf.Type // of what is watched, nil if it is not known
}

// maxPoints limits breakpoints and watchpoints.
const maxPoints = 100

// maxAddrs limits the functions of one name.
const maxAddrs = 16

// points that a CPU comes to by running.
func (s *Session) at(pc uint64) (found []*Point) {
	for _, p := range s.points {
		if p.kind != gdb.Execute || p.Disabled {
			continue
		}
		for _, a := range p.Addrs {
			if a == pc {
				found = append(found, p)
			}
		}
	}
	return found
}

// breakAt is the command break.
func (s *Session) breakAt(ctx context.Context, c *command.Command) error {
	for _, access := range []string{"write", "read", "access"} {
		if c.Options[access] != "" { // TRACE32's Break.Set has both
			return s.watch(ctx, c)
		}
	}
	if len(c.Args) != 1 {
		return outcome.Inputf("%s: want one place: a function, a symbol+offset or an address, got %q", c.Name, text.Line(strings.Join(c.Args, " "), 80))
	}
	p := &Point{What: c.Args[0], kind: gdb.Execute, Once: c.Name == "tbreak"}
	var err error
	if p.Name, p.Addrs, err = s.resolve(c.Args[0]); err != nil {
		return err
	}
	return s.add(ctx, c, p)
}

// add adds a point with the options of a command.
func (s *Session) add(ctx context.Context, c *command.Command, p *Point) (err error) {
	if len(s.points) >= maxPoints {
		return outcome.Inputf("%s: there are %d breakpoints; delete some", c.Name, maxPoints)
	}
	if p.PID, err = optional(c, "pid", 1<<30); err != nil {
		return err
	}
	if p.Count, err = optional(c, "count", 1<<30); err != nil {
		return err
	}
	p.Task, p.If = c.Options["task"], c.Options["if"]
	if _, err := path.Match(p.Task, ""); err != nil {
		return outcome.Inputf("%s: task %q: want a name, or a pattern of a shell", c.Name, text.Line(p.Task, 80))
	}
	if p.Task != "" || p.PID != 0 {
		if !s.g.HasTypes() {
			return kern.NoTypes(s.g.Image)
		}
	}
	if p.If != "" {
		if p.cond, err = parseExpression(p.If); err != nil {
			return err
		}
	}
	if err := s.arm(ctx, p); err != nil {
		return err
	}
	s.last++
	p.Number = s.last
	s.points = append(s.points, p)
	return s.showPoint(c, p)
}

// optional is an option that is a number from 1 on, 0 if it is not given.
func optional(c *command.Command, name string, most int) (int, error) {
	v, ok := c.Options[name]
	if !ok {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v, ".")) // TRACE32 marks decimal numbers
	if err != nil || n < 1 || n > most {
		return 0, outcome.Inputf("%s: %s %q: want a number from 1 on", c.Name, name, text.Line(v, 40))
	}
	return n, nil
}

// arm has the guest stop at a point.
func (s *Session) arm(ctx context.Context, p *Point) error {
	for i, a := range p.Addrs {
		if err := s.c.Insert(ctx, gdb.Point{Kind: p.kind, Addr: a, Size: p.Size}); err != nil {
			for _, b := range p.Addrs[:i] {
				err = errors.Join(err, s.c.Remove(ctx, gdb.Point{Kind: p.kind, Addr: b, Size: p.Size}))
			}
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// disarm undoes arm.
func (s *Session) disarm(ctx context.Context, p *Point) (err error) {
	for _, a := range p.Addrs {
		err = errors.Join(err, s.c.Remove(ctx, gdb.Point{Kind: p.kind, Addr: a, Size: p.Size}))
	}
	return err
}

// resolve finds a place: a function by any of the names that it has had, a symbol with an
// offset, or an address.
func (s *Session) resolve(what string) (name string, addrs []uint64, err error) {
	l := s.place.l
	symbol, off, plus := strings.Cut(what, "+")
	var offset uint64
	if plus {
		if offset, err = strconv.ParseUint(off, 0, 64); err != nil {
			return "", nil, outcome.Inputf("%s: want a number behind the +", text.Line(what, 80))
		}
	}
	if n, err := strconv.ParseUint(symbol, 0, 64); err == nil {
		return fmt.Sprintf("0x%x", n+offset), []uint64{n + offset}, nil
	}
	k := l.K
	for _, cand := range ksym.FunctionCandidates(symbol) {
		names := []string{cand.Name}
		if strings.ContainsAny(cand.Name, "*?[") {
			names = nil
			for i := range k.Symbols().Len() {
				sym := k.Symbols().Symbol(i)
				if ok, _ := path.Match(cand.Name, sym.Name); ok && sym.Text() {
					names = append(names, sym.Name)
				}
			}
		}
		for _, n := range names {
			for _, sym := range k.Symbols().Named(n) {
				if sym.Text() {
					addrs = append(addrs, k.Running(sym.Addr)+offset)
				}
			}
		}
		if len(addrs) > maxAddrs {
			return "", nil, outcome.Inputf("%s is %d functions; name one", text.Line(what, 80), len(addrs))
		}
		if len(addrs) > 0 {
			return withOffset(cand.Name, offset), addrs, nil
		}
	}
	for sym := range l.AllSymbols() {
		if sym.Module != "" && sym.Name == symbol {
			return withOffset(sym.Name, offset) + " [" + sym.Module + "]", []uint64{sym.Addr + offset}, nil
		}
	}
	if why := ksym.Absent(symbol); why != "" {
		return "", nil, outcome.Inputf("the kernel has no function %s: %s", text.Line(symbol, 80), why)
	}
	return "", nil, outcome.Inputf("the kernel has no function %s%s", text.Line(symbol, 80), nearest.Hint(symbol, k.SymbolNames()))
}

func withOffset(name string, offset uint64) string {
	if offset == 0 {
		return name
	}
	return fmt.Sprintf("%s+0x%x", name, offset)
}

// accesses are the kinds of watchpoints by the options that ask for them.
var accesses = []struct {
	option string
	kind   gdb.Kind
}{{"read", gdb.OnRead}, {"access", gdb.OnAccess}, {"write", gdb.OnWrite}}

// watch is the command watch.
func (s *Session) watch(ctx context.Context, c *command.Command) error {
	p := &Point{What: strings.Join(c.Args, " "), kind: gdb.OnWrite, Access: "write"}
	for _, a := range accesses {
		if c.Options[a.option] != "" {
			p.kind, p.Access = a.kind, a.option
			break
		}
	}
	if err := s.locate(ctx, c, p); err != nil {
		return err
	}
	if p.Size != 1 && p.Size != 2 && p.Size != 4 && p.Size != 8 || p.Addrs[0]%uint64(p.Size) != 0 {
		return outcome.Inputf("watch %s: it has %d bytes at 0x%x; 1, 2, 4 or 8 can be watched, at a multiple of that", text.Line(p.Name, 80), p.Size, p.Addrs[0])
	}
	old, err := s.place.l.Uint(p.Addrs[0], p.Size)
	if err != nil {
		return err
	}
	p.old = old
	return s.add(ctx, c, p)
}

// locate finds what a watchpoint is on.
func (s *Session) locate(ctx context.Context, c *command.Command, p *Point) error {
	if len(c.Args) == 0 {
		return outcome.Inputf("watch: want a member, as in: watch task_struct.__state of 152; or an address and a size")
	}
	what := c.Args[0]
	typ, member, isMember := strings.Cut(what, ".")
	if c.Options["of"] != "" || c.Options["at"] != "" {
		if !isMember {
			return outcome.Inputf("watch %s: want TYPE.MEMBER, as in task_struct.__state", text.Line(what, 80))
		}
		m, err := s.g.Member(typ, member)
		if err != nil {
			return s.place.explain(typ, member, err)
		}
		base, of, err := s.base(ctx, c, typ)
		if err != nil {
			return err
		}
		p.Name, p.Addrs, p.Size = what+of, []uint64{base + uint64(m.Offset)}, m.Size
		p.typ = s.place.memberType(typ, member)
		return nil
	}
	size := s.g.Word()
	if len(c.Args) > 1 {
		n, err := strconv.Atoi(c.Args[1])
		if err != nil {
			return outcome.Inputf("watch: size %q: want 1, 2, 4 or 8", text.Line(c.Args[1], 40))
		}
		size = n
	}
	e, err := parseExpression(what)
	if err != nil {
		return err
	}
	v, err := e.eval(s.place.scope(ctx, 0))
	if err != nil {
		return err
	}
	p.Name, p.Addrs, p.Size = what, []uint64{v.num}, size
	if v.inMem {
		p.Addrs[0] = v.addr
		if n := s.place.size(v.typ); n > 0 && len(c.Args) == 1 {
			p.Size, p.typ = n, v.typ
		}
	}
	return nil
}

// memberType is the type of a member of a structure, or of one in it; nil if it has no
// form of its own.
func (p *place) memberType(typ, path string) btf.Type {
	r, err := p.reader()
	if err != nil {
		return nil
	}
	t, err := r.Type(typ)
	if err != nil {
		return nil
	}
	for name := range strings.SplitSeq(path, ".") {
		members := ctype.MembersOf(btf.UnderlyingType(t), 8*p.l.K.Word())
		i := slices.IndexFunc(members, func(m ctype.Member) bool { return m.Name == name })
		if i < 0 || members[i].Bits > 0 {
			return nil
		}
		t = members[i].Type
	}
	return t
}

// base is the structure that the options of a command name.
func (s *Session) base(ctx context.Context, c *command.Command, typ string) (addr uint64, of string, err error) {
	if at, ok := c.Options["at"]; ok {
		e, err := parseExpression(at)
		if err != nil {
			return 0, "", err
		}
		v, err := e.eval(s.place.scope(ctx, 0))
		if err != nil {
			return 0, "", err
		}
		if v.inMem {
			v.num = v.addr
			if s.place.isPointer(v.typ) {
				v.num, _ = s.place.l.Pointer(v.addr)
			}
		}
		return v.num, fmt.Sprintf(" at 0x%x", v.num), nil
	}
	tid, err := optional(c, "of", 1<<30)
	if err != nil {
		return 0, "", err
	}
	if typ != "task_struct" && typ != "struct task_struct" {
		return 0, "", outcome.Inputf("%s: of is for task_struct; say at ADDRESS", c.Name)
	}
	one, err := s.findTask(ctx, tid)
	if err != nil {
		return 0, "", err
	}
	return one.Addr, fmt.Sprintf(" of %d", tid), nil
}

// findTask finds a task by its number.
func (s *Session) findTask(ctx context.Context, tid int) (*task.Task, error) {
	tasks, err := s.place.allTasks(ctx)
	if err != nil {
		return nil, err
	}
	one := tasks.Find(tid)
	if one == nil {
		return nil, outcome.Inputf("there is no task %d (ps lists them)", tid)
	}
	return one, nil
}

// numbers are the points that a command names.
func (s *Session) numbers(c *command.Command) (found []*Point, err error) {
	for _, a := range c.Args {
		n, err := strconv.Atoi(a)
		var p *Point
		for _, one := range s.points {
			if one.Number == n {
				p = one
			}
		}
		if err != nil || p == nil {
			return nil, outcome.Inputf("%s: there is no breakpoint %s (breaks lists them)", c.Name, text.Line(a, 40))
		}
		found = append(found, p)
	}
	return found, nil
}

// remove is the command delete.
func (s *Session) remove(ctx context.Context, c *command.Command) error {
	which, err := s.numbers(c)
	if err != nil {
		return err
	}
	if len(c.Args) == 0 {
		which = append(which, s.points...)
	}
	for _, p := range which {
		if err := s.drop(ctx, p); err != nil {
			return err
		}
	}
	return s.list(ctx, c)
}

// drop deletes a point.
func (s *Session) drop(ctx context.Context, p *Point) error {
	for i, one := range s.points {
		if one == p {
			s.points = append(s.points[:i:i], s.points[i+1:]...)
			if p.Disabled {
				return nil
			}
			return s.disarm(ctx, p)
		}
	}
	return nil
}

// enable is the commands enable and disable.
func (s *Session) enable(ctx context.Context, c *command.Command) error {
	which, err := s.numbers(c)
	if err != nil {
		return err
	}
	if len(which) == 0 {
		return outcome.Inputf("%s: which? breaks lists them", c.Name)
	}
	off := c.Name == "disable"
	for _, p := range which {
		if p.Disabled == off {
			continue
		}
		if off {
			err = s.disarm(ctx, p)
		} else {
			err = s.arm(ctx, p)
		}
		if err != nil {
			return err
		}
		p.Disabled = off
	}
	return s.list(ctx, c)
}
