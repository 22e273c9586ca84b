package see

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labctl/host/clone"
	"labctl/host/lab"
	"labctl/host/lab/expr"
	"labctl/host/lab/result"
	"labctl/host/trace/creation"
	"labctl/host/trace/tasks"
	"labctl/host/view"
)

// tree grows the tasks that steps made, with those who made them.
func (m *maker) tree(d *lab.TreeView) (*view.Tree, error) {
	var made []creation.Creation
	var ends []tasks.Death
	program := 0
	for _, s := range m.r.Steps {
		if len(d.Steps) > 0 && !slices.Contains(d.Steps, s.ID) {
			continue
		}
		if program == 0 {
			program = int(s.PID)
		}
		list := s.Creations
		if d.Others {
			list = slices.Concat(s.Creations, s.Others)
			slices.SortStableFunc(list, func(a, b result.Creation) int { return int(a.Time - b.Time) })
		}
		shown := map[int64]bool{s.PID: true}
		for i := range list {
			if d.Only.X != nil {
				keep, err := m.keep(d.Only, &list[i])
				if err != nil {
					return nil, err
				}
				if !keep {
					continue
				}
			}
			shown[list[i].Child.TID], shown[list[i].Requester.TID] = true, true
			made = append(made, creationOf(&list[i]))
		}
		for _, e := range s.Events {
			if e.Name == "sched_process_exit" && shown[e.TID] {
				ends = append(ends, tasks.Death{TID: int(e.TID), Comm: e.Comm, Time: e.Time})
			}
		}
	}
	return &view.Tree{Tasks: tasks.Of(made, ends), Program: program}, nil
}

func (m *maker) keep(only lab.Formula, c *result.Creation) (bool, error) {
	v, err := only.X.Item(m.row(expr.ItemOf(*c)))
	if err != nil {
		return false, err
	}
	b, ok := v.Bool()
	if !ok {
		return false, fmt.Errorf("%s gives %s; want true or false", only.Source, v.Text())
	}
	return b, nil
}

// creationOf is a creation as the trace had it.
func creationOf(c *result.Creation) creation.Creation {
	out := creation.Creation{
		Time: c.Time, CPU: int(c.CPU), Via: c.Via, Symbol: c.Symbol,
		Requester: creation.Task{TID: int(c.Requester.TID), Comm: c.Requester.Comm},
		Stack:     c.Stack.Print(),
	}
	out.Child.TID, out.Child.Comm, out.Child.Name, out.Child.Exec = int(c.Child.TID), c.Child.Comm, c.Child.Name, c.Child.Exec
	if c.Flags >= 0 {
		out.Args = &creation.Args{Flags: clone.Flags(c.Flags), Text: clone.Text(clone.Flags(c.Flags), clone.Signal(max(c.ExitSignal, 0)))}
	}
	if c.Asked {
		out.AskedBy = &creation.Request{Task: creation.Task{TID: int(c.AskedBy.TID), Comm: c.AskedBy.Comm}, Function: c.Function, Stack: c.AskStack.Print()}
	}
	return out
}

// timeline tells by sched_switch what tasks did.
func (m *maker) timeline(d *lab.TimelineView) (*view.Timeline, error) {
	step := m.r.Step(d.Step)
	out := &view.Timeline{}
	lanes := map[int64]int{}
	for _, rows := range d.Tasks {
		items, n, err := m.items(rows.Of, maxLanes-len(out.Lanes))
		if err != nil {
			return nil, err
		}
		out.More += n - len(items)
		for _, item := range items {
			tid, ok := item.Int()
			if !ok {
				return nil, fmt.Errorf("%s gives %s; want TIDs", rows.Of.Source, item.Text())
			}
			if _, twice := lanes[tid]; twice || tid == 0 {
				continue
			}
			name := view.Same(fmt.Sprintf("%s-%d", commOf(step, tid), tid))
			if rows.Name != nil && n == 1 {
				name = view.Words{EN: fmt.Sprintf("%s (%d)", rows.Name.EN, tid), KO: fmt.Sprintf("%s(%d)", rows.Name.KO, tid)}
			}
			lanes[tid] = len(out.Lanes)
			out.Lanes = append(out.Lanes, view.Lane{Name: name, TID: tid})
		}
	}
	t := switches{out: out, lanes: lanes, open: map[int64]view.Span{}, blurred: m.r.Kernel.WrongStates}
	for i := range step.Events {
		t.event(&step.Events[i])
	}
	t.end()
	var err error
	if d.From.X != nil {
		if out.Start, err = number(d.From, m.in); err != nil {
			return nil, err
		}
	}
	if d.To.X != nil {
		if out.End, err = number(d.To, m.in); err != nil {
			return nil, err
		}
	}
	for _, mark := range d.Marks {
		items, _, err := m.items(mark.Of, maxRows)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			e, ok := expr.Native[result.Event](item)
			if !ok {
				return nil, fmt.Errorf("%s gives %s; want events", mark.Of.Source, item.Text())
			}
			if lane, ours := lanes[e.TID]; ours {
				out.Marks = append(out.Marks, view.Mark{Lane: lane, Time: e.Time, Text: words(lab.Text(mark.Says))})
			}
		}
	}
	clip(out)
	return out, nil
}

