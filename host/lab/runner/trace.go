package runner

import (
	"slices"
	"strings"

	"labctl/guest/wire"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/stack"
	"labctl/host/trace"
	"labctl/host/trace/creation"
	"labctl/host/trace/event"
	"labctl/host/trace/plan"
	"labctl/host/trace/tasks"
)

// maxPages bounds what a lab's trace can make the host keep, in bytes.
const maxPages = 64 << 20

// bufferKB is a CPU's buffer for a lab that traces more than creations. It is
// emptied as it fills, so it need not hold all of them.
const bufferKB = 4096

// request is what a lab's trace asks for. Everything has a stack: a creation has
// those of its events.
func request(t *lab.Trace) plan.Request {
	r := plan.Request{Creations: plan.Joined, Stacks: true, Exact: true, Max: maxPages}
	if !t.WithCreations() {
		r.Creations = plan.NoCreations
	}
	if t == nil {
		return r
	}
	r.PIDOnly = t.ProgramOnly
	for _, e := range t.Events {
		r.Events = append(r.Events, plan.Event{Name: e.Name, Filter: e.Filter})
	}
	for _, f := range t.Functions {
		r.Entries = append(r.Entries, plan.Entry{Name: f.Name, Of: f.Of, Task: f.Task, Args: f.Args})
	}
	if len(t.Events)+len(t.Functions) > 0 {
		r.BufferKB = bufferKB
	}
	return r
}

// stacksOf are the events whose own stacks are kept: those that the lab asks for.
func stacksOf(t *lab.Trace) map[string]bool {
	keep := map[string]bool{}
	if t != nil {
		for _, e := range t.Events {
			_, name, _ := strings.Cut(e.Name, "/")
			keep[name] = true
		}
		for _, f := range t.Functions {
			keep[f.Name] = true
		}
	}
	return keep
}

// missed says what the kernel would not trace.
func missed(armed wire.CaptureArmed) (out []string) {
	for _, m := range armed.Missing {
		out = append(out, m.String())
	}
	return out
}

// take gives steps, which ran in this order, their parts of the trace. It returns how
// many frames the stacks of events lack, and whether sched_switch names states wrongly.
func take(p *trace.Parted, steps []*result.Step, keep map[string]bool) (skipped int64, wrongStates bool) {
	for i, s := range steps {
		part := &p.Steps[i]
		for j := range part.Creations {
			skipped = max(skipped, int64(part.Creations[j].Skipped))
		}
		s.Lost += part.Unkept + p.Lost + p.Damaged // which step's they were is not known
		s.NotTraced = missed(p.Armed())
		s.Creations, s.Others = family(s.PID, part.Creations)
		for j := range part.Events {
			wrongStates = wrongStates || wrongState(&part.Events[j])
			s.Events = append(s.Events, taken(&part.Events[j], keep))
		}
	}
	return skipped, wrongStates
}

// wrongState reports whether an event shows that sched_switch names states wrongly: a
// task that leaves the CPU for good is in Z or X. From 4.14 to 4.20 the event had each
// state one bit too high, so that S reads D and Z reads P (3054426dc68e).
func wrongState(e *event.Event) bool {
	if e.Name != "sched_switch" || e.Stack == nil {
		return false
	}
	state, _ := e.Field("prev_state")
	return strings.HasPrefix(state, "P") && slices.ContainsFunc(e.Stack.Frames, func(f stack.Frame) bool { return f.Base() == "do_task_dead" })
}

// taken takes an event over. Of a probe's stack what stands above the function
// goes, and its direct caller comes in.
func taken(e *event.Event, keep map[string]bool) result.Event {
	cp := *e
	switch {
	case !keep[e.Name]:
		cp.Stack = nil
	case e.At != "" && e.Stack != nil:
		_, s := tasks.Place(e)
		cp.Stack = &s
	}
	return result.FromEvent(&cp)
}

// family parts the creations by whether the task with this pid, or one that
// descends from it, made them or asked kthreadd for them.
func family(pid int64, all []creation.Creation) (own, others []result.Creation) {
	tree := map[int64]bool{pid: true}
	for i := range all {
		c := result.FromCreation(&all[i])
		switch {
		case tree[c.Requester.TID]:
			tree[c.Child.TID] = true
			own = append(own, c)
		case c.Asked && tree[c.AskedBy.TID]:
			own = append(own, c)
		default:
			others = append(others, c)
		}
	}
	return own, others
}
