package creation

import (
	"fmt"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/arch"
	"labctl/host/kernel"
)

// Names of the kprobe events that Probes has and Join reads. The fields of
// EventClone are members of struct kernel_clone_args by their names, except
// clone_flags, which is the creation function's first argument by value.
const (
	EventClone   = "clone"
	EventKthread = "kthread_request"
	// EventCall is the system call clone itself. Its first argument, clone_flags, has
	// the exit signal, which cannot be fetched from a structure whose layout is unknown.
	EventCall = "clone_call"
)

// Events are the tracepoints beside the probes: the first says which task came
// to be, the others name it. A kernel without one of the others loses a name or
// a cross-check, no creation.
var Events = []string{
	"sched/sched_process_fork",
	"sched/sched_process_exec",
	"sched/sched_process_exit",
	"task/task_newtask",
	"task/task_rename",
}

// Probes are what to put at the creation function and at the request for a kernel
// thread in a guest of the architecture arch (a GOARCH), so that Join can tell its
// task creations. The first must be there, the second may be missing. Facts come
// from the kernel's image; without BTF in it less is fetched. A kernel that walks frame
// pointers may need the direct caller told (arch.Entry.FrameLink).
//
// No kretprobe is ever among them: on a creation function it damages the stacks of
// other events (5.10, arm). The child is told by sched_process_fork.
func Probes(goarch string, f *kernel.Facts, framePointers bool) ([]wire.Kprobe, error) {
	entry, ok := arch.EntryOf(goarch, framePointers)
	if !ok {
		return nil, fmt.Errorf("plan the trace: no calling convention for architecture %q", goarch)
	}
	if f == nil {
		f = &kernel.Facts{}
	}
	probes := []wire.Kprobe{
		{Event: EventClone, Alternatives: AndOlder(cloneProbes(entry, f))},
		{Event: EventKthread, Alternatives: AndOlder(kthreadProbes(entry)), Optional: true},
	}
	if !knowsSignal(f) {
		call := wire.Kprobe{Event: EventCall, Optional: true}
		// The first has its arguments as they are on every architecture. Where it is
		// inlined, the others have, but on those that pass them in struct pt_regs,
		// which call the function otherwise.
		for _, symbol := range []string{"__do_sys_clone", "__se_sys_clone", "SyS_clone", "sys_clone"} {
			call.Alternatives = append(call.Alternatives, wire.KprobeTry{Symbol: symbol, Args: []string{"clone_flags=" + entry.Args[0] + ":u32"}})
		}
		probes = append(probes, call)
	}
	return probes, nil
}

// knowsSignal reports whether the probe at the creation function fetches the exit signal:
// the layout of the structure is known, or the function takes the word that has it.
func knowsSignal(f *kernel.Facts) bool {
	if _, ok := f.Members["kernel_clone_args.exit_signal"]; ok {
		return true
	}
	return slices.ContainsFunc(ksym.Functions(ksym.FamilyCreation), func(symbol string) bool {
		params := f.Params[symbol]
		return len(params) > 0 && !strings.HasPrefix(params[0].Type, "struct")
	})
}

// AndOlder appends the probes without the fetch types x8 to x64, which kernels have from
// 4.9 on (17ce3dc7e5a0); u8 to u64 are the same numbers in decimal.
func AndOlder(specs []wire.KprobeTry) []wire.KprobeTry {
	for _, s := range slices.Clone(specs) {
		if s.Symbol == "kernel_clone" {
			continue // it is younger
		}
		older := wire.KprobeTry{Symbol: s.Symbol}
		for _, arg := range s.Args {
			if i := strings.LastIndex(arg, ":x"); i >= 0 {
				arg = arg[:i] + ":u" + arg[i+2:]
			}
			older.Args = append(older.Args, arg)
		}
		if !slices.Equal(older.Args, s.Args) {
			specs = append(specs, older)
		}
	}
	return specs
}

