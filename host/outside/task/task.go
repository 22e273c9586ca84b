// Package task lists a guest's tasks and their stacks from outside the guest.
package task

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"labctl/host/arch"
	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/outside/unwind"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/vm"
)

// Task is one task: a thread, as the kernel sees it.
type Task struct {
	Addr uint64 `json:"addr"` // of its struct task_struct
	PID  int    `json:"pid"`  // of its process: the thread group's
	TID  int    `json:"tid"`  // its own; what the kernel calls pid
	PPID int    `json:"ppid"` // of the parent process

	Comm   string `json:"comm"`
	Kernel bool   `json:"kernel"` // a kernel thread
	State  string `json:"state"`  // the letter of /proc/PID/stat
	OnCPU  bool   `json:"on_cpu"` // it is some CPU's current task
	CPU    int    `json:"cpu"`    // where it runs, or ran last
	Policy string `json:"policy"` // "NORMAL", "FIFO"
	Nice   int    `json:"nice"`
	RTPrio int    `json:"rt_priority,omitempty"`

	Stack     uint64 `json:"stack"`      // lowest address; 0 if it has none any more
	StackSize int    `json:"stack_size"` // bytes
	StackUsed int    `json:"stack_used"` // bytes, of a task that does not run

	// Switches is how often it has stopped running: a task for which it has not changed
	// has not run.
	Switches uint64 `json:"switches"`
	// Started is when it was made, in nanoseconds of the guest's monotonic clock.
	Started uint64 `json:"-"`

	idle bool
}

// Name is the task's name as ps prints it: those of kernel threads in brackets.
func (t *Task) Name() string {
	if t.Kernel {
		return "[" + t.Comm + "]"
	}
	return t.Comm
}

// Idle reports whether it is the task that a CPU runs when there is nothing to do.
func (t *Task) Idle() bool { return t.idle }

// Tasks is a guest's tasks, as they were at one look.
type Tasks struct {
	List []Task
	// Torn says what did not fit together, "" if everything did: the guest ran, or
	// its lists are damaged. List has what was read.
	Torn    string
	Modules []*kern.Module
	CPUs    []vm.CPU // their registers, if they were read

	// running is what KeepRunning has read, by CPU.
	running map[int]running

	look *kern.Look
	unw  unwind.Unwinder
	noUn error // why there is no unwinder
	find stack.Lookup
}

// maxTasks limits the tasks that are read of a guest (PID_MAX_DEFAULT in
// include/linux/threads.h is 32768).
const maxTasks = 1 << 16

// tries is how often lists are read that change meanwhile.
const tries = 5

// Read lists the tasks of a kernel. cpus, which may be nil, are the registers of its CPUs,
// read at about the same time: the stacks of running tasks are found by them.
func Read(k *kern.Kernel, cpus []vm.CPU) (*Tasks, error) {
	if _, err := k.Member("task_struct", "tasks"); err != nil {
		return nil, err
	}
	init, err := k.InitTask()
	if err != nil {
		return nil, err
	}
	t := &Tasks{CPUs: cpus, look: k.Look()}
	for range tries {
		t.look.Fresh()
		t.List, err = t.read(init)
		if err == nil || !errors.Is(err, kern.ErrTorn) {
			break
		}
	}
	switch {
	case err != nil && len(t.List) < 2:
		return nil, fmt.Errorf("list of tasks: %w", outcome.Default(outcome.BadInput, err))
	case err != nil:
		t.Torn = text.Line(err.Error(), 200)
	}
	t.prepare()
	return t, nil
}

// Untyped is Read for a kernel whose structures are not known: no task is listed, and of
// stacks there are those of CPUs.
func Untyped(k *kern.Kernel, cpus []vm.CPU) *Tasks {
	t := &Tasks{CPUs: cpus, look: k.Look()}
	t.prepare()
	return t
}

