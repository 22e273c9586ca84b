package runner

import (
	"fmt"
	"slices"
	"strconv"

	"labctl/guest/wire"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/text"
	"labctl/host/trace"
)

// maxTampered bounds result.Step.Tampered.
const maxTampered = 16

// tampered says what shows that the capture was bent while a program ran: settings
// that have changed, marks that nobody of labctl made, and two sources of one thing
// that differ. A capture that has lost events proves nothing by what it lacks: of
// that the check trace-STEP tells.
func tampered(s *result.Step, part *trace.Step, w *wire.Watched, t *lab.Trace) (seen []string) {
	add := func(format string, args ...any) {
		if len(seen) < maxTampered {
			seen = append(seen, fmt.Sprintf(format, args...))
		}
	}
	for _, c := range w.Changed {
		add("the trace's settings have changed: %s", text.Line(c, 400))
	}
	for _, mark := range part.Strange {
		add("a mark in the trace that is not labctl's: %q", mark)
	}
	if s.Lost != 0 || !t.WithCreations() {
		return seen
	}
	own := map[int64]bool{}
	for _, c := range s.Creations {
		own[c.Child.TID] = true
	}
	for i := range part.Creations {
		if c := &part.Creations[i]; c.Disputed != "" && own[int64(c.Child.TID)] {
			add("the creation of task %d: %s", c.Child.TID, c.Disputed)
		}
	}
	if !part.Ended {
		add("the end of the program is not in the trace")
	}
	everybody := t == nil || !t.ProgramOnly
	if everybody && w.Forks > part.NewTasks {
		add("the kernel counts %d new tasks, and the trace has %d of them", w.Forks, part.NewTasks)
	}
	pid := func(name string) bool {
		return slices.ContainsFunc(s.Events, func(e result.Event) bool { return e.Name == name && e.TID == s.PID })
	}
	if s.PID > 0 && !pid("sched_process_exit") {
		add("the exit of the program, which was waited for, is not in the trace")
	}
	for _, c := range s.Creations {
		tid := strconv.FormatInt(c.Child.TID, 10)
		if !slices.ContainsFunc(s.Events, func(e result.Event) bool { return e.Name == "task_newtask" && e.Fields["pid"] == tid }) {
			add("the creation of task %d: task_newtask is not in the trace", c.Child.TID)
		}
	}
	return seen
}
