package tasks

import (
	"fmt"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/host/arch"
	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/event"
	"labctl/host/trace/plan"
)

// maxKept bounds the events about tasks that are kept until the end, each with
// its stack some two kilobytes.
const maxKept = 200_000

// Builder takes a trace's events one by one, in order, and keeps what the
// timeline needs of them.
type Builder struct {
	// Stacks reports whether the stacks of an event, by its name, are wanted
	// beside those of creations; nil for none.
	Stacks func(event string) bool

	t     Timeline
	kept  []event.Event
	paths paths // of events that were asked for
}

// forJoin are the events that creation.Join reads, and forExit those of deaths.
// The stacks of the first ones are the creations'.
var (
	withStack = []string{creation.EventClone, creation.EventKthread, "sched_process_fork", "task_newtask"}
	forJoin   = append([]string{"task_rename", "sched_process_exec"}, withStack...)
	forExit   = []string{plan.EventExit, "sched_process_exit"}
)

// Wants reports whether an event has to be given whole, to Event; for any other
// Count is enough.
func (b *Builder) Wants(name string, stack bool) bool {
	return slices.Contains(forJoin, name) || slices.Contains(forExit, name) || stack && b.Stacks != nil && b.Stacks(name)
}

// Count takes the next event by its name and time alone.
func (b *Builder) Count(name string, time int64) {
	if b.t.Events == nil {
		b.t.Start, b.t.Events = time, map[string]int64{}
	}
	b.t.End = max(b.t.End, time)
	b.t.Events[name]++
}

// Event takes the next event. It may be changed afterwards, but for its stack
// and fields.
func (b *Builder) Event(e *event.Event) {
	b.Count(e.Name, e.Time)
	ours := slices.Contains(withStack, e.Name)
	if e.Stack != nil && !ours && b.Stacks != nil && b.Stacks(e.Name) {
		of, s := Place(e)
		b.paths.add(of, s)
	}
	if !ours && !slices.Contains(forJoin, e.Name) && !slices.Contains(forExit, e.Name) {
		return
	}
	if len(b.kept) == maxKept {
		b.t.Unkept++
		return
	}
	k := *e
	if !ours {
		k.Stack = nil
	}
	b.kept = append(b.kept, k)
}

// Place returns an event's own stack: without the machinery that took it, its
// arguments on the innermost frame where the event is a probe's, and what it is
// the stack of.
func Place(e *event.Event) (of string, s stack.Stack) {
	of = e.Name
	var function, caller stack.Frame
	if e.Name == "function" {
		of, _ = e.Field("function")
		if function, _ = stack.ParseFrame(of); function.Name != "" {
			of = function.Name
		}
		by, _ := e.Field("caller")
		caller, _ = stack.ParseFrame(by)
	}
	if e.Stack == nil {
		return of, s
	}
	s = stack.Stack{Frames: slices.Clone(e.Stack.Frames), Origin: e.Stack.Origin}
	at := e.Symbol()
	if to, from, ok := strings.Cut(e.At, " <- "); ok {
		caller, _ = stack.ParseFrame(to)
		function, _ = stack.ParseFrame(from)
		s.Returned(function, caller)
		at = function.Name
	} else if function.Name != "" {
		s.TrimTraced(function, caller)
	} else {
		s.TrimMachinery(at)
	}
	e.Complete(&s)
	s.Classify()
	s.DropUser()
	if e.At != "" && len(s.Frames) > 0 && s.Frames[0].Base() == ksym.Strip(at) {
		for _, f := range e.Fields {
			if !arch.IsCaller(f.Key) {
				s.Frames[0].Args = append(s.Frames[0].Args, stack.Arg{Name: f.Key, Value: f.Value})
			}
		}
	}
	return of, s
}

// Build makes the timeline, and the creations that it is made of.
func (b *Builder) Build() (*Timeline, []creation.Creation, error) {
	creations, err := creation.Join(b.kept)
	if err != nil {
		return nil, nil, fmt.Errorf("timeline: %w", err)
	}
	g := grower{t: &b.t, alive: map[int]int{}, codes: map[int]int{}}
	next := 0
	for i := range b.kept {
		e := &b.kept[i]
		for next < len(creations) && creations[next].Time <= e.Time {
			g.born(&creations[next])
			next++
		}
		g.exit(e)
	}
	for ; next < len(creations); next++ {
		g.born(&creations[next])
	}
	g.order()
	// The tree's come first, so that its numbers are small.
	b.t.Paths = append(g.paths.list, b.paths.list...)
	b.t.UnkeptPaths = g.paths.unkept + b.paths.unkept
	return &b.t, creations, nil
}