// prepare reads what stacks need.
func (t *Tasks) prepare() {
	// Modules have symbols of their own; without them their frames are addresses.
	t.Modules, _ = t.look.Modules()
	t.find = t.look.Finder(t.Modules)
	var tables []unwind.ModuleTable
	for _, m := range t.Modules {
		if m.ORC.Count > 0 {
			tables = append(tables, unwind.ModuleTable(m.ORC))
		}
	}
	t.unw, t.noUn = unwind.Of(t.look, tables)
}

// read walks the list of processes, and of each its threads.
func (t *Tasks) read(init uint64) ([]Task, error) {
	k, l := t.look.K, t.look
	tasks, err := k.Member("task_struct", "tasks")
	if err != nil {
		return nil, err
	}
	node, err := k.Member("task_struct", "thread_node")
	if err != nil {
		return nil, err
	}
	idle := t.idle(init)
	all := make([]Task, 0, 128)
	for i, addr := range idle {
		one, err := t.one(addr)
		if err != nil {
			return nil, err
		}
		one.idle, one.CPU = true, i
		all = append(all, one)
	}
	seen := map[uint64]bool{}
	var bad error
	add := func(addr uint64) bool {
		if seen[addr] || len(all) >= maxTasks {
			bad = fmt.Errorf("%w: a task is in it twice, or there are more than %d", kern.ErrTorn, maxTasks)
			return false
		}
		seen[addr] = true
		one, err := t.one(addr)
		if err != nil {
			bad = err
			return false
		}
		all = append(all, one)
		return true
	}
	err = l.List(init+uint64(tasks.Offset), tasks.Offset, maxTasks, func(leader uint64) bool {
		o := l.Object("task_struct", leader)
		signal := o.Uint("signal")
		head := l.Object("signal_struct", signal).At("thread_head")
		if o.Err() != nil || signal == 0 { // it is being released
			return add(leader)
		}
		before := len(all)
		if err := l.List(head, node.Offset, maxTasks, add); err != nil {
			bad = cmp.Or(bad, err)
		}
		if bad == nil && len(all) == before { // its threads are gone
			return add(leader)
		}
		return bad == nil
	})
	if bad == nil {
		bad = err
	}
	return all, bad
}

// idle lists the idle tasks of all CPUs: those beyond the first are in no list.
func (t *Tasks) idle(init uint64) []uint64 {
	all := []uint64{init}
	for cpu := 1; cpu < maxCPUs; cpu++ {
		rq, ok := t.look.PerCPU("runqueues", cpu)
		if !ok {
			break
		}
		addr := t.look.Object("rq", rq).Uint("idle")
		if addr == 0 {
			break
		}
		all = append(all, addr)
	}
	return all
}

const maxCPUs = 64

// Bits and names of include/linux/sched.h.
const (
	flagKthread = 0x00200000 // PF_KTHREAD
	taskReport  = 0x7f
	taskIdle    = 0x402      // TASK_UNINTERRUPTIBLE and TASK_NOLOAD
	taskBlocked = 0x9000     // TASK_RTLOCK_WAIT and TASK_FROZEN, which are reported as D
	states      = "RSDTtXZP" // TASK_RUNNING, then a bit each
)

// stateLetter is the letter of fs/proc/array.c for a state (task_state_index in
// include/linux/sched.h).
func stateLetter(state, exit uint64) string {
	switch {
	case state&taskIdle == taskIdle:
		return "I"
	case state&taskBlocked != 0:
		return "D"
	}
	bits := (state | exit) & taskReport
	n := 0
	for ; bits != 0; bits >>= 1 {
		n++
	}
	return states[n : n+1]
}

// policies are the values of include/uapi/linux/sched.h.
var policies = map[uint64]string{0: "NORMAL", 1: "FIFO", 2: "RR", 3: "BATCH", 5: "IDLE", 6: "DEADLINE", 7: "EXT"}

