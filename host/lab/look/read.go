package look

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/outside/kern"
	"labctl/host/outside/page"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/outside/vma"
	"labctl/host/text"
)

// Bounds of one reading.
const (
	maxAreas   = 2000
	maxPrinted = 500 // bytes of a member as it is printed
)

// reading is one look at the guest, which stands still.
type reading struct {
	*Watcher
	l     *result.Look
	look  *kern.Look
	tasks *task.Tasks
	left  int // readings
	value *value.Reader
	noVal error
}

// read reads what a point asks for.
func (w *Watcher) read(l *result.Look, p *lab.Point, tasks *task.Tasks) {
	r := &reading{Watcher: w, l: l, look: w.g.Look(), tasks: tasks, left: maxReadings}
	if tasks.Torn != "" {
		l.Error = tasks.Torn
	}
	named := r.named(p)
	for _, t := range tasks.ByTID() {
		if p.PS || named[int64(t.TID)] {
			l.Tasks = append(l.Tasks, r.task(t))
		}
	}
	for _, name := range p.Stacks {
		r.each(name, func(tid int64, t *task.Task, err error) {
			l.Stacks = append(l.Stacks, r.stack(name, tid, t, err))
		})
	}
	for _, name := range p.Maps {
		r.each(name, func(tid int64, t *task.Task, err error) {
			l.Maps = append(l.Maps, r.maps(name, tid, t, err))
		})
	}
	for _, one := range p.Pages {
		r.each(one.Task, func(tid int64, t *task.Task, err error) {
			for _, addr := range l.Said[one.Address] {
				if r.left--; r.left < 0 {
					l.Error = fmt.Sprintf("more than %d readings", maxReadings)
					return
				}
				l.Pages = append(l.Pages, r.page(one, tid, t, err, uint64(addr)))
			}
		})
	}
	for _, s := range p.Structs {
		if s.Task == "" {
			addr, err := r.look.Variable(s.Symbol, 0)
			if err != nil && s.Symbol == "init_task" {
				addr, err = r.g.InitTask() // found without the symbol, too
			}
			l.Structs = append(l.Structs, r.structure(s, s.Symbol, 0, addr, err))
			continue
		}
		r.each(s.Task, func(tid int64, t *task.Task, err error) {
			var addr uint64
			if t != nil {
				addr = t.Addr
			}
			l.Structs = append(l.Structs, r.structure(s, s.Task, tid, addr, err))
		})
	}
}

// named are the tasks that a point names.
func (r *reading) named(p *lab.Point) map[int64]bool {
	names := slices.Concat(p.Asleep, p.Stacks, p.Maps)
	for _, one := range p.Pages {
		names = append(names, one.Task)
	}
	for _, s := range p.Structs {
		names = append(names, s.Task)
	}
	if !p.Marked() {
		names = append(names, lab.SleeperName)
	}
	for name := range p.Tasks {
		names = append(names, name)
	}
	tids := map[int64]bool{}
	for _, name := range names {
		all := tidsOf(name, r.l.Said)
		if _, known := lab.KnownTasks[name]; known {
			if r.l.Said == nil {
				r.l.Said = map[string][]int64{}
			}
			r.l.Said[name] = all
		}
		for _, tid := range all {
			tids[tid] = true
		}
	}
	return tids
}

// each calls f with each task of a name. A program may have nothing read of tasks that are
// not its own.
func (r *reading) each(name string, f func(tid int64, t *task.Task, err error)) {
	tids := tidsOf(name, r.l.Said)
	if len(tids) == 0 {
		f(0, nil, fmt.Errorf("the program's mark does not say what task %s is", name))
	}
	for _, tid := range tids {
		if r.left--; r.left < 0 {
			r.l.Error = fmt.Sprintf("more than %d readings", maxReadings)
			return
		}
		t := r.tasks.Find(int(tid))
		_, known := lab.KnownTasks[name]
		switch {
		case t == nil || int64(t.TID) != tid:
			f(tid, nil, fmt.Errorf("there is no task %d, %s", tid, name))
		case !known && !r.own(t):
			f(tid, nil, fmt.Errorf("task %d, %s, is not the program's", tid, name))
		default:
			f(tid, t, nil)
		}
	}
}

func (r *reading) task(t *task.Task) result.OutsideTask {
	out := result.OutsideTask{
		TID: int64(t.TID), PID: int64(t.PID), PPID: int64(t.PPID), Own: r.own(t), Comm: t.Comm, Kernel: t.Kernel,
		State: t.State, CPU: int64(t.CPU), Policy: t.Policy, Nice: int64(t.Nice), Address: integer(r.look, t.Addr),
		Stack: integer(r.look, t.Stack), StackSize: int64(t.StackSize), StackUsed: int64(t.StackUsed),
	}
	if t.Stack != 0 {
		if word, err := r.look.Pointer(t.Stack); err == nil {
			out.StackEnd = int64(word)
		}
	}
	return out
}

// integer is an address as a number of an expression: negative in the kernel's half of 64
// bits. Of 32 bits it is what a pointer's value is, which nothing extends.
func integer(l *kern.Look, addr uint64) int64 {
	if l.K.Word() == 4 {
		return int64(uint32(addr))
	}
	return int64(addr)
}

