package creation

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"labctl/guest/ksym"
	"labctl/host/clone"
	"labctl/host/stack"
	"labctl/host/trace/event"
)

// Join makes the task creations of a trace's events, by time. The events are
// those of Probes and Events, in the order of the trace; others are passed over.
//
// sched_process_fork is what makes a creation: a call that failed has none, and
// one that a signal restarted has one for several entries. It is paired with the
// latest entry of the same task into the creation function. Kernel code that
// goes round that function is told by task_newtask.
//
// The error is an event that lacks what its kernel always prints.
func Join(events []event.Event) ([]Creation, error) {
	j := joiner{
		comms:  map[int]string{},
		calls:  map[int]*call{},
		words:  map[int]uint64{},
		latest: map[int]int{},
		unsure: map[int]bool{},
	}
	// A task's name in the trace's first column is the latest one, not the
	// one of that moment. What a task was called before its first rename is
	// in the rename.
	for i := len(events) - 1; i >= 0; i-- {
		if e := &events[i]; e.Name == "task_rename" {
			if old, ok := e.Field("oldcomm"); ok {
				j.comms[renamed(e)] = old
			}
		}
	}
	for i := range events {
		if err := j.event(&events[i]); err != nil {
			return nil, fmt.Errorf("join task creations: %w", err)
		}
	}
	slices.SortStableFunc(j.out, func(a, b Creation) int { return cmp.Compare(a.Time, b.Time) })
	return j.out, nil
}

// maxRequests bounds the requests for kernel threads that wait for an answer.
const maxRequests = 4096

type joiner struct {
	out      []Creation
	comms    map[int]string // name of each task at this point of the trace
	calls    map[int]*call  // entry into the creation function that is under way, by task
	words    map[int]uint64 // first argument of a call of clone that is under way, by task
	requests []*pending     // for kernel threads, oldest first
	latest   map[int]int    // child → its place in out, the last one with that TID
	unsure   map[int]bool   // child → known by task_newtask alone so far
}

// NoteNoEntry is a creation's note where nothing tells how it was asked for.
const NoteNoEntry = "the entry into the creation function is not in the trace"

// call is an entry into the creation function.
type call struct {
	event   *event.Event
	entered int
}

// pending is a request that no creation has answered yet.
type pending struct {
	event          *event.Event
	threadfn, data string
	comm           string
}

func (j *joiner) event(e *event.Event) error {
	switch e.Name {
	case EventClone:
		c := &call{event: e, entered: 1}
		if last := j.calls[e.PID]; last != nil && sameArgs(last.event, e) {
			c.entered += last.entered
		}
		j.calls[e.PID] = c
	case EventCall:
		if word, err := e.Uint("clone_flags"); err == nil {
			j.words[e.PID] = word
		}
	case EventKthread:
		p := &pending{event: e, comm: j.comm(e)}
		p.threadfn, _ = e.Field("threadfn")
		p.data, _ = e.Field("data")
		j.requests = append(j.requests, p)
		if len(j.requests) > maxRequests {
			j.requests = j.requests[1:]
		}
	case "task_newtask":
		return j.newtask(e)
	case "sched_process_fork":
		return j.fork(e)
	case "task_rename":
		name, ok := e.Field("newcomm")
		if !ok {
			return fmt.Errorf("event %v has no field newcomm", e)
		}
		tid := renamed(e)
		j.comms[tid] = name
		if i, ok := j.latest[tid]; ok {
			j.out[i].Child.rename(name)
		}
	case "sched_process_exec":
		tid, err := e.Int("pid")
		if err != nil {
			return err
		}
		if i, ok := j.latest[tid]; ok {
			j.out[i].Child.Exec, _ = e.Field("filename")
		}
	}
	return nil
}

// renamed is the task that a task_rename is about: mostly the one that it ran
// in, but on kernels up to 6.4 a kernel thread gets its name from who asked.
func renamed(e *event.Event) int {
	if tid, err := e.Int("pid"); err == nil {
		return tid
	}
	return e.PID
}

func (c *Child) rename(name string) {
	c.Name = name
	if name == c.Comm {
		c.Name = ""
	}
}

func (j *joiner) comm(e *event.Event) string {
	if c, ok := j.comms[e.PID]; ok {
		return c
	}
	return e.Task
}

