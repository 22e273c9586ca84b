package task

import (
	"fmt"
	"strings"

	"labctl/guest/ksym"
	"labctl/host/stack"
	"labctl/host/vm"
)

// Blame says in one line which task keeps a guest from going on, from two looks at it, the
// second some time after the first; "" if that cannot be told. What runs or is blocked at
// both, and has not run in between, is a suspect:
//
//   - tasks that wait for each other's mutexes, or one for its own
//   - a task that is blocked in a state without signals (D), by a lock or in a program
//   - a task that keeps a CPU in the kernel
//   - PID 1, when it is stopped
//   - the only program there is, wherever it is
func Blame(first, second *Tasks) string {
	b := blamer{t: second, before: first, same: map[uint64]bool{}}
	for i := range second.List {
		one := &second.List[i]
		if before := first.Find(one.TID); before != nil && before.Addr == one.Addr && before.Switches == one.Switches && before.OnCPU == one.OnCPU {
			b.same[one.Addr] = true
		}
	}
	for _, suspect := range []func() string{b.deadlock, b.blocked, b.hog, b.init, b.program} {
		if s := suspect(); s != "" {
			return s
		}
	}
	return ""
}

type blamer struct {
	t, before *Tasks
	same      map[uint64]bool // tasks that have not run between the looks, or have run on
}

// who names a task as crash reports do.
func who(one *Task) string { return fmt.Sprintf("%s:%d", one.Name(), one.TID) }

// suspects are the tasks that satisfy a condition at both looks.
func (b *blamer) suspects(ok func(*Task) bool) (out []*Task) {
	for i := range b.t.List {
		if one := &b.t.List[i]; b.same[one.Addr] && !one.idle && ok(one) {
			out = append(out, one)
		}
	}
	return out
}

func blockedState(one *Task) bool { return one.State == "D" && !one.OnCPU }

// deadlock follows from each blocked task to the one that holds the mutex that it waits
// for, and from that on.
func (b *blamer) deadlock() string {
	for _, one := range b.suspects(blockedState) {
		chain := []*Task{one}
		for next := b.t.holder(one); next != nil && len(chain) < 16; next = b.t.holder(next) {
			if next == one {
				if len(chain) == 1 {
					return fmt.Sprintf("%s waits for a mutex that it holds itself, in %s", who(one), b.place(one))
				}
				var parts []string
				for i, c := range chain {
					parts = append(parts, fmt.Sprintf("%s waits for a mutex of %s, in %s", who(c), who(chain[(i+1)%len(chain)]), b.place(c)))
				}
				return "deadlock: " + strings.Join(parts, "; ")
			}
			chain = append(chain, next)
		}
	}
	return ""
}

// locks begin the names of functions in which a task waits for another one.
var locks = []string{"__mutex_lock", "mutex_lock", "rwsem_", "down_", "__down", "rt_mutex_", "percpu_down", "wait_for_completion", "wait_on_bit", "__wait_on", "io_schedule", "__wait_for_common"}

func isLock(name string) bool {
	for _, l := range locks {
		if strings.HasPrefix(name, l) {
			return true
		}
	}
	return false
}

// blocked names a task that no signal wakes: first one that waits for a mutex, with its
// holder, then a program, then a kernel thread that waits for a lock.
func (b *blamer) blocked() string {
	all := b.suspects(blockedState)
	for _, one := range all {
		if h := b.t.holder(one); h != nil {
			return fmt.Sprintf("%s waits for a mutex of %s, in %s", who(one), who(h), b.place(one))
		}
	}
	for _, kernel := range []bool{false, true} {
		for _, one := range all {
			s, err := b.t.Stack(one)
			if err != nil || one.Kernel != kernel {
				continue
			}
			s = b.t.TrimScheduler(s)
			if !kernel || len(s.Frames) > 0 && isLock(s.Frames[0].Base()) {
				return fmt.Sprintf("%s is blocked (state D) in %s", who(one), b.place(one))
			}
		}
	}
	return ""
}

// hog names a task that has kept a CPU in the kernel.
func (b *blamer) hog() string {
	for _, one := range b.suspects(func(one *Task) bool { return one.OnCPU }) {
		c, ok := b.t.cpu(one.CPU)
		if !ok || c.User {
			continue
		}
		before, ok := b.before.cpu(one.CPU)
		if ok && before.User {
			continue
		}
		masked := ok && c.Masked && before.Masked
		moved := b.moved(one.CPU)
		s := fmt.Sprintf("%s keeps CPU %d, in %s", who(one), one.CPU, b.stays(one, masked && moved))
		if masked && !moved {
			s += ", with interrupts masked"
		}
		return s
	}
	return ""
}

func (t *Tasks) cpu(id int) (vm.CPU, bool) {
	for _, c := range t.CPUs {
		if c.ID == id {
			return c, true
		}
	}
	return vm.CPU{}, false
}

// init names PID 1 when it is stopped: it should not be.
func (b *blamer) init() string {
	for _, one := range b.suspects(func(one *Task) bool { return one.PID == 1 && (one.State == "T" || one.State == "t") }) {
		return fmt.Sprintf("PID 1, %s, is stopped", who(one))
	}
	return ""
}

// program names the only process besides PID 1, and what its main thread does; PID 1 if
// there is none.
func (b *blamer) program() string {
	var leaders []*Task
	var init *Task
	for i := range b.t.List {
		switch one := &b.t.List[i]; {
		case one.Kernel || one.TID != one.PID || one.idle:
		case one.PID == 1:
			init = one
		default:
			leaders = append(leaders, one)
		}
	}
	one := init
	switch len(leaders) {
	case 0:
	case 1:
		one = leaders[0]
	default:
		return ""
	}
	if one == nil {
		return ""
	}
	if one.OnCPU {
		if c, ok := b.t.cpu(one.CPU); ok && c.User {
			return fmt.Sprintf("%s runs in user mode", who(one))
		}
	}
	place := b.place(one)
	switch {
	case place == "":
		return ""
	case one.State == "S":
		return fmt.Sprintf("%s sleeps in %s", who(one), place)
	}
	return fmt.Sprintf("%s is in %s", who(one), place)
}