func (t *Tasks) one(addr uint64) (Task, error) {
	l := t.look
	o := l.Object("task_struct", addr)
	state := "__state"
	if !o.Has(state) {
		state = "state" // to 5.13
	}
	one := Task{
		Addr: addr, PID: int(o.Int("tgid")), TID: int(o.Int("pid")),
		Comm:   text.Line(o.String("comm"), maxName),
		Kernel: o.Uint("flags")&flagKthread != 0,
		State:  stateLetter(o.Uint(state), o.Uint("exit_state")),
		OnCPU:  o.Uint("on_cpu") != 0,
		Nice:   int(o.Int("static_prio")) - 120,
		RTPrio: int(o.Uint("rt_priority")),
		Stack:  o.Uint("stack"),
	}
	if name := t.fullName(o); one.Kernel && name != "" {
		one.Comm = name
	}
	one.Switches = o.Uint("nvcsw") + o.Uint("nivcsw")
	one.Started = o.Uint("start_time")
	policy := o.Uint("policy")
	if one.Policy = policies[policy]; one.Policy == "" {
		one.Policy = fmt.Sprint(policy)
	}
	if parent := o.Uint("real_parent"); parent != 0 {
		p := l.Object("task_struct", parent)
		one.PPID = int(p.Int("tgid"))
		if p.Err() != nil {
			return one, fmt.Errorf("%w: the parent of task %d: %w", kern.ErrTorn, one.TID, p.Err())
		}
	}
	if info := threadInfo(o); o.Has("cpu") {
		one.CPU = int(o.Uint("cpu"))
	} else {
		one.CPU = int(info.Uint("cpu"))
	}
	one.StackSize = t.stackSize()
	if sp := t.saved(o).sp; !one.OnCPU && one.Stack != 0 && sp >= one.Stack && sp <= one.Stack+uint64(one.StackSize) {
		one.StackUsed = int(one.Stack + uint64(one.StackSize) - sp)
	}
	if o.Err() != nil {
		return one, fmt.Errorf("%w: task at %#x: %w", kern.ErrTorn, addr, o.Err())
	}
	return one, nil
}

// maxName limits a task's name, in bytes.
const maxName = 64

// fullName returns the name of a kernel thread that is longer than comm (get_kthread_comm
// in kernel/kthread.c), "" if it has none.
func (t *Tasks) fullName(o *kern.Object) string {
	if !o.Has("worker_private") {
		return ""
	}
	kthread := t.look.Object("kthread", o.Uint("worker_private"))
	if kthread.Addr == 0 || !kthread.Has("full_name") {
		return ""
	}
	at := kthread.Uint("full_name")
	if at == 0 {
		return ""
	}
	name, err := t.look.CString(at, maxName)
	if err != nil {
		return ""
	}
	return text.Line(name, maxName)
}

// stackSize is THREAD_SIZE: the size of the first task's stack, if symbols tell it, else
// what the architecture has.
func (t *Tasks) stackSize() int {
	k := t.look.K
	for _, s := range [][2]string{{"__start_init_stack", "__end_init_stack"}, {"__start_init_task", "__end_init_task"}} {
		lo, ok1 := k.Addr(s[0])
		hi, ok2 := k.Addr(s[1])
		if ok1 && ok2 && hi > lo && hi-lo <= 1<<20 {
			return int(hi - lo)
		}
	}
	a, _ := arch.Find(k.Image.Arch)
	return max(a.KernelStack, int(k.Table().Format.Page()))
}

// stopped is where a task that does not run has stopped.
type stopped struct{ pc, sp, fp uint64 }

// threadInfo returns the task's struct thread_info: a member, or (without
// CONFIG_THREAD_INFO_IN_TASK) the lowest part of its stack.
func threadInfo(o *kern.Object) *kern.Object {
	if o.Has("thread_info") {
		return o.L.Object("thread_info", o.At("thread_info"))
	}
	return o.L.Object("thread_info", o.Uint("stack"))
}