// newtask takes a task that the kernel has built. Mostly sched_process_fork
// follows and says the rest.
func (j *joiner) newtask(e *event.Event) error {
	tid, err := e.Int("pid")
	if err != nil {
		return err
	}
	c := Creation{
		Time: e.Time, CPU: e.CPU,
		Requester: Task{TID: e.PID, Comm: j.comm(e)},
		Child:     Child{TID: tid},
	}
	c.Child.Comm, _ = e.Field("comm")
	if v, _ := e.Field("clone_flags"); v != "" {
		word, err := strconv.ParseUint(v, 16, 64) // printed without 0x
		if err != nil {
			return fmt.Errorf("event %v: field clone_flags is %q, not a hexadecimal number", e, v)
		}
		// Kernels up to 5.2 have the exit signal in it. The child's is not
		// known then either: a thread has none.
		flags, _ := clone.Split(word)
		c.Args = &Args{Flags: flags, Text: flags.String()}
	}
	c.takeStack(e.Stack)
	j.add(c)
	j.unsure[tid] = true
	return nil
}

func (j *joiner) add(c Creation) {
	j.latest[c.Child.TID] = len(j.out)
	j.comms[c.Child.TID] = c.Child.Comm
	j.out = append(j.out, c)
}

// fork takes the kernel's word that a task has made another.
func (j *joiner) fork(e *event.Event) error {
	tid, err := e.Int("child_pid")
	if err != nil {
		return err
	}
	pid, err := e.Int("pid")
	if err != nil {
		return err
	}
	comm, _ := e.Field("comm")
	childComm, _ := e.Field("child_comm")

	if i, ok := j.latest[tid]; !ok || !j.unsure[tid] || j.out[i].Requester.TID != pid {
		j.add(Creation{Child: Child{TID: tid}})
	}
	delete(j.unsure, tid)
	c := &j.out[j.latest[tid]]
	c.Time, c.CPU = e.Time, e.CPU
	c.Requester = Task{TID: pid, Comm: comm}
	c.Child.Comm = childComm
	j.comms[pid] = comm
	j.comms[tid] = childComm
	newtask := c.Args
	c.takeStack(e.Stack)

	entry := j.calls[pid]
	delete(j.calls, pid)
	word, called := j.words[pid]
	delete(j.words, pid)
	if entry == nil {
		c.Disputed = NoteNoEntry
		c.note(NoteNoEntry)
	} else {
		var asked *uint64
		if called {
			asked = &word
		}
		c.takeCall(entry, asked)
		// Of a 32-bit kernel's event the upper half is cut off.
		if newtask != nil && c.Args != nil && uint32((newtask.Flags^c.Args.Flags)&^clone.CSIGNAL) != 0 {
			c.Disputed = fmt.Sprintf("task_newtask has other flags: %s", newtask.Text)
			c.note("%s", c.Disputed)
		}
	}
	if c.Via == "kthread" {
		j.answer(c, entry)
	}
	return nil
}

func (c *Creation) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// takeStack makes s, as traced, the creation's stack: trimmed above the creation
// function, or above copy_process where that was gone round.
func (c *Creation) takeStack(s *stack.Stack) {
	if s == nil || len(s.Frames) == 0 {
		return
	}
	t := stack.Stack{Frames: slices.Clone(s.Frames), Origin: s.Origin}
	if !t.TrimToCreation() {
		t.Trim(func(f stack.Frame) bool {
			sym, ok := ksym.Family(f.Name)
			return ok && sym.Family == ksym.FamilyCopy
		})
	}
	t.Classify()
	t.DropUser()
	if len(t.Frames) == 0 {
		return // nothing but end marks
	}
	c.Stack, c.Symbol, c.Via = t, "", via(&t)
	switch sym, _ := ksym.Family(t.Frames[0].Name); sym.Family {
	case ksym.FamilyCreation, ksym.FamilyCopy:
		c.Symbol = t.Frames[0].Base()
	}
}

// via names the way into the creation function by the functions outside it.
func via(s *stack.Stack) string {
	for _, f := range s.Frames {
		sym, _ := ksym.Family(f.Name)
		switch sym.Family {
		case "clone", "clone3", "fork", "vfork", ksym.FamilyWorker, ksym.FamilyIdle:
			return sym.Family
		case ksym.FamilyKthread, ksym.FamilyKthreadd:
			if s.Index(ksym.FamilyKthreadd) >= 0 {
				return "kthread"
			}
			return "kernel"
		}
	}
	return ""
}

// exitSignal is the exit signal of a creation whose arguments lack it: fork and vfork
// pass SIGCHLD (kernel/fork.c), and word is the first argument of clone, if that was
// traced.
func (c *Creation) exitSignal(word *uint64) *clone.Signal {
	switch c.Via {
	case "fork", "vfork":
		sig := clone.Signal(unix.SIGCHLD)
		return &sig
	case "clone":
		if word == nil {
			return nil
		}
		if flags, sig := clone.Split(*word); uint32(flags) == uint32(c.Args.Flags) {
			return &sig
		}
	}
	return nil
}

