package debug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"labctl/host/debug/command"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/outside/fake"
	"labctl/host/strictjson"
	"labctl/host/vm/gdb"
)

// bench is a session at the first instruction of kernel_clone, in a kernel that never ran.
type bench struct {
	*Session
	t     testing.TB
	f     *fake.Guest
	g     *outside.Guest
	out   bytes.Buffer
	clone uint64 // address of kernel_clone
	task  uint64 // of the CPU's task, physical
}

const (
	argsAt = fake.Free           // the arguments of kernel_clone
	taskAt = fake.Free + 0x1000  // the task
	hotAt  = fake.Free + 0x8000  // the CPU's own variables
	stckAt = fake.Free + 0x10000 // the stack
	flags  = 0x3d0f00            // those of a thread
	caller = 0x1234              // an offset in __do_sys_clone
)

func newBench(t testing.TB, json bool) *bench {
	t.Helper()
	b := &bench{t: t, f: fake.New(t), task: taskAt}
	f := b.f
	f.Load()
	f.Word(f.Phys(f.Symbol("__per_cpu_offset")), f.Virt(hotAt)-f.Symbol("pcpu_hot"))
	f.Put(f.Phys(f.Symbol("__cpu_possible_mask")), []byte{1})
	f.Word(hotAt, f.Virt(taskAt)) // pcpu_hot.current_task
	b.g = f.Open()
	b.member("task_struct", "comm", taskAt, []byte("sh\x00"))
	b.member("task_struct", "pid", taskAt, []byte{153, 0, 0, 0})
	b.member("task_struct", "tgid", taskAt, []byte{152, 0, 0, 0})
	b.member("task_struct", "prio", taskAt, []byte{0xfb, 0xff, 0xff, 0xff})
	b.member("task_struct", "in_execve", taskAt, []byte{1})
	b.member("task_struct", "real_parent", taskAt, word(f.Virt(taskAt)))
	b.member("kernel_clone_args", "flags", argsAt, word(flags))
	b.member("kernel_clone_args", "exit_signal", argsAt, []byte{17})
	b.clone = f.Symbol("kernel_clone")
	f.Stub.Set("rip", b.clone)
	f.Stub.Set("rdi", f.Virt(argsAt))
	f.Stub.Set("rsp", f.Virt(stckAt))
	f.Stub.Set("rax", 7)
	s, err := Open(t.Context(), f, b.g, Options{Out: &b.out, JSON: json})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b.Session = s
	return b
}

func word(v uint64) []byte { return little(v, 8) }

// member writes a member of a structure.
func (b *bench) member(typ, name string, at uint64, v []byte) {
	b.t.Helper()
	m, err := b.g.Member(typ, name)
	if err != nil {
		b.t.Fatal(err)
	}
	if m.Bits > 0 {
		v = little(uint64(v[0])<<m.Shift, m.Size)
	}
	b.f.Put(at+uint64(m.Offset), v)
}

// do does commands and returns what they have shown.
func (b *bench) do(lines ...string) (string, error) {
	b.out.Reset()
	for _, l := range lines {
		if err := b.Do(b.t.Context(), l); err != nil {
			return b.out.String(), err
		}
	}
	return b.out.String(), nil
}