// place is the function that a task is in, as a user would name it: the innermost one
// that is not of the scheduler or of a lock.
func (b *blamer) place(one *Task) string {
	s, err := b.t.Stack(one)
	if err != nil {
		return ""
	}
	return b.innermost(s)
}

// moved reports whether a CPU had interrupts of its timer between the looks.
func (b *blamer) moved(cpu int) bool {
	first, second := b.before.running[cpu], b.t.running[cpu]
	return first.timed && second.timed && first.ticks != second.ticks
}

// stays is the function that a running task was in at both looks: what is further in at
// one of them alone is what it calls, or an interrupt that came at that moment. ticking
// says that both looks found interrupts masked, and that there were some in between: a
// handler that both found ends, and is not what keeps the CPU. A busy host has a guest
// that does little else.
func (b *blamer) stays(one *Task, ticking bool) string {
	first, err1 := b.before.CPUStack(one.CPU)
	second, err2 := b.t.CPUStack(one.CPU)
	if err1 != nil || err2 != nil {
		return b.place(one)
	}
	if f := second.Frames; len(f) > 0 && f[0].Note == justStopped && len(first.Frames) > 0 {
		return b.innermost(first)
	}
	both := common(first, second)
	if ticking {
		both = interrupted(both)
	}
	return b.innermost(both)
}

// interrupted is the stack that the innermost exception has stopped in the kernel, all of
// it if there is none.
func interrupted(s stack.Stack) stack.Stack {
	for i, f := range s.Frames {
		if i+1 < len(s.Frames) && f.Exception {
			s.Frames = s.Frames[i+1:]
			break
		}
	}
	return s
}

// common is the part of the second stack, from outside in, that the first has as well; all
// of it if there is none, or if the task went from one system call to another.
func common(first, second stack.Stack) stack.Stack {
	a, c := first.Frames, second.Frames
	n := 0
	for n < min(len(a), len(c)) && a[len(a)-1-n].Base() == c[len(c)-1-n].Base() {
		n++
	}
	at := len(c) - n // the innermost frame in common
	if n == 0 || a[0].Note == justStopped {
		return second
	}
	if at > 0 {
		if _, ok := ksym.SystemCall(c[at-1].Base()); ok {
			return second
		}
	}
	second.Frames = c[at:]
	return second
}

// innermost is place, of a stack.
func (b *blamer) innermost(s stack.Stack) string {
	s = b.t.TrimScheduler(s)
	name := func(f stack.Frame) string {
		switch {
		case f.Name == "":
			return fmt.Sprintf("0x%x", f.PC)
		case f.Module != "":
			return f.Base() + " [" + f.Module + "]"
		}
		return f.Base()
	}
	for _, f := range s.Frames {
		if base := f.Base(); base != "__switch_to" && !isLock(base) && !strings.HasPrefix(base, "schedule") {
			return name(f)
		}
	}
	if len(s.Frames) > 0 {
		return name(s.Frames[0])
	}
	return ""
}

// holder returns the task that holds the mutex that another waits for, nil if that cannot
// be told.
func (t *Tasks) holder(one *Task) *Task {
	if !blockedState(one) {
		return nil
	}
	mutex := t.mutex(one)
	if mutex == 0 {
		return nil
	}
	const flags = 7 // MUTEX_FLAGS in include/linux/mutex.h
	owner := t.look.Object("mutex", mutex).Uint("owner.counter") &^ flags
	for i := range t.List {
		if t.List[i].Addr == owner {
			return &t.List[i]
		}
	}
	return nil
}

// mutex returns the mutex that a blocked task waits for, 0 if it waits for none. Newer
// kernels note it in the task. In others the task's waiter is on its stack: a struct
// mutex_waiter with its own address in it, and in the list of all who wait, the only one
// that is not on a stack is the mutex's.
func (t *Tasks) mutex(one *Task) uint64 {
	l := t.look
	if o := l.Object("task_struct", one.Addr); o.Has("blocked_on") {
		if at := o.Uint("blocked_on") &^ 7; at != 0 && o.Err() == nil {
			return at
		}
	}
	task, err1 := l.K.Member("mutex_waiter", "task")
	list, err2 := l.K.Member("mutex_waiter", "list")
	head, err3 := l.K.Member("mutex", "wait_list")
	if err1 != nil || err2 != nil || err3 != nil || one.Stack == 0 {
		return 0
	}
	word := uint64(l.K.Word())
	top := one.Stack + uint64(one.StackSize)
	for at := top - uint64(one.StackUsed); at < top; at += word {
		v, err := l.Pointer(at)
		if err != nil {
			return 0
		}
		if v != one.Addr {
			continue
		}
		waiter := at - uint64(task.Offset)
		found := uint64(0)
		n := 0
		check := func(node uint64) {
			if !t.onStack(node) {
				found, n = node, n+1
			}
		}
		err = l.List(waiter+uint64(list.Offset), 0, 1024, func(node uint64) bool { check(node); return true })
		if err == nil && n == 1 {
			return found - uint64(head.Offset)
		}
	}
	return 0
}

// onStack reports whether an address is on some task's stack.
func (t *Tasks) onStack(addr uint64) bool {
	for i := range t.List {
		if s := t.List[i].Stack; s != 0 && addr >= s && addr < s+uint64(t.List[i].StackSize) {
			return true
		}
	}
	return false
}