// clip leaves out what lies outside the times that are shown.
func clip(t *view.Timeline) {
	for i := range t.Lanes {
		l := &t.Lanes[i]
		l.Spans = slices.DeleteFunc(l.Spans, func(s view.Span) bool { return s.To <= t.Start || s.From >= t.End })
		for j := range l.Spans {
			l.Spans[j].From, l.Spans[j].To = max(l.Spans[j].From, t.Start), min(l.Spans[j].To, t.End)
		}
	}
	t.Marks = slices.DeleteFunc(t.Marks, func(m view.Mark) bool { return m.Time < t.Start || m.Time > t.End })
}

// commOf is the last name of a task in a step.
func commOf(s *result.Step, tid int64) (comm string) {
	comm = "task"
	for i := range s.Events {
		if s.Events[i].TID == tid {
			comm = s.Events[i].Comm
		}
	}
	return comm
}

// switches makes spans of the scheduler's events.
type switches struct {
	out   *view.Timeline
	lanes map[int64]int
	open  map[int64]view.Span // by TID
	first int64
	last  int64
	spans int
	// blurred says that this kernel names states wrongly.
	blurred bool
}

// next ends what a task did, and begins something else.
func (t *switches) next(tid, time int64, state view.State, cpu int64) {
	lane, ours := t.lanes[tid]
	if !ours {
		return
	}
	if t.first == 0 {
		t.first = time
	}
	t.last = max(t.last, time)
	if s, ok := t.open[tid]; ok && s.State == state && state != view.Running {
		return
	}
	if s, ok := t.open[tid]; ok {
		s.To = time
		if t.spans++; t.spans > maxSpans {
			t.out.More++
		} else {
			l := &t.out.Lanes[lane]
			l.Spans = append(l.Spans, s)
		}
	}
	t.open[tid] = view.Span{From: time, State: state, CPU: cpu}
}

func (t *switches) event(e *result.Event) {
	number := func(field string) int64 {
		n, _ := strconv.ParseInt(e.Fields[field], 10, 64) // 0 is the idle task, which has no lane
		return n
	}
	switch e.Name {
	case "sched_switch":
		state := e.Fields["prev_state"]
		switch {
		case strings.HasPrefix(state, "R"):
			state = string(view.Ready)
		case t.blurred:
			state = string(view.Asleep)
		case state != "":
			state = state[:1]
		}
		t.next(number("prev_pid"), e.Time, view.State(state), e.CPU)
		t.next(number("next_pid"), e.Time, view.Running, e.CPU)
	case "sched_waking", "sched_wakeup", "sched_wakeup_new":
		tid := number("pid")
		if s, ok := t.open[tid]; !ok || s.State != view.Running {
			t.next(tid, e.Time, view.Ready, e.CPU)
		}
	default: // whatever a task does, it runs
		if _, ok := t.open[e.TID]; !ok {
			t.next(e.TID, e.Time, view.Running, e.CPU)
		}
	}
}

// end closes what is open. What has ended is no longer to be seen.
func (t *switches) end() {
	t.out.Start, t.out.End = t.first, t.last
	for tid, s := range t.open {
		if s.State == "X" || s.State == "Z" {
			continue
		}
		if s.To = t.last; s.To > s.From {
			l := &t.out.Lanes[t.lanes[tid]]
			l.Spans = append(l.Spans, s)
		}
	}
}

// Tasks are the tasks of all steps, and the first step's program.
func Tasks(r *result.Result) (all *tasks.Timeline, program int) {
	m := maker{r: r}
	t, err := m.tree(&lab.TreeView{})
	if err != nil {
		return &tasks.Timeline{}, 0 // there is no expression that could fail
	}
	return t.Tasks, t.Program
}

// Creations are the ways of all creations of all steps through the kernel.
func Creations(r *result.Result) *view.Stacks {
	out := &view.Stacks{}
	for _, s := range r.Steps {
		for i := range s.Creations {
			if st := s.Creations[i].Stack.Print(); len(st.Frames) > 0 {
				add(out, st, whoOf(expr.ItemOf(s.Creations[i])))
			}
		}
	}
	slices.SortStableFunc(out.Paths, func(a, b view.Path) int { return b.Count - a.Count })
	return out
}