func TestExpressions(t *testing.T) {
	b := newBench(t, false)
	for src, want := range map[string]string{
		"1":                           "1",
		"0x10":                        "0x10 (16)",
		"16UL":                        "0x10 (16)",
		"1 + 2 * 3":                   "7",
		"(1 + 2) * 3":                 "9",
		"1 << 4 | 1":                  "0x11 (17)",
		"1 << 64":                     "0",
		"1 >> 64":                     "0",
		"-1":                          "0xffffffffffffffff (18446744073709551615)",
		"7 / 2":                       "3",
		"7 % 2":                       "1",
		"6 ^ 3":                       "5",
		"^0 == -1":                    "1",
		"!0":                          "1",
		"!3":                          "0",
		"1 && 0 || 1":                 "1",
		"0 && 1 / 0":                  "0", // what is not asked for is not found out
		"1 || 1 / 0":                  "1",
		"6 & 3 == 2":                  "1", // & binds before ==
		"cpu":                         "0",
		"hits":                        "0",
		"pid":                         "0x98 (152)",
		"tid":                         "0x99 (153)",
		"comm":                        `"sh"`,
		`comm == "sh"`:                "1",
		`comm != "sh"`:                "0",
		"CLONE_VM":                    "0x100 (256)",
		"SIGCHLD":                     "0x11 (17)",
		"PIDTYPE_TGID":                "PIDTYPE_TGID",
		"args->exit_signal":           "17",
		"args->flags":                 "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_SETTLS|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID",
		"args->flags & CLONE_VM != 0": "1",
		"args.exit_signal == SIGCHLD": "1",
		"(*args).exit_signal":         "17",
		"args[0].exit_signal":         "17",
		"&args->exit_signal":          fmt.Sprintf("0x%x", b.f.Virt(argsAt)+b.offset("kernel_clone_args", "exit_signal")),
		"current->prio":               "-5",
		"current->prio < 0":           "1", // it is signed
		"current->prio >= -5 && current->prio <= -5": "1",
		"current->prio > 0":                          "0",
		"current->in_execve":                         "1",
		"current->real_parent->real_parent->pid":     "153",
		"current->comm":                              `"sh"`,
		"current->cpus_mask.bits[1]":                 "0",
		"init_task.pid":                              "0",
		"kernel_clone":                               fmt.Sprintf("0x%x (%d)", b.clone, b.clone),
		"$rip == kernel_clone":                       "1",
		"$RAX":                                       "7",
		"$rax + 1":                                   "8",
	} {
		if got, err := b.do("print " + src); err != nil || got != src+" = "+want+"\n" {
			t.Errorf("print %s: %q, %v; want %q", src, got, err, src+" = "+want+"\n")
		}
	}
	for src, want := range map[string]string{
		"":                               "want an expression",
		"1 +":                            "want names, numbers and operators",
		"comm + 1":                       "texts can be compared with texts",
		`comm < "a"`:                     "texts can be compared with texts",
		`-comm`:                          "comm is a text",
		"1 / 0":                          "a division by 0",
		"5 % 0":                          "a division by 0",
		"99999999999999999999":           "is not a number of 64 bits",
		"1.5":                            "is neither a number nor a text",
		"args->flagz":                    "did you mean flags?",
		"argz->flags":                    "argz is not known here, did you mean args?",
		"curent":                         "did you mean current?",
		"no_such_variable":               "the kernel has no symbol no_such_variable",
		"$rxx":                           "there is no register rxx, did you mean r",
		"cpu->x":                         "is a number, and has no member x",
		"current->mm->pgd":               "mm is null",
		"current->cpus_mask.bits[99999]": "bits has",
		"cpu[1]":                         "cpu is neither a pointer nor an array",
		"&1":                             "has no address",
		"f(1)":                           "a CallExpr is not for expressions here",
		"func() {}":                      "want names, numbers and operators",
		`"a`:                             "a quote is not closed",
		"1 &^ 1":                         "is no operator here",
		strings.Repeat("(", 400) + "1" + strings.Repeat(")", 400): "nested too deep",
		strings.Repeat("1+", 600) + "1":                           "more than 1000 bytes",
	} {
		if _, err := b.do("print " + src); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || outcome.Of(err) != outcome.BadInput {
			t.Errorf("print %.60s: %v (%s); want one line with %s", src, err, outcome.Of(err), want)
		}
	}
}

func (b *bench) offset(typ, member string) uint64 {
	m, err := b.g.Member(typ, member)
	if err != nil {
		b.t.Fatal(err)
	}
	return uint64(m.Offset)
}

// FuzzExpression: any text is evaluated, or is an error of one line, in bounded time.
func FuzzExpression(f *testing.F) {
	b := newBench(f, false)
	for _, s := range []string{"args->flags & CLONE_VM != 0", `comm == "sh"`, "init_task.tasks.next->next", "$rip", "*current", "&args->flags", "current->cpus_mask.bits[1]", "1<<64", "-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseExpression(s)
		if err == nil {
			_, err = e.eval(b.place.scope(context.Background(), 0))
		}
		if err != nil && (strings.Contains(err.Error(), "\n") || outcome.Of(err) == outcome.Internal) {
			t.Fatalf("%q: %v (%s)", s, err, outcome.Of(err))
		}
	})
}

// arrive is what happens when the guest runs: a task comes to an address.
func (b *bench) arrive(pc uint64, comm string, tid byte) {
	b.f.Stub.Runs("", map[string]uint64{"rip": pc, "rdi": b.f.Virt(argsAt)}, func() {
		b.member("task_struct", "comm", taskAt, append([]byte(comm), 0))
		b.member("task_struct", "pid", taskAt, []byte{tid, 0, 0, 0})
	})
}