// saved returns what a task's switch to another has saved.
func (t *Tasks) saved(o *kern.Object) (c stopped) {
	l := t.look
	if o.Has("thread.cpu_context.pc") { // arm64
		return stopped{o.Uint("thread.cpu_context.pc"), o.Uint("thread.cpu_context.sp"), o.Uint("thread.cpu_context.fp")}
	}
	if info := threadInfo(o); info.Has("cpu_context.pc") { // arm
		return stopped{info.Uint("cpu_context.pc"), info.Uint("cpu_context.sp"), info.Uint("cpu_context.fp")}
	}
	// x86 leaves a struct inactive_task_frame on the stack.
	sp := o.Uint("thread.sp")
	size, err := l.K.Size("inactive_task_frame")
	if sp == 0 || err != nil {
		return c
	}
	f := l.Object("inactive_task_frame", sp)
	c = stopped{pc: f.Uint("ret_addr"), sp: sp + uint64(size), fp: f.Uint("bp")}
	if f.Err() != nil {
		return stopped{}
	}
	return c
}

// Find returns the task with a TID, nil if there is none.
func (t *Tasks) Find(tid int) *Task {
	for i := range t.List {
		if t.List[i].TID == tid && !t.List[i].idle {
			return &t.List[i]
		}
	}
	return nil
}

// Notes on stacks.
const (
	inUserMode = "it runs in user mode"
	noRegs     = "it runs, and its CPU's registers were not read"
)

// Current returns the task that a CPU runs, nil if it is not known: a kernel with symbols
// of functions only does not tell the idle tasks of CPUs beyond the first.
func (t *Tasks) Current(cpu int) *Task {
	for i := range t.List {
		if t.List[i].OnCPU && t.List[i].CPU == cpu {
			return &t.List[i]
		}
	}
	return nil
}

// Stack returns the stack of a task. That of a running one is its CPU's.
func (t *Tasks) Stack(task *Task) (stack.Stack, error) {
	switch {
	case t.noUn != nil:
		return stack.Stack{}, t.noUn
	case task.Stack == 0:
		return stack.Stack{Origin: origin}, nil
	case task.OnCPU:
		return t.CPUStack(task.CPU)
	}
	c := t.saved(t.look.Object("task_struct", task.Addr))
	if c.pc == 0 {
		return stack.Stack{Origin: origin}, nil
	}
	// A task that has not run yet starts at an instruction, to which nothing has called.
	return t.frames(unwind.Regs{unwind.RegPC: c.pc, unwind.RegSP: c.sp, unwind.RegFP: c.fp}, t.starts(c.pc)), nil
}

// running is what a CPU runs, and how many interrupts of its timer it has had.
type running struct {
	stack stack.Stack
	err   error
	ticks uint64
	timed bool // ticks is known
}

// KeepRunning reads what the CPUs run. Without it that is read when it is asked for, and a
// guest that runs has gone on then.
func (t *Tasks) KeepRunning() {
	all := map[int]running{}
	for _, c := range t.CPUs {
		var r running
		r.stack, r.err = t.CPUStack(c.ID)
		r.ticks, r.timed = t.ticks(c.ID)
		all[c.ID] = r
	}
	t.running = all
}

// ticks is the number of interrupts of a CPU's timer so far (hrtimer_interrupt in
// kernel/time/hrtimer.c).
func (t *Tasks) ticks(cpu int) (uint64, bool) {
	at, ok := t.look.PerCPU("hrtimer_bases", cpu)
	if !ok {
		return 0, false
	}
	base := t.look.Object("hrtimer_cpu_base", at)
	if !base.Has("nr_events") {
		return 0, false
	}
	n := base.Uint("nr_events")
	return n, base.Err() == nil
}