// grower grows the tree.
type grower struct {
	t     *Timeline
	paths paths
	alive map[int]int // TID → place in Tasks
	codes map[int]int // TID → what do_exit was called with
}

// task finds a living task, which was there before the trace if nothing of the
// trace made it.
func (g *grower) task(tid int, comm string) int {
	i, ok := g.alive[tid]
	if !ok {
		i = len(g.t.Tasks)
		g.t.Tasks = append(g.t.Tasks, Task{TID: tid, Comm: comm})
		g.alive[tid] = i
	}
	return i
}

func (g *grower) born(c *creation.Creation) {
	parent, born := g.task(c.Requester.TID, c.Requester.Comm), c.Time
	if p := &g.t.Tasks[parent]; p.Born == nil {
		p.Comm = c.Requester.Comm
	}
	g.t.SkippedFrames = max(g.t.SkippedFrames, c.Skipped)
	t := Task{
		TID: c.Child.TID, Comm: c.Child.Current(), Exec: c.Child.Exec,
		Parent: &parent, Born: &born, Via: c.Via, Path: g.paths.add(titleOf(c), c.Stack), Notes: c.Notes,
	}
	if c.Args != nil {
		t.Flags = c.Args.Text
	}
	if r := c.AskedBy; r != nil {
		asker := r.Task
		t.AskedBy, t.AskedPath = &asker, g.paths.add("request for a kernel thread", r.Stack)
	}
	delete(g.codes, t.TID) // of an earlier task with this number
	g.alive[t.TID] = len(g.t.Tasks)
	g.t.Tasks = append(g.t.Tasks, t)
}

// Death is the end of a task.
type Death struct {
	TID  int
	Comm string
	Time int64
	Exit *Exit // nil when it is not known
}

// Of is the timeline of creations and deaths, both by time.
func Of(creations []creation.Creation, deaths []Death) *Timeline {
	t := &Timeline{}
	g := grower{t: t, alive: map[int]int{}, codes: map[int]int{}}
	next := 0
	for _, d := range deaths {
		for next < len(creations) && creations[next].Time <= d.Time {
			g.born(&creations[next])
			next++
		}
		g.died(d)
	}
	for ; next < len(creations); next++ {
		g.born(&creations[next])
	}
	g.order()
	t.Paths = g.paths.list
	return t
}

// titleOf names what a creation's path leads to: the creation function, if it is in the
// stack.
func titleOf(c *creation.Creation) string {
	if c.Symbol != "" && slices.ContainsFunc(c.Stack.Frames, func(f stack.Frame) bool { return f.Base() == c.Symbol }) {
		return c.Symbol
	}
	return "creation of a task, by a stack without the creation function"
}

func (g *grower) exit(e *event.Event) {
	switch e.Name {
	case plan.EventExit:
		if code, err := e.Int("code"); err == nil {
			g.codes[e.PID] = code
		}
	case "sched_process_exit":
		tid, err := e.Int("pid")
		if err != nil {
			tid = e.PID
		}
		d := Death{TID: tid, Time: e.Time}
		d.Comm, _ = e.Field("comm")
		if code, ok := g.codes[tid]; ok {
			x := ParseExit(code)
			d.Exit = &x
		}
		g.died(d)
	}
}

func (g *grower) died(d Death) {
	i := g.task(d.TID, d.Comm)
	t, died := &g.t.Tasks[i], d.Time
	if d.Comm != "" {
		t.Comm = d.Comm
	}
	t.Died, t.Exit = &died, d.Exit
	delete(g.alive, d.TID)
	delete(g.codes, d.TID)
}

// order puts the tasks that were there before the trace first, by TID, and the
// others after them as they were born.
func (g *grower) order() {
	old := g.t.Tasks
	by := make([]int, len(old))
	for i := range by {
		by[i] = i
	}
	slices.SortStableFunc(by, func(a, b int) int {
		x, y := &old[a], &old[b]
		switch {
		case x.Born == nil && y.Born == nil:
			return x.TID - y.TID
		case x.Born == nil:
			return -1
		case y.Born == nil:
			return 1
		}
		return 0 // in the order of births already
	})
	place := make([]int, len(old))
	tasks := make([]Task, len(old))
	for to, from := range by {
		place[from], tasks[to] = to, old[from]
	}
	for i := range tasks {
		if p := tasks[i].Parent; p != nil {
			*p = place[*p]
		}
	}
	g.t.Tasks = tasks
}