// What is wrong with a command is a line, and leaves the session as it was.
func TestBadCommands(t *testing.T) {
	b := newBench(t, false)
	for line, want := range map[string]string{
		"break":                              "", // TRACE32's Break: it stands still already
		"break a b":                          "break: want one place",
		"break kernel_clonee":                "the kernel has no function kernel_clonee, did you mean kernel_clone?",
		"break kernel_clone+x":               "want a number behind the +",
		"break init_task":                    "the kernel has no function init_task",
		"break vfs_*":                        " functions; name one",
		"break kernel_clone count 0":         `break: count "0": want a number from 1 on`,
		"break kernel_clone pid x":           `break: pid "x": want a number from 1 on`,
		"break kernel_clone task [":          "want a name, or a pattern of a shell",
		"break kernel_clone if (":            "want names, numbers and operators",
		"watch":                              "watch: want a member",
		"watch task_struct.comn of 153":      "task_struct has no member comn, did you mean comm?",
		"watch task_struct.pid of 99":        "there is no task 99 (ps lists them)",
		"watch task_struct of 99":            "want TYPE.MEMBER",
		"watch rq.curr of 99":                "of is for task_struct; say at ADDRESS",
		"watch current.comm":                 "it has 16 bytes at",
		"watch 0xffffffff87000001 8":         "1, 2, 4 or 8 can be watched, at a multiple of that",
		"watch 0xffffffff87000000 x":         `size "x": want 1, 2, 4 or 8`,
		"watch 0xdead000000000000":           "0xdead000000000000",
		"delete 7":                           "there is no breakpoint 7 (breaks lists them)",
		"disable":                            "disable: which? breaks lists them",
		"enable x":                           "there is no breakpoint x",
		"go 1 2":                             "until: want one place",
		"until nowhere_at_all":               "the kernel has no function nowhere_at_all",
		"step 0":                             "step: want a number of steps from 1 to 100000",
		"step 1 2":                           "step: want a number of steps",
		"stack 99":                           "there is no task 99",
		"stack style nothing":                `style "nothing" is not known`,
		"registers rxx":                      "there is no register rxx",
		"cpu 1":                              "cpu 1: want a number from 0 to 0",
		"cpu -1":                             "cpu -1: want a number from 0 to 0",
		"struct":                             "want TYPE [MEMBER…] of TID, or at ADDRESS",
		"struct task_strukt at 0":            "did you mean task_struct?",
		"struct task_struct comn at current": "did you mean comm?",
		"dump":                               "dump: want ADDRESS [BYTES]",
		"dump 0xdead000000000000":            "0xdead000000000000",
		"dump current 0":                     "want a number from 1 to 65536",
		"dump current 65537":                 "want a number from 1 to 65536",
		"set current->pid":                   "set: want PLACE = VALUE",
		"set current->pid = comm":            "want a number",
		"set cpu = 1":                        "cpu is neither a register nor in memory",
		"set current->comm = 1":              "has 16 bytes; name a member of 1, 2, 4 or 8",
		"set *current = 1":                   "bytes; name a member of 1, 2, 4 or 8",
		"set 0 = 1":                          "is neither a register nor in memory",
		"ps nobody":                          "there is no task nobody",
		"dmesg x":                            "want a number of lines",
		"symbol":                             "symbol: want a name or an address",
		"symbol 0x10":                        "0x10 is in no symbol",
		"symbol kernel_clonee":               "did you mean kernel_clone?",
		"symbols [":                          "syntax error in pattern",
		"symbols no_such_symbol_at_all":      "the kernel has no symbol no_such_symbol_at_all",
		"checkpoint":                         "checkpoint: want one name",
		"checkpoint x":                       "this machine cannot be saved",
		"back":                               "to which checkpoint?",
		"back x":                             "back: not here",
		"help brek":                          "did you mean break?",
	} {
		_, err := b.do(line)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || outcome.Of(err) != outcome.BadInput {
			t.Errorf("%s: %v (%s); want one line with %s", line, err, outcome.Of(err), want)
		}
	}
	if armed := b.f.Stub.Armed(); len(armed) > 0 {
		t.Errorf("%q are armed", armed)
	}
	if out, err := b.do("breaks"); err != nil || out != "there are no breakpoints\n" {
		t.Errorf("breaks: %q, %v", out, err)
	}
}