// CPUStack returns the stack of what a CPU runs, by its registers. A note says why there
// is none.
func (t *Tasks) CPUStack(cpu int) (stack.Stack, error) {
	if r, ok := t.running[cpu]; ok {
		return r.stack, r.err
	}
	if t.noUn != nil {
		return stack.Stack{}, t.noUn
	}
	for _, c := range t.CPUs {
		if c.ID != cpu {
			continue
		}
		if c.User {
			return stack.Stack{Origin: origin, Note: inUserMode}, nil
		}
		return t.frames(RegsOf(c), true), nil
	}
	return stack.Stack{Origin: origin, Note: noRegs}, nil
}

// origin is the Origin of stacks.
const origin = "outside"

// frames unwinds.
func (t *Tasks) frames(r unwind.Regs, exact bool) stack.Stack {
	lr := r[unwind.RegLR]
	if f := stack.At(t.find, r[unwind.RegPC], true); exact && lr != 0 && f.Offset == 0 && f.Name != "" && t.look.K.Image.Arch == "arm" {
		// At its first instruction a function has pushed nothing: its caller's frame is
		// the innermost one. The tables of the EHABI are for where it has.
		from := maps.Clone(r)
		from[unwind.RegPC] = lr
		pcs := append([]unwind.PC{{Addr: r[unwind.RegPC], Exact: true}}, t.unw.Unwind(t.look, from, false)...)
		if len(pcs) > 1 {
			pcs[1].Note = stack.FromLinkRegister
		}
		s := unwind.Frames(t.find, pcs)
		s.Origin = origin
		return s
	}
	pcs := t.unw.Unwind(t.look, r, exact)
	s := unwind.Frames(t.find, pcs)
	s.Origin = origin
	// So it is with what an exception stopped.
	for i := min(len(pcs), len(s.Frames)) - 1; i > 0; i-- {
		if lr := pcs[i].Link; lr != 0 && t.unframed(s.Frames[i]) {
			s.InsertCaller(i, stack.At(t.find, lr, false))
		}
	}
	if exact && lr != 0 && len(s.Frames) > 0 && t.unframed(s.Frames[0]) {
		s.InsertCaller(0, stack.At(t.find, lr, false))
		if t.entry(s.Frames[0].PC) {
			s.Frames[0].Note = justStopped
		}
	}
	if exact && len(s.Frames) > 0 {
		if at := t.returnAddress(s.Frames[0], r[unwind.RegSP]); at != 0 {
			if ret, err := t.look.Pointer(at); err == nil {
				if caller := stack.At(t.find, ret, false); caller.Name != "" {
					caller.Note = stack.FromReturnAddress
					s.InsertCaller(0, caller)
				}
			}
		}
	}
	return s
}

// justStopped marks a frame of the kernel's entry that has not saved registers yet.
const justStopped = "just entered: the function that was stopped is not known yet"

// entry reports whether an address is in the code that enters the kernel (ENTRY_TEXT in
// include/asm-generic/vmlinux.lds.h).
func (t *Tasks) entry(pc uint64) bool {
	lo, ok1 := t.look.K.Addr("__entry_text_start")
	hi, ok2 := t.look.K.Addr("__entry_text_end")
	return ok1 && ok2 && pc >= lo && pc < hi
}

// Entering reports whether a CPU is in the code that enters the kernel.
func (t *Tasks) Entering(c vm.CPU) bool { return !c.User && t.entry(c.PC) }

// maxPrologue is how far unframed looks, in bytes.
const maxPrologue = 4096

// unframed reports whether a function has not made its frame yet, so that its caller is
// known by the link register alone: it is at its first instruction, or, on arm64, none of
// those that have run sets the frame pointer (add x29, sp, #imm).
func (t *Tasks) unframed(f stack.Frame) bool {
	if f.Offset == 0 || f.Name == "" || t.look.K.Image.Arch != "arm64" || f.Offset > maxPrologue {
		return f.Offset == 0
	}
	code := make([]byte, f.Offset)
	if t.look.Read(code, f.PC-f.Offset) != nil {
		return false
	}
	for ; len(code) >= 4; code = code[4:] {
		if ins := binary.LittleEndian.Uint32(code); ins&0xffc003ff == 0x910003fd {
			return false
		}
	}
	return true
}

