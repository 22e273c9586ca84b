package task

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"labctl/host/stack"
)

// Head is the line before a task's stack. That of style "crash" is crash(8)'s.
func (t *Task) Head(style string) string {
	switch style {
	case "crash":
		return fmt.Sprintf("PID: %-7d  TASK: %016x  CPU: %-3d  COMMAND: %q", t.TID, t.Addr, t.CPU, t.Comm)
	case "gdb":
		return fmt.Sprintf("Thread %d (%s):", t.TID, t.Name())
	}
	s := fmt.Sprintf("// %s, pid %d", t.Name(), t.PID)
	if t.TID != t.PID {
		s += fmt.Sprintf(", tid %d", t.TID)
	}
	return s + ", " + t.doing()
}

// stateNames are the words of fs/proc/array.c.
var stateNames = map[string]string{
	"R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "t": "tracing stop",
	"X": "dead", "Z": "zombie", "P": "parked", "I": "idle",
}

// doing is what the task does, in a few words.
func (t *Task) doing() string {
	if t.OnCPU {
		return fmt.Sprintf("on CPU %d", t.CPU)
	}
	s := cmp.Or(stateNames[t.State], t.State)
	if t.State == "R" {
		s = "runnable"
	}
	if t.StackUsed > 0 {
		s += fmt.Sprintf(", %d of %d bytes of stack used", t.StackUsed, t.StackSize)
	}
	return s
}

// WriteStack writes a task's stack with its head.
func (t *Tasks) WriteStack(w io.Writer, one *Task, style stack.Style) error {
	s, err := t.Stack(one)
	if err != nil {
		return err
	}
	return writeStack(w, one.Head(style.Name), s, style)
}

func writeStack(w io.Writer, head string, s stack.Stack, style stack.Style) error {
	text := ""
	switch {
	case s.Note != "":
		text = "// " + s.Note + "\n"
	case len(s.Frames) == 0:
		text = "// it has no stack\n"
	default:
		text = style.Print(&s)
	}
	_, err := fmt.Fprintf(w, "%s\n%s", head, text)
	return err
}

// WriteCPUs writes what each CPU runs.
func (t *Tasks) WriteCPUs(w io.Writer, style stack.Style) error {
	for i, c := range t.CPUs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		head := fmt.Sprintf("// CPU %d: its task is not known", c.ID)
		if one := t.Current(c.ID); one != nil {
			head = one.Head(style.Name)
		}
		s, err := t.CPUStack(c.ID)
		if err != nil {
			return err
		}
		if err := writeStack(w, head, s, style); err != nil {
			return err
		}
	}
	return nil
}

// Tree returns the tasks with the depth of each below its parent: processes below the one
// that created them, threads below their process.
func (t *Tasks) Tree() (order []*Task, depth []int) {
	children := map[int][]*Task{}
	known := map[int]bool{}
	for i := range t.List {
		known[t.List[i].TID] = true
	}
	var roots []*Task
	for i := range t.List {
		one := &t.List[i]
		parent := one.PPID
		if one.TID != one.PID {
			parent = one.PID
		}
		switch {
		case one.idle, !known[parent], parent == one.TID:
			roots = append(roots, one)
		default:
			children[parent] = append(children[parent], one)
		}
	}
	seen := map[*Task]bool{}
	var walk func(one *Task, d int)
	walk = func(one *Task, d int) {
		if seen[one] || d > maxDepth {
			return
		}
		seen[one] = true
		order, depth = append(order, one), append(depth, d)
		if one.idle && one.CPU > 0 {
			return
		}
		for _, c := range children[one.TID] {
			walk(c, d+1)
		}
	}
	for _, r := range roots {
		walk(r, 0)
	}
	return order, depth
}

// maxDepth limits the depth of a tree: parents may form a circle in a damaged guest.
const maxDepth = 64

// TGID is the kernel's word for PID: the thread group.
func (t *Task) TGID() int { return t.PID }

// Row is what a listing shows of a task.
func (t *Task) Row() []any {
	nice := fmt.Sprint(t.Nice)
	if t.Policy == "FIFO" || t.Policy == "RR" || t.Policy == "DEADLINE" {
		nice = "-"
	}
	used := "-"
	if t.StackUsed > 0 {
		used = fmt.Sprint(t.StackUsed)
	}
	state := t.State
	if t.OnCPU {
		state += "+"
	}
	return []any{t.PID, t.TID, t.TGID(), t.PPID, state, t.CPU, t.Policy, nice, used, t.Name()}
}

// Columns are the names of what Row has.
var Columns = []string{"PID", "TID", "TGID", "PPID", "S", "CPU", "POLICY", "NI", "STACK", "COMMAND"}

// ByTID sorts tasks: idle ones first, then by number.
func (t *Tasks) ByTID() []*Task {
	out := make([]*Task, len(t.List))
	for i := range t.List {
		out[i] = &t.List[i]
	}
	slices.SortStableFunc(out, func(a, b *Task) int { return cmp.Compare(a.TID, b.TID) })
	return out
}

// TreeName is the task's name at a depth of the tree.
func (t *Task) TreeName(depth int) string { return strings.Repeat("  ", depth) + t.Name() }