// TestBreak: a breakpoint counts the hits that its filters let through, and is where it
// should be while it is enabled.
func TestBreak(t *testing.T) {
	b := newBench(t, false)
	at := fmt.Sprintf("1,%x,1", b.clone)
	out, err := b.do("break _do_fork task sh pid 153 count 2 if args->exit_signal == SIGCHLD")
	if want := fmt.Sprintf("breakpoint 1 at kernel_clone, 0x%x, of task sh, of pid 153, if args->exit_signal == SIGCHLD, from hit 2 on\n", b.clone); err != nil || out != want {
		t.Fatalf("break: %q, %v; want %q", out, err, want)
	}
	b.arrive(b.clone, "bash", 153) // another name
	b.f.Stub.Runs("", nil, nil)    // the step that leaves it
	b.arrive(b.clone, "sh", 154)   // another task, of the process 152
	b.f.Stub.Runs("", nil, nil)
	b.arrive(b.clone, "sh", 153) // hit 1
	b.f.Stub.Runs("", nil, nil)
	b.arrive(b.clone, "sh", 153) // hit 2
	out, err = b.do("go")
	if want := "// breakpoint 1, kernel_clone, hit 2: sh, pid 152, tid 153, on CPU 0\n-000|kernel_clone(args = 0xffffffff87000000 (flags = CLONE_VM|"; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("go: %q, %v; want %q", out, err, want)
	}
	for _, step := range []struct {
		line  string
		armed []string
		want  string
	}{
		{"disable 1", nil, ", disabled; hits: 2\n"},
		{"disable 1", nil, ", disabled; hits: 2\n"},
		{"enable 1", []string{at}, "from hit 2 on; hits: 2\n"},
		{"tbreak kernel_clone+4", []string{at, fmt.Sprintf("1,%x,1", b.clone+4)}, ", once\n"},
		{"breaks", []string{at, fmt.Sprintf("1,%x,1", b.clone+4)}, ", once; hits: 0\n"},
	} {
		out, err := b.do(step.line)
		if armed := b.f.Stub.Armed(); err != nil || !strings.HasSuffix(out, step.want) || !cmp.Equal(armed, step.armed, cmpopts.EquateEmpty()) {
			t.Errorf("%s: %q, %v, armed %q; want %q, armed %q", step.line, out, err, armed, step.want, step.armed)
		}
	}
	b.f.Stub.Runs("", nil, nil)
	b.arrive(b.clone+4, "sh", 153)
	out, err = b.do("go", "breaks")
	if err != nil || !strings.HasPrefix(out, "// breakpoint 2, kernel_clone+0x4, hit 1: ") || strings.Contains(out, "hits: 1") {
		t.Errorf("go to what stops once: %q, %v", out, err)
	}
	if out, err = b.do("delete"); err != nil || len(b.f.Stub.Armed()) != 0 {
		t.Errorf("delete: %q, %v, armed %q", out, err, b.f.Stub.Armed())
	}
	for range maxPoints {
		if _, err := b.do("break kernel_clone"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.do("break kernel_clone"); outcome.Of(err) != outcome.BadInput {
		t.Errorf("breakpoint %d: %v", maxPoints+1, err)
	}
}

// A condition that cannot be evaluated stops, and says why.
func TestBadCondition(t *testing.T) {
	b := newBench(t, false)
	b.arrive(b.clone, "sh", 153)
	out, err := b.do("break kernel_clone if current->mm->pgd == 0", "go")
	if err == nil || !strings.Contains(err.Error(), "mm is null") || !strings.Contains(out, "// breakpoint 1, kernel_clone, hit 0: sh, ") {
		t.Errorf("go: %q, %v; want a stop, and that mm is null", out, err)
	}
}

func TestWatch(t *testing.T) {
	b := newBench(t, false)
	prio := b.f.Virt(taskAt) + b.offset("task_struct", "prio")
	out, err := b.do("watch task_struct.prio at current if comm == \"sh\"")
	if want := fmt.Sprintf("watchpoint 1 on write of task_struct.prio at 0xffffffff87001000, 4 bytes, 0x%x, if comm == \"sh\"\n", prio); err != nil || out != want {
		t.Fatalf("watch: %q, %v; want %q", out, err, want)
	}
	stop := fmt.Sprintf("watch:%x;", prio)
	b.f.Stub.Runs(stop, nil, nil) // written, and as it was
	b.f.Stub.Runs(stop, nil, func() { b.member("task_struct", "prio", taskAt, []byte{120, 0, 0, 0}) })
	out, err = b.do("go")
	if want := "// watchpoint 1, task_struct.prio at 0xffffffff87001000: -5 -> 120, hit 1: sh, pid 152, tid 153, on CPU 0\n"; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("go: %q, %v; want %q", out, err, want)
	}
	if out, err = b.do("delete 1", "Break.Set 0xffffffff87000000 /ReadWrite", "breaks"); err != nil || !strings.Contains(out, "watchpoint 2 on access of 0xffffffff87000000, 8 bytes") {
		t.Errorf("Break.Set /ReadWrite: %q, %v", out, err)
	}
	b.f.Stub.Runs("awatch:ffffffff87000000;", nil, nil)
	if out, err = b.do("go"); err != nil || !strings.Contains(out, ": read: 0x3d0f00, hit 1: ") {
		t.Errorf("go to an access: %q, %v", out, err)
	}
}