// returnAddress is where on the stack the return address of a function is that has not made
// its frame yet, in a kernel for amd64 that walks frame pointers; 0 of others, and of what
// enters the kernel, which nobody has called. The frame pointer is its caller's still, whose
// record leads past the caller.
func (t *Tasks) returnAddress(f stack.Frame, sp uint64) uint64 {
	if _, orc := t.look.K.Addr("__start_orc_unwind_ip"); t.look.K.Image.Arch != "amd64" || orc || f.Name == "" || t.entry(f.PC) {
		return 0
	}
	var code [prologue]byte
	if f.Offset > prologue || t.look.Read(code[:], f.PC-f.Offset) != nil {
		return 0
	}
	if pushed, ok := unmade(code, f.Offset); ok {
		return sp + pushed
	}
	return 0
}

// prologue is how much of a function's code unmade looks at, in bytes.
const prologue = 10

// unmade reports whether a function for amd64 that has come to an offset has not set the
// frame pointer yet, and how many bytes it has pushed. Functions of C begin with endbr64
// and the call of __fentry__, or what was put in their places, if at all, and then with
// push %rbp and mov %rsp,%rbp.
func unmade(code [prologue]byte, offset uint64) (pushed uint64, ok bool) {
	const (
		endbr64 = "\xf3\x0f\x1e\xfa"
		fentry  = 5 // a call, a jump, a NOP of five bytes, or a breakpoint in its first
		pushBP  = 0x55
	)
	push := uint64(0)
	if string(code[:len(endbr64)]) == endbr64 {
		push = uint64(len(endbr64))
	}
	if code[push] != pushBP {
		push += fentry
	}
	switch {
	case offset == 0:
		return 0, true
	case code[push] != pushBP:
		return 0, false
	case offset <= push:
		return 0, true
	case offset == push+1:
		return 8, true
	}
	return 0, false
}

// starts reports whether an address is where new tasks start.
func (t *Tasks) starts(pc uint64) bool {
	for _, name := range []string{"ret_from_fork_asm", "ret_from_fork"} {
		if at, ok := t.look.K.Addr(name); ok && at == pc {
			return true
		}
	}
	return false
}

// roles are the registers with a role in unwinding, by QEMU's names.
var roles = map[string]string{
	"rip": unwind.RegPC, "rsp": unwind.RegSP, "rbp": unwind.RegFP,
	"pc": unwind.RegPC, "sp": unwind.RegSP, "x29": unwind.RegFP, "x30": unwind.RegLR,
	"r15": unwind.RegPC, "r13": unwind.RegSP, "r11": unwind.RegFP, "r14": unwind.RegLR,
}

// RegsOf returns a CPU's registers for unwinding.
func RegsOf(c vm.CPU) unwind.Regs {
	r := unwind.Regs{}
	_, x86 := c.Regs["rip"]
	for name, v := range c.Regs {
		if len(name) == 3 && name[:2] == "r0" { // 32-bit Arm's r0 to r9
			name = "r" + name[2:]
		}
		r[name] = v
		if role := roles[name]; role != "" && !(x86 && name[0] == 'r' && name[1] >= '0' && name[1] <= '9') {
			r[role] = v
		}
	}
	return r
}

// TrimScheduler returns a stack without the frames of the scheduler, as the kernel leaves
// them out of /proc/PID/stack (in_sched_functions in kernel/sched/core.c).
func (t *Tasks) TrimScheduler(s stack.Stack) stack.Stack {
	lo, ok1 := t.look.K.Addr("__sched_text_start")
	hi, ok2 := t.look.K.Addr("__sched_text_end")
	if !ok1 || !ok2 {
		return s
	}
	var kept []stack.Frame
	for _, f := range s.Frames {
		if f.PC < lo || f.PC >= hi {
			kept = append(kept, f)
		}
	}
	s.Frames = kept
	return s
}