func cloneProbes(a arch.Entry, f *kernel.Facts) []wire.KprobeTry {
	var specs []wire.KprobeTry
	add := func(symbol string, args []string) {
		callers := a.Caller()
		for _, caller := range callers {
			specs = append(specs, wire.KprobeTry{Symbol: symbol, Args: append(slices.Clone(args), caller)})
		}
		if len(callers) == 0 {
			specs = append(specs, wire.KprobeTry{Symbol: symbol, Args: args})
		}
	}
	for _, symbol := range ksym.Functions(ksym.FamilyCreation) {
		params := f.Params[symbol]
		// kernel_clone has taken the struct since it has had that name.
		takesStruct := symbol == "kernel_clone"
		if len(params) > 0 {
			takesStruct = strings.HasPrefix(params[0].Type, "struct kernel_clone_args *")
		}
		byValue := "clone_flags=" + a.Args[0] + ":" + a.Word
		switch {
		case takesStruct:
			full, plain := structArgs(a, f)
			add(symbol, full)
			if len(full) != len(plain) {
				add(symbol, plain)
			}
		case len(params) == 0 && symbol == "_do_fork":
			// Took clone_flags by value until commit 7f192e3cd316 gave it
			// struct kernel_clone_args. Nothing short of its type tells which
			// it is, so both are fetched, and Join looks at the value: flags
			// are no kernel address, and a bad address only fails its fetch.
			add(symbol, []string{byValue, "flags=+0(" + a.Args[0] + "):x64"})
		default:
			// kernel_thread passes the function as the stack's address and its
			// argument as the stack's size.
			if full := append([]string{byValue}, threadArgs(a, f, a.Args[2])...); len(full) > 1 {
				add(symbol, full)
			}
			add(symbol, []string{byValue})
		}
	}
	return specs
}

// structArgs fetches through a struct kernel_clone_args * in the first
// argument. The second list leaves out what goes through a second pointer.
func structArgs(a arch.Entry, f *kernel.Facts) (full, plain []string) {
	at := func(member string) (string, bool) {
		m, ok := f.Members["kernel_clone_args."+member]
		return fmt.Sprintf("+%d(%s)", m.Offset, a.Args[0]), ok
	}
	field := func(name, typ string) {
		if place, ok := at(name); ok {
			plain = append(plain, name+"="+place+":"+typ)
		}
	}
	if _, ok := at("flags"); ok {
		field("flags", "x64")
	} else {
		plain = append(plain, "flags=+0("+a.Args[0]+"):x64") // always the first member so far
	}
	field("exit_signal", "s32")
	// A kernel thread's function and its argument travel in members of their
	// own, or, before commit 5bd2e97c868a, in stack and stack_size.
	arg := "fn_arg"
	if _, own := at(arg); !own {
		arg = "stack_size"
	}
	for _, name := range []string{"fn", "fn_arg", "stack", "stack_size"} {
		field(name, a.Word)
	}
	full = append(full, plain...)
	if place, ok := at(arg); ok {
		full = append(full, threadArgs(a, f, place)...)
	}
	return full, plain
}

// threadArgs fetches what kthreadd was asked for. A thread of kthreadd runs
// kthread(struct kthread_create_info *), whose argument is at place. For any other task
// the pointer is nil or a number, and the fetch fails without harm: it reads by
// copy_from_kernel_nofault, or from the caller's own memory.
func threadArgs(a arch.Entry, f *kernel.Facts, place string) (args []string) {
	for _, name := range []string{"threadfn", "data"} {
		if m, ok := f.Members["kthread_create_info."+name]; ok {
			args = append(args, fmt.Sprintf("kt_%s=+%d(%s):%s", name, m.Offset, place, a.Word))
		}
	}
	if m, ok := f.Members["kthread_create_info.full_name"]; ok {
		args = append(args, fmt.Sprintf("kt_name=+0(+%d(%s)):string", m.Offset, place))
	}
	return args
}

// kthreadProbes catch the request for a kernel thread in the task that makes
// it. All of the kernel's ways to ask end in the first symbol; where it was
// inlined, the second catches most of them. Both have had the parameters
// (threadfn, data, node, namefmt, …) in that order since they exist.
func kthreadProbes(a arch.Entry) []wire.KprobeTry {
	var specs []wire.KprobeTry
	for _, symbol := range ksym.Functions(ksym.FamilyRequest) {
		args := []string{
			"threadfn=" + a.Args[0] + ":" + a.Word,
			"data=" + a.Args[1] + ":" + a.Word,
			"namefmt=+0(" + a.Args[3] + "):string",
		}
		named := append(append([]string(nil), args...), "threadfn_sym="+a.Args[0]+":symbol")
		if callers := a.Caller(); len(callers) > 0 {
			named, args = append(named, callers[0]), append(args, callers[1])
		}
		specs = append(specs, wire.KprobeTry{Symbol: symbol, Args: named}, wire.KprobeTry{Symbol: symbol, Args: args})
	}
	return specs
}