func TestRun(t *testing.T) {
	b := newBench(t, false)
	ret := b.f.Symbol("__do_sys_clone") + 0x80
	b.f.Word(stckAt, ret)
	expect := func(line, want string) {
		t.Helper()
		if out, err := b.do(line); err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%s: %q, %v; want %q", line, out, err, want)
		}
		if armed := b.f.Stub.Armed(); len(armed) > 0 {
			t.Errorf("%s: %q are left", line, armed)
		}
	}
	b.f.Stub.Runs("", map[string]uint64{"rip": b.clone + 4}, nil)
	expect("step", "kernel_clone+0x4  callq __fentry__\n")
	b.f.Stub.Runs("", nil, nil)
	b.f.Stub.Runs("", map[string]uint64{"rip": b.clone + 9, "rsp": b.f.Virt(stckAt) - 64}, nil) // a call further in
	b.f.Stub.Runs("", nil, nil)
	b.f.Stub.Runs("", map[string]uint64{"rip": b.clone + 9, "rsp": b.f.Virt(stckAt)}, nil)
	expect("next", "kernel_clone+0x9  push %r15\n")
	b.f.Stub.Runs("", nil, nil) // leaves
	b.f.Stub.Runs("", map[string]uint64{"rip": b.clone}, nil)
	expect("until do_fork", "// until: sh, pid 152, tid 153, on CPU 0\n-000|kernel_clone(args = ")
	b.f.Stub.Runs("", nil, nil)
	b.f.Stub.Runs("", map[string]uint64{"rip": ret, "rsp": b.f.Virt(stckAt) + 8, "rax": 154}, nil)
	expect("finish", "// kernel_clone has returned 154: sh, pid 152, tid 153, on CPU 0\n-000|__do_sys_clone(...)\n")

	// Interrupted while it runs.
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("that is enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(stop) })
	b.out.Reset()
	b.f.Stub.Runs("", nil, nil)
	b.f.Stub.RunsOn()
	if err := b.Do(ctx, "go"); !errors.Is(err, stop) || !strings.HasPrefix(b.out.String(), "// stopped: sh, ") {
		t.Errorf("go, interrupted: %q, %v; want %v", b.out.String(), err, stop)
	}

	// And the guest that dies.
	b.f.Stub.Dies()
	for _, line := range []string{"go", "registers"} {
		if _, err := b.do(line); !errors.Is(err, gdb.ErrEnded) || outcome.Of(err) != outcome.GuestCrashed {
			t.Errorf("%s of a guest that is gone: %v (%s)", line, err, outcome.Of(err))
		}
	}
	if !b.Ended() {
		t.Error("the session does not know that the guest has ended")
	}
	if _, err := b.do("help"); err != nil {
		t.Errorf("help after the end: %v", err)
	}
	if _, err := b.do("quit"); !errors.Is(err, ErrQuit) {
		t.Errorf("quit after the end: %v", err)
	}
}