func (r *reading) stack(name string, tid int64, t *task.Task, err error) result.OutsideStack {
	out := result.OutsideStack{Of: name, TID: tid, Error: message(err)}
	if err != nil {
		return out
	}
	out.Comm, out.State = t.Comm, t.State
	s, err := r.tasks.Stack(t)
	if err != nil {
		out.Error = message(err)
		return out
	}
	proc := r.tasks.TrimScheduler(s)
	out.Stack, out.Proc, out.Note = result.FromStack(&s), result.FromStack(&proc), s.Note
	return out
}

func (r *reading) maps(name string, tid int64, t *task.Task, err error) result.OutsideMaps {
	out := result.OutsideMaps{Of: name, TID: tid, Error: message(err)}
	if err != nil {
		return out
	}
	areas, torn, err := vma.Read(r.look, t.Addr)
	out.Error = cmp.Or(message(err), torn)
	if len(areas) > maxAreas {
		areas, out.Error = areas[:maxAreas], fmt.Sprintf("more than %d areas", maxAreas)
	}
	for _, a := range areas {
		out.Areas = append(out.Areas, result.OutsideArea{
			Start: int64(a.Start), End: int64(a.End), Perms: a.Perms(), Offset: int64(a.Offset), Inode: int64(a.Inode),
			Name: text.Line(a.Name, maxPrinted), Line: text.Line(a.String(), 2*maxPrinted),
		})
	}
	return out
}

func (r *reading) page(one lab.PointPage, tid int64, t *task.Task, err error, addr uint64) result.OutsidePage {
	out := result.OutsidePage{Of: one.Task, TID: tid, Name: one.Address, Address: int64(addr)}
	var walked page.Result
	if err == nil {
		table, terr := page.Table(r.look, t.Addr, addr)
		if err = terr; err == nil {
			walked, err = page.Walk(r.look, table, addr)
		}
	}
	out.Error, out.Format, out.Mapped, out.Why = message(err), walked.Format, walked.Mapped, walked.Why
	out.Phys, out.Size, out.NoFrame = int64(walked.Phys), int64(walked.Size), walked.NoFrame
	if node, ok := r.g.Node(walked.Phys); ok && walked.Mapped {
		out.Node = int64(node)
	}
	for _, e := range walked.Entries {
		out.Entries = append(out.Entries, result.OutsideEntry{
			Level: e.Level, Index: int64(e.Index), At: int64(e.At), Entry: fmt.Sprintf("%#x", e.Entry), Bits: e.Flags, Leaf: e.Leaf,
		})
		if !e.Leaf {
			continue
		}
		has := func(names ...string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(e.Flags, n) })
		}
		// Of arm64 DBM is the kernel's word for writable: an entry that was not written yet
		// has RO, too (arch/arm64/include/asm/pgtable.h, pte_write). So it is with WRITE on arm.
		out.Bits, out.Writable, out.User, out.Accessed = e.Flags, has("RW", "DBM", "WRITE"), has("USER"), has("AF", "ACCESSED", "YOUNG")
	}
	if f := walked.Frame; f != nil {
		out.PFN, out.Refs, out.Maps, out.Flags = int64(f.PFN), f.RefCount, f.MapCount, f.Flags
	} else if r.g.Table().Format != nil && walked.Mapped {
		out.PFN = int64(walked.Phys / r.g.Table().Format.Page())
	}
	return out
}

// types reads values, where the kernel has types.
func (r *reading) types() (*value.Reader, error) {
	if r.value == nil && r.noVal == nil {
		mods, _ := r.look.Modules() // without them their functions are addresses
		r.value, r.noVal = value.New(r.look, r.look.Finder(mods))
	}
	return r.value, r.noVal
}

func (r *reading) structure(s lab.PointStruct, of string, tid int64, addr uint64, err error) result.OutsideStruct {
	out := result.OutsideStruct{Of: of, TID: tid, Type: s.Type, Error: message(err)}
	if err != nil {
		return out
	}
	fail := func(err error) result.OutsideStruct {
		out.Error = message(err)
		return out
	}
	v, err := r.types()
	if err != nil {
		return fail(err)
	}
	if s.Through != "" {
		owner, err := v.Type("struct task_struct")
		if err != nil {
			return fail(err)
		}
		to, err := v.Path(owner, addr, s.Through)
		switch {
		case err != nil:
			return fail(err)
		case to.Number == 0:
			return fail(fmt.Errorf("%s is null", s.Through))
		}
		addr = to.Number
	}
	t, err := v.Type(s.Type)
	if err != nil {
		return fail(err)
	}
	out.Address = integer(r.look, addr)
	if size, err := r.g.Size(s.Type); err == nil {
		out.Size = int64(size)
	}
	for _, name := range s.Members {
		m := result.OutsideMember{Name: name, Offset: -1}
		one, err := v.Path(t, addr, name)
		var no *kern.NoMemberError
		switch {
		case errors.As(err, &no):
		case err != nil:
			m.There, m.Error = true, message(err)
		default:
			m.There, m.Type, m.Address, m.Number = true, one.Type, integer(r.look, one.Addr), int64(one.Number)
			one.Name = ""
			m.Text, m.Error = text.Line(one.String(), maxPrinted), one.Error
			if place, err := r.g.Member(s.Type, name); err == nil {
				m.Offset = int64(place.Offset)
			}
		}
		out.Members = append(out.Members, m)
	}
	return out
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return text.Line(err.Error(), maxPrinted)
}