// takeCall adds what the probe at the creation function's entry saw. word is the first
// argument of the system call clone, if known.
func (c *Creation) takeCall(entry *call, word *uint64) {
	e := entry.event
	c.Entered = entry.entered
	args, err := arguments(e)
	if err != nil {
		c.note("%v", err)
	} else {
		c.Args = args
	}
	if e.Stack != nil && len(e.Stack.Frames) > 0 {
		seen := stack.Stack{Frames: slices.Clone(e.Stack.Frames), Origin: e.Stack.Origin}
		if at, ok := stack.ParseFrame(e.At); !seen.TrimToCreation() && ok && skipped(&seen, &c.Stack) == 1 {
			// 3.19 begins the stack of a probe with the caller of its function.
			seen.Frames = slices.Insert(seen.Frames, 0, at)
		}
		e.Complete(&seen)
		seen.Classify()
		seen.DropUser()
		c.takeEntryStack(seen)
	}
	// The kernel's own word for where the probe fired; a stack may begin elsewhere.
	if e.At != "" {
		c.Symbol = ksym.Strip(e.Symbol())
	}
	if c.Args != nil && c.Args.ExitSignal == nil {
		if sig := c.exitSignal(word); sig != nil {
			c.Args.ExitSignal, c.Args.Text = sig, clone.Text(c.Args.Flags, *sig)
		}
	}
	if c.Args != nil && len(c.Stack.Frames) > 0 && c.Stack.Frames[0].Base() == c.Symbol {
		top := &c.Stack.Frames[0]
		top.Args = []stack.Arg{{Name: "flags", Value: c.Args.Flags.String()}}
		if s := c.Args.ExitSignal; s != nil {
			top.Args = append(top.Args, stack.Arg{Name: "exit_signal", Value: strconv.Itoa(int(*s))})
		}
	}
}

// takeEntryStack compares the creation's stack, taken with an event further in, with
// that at the creation function's entry, and takes the latter where the former lacks
// the creation function.
//
// The tracer skips the frames that it takes for its own. Where their number is a
// constant (ftrace_trace_stack in kernel/trace/trace.c, to 4.16) it skips as many more
// as the compiler has inlined of its own; on 32-bit arm up to 6.1 it is one too many.
func (c *Creation) takeEntryStack(seen stack.Stack) {
	switch {
	case len(seen.Frames) == 0:
	case len(c.Stack.Frames) == 0:
		c.Stack, c.Via = seen, via(&seen)
	case startsOutside(&c.Stack, &seen) && lacksCaller(&seen, &c.Stack):
		seen.Frames = slices.Insert(seen.Frames, 1, c.Stack.Frames[0])
		c.Stack, c.Skipped, c.Via = seen, 1, via(&seen)
	case startsOutside(&c.Stack, &seen):
		if c.Skipped = skipped(&c.Stack, &seen); c.Skipped == 0 {
			c.note("the stack of the event lacks %s, and is not the rest of the stack at its entry", seen.Frames[0].Base())
			if seen.Truncated && !c.Stack.Truncated {
				return
			}
		}
		c.Stack, c.Via = seen, via(&seen)
	default:
		same, at := stack.SameCalls(&c.Stack, &seen)
		// A stack that ends early says nothing of what is further out. At a
		// function's first instruction 32-bit arm has no frame to go on from.
		if !same && (at < len(seen.Frames) || !seen.Truncated) {
			c.note("the stack at the function's entry differs at frame %d: %s, not %s", at, frameName(&seen, at), frameName(&c.Stack, at))
		}
	}
}

// lacksCaller reports whether a stack at the creation function's entry lacks that
// function's caller alone, with which the event's begins. An unwinder that follows
// frame pointers does: at the first instruction the register still has the caller's
// frame, whose return address is the one after (x86, up to 4.2).
func lacksCaller(entry, event *stack.Stack) bool {
	if len(entry.Frames) != len(event.Frames) || len(entry.Frames) < 2 {
		return false
	}
	a, b := stack.Stack{Frames: entry.Frames[1:]}, stack.Stack{Frames: event.Frames[1:]}
	same, _ := stack.SameCalls(&a, &b)
	return same && entry.Frames[0].Base() != event.Frames[0].Base()
}

// startsOutside reports whether s lacks the creation function, with which seen starts.
// Workers and idle tasks are created without it: for them seen is an older call's.
func startsOutside(s, seen *stack.Stack) bool {
	if sym, _ := ksym.Family(seen.Frames[0].Name); sym.Family != ksym.FamilyCreation {
		return false
	}
	for _, family := range []string{ksym.FamilyCreation, ksym.FamilyCopy, ksym.FamilyWorker, ksym.FamilyIdle} {
		if s.Index(family) >= 0 {
			return false
		}
	}
	return true
}