// TestViews: what the commands show.
func TestViews(t *testing.T) {
	b := newBench(t, false)
	for line, want := range map[string]string{
		"registers rdi $RIP":                       fmt.Sprintf("rdi    0xffffffff87000000\nrip    0x%x\n", b.clone),
		"cpu":                                      "* CPU 0, sh, pid 153, at kernel_clone+0x0\n",
		"dump args 16":                             "0xffffffff87000000| 00000000003D0F00 0000000000000000  ..=.............\n",
		"symbol kernel_clone":                      fmt.Sprintf("0x%x kernel_clone\npid_t kernel_clone(struct kernel_clone_args *args)\n", b.clone),
		"symbol init_task":                         fmt.Sprintf("0x%x init_task\n", b.f.Symbol("init_task")),
		fmt.Sprintf("symbol 0x%x", b.clone+4):      fmt.Sprintf("0x%x kernel_clone+0x4/", b.clone+4),
		"symbols kernel_clon?":                     fmt.Sprintf("0x%x T kernel_clone\n", b.clone),
		"struct task_struct comm pid at current":   "struct task_struct at 0xffffffff87001000 = {comm = \"sh\", pid = 153}\n",
		"struct struct task_struct pid at current": "struct task_struct at 0xffffffff87001000 = {pid = 153}\n",
		"set $rbx = 7":                             "$rbx = 7\n",
		"Register.Set RCX 0x10":                    "$RCX = 0x10 (16)\n",
		"set args->exit_signal = SIGCHLD + 1":      "args->exit_signal = 18\n",
		"Data.Set 0xffffffff87002000 5":            "0xffffffff87002000 has 5\n",
		"list kernel_clone+9 1":                    fmt.Sprintf("   0x%x kernel_clone+0x9             push %%r15\n", b.clone+9),
		"print %hex current->pid":                  "current->pid = 153\n",
		"ps swapper":                               "MAGIC ",
		"stop":                                     "the guest stands still already\n",
		"modules":                                  "no modules are loaded\n",
		"help finish":                              "finish \n  run until this function has returned, and show what it returns\n  also: fin, up\n  in TRACE32's words: Go.Up, Go.Return\n",
		"# a comment":                              "",
	} {
		if out, err := b.do(line); err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%s: %q, %v; want %q", line, out, err, want)
		}
	}
	if v, err := b.g.Look().Uint(b.f.Virt(fake.Free+0x2000), 8); v != 5 || err != nil {
		t.Errorf("Data.Set has written %d, %v; want 5", v, err)
	}
	for _, w := range command.Words {
		if verbs[w.Name] == nil {
			t.Errorf("%s does nothing", w.Name)
		}
	}
}

func TestJSON(t *testing.T) {
	b := newBench(t, true)
	b.arrive(b.clone, "sh", 153)
	out, err := b.do("break kernel_clone", "go", "print comm")
	if err != nil {
		t.Fatal(err)
	}
	var events []Event
	for line := range strings.Lines(out) {
		var e Event
		if err := (strictjson.Format{Max: 1 << 20}).Decode([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		events = append(events, e)
	}
	if len(events) != 3 || events[0].Point == nil || events[0].Point.Number != 1 ||
		events[1].Event != "stop" || events[1].Reason != "breakpoint" || events[1].TID != 153 || events[1].Comm != "sh" || events[1].At != "kernel_clone+0x0" ||
		events[1].Stack == nil || len(events[1].Stack.Frames) == 0 || events[2].Text != `comm = "sh"` || events[2].Command != "print comm" {
		t.Errorf("events: %s", out)
	}
}

func TestComplete(t *testing.T) {
	b := newBench(t, false)
	for _, c := range []struct{ before, word, want string }{
		{"", "bre", "break breaks"},
		{"", "Bre", "break breaks Break.DISable Break.Delete Break.ENable Break.List Break.RESet Break.Set Break.direct"},
		{"", "reg", "registers"},
		{"", "var.", "Var.Break.Set Var.Frame Var.Set Var.View Var.Watch"},
		{"break ", "kernel_clon", "kernel_clone"},
		{"b.s ", "KERNEL_CLON", "kernel_clone"},
		{"break kernel_clone ", "/t", "/TASK"},
		{"break kernel_clone ", "co", "count"},
		{"struct ", "task_struct.exit_sig", "task_struct.exit_signal"},
		{"watch ", "task_struct.thread_no", "task_struct.thread_node"},
		{"registers ", "ri", "rip"},
		{"help ", "fin", "finish"},
		{"nonsense ", "x", ""},
		{"break ", "", ""}, // a hundred thousand are no help
	} {
		got := b.Complete(c.before, c.word)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !cmp.Equal(got, want, cmpopts.EquateEmpty()) {
			t.Errorf("Complete(%q, %q) = %q, want %q", c.before, c.word, got, want)
		}
	}
}
