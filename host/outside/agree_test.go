package outside_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/outside"
	"labctl/host/outside/kern"
	"labctl/host/outside/mmu"
	"labctl/host/outside/page"
	"labctl/host/outside/ring"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/outside/vma"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

var show = flag.Bool("show", false, "log whole structures")

var machines = flag.String("machines", "6.12/amd64,6.12/arm64", "KERNEL/MACHINE,… to hold outside against inside on")

// open boots a machine and finds its kernel from outside.
func open(t *testing.T, name string) (*vm.VM, *outside.Guest) {
	t.Helper()
	at := strings.LastIndex(name, "/") // a kernel may be a path
	if at < 0 {
		t.Fatalf("-machines %s: want KERNEL/MACHINE", name)
	}
	ref, target := name[:at], name[at+1:]
	spec := machine.Spec{Kernel: ref, Arch: target}
	if strings.HasPrefix(target, "raspi") {
		spec.Arch, spec.Board = "", target
	}
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	env := machine.Env{Cache: cache, Say: func(s string) { t.Log(s) }}
	m, err := machine.Prepare(t.Context(), env, spec)
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Boot(t.Context(), env, record.Dir{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	start := time.Now()
	g, err := outside.Open(t.Context(), v, m.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	first := time.Since(start)
	// What is derived of a kernel is made at the first time.
	start = time.Now()
	again, err := outside.Open(t.Context(), v, m.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	second := time.Since(start)
	start = time.Now()
	anchor := g.Anchor()
	if again, err = outside.Open(t.Context(), v, m.Kernel, &anchor); err != nil {
		t.Fatal(err)
	}
	again.Close()
	t.Logf("%s: %+v, found in %v, again in %v, known in %v", m.Kernel, anchor, first, second, time.Since(start))
	return v, g
}

// TestOutsideAgainstInside: what is read from outside is what the kernel says of itself.
func TestOutsideAgainstInside(t *testing.T) {
	for _, name := range strings.Split(*machines, ",") {
		t.Run(name, func(t *testing.T) {
			v, g := open(t, name)
			ctx, cancel := context.WithTimeout(v.Context(), v.Patient(time.Minute))
			defer cancel()
			if !g.HasTypes() {
				testUntyped(ctx, t, v, g)
				return
			}
			t.Run("tasks", func(t *testing.T) { testTasks(ctx, t, v, g) })
			t.Run("remains", func(t *testing.T) { testRemains(ctx, t, v, g) })
			t.Run("modules", func(t *testing.T) { testModules(ctx, t, v, g) })
			t.Run("maps", func(t *testing.T) { testMaps(ctx, t, v, g) })
			t.Run("log", func(t *testing.T) { testLog(t, g) })
			t.Run("pages", func(t *testing.T) { testPages(t, g) })
			t.Run("values", func(t *testing.T) { testValues(t, g) })
			t.Run("CPUs", func(t *testing.T) { testCPUs(ctx, t, g) })
		})
	}
}

// testUntyped: of a kernel without types there are symbols, the kernel's own memory, and what
// CPUs do. Its tasks, and where they sleep, are told to be unknown.
func testUntyped(ctx context.Context, t *testing.T, v *vm.VM, g *outside.Guest) {
	var none *kern.NoTypesError
	if tasks, err := task.Read(g.Kernel, nil); !errors.As(err, &none) || strings.Contains(err.Error(), "\n") {
		t.Errorf("task.Read = %v, %v; want one line that the kernel has no types", tasks, err)
	}
	inside := map[string]map[uint64]bool{}
	for line := range strings.Lines(file(ctx, t, v, "/proc/kallsyms")) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f) == 4 {
			continue
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if inside[f[2]] == nil {
			inside[f[2]] = map[uint64]bool{}
		}
		inside[f[2]][addr] = true
	}
	syms, differ := g.Symbols(), 0
	for i := range syms.Len() {
		s := syms.Symbol(i)
		if inside[s.Name] == nil && (s.Name == "_text" || s.Name == "linux_banner") {
			continue // found in the image, where the kernel has symbols of functions only
		}
		if !inside[s.Name][g.Running(s.Addr)] {
			if differ++; differ <= 5 {
				t.Errorf("symbol %s is at %#x outside, at %#x inside", s.Name, g.Running(s.Addr), slices.Collect(maps.Keys(inside[s.Name])))
			}
		}
	}
	t.Logf("%d symbols, of which %d differ", syms.Len(), differ)
	if syms.Len() < 10_000 || len(inside) < 10_000 {
		t.Errorf("%d symbols outside, %d inside; want at least 10000", syms.Len(), len(inside))
	}
	banner, err := g.Look().CString(must(t, g, "linux_banner"), 300)
	if want := file(ctx, t, v, "/proc/version"); err != nil || !strings.HasPrefix(want, strings.TrimSpace(banner)[:20]) {
		t.Errorf("the banner is %q, %v; inside it is %q", banner, err, want)
	}
	// A CPU that is stopped in the middle of __switch_to has half a stack of each task.
	for try := 1; ; try++ {
		whole, err := untypedCPUs(ctx, t, g)
		if err != nil {
			t.Fatal(err)
		}
		if whole {
			return
		}
		if try == 20 {
			t.Fatalf("the stacks of the CPUs are never whole")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// untypedCPUs reads the stacks of all CPUs, and whether all are whole.
func untypedCPUs(ctx context.Context, t *testing.T, g *outside.Guest) (whole bool, err error) {
	t.Helper()
	err = g.Stopped(ctx, func() error {
		tasks, err := g.CPUTasks(ctx)
		if err != nil {
			return err
		}
		whole = len(tasks.CPUs) >= 2
		for _, c := range tasks.CPUs {
			s, err := tasks.CPUStack(c.ID)
			if err != nil {
				return err
			}
			t.Logf("CPU %d: %s\n%s", c.ID, s.Note, s.TRACE32())
			whole = whole && (s.Note != "" || !s.Truncated && len(s.Frames) > 0)
		}
		return nil
	})
	return whole, err
}

// must is the address of a symbol.
func must(t *testing.T, g *outside.Guest, name string) uint64 {
	t.Helper()
	addr, err := g.MustAddr(name)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func testTasks(ctx context.Context, t *testing.T, v *vm.VM, g *outside.Guest) {
	// What has not run between the first look and the last must be the same.
	read := func() *task.Tasks {
		tasks, err := task.Read(g.Kernel, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tasks.Torn != "" {
			t.Logf("torn: %s", tasks.Torn)
		}
		return tasks
	}
	first := read()
	start := time.Now()
	tasks := read()
	seen := map[int]stack.Stack{}
	for i := range tasks.List {
		s, err := tasks.Stack(&tasks.List[i])
		if err != nil {
			t.Fatal(err)
		}
		seen[tasks.List[i].TID] = s
	}
	t.Logf("%d tasks with stacks in %v", len(tasks.List), time.Since(start).Round(time.Microsecond))
	inside, _, err := v.Agent().Sleepers(ctx, 1<<12)
	if err != nil {
		t.Fatal(err)
	}
	last := read()
	slept := func(tid int) bool {
		a, b := first.Find(tid), last.Find(tid)
		return a != nil && b != nil && a.Switches == b.Switches && !a.OnCPU && !b.OnCPU
	}
	compareTasks(t, tasks, last, inside, slept)
	compareStacks(t, tasks, seen, inside, slept, 8*g.Word())
}

// compareTasks holds the list against /proc. last is a list from after that.
func compareTasks(t *testing.T, tasks, last *task.Tasks, inside []wire.Sleeper, slept func(tid int) bool) {
	t.Helper()
	for _, s := range inside {
		one := tasks.Find(s.TID)
		if one == nil && last.Find(s.TID) != nil {
			continue // it came between the two
		}
		if one == nil {
			t.Errorf("task %d %s is not seen from outside", s.TID, s.Comm)
			continue
		}
		got := fmt.Sprintf("%d %d %d %s %t", one.PID, one.TID, one.PPID, one.Comm, one.Kernel)
		if want := fmt.Sprintf("%d %d %d %s %t", s.PID, s.TID, s.PPID, s.Comm, s.Kernel); got != want && !workerName(s, one) {
			t.Errorf("outside: %s; inside: %s", got, want)
		}
		if slept(s.TID) && one.State != s.State {
			t.Errorf("task %d %s: state %s outside, %s inside", s.TID, s.Comm, one.State, s.State)
		}
	}
}

// workerName reports whether two names are of a worker thread, to whose name /proc adds
// what it does (kernel/workqueue.c, wq_worker_comm).
func workerName(s wire.Sleeper, one *task.Task) bool {
	return s.Kernel && strings.HasPrefix(s.Comm, "kworker/") && strings.HasPrefix(one.Comm, "kworker/")
}

// testRemains holds what an ended task has left against what it said of itself.
func testRemains(ctx context.Context, t *testing.T, v *vm.VM, g *outside.Guest) {
	if _, ok := g.Addr("task_struct_cachep"); !ok {
		t.Skipf("%s has no symbols of data", g.Image)
	}
	before, err := task.Read(g.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	var since uint64
	addrs := map[uint64]bool{}
	for _, one := range before.List {
		since = max(since, one.Started)
	}
	const tries = 40 // the kernel may give a place away at once
	for try := 1; try <= tries; try++ {
		var out bytes.Buffer
		ended := make(chan error, 1)
		go func() {
			res, err := v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "fork"}}, agent.IO{Stdout: &out})
			if err == nil && res.Code != 0 {
				err = fmt.Errorf("%+v", res)
			}
			ended <- err
		}()
		left := map[int]task.Task{}
		var now *task.Tasks
		for over := false; !over; {
			select {
			case err := <-ended:
				if err != nil {
					t.Fatalf("labprobe fork: %v", err)
				}
				over = true // and one last look
			default:
			}
			var err error
			if now, err = task.Read(g.Kernel, nil); err != nil {
				t.Fatal(err)
			}
			for _, one := range slices.Concat(before.List, now.List) {
				addrs[one.Addr] = true
			}
			for _, one := range now.Remains(slices.Collect(maps.Keys(addrs)), since) {
				left[one.TID] = one
			}
		}
		var said wire.ProbeResult
		if err := json.Unmarshal(out.Bytes(), &said); err != nil || len(said.Tasks) != 2 {
			t.Fatalf("labprobe fork: %v\n%s", err, &out)
		}
		child := said.Tasks[1]
		for _, one := range left {
			if live := now.Find(one.TID); live != nil && live.State != "X" {
				t.Errorf("%+v is said to have ended, and lives", one)
			}
		}
		one, ok := left[child.TID]
		if !ok {
			continue
		}
		if one.PID != child.PID || one.Comm != child.Comm || one.Kernel || one.PPID != child.PPID && one.PPID != 0 {
			t.Errorf("the child left %+v; it said %+v", one, child)
		}
		t.Logf("found in try %d, with %d others: %+v", try, len(left)-1, one)
		return
	}
	t.Errorf("of %d children, none was found in what it left", tries)
}

func testModules(ctx context.Context, t *testing.T, v *vm.VM, g *outside.Guest) {
	if _, ok := g.Addr("modules"); !ok {
		t.Skipf("%s has no symbols of data", g.Image)
	}
	l := g.Look()
	mods, err := l.Modules()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range mods {
		got = append(got, fmt.Sprintf("%s %d %s", m.Name, m.Size, m.State))
	}
	var want []string
	for line := range strings.Lines(file(ctx, t, v, "/proc/modules")) {
		f := strings.Fields(line)
		want = append(want, fmt.Sprintf("%s %s %s", f[0], f[1], f[4]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-inside +outside):\n%s", diff)
	}
	find, n := l.Finder(mods), 0
	for line := range strings.Lines(file(ctx, t, v, "/proc/kallsyms")) {
		f := strings.Fields(line)
		if len(f) != 4 || !strings.ContainsAny(f[1], "tT") {
			continue
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if s, ok := find(addr); !ok || "["+s.Module+"]" != f[3] || s.Start != addr {
			t.Errorf("%#x is %+v, %t; inside it is %s of %s", addr, s, ok, f[2], f[3])
		}
	}
	t.Logf("%d modules with %d functions", len(mods), n)
}

// file reads a file of the guest's.
func file(ctx context.Context, t *testing.T, v *vm.VM, name string) string {
	t.Helper()
	var b bytes.Buffer
	if err := v.Agent().ReadFile(ctx, name, 64<<20, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// withoutGate removes the area that is the same in all processes, and in none's memory.
func withoutGate(maps string) string {
	var b strings.Builder
	for line := range strings.Lines(maps) {
		if !strings.Contains(line, "[vectors]") && !strings.Contains(line, "[vsyscall]") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func testMaps(ctx context.Context, t *testing.T, v *vm.VM, g *outside.Guest) {
	tasks, err := task.Read(g.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	// PID 1 answers, so its memory changes; its heap may have grown.
	l := g.Look()
	for range 5 {
		before := withoutGate(file(ctx, t, v, "/proc/1/maps"))
		areas, torn, err := vma.Read(l, tasks.Find(1).Addr)
		if err != nil {
			t.Fatal(err)
		}
		if before != withoutGate(file(ctx, t, v, "/proc/1/maps")) || torn != "" {
			continue
		}
		var got strings.Builder
		for _, a := range areas {
			got.WriteString(a.String() + "\n")
		}
		if diff := cmp.Diff(before, got.String()); diff != "" {
			t.Errorf("memory of PID 1 (-inside +outside):\n%s", diff)
		}
		if _, _, err := vma.Read(l, tasks.Find(2).Addr); !errors.Is(err, vma.ErrKernelThread) {
			t.Errorf("areas of kthreadd: %v, want ErrKernelThread", err)
		}
		t.Logf("%d areas", len(areas))
		return
	}
	t.Error("the memory of PID 1 changed five times")
}

func testLog(t *testing.T, g *outside.Guest) {
	if _, ok := g.Addr("prb"); !ok {
		t.Skipf("%s has no symbols of data", g.Image)
	}
	log, err := ring.Read(g.Look())
	if err != nil {
		t.Fatal(err)
	}
	if len(log.Records) < 100 || log.Lost > 0 {
		t.Fatalf("%d records, %d lost", len(log.Records), log.Lost)
	}
	t.Logf("%d records, the last: %s %s", len(log.Records), log.Records[len(log.Records)-1].Time(), log.Records[len(log.Records)-1].Text)
	found := false
	for i, r := range log.Records {
		found = found || strings.HasPrefix(r.Text, "Linux version "+g.Image.Release)
		if i > 0 && r.Seq != log.Records[i-1].Seq+1 {
			t.Errorf("record %d follows %d", r.Seq, log.Records[i-1].Seq)
		}
	}
	if !found {
		t.Errorf("no record with the kernel's version in %+v", log.Records[:5])
	}
}

func testPages(t *testing.T, g *outside.Guest) {
	tasks, err := task.Read(g.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := g.Look()
	one := tasks.Find(1)
	areas, _, err := vma.Read(l, one.Addr)
	if err != nil {
		t.Fatal(err)
	}
	table, err := page.Table(l, one.Addr, areas[0].Start)
	if err != nil {
		t.Fatal(err)
	}
	// The first page of a program is its ELF header.
	r, err := page.Walk(l, table, areas[0].Start)
	if err != nil || !r.Mapped {
		t.Fatalf("walk of %#x = %+v, %v", areas[0].Start, r, err)
	}
	head := make([]byte, 4)
	if err := mmu.Read(g.Phys(), head, r.Phys); err != nil || string(head) != "\x7fELF" {
		t.Errorf("at %#x of PID 1 is %q, %v; want an ELF header", areas[0].Start, head, err)
	}
	t.Logf("%+v %s", r, r.NoFrame)
	if r.Frame != nil && (r.Frame.RefCount < 1 || r.Frame.MapCount < 1) {
		t.Errorf("frame %+v; want it mapped", r.Frame)
	}
	if r.Frame != nil {
		t.Logf("%+v", *r.Frame)
	}
	if r, err := page.Walk(l, table, 0x10); err != nil || r.Mapped || r.Why == "" {
		t.Errorf("walk of 0x10 = %+v, %v; want it not mapped", r, err)
	}
}

func testValues(t *testing.T, g *outside.Guest) {
	tasks, err := task.Read(g.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := g.Look()
	mods, _ := l.Modules()
	r, err := value.New(l, l.Finder(mods))
	if err != nil {
		t.Fatal(err)
	}
	typ, err := r.Type("struct task_struct")
	if err != nil {
		t.Fatal(err)
	}
	at := tasks.Find(2).Addr
	for path, want := range map[string]string{
		"comm": `"kthreadd"`, "pid": "2", "tgid": "2", "real_parent.comm": `"swapper/0"`, "real_parent->pid": "0",
	} {
		v, err := r.Path(typ, at, path)
		if err != nil || v.String() != want {
			t.Errorf("%s = %s, %v; want %s", path, v, err, want)
		}
	}
	if _, err := r.Path(typ, at, "comn"); err == nil || !strings.Contains(err.Error(), "did you mean comm?") {
		t.Errorf("comn: %v", err)
	}
	start := time.Now()
	text := r.At(typ, at).String()
	t.Logf("struct task_struct: %d lines in %v", strings.Count(text, "\n"), time.Since(start).Round(time.Microsecond))
	if why := r.At(typ, at).Unread(); why != "" {
		t.Errorf("struct task_struct of kthreadd is unread: %s", why)
	}
	if nowhere := r.At(typ, 0x10); nowhere.Unread() == "" {
		t.Errorf("a task_struct at 0x10, where nothing is, reads as %s", nowhere)
	}
	if !strings.Contains(text, "\n  pid = 2\n") {
		t.Errorf("struct task_struct of kthreadd:\n%s", text)
	}
	if *show {
		t.Log(text)
	}
}

// testCPUs: of a guest that stands still, each CPU's task and stack are known.
func testCPUs(ctx context.Context, t *testing.T, g *outside.Guest) {
	err := g.Stopped(ctx, func() error {
		tasks, err := g.Tasks(ctx)
		if err != nil {
			return err
		}
		if tasks.Torn != "" {
			t.Errorf("torn: %s", tasks.Torn)
		}
		for _, c := range tasks.CPUs {
			name := "unknown"
			if one := tasks.Current(c.ID); one != nil {
				name = one.Name()
			} else if _, data := g.Addr("runqueues"); data || c.ID == 0 {
				t.Errorf("the task of CPU %d is not known", c.ID)
			}
			s, err := tasks.CPUStack(c.ID)
			if err != nil {
				return err
			}
			t.Logf("CPU %d: %s %s\n%s", c.ID, name, s.Note, s.TRACE32())
			if s.Note == "" && (s.Truncated || len(s.Frames) == 0) {
				t.Errorf("the stack of %s on CPU %d is not whole", name, c.ID)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// lines are a stack as /proc/PID/stack prints it.
func lines(s stack.Stack) (out []string) {
	for _, f := range s.Frames {
		out = append(out, f.String())
	}
	return out
}

// compareStacks holds stacks against /proc/PID/stack. Those of tasks that slept throughout
// must be the same; of all tasks 98 of a hundred, since few run at a time.
func compareStacks(t *testing.T, tasks *task.Tasks, seen map[int]stack.Stack, inside []wire.Sleeper, slept func(tid int) bool, bits int) {
	t.Helper()
	same, compared, moved := 0, 0, 0
	for _, s := range inside {
		out, ok := seen[s.TID]
		if !ok || len(s.Stack) == 0 && (s.Wchan == "" || s.Wchan == "0") {
			continue
		}
		var want []string
		for _, line := range s.Stack {
			f, _ := stack.ParseFrame(line)
			if f.Name != "" || f.PC != 0 && f.PC != ^uint64(0)>>(64-bits) { // older kernels print what ends a stack
				want = append(want, f.String())
			}
		}
		got := lines(tasks.TrimScheduler(out))
		if !slept(s.TID) {
			moved++
			continue
		}
		compared++
		// 32-bit Arm with several CPUs has no stacks of other tasks
		// (arch/arm/kernel/stacktrace.c), but tells where they wait.
		if len(want) == 0 {
			got, want = []string{tasks.TrimScheduler(out).Frames[0].Name}, []string{s.Wchan}
		}
		if slices.Equal(got, want) {
			same++
			continue
		}
		t.Errorf("task %d %s:\n  outside %s\n  inside  %s", s.TID, s.Comm, strings.Join(got, "\n          "), strings.Join(want, "\n          "))
	}
	t.Logf("%d of %d stacks are the same; %d tasks ran meanwhile", same, compared, moved)
	if compared < 20 {
		t.Errorf("%d stacks could be compared, want at least 20", compared)
	}
}