// skipped returns how many of seen's inner frames s lacks, if the others are the same;
// else 0.
func skipped(s, seen *stack.Stack) int {
	for n := 1; n < len(seen.Frames); n++ {
		rest := stack.Stack{Frames: seen.Frames[n:]}
		if same, _ := stack.SameCalls(s, &rest); same {
			return n
		}
	}
	return 0
}

func frameName(s *stack.Stack, i int) string {
	if i >= len(s.Frames) {
		return "its end"
	}
	return s.Frames[i].String()
}

// arguments reads flags and exit signal by the names of the fields (see Probes).
func arguments(e *event.Event) (*Args, error) {
	word, errWord := e.Uint("clone_flags")
	member, errMember := e.Uint("flags")
	var flags clone.Flags
	var sig *clone.Signal
	switch {
	case errMember == nil && (errWord != nil || isKernelPointer(word)):
		flags = clone.Flags(member)
		if n, err := e.Int("exit_signal"); err == nil {
			s := clone.Signal(n)
			sig = &s
		}
	case errWord == nil:
		f, s := clone.Split(word)
		flags, sig = f, &s
	default:
		return nil, errMember
	}
	a := &Args{Flags: flags, ExitSignal: sig, Text: flags.String()}
	if sig != nil {
		a.Text = clone.Text(flags, *sig)
	}
	return a, nil
}

// isKernelPointer tells a pointer to a struct on a kernel stack from clone flags
// in the same register. Flags of 64-bit kernels have no bit that high; on arm a
// pointer is aligned, and flags with CLONE_IO, the one high bit that an address
// must have, come with SIGCHLD or not at all from any C library.
func isKernelPointer(word uint64) bool {
	return word>>63 == 1 || word>>32 == 0 && word>>31 == 1 && word%4 == 0
}

// sameArgs compares two entries by what the probe fetched of their arguments.
func sameArgs(a, b *event.Event) bool {
	key := func(e *event.Event) []event.Field {
		return slices.DeleteFunc(slices.Clone(e.Fields), func(f event.Field) bool {
			return f.Key != "flags" && f.Key != "clone_flags" && f.Key != "exit_signal" && f.Key != "stack"
		})
	}
	return slices.Equal(key(a), key(b))
}

// isNumber reports whether a fetch gave a number, and not "(fault)" or nothing.
func isNumber(value string) bool {
	_, err := strconv.ParseUint(value, 0, 64)
	return err == nil
}

// answer finds the request that a thread of kthreadd is for. Where the probe
// could look into it, thread function and argument must be the same; the oldest
// such request is the one, for kthreadd serves them in order.
func (j *joiner) answer(c *Creation, entry *call) {
	var threadfn, data string
	exact := false
	if entry != nil {
		threadfn, _ = entry.event.Field("kt_threadfn")
		data, _ = entry.event.Field("kt_data")
		exact = isNumber(threadfn) && isNumber(data)
		if name, ok := entry.event.Field("kt_name"); ok && name != "(fault)" {
			c.Child.rename(name)
		}
	}
	at := slices.IndexFunc(j.requests, func(p *pending) bool {
		return !exact || p.threadfn == threadfn && p.data == data
	})
	if at < 0 {
		return
	}
	p := j.requests[at]
	j.requests = slices.Delete(j.requests, at, at+1)
	if !exact {
		c.note("the request is matched by its order alone")
	}
	e := p.event
	r := &Request{Time: e.Time, CPU: e.CPU, Task: Task{TID: e.PID, Comm: p.comm}, Function: p.threadfn}
	r.Format, _ = e.Field("namefmt")
	if v, ok := e.Field("threadfn_sym"); ok {
		if f, ok := stack.ParseFrame(v); ok && f.Name != "" {
			r.Function = f.Name
		}
	}
	if e.Stack != nil {
		r.Stack = stack.Stack{Frames: slices.Clone(e.Stack.Frames), Origin: e.Stack.Origin}
		r.Stack.Trim(func(f stack.Frame) bool { return f.Base() == ksym.Strip(e.Symbol()) })
		e.Complete(&r.Stack)
		r.Stack.Classify()
		if len(r.Stack.Frames) > 0 && r.Stack.Frames[0].Base() == ksym.Strip(e.Symbol()) {
			r.Stack.Frames[0].Args = []stack.Arg{{Name: "threadfn", Value: r.Function}, {Name: "data", Value: p.data}, {Name: "namefmt", Value: strconv.Quote(r.Format)}}
		}
	}
	c.AskedBy = r
	// A new kernel thread is called kthreadd until it runs; its name may be in
	// the request.
	if c.Child.Name == "" && c.Child.Comm == c.Requester.Comm && r.Format != "" && !strings.Contains(r.Format, "%") {
		c.Child.rename(r.Format)
	}
}
