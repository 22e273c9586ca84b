package machine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/registry"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// TestInspect reads a guest's memory and registers from outside, stops it, and talks to
// its gdbstub.
func TestInspect(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			m, err := Prepare(t.Context(), Env{Cache: cache, Say: func(s string) { t.Log(s) }}, Spec{Arch: arch, Kernel: "6.12"})
			if err != nil {
				t.Fatal(err)
			}
			v, _ := boot(t, m)
			ctx, cancel := context.WithTimeout(v.Context(), v.Patient(time.Minute))
			defer cancel()

			// What a program of this clone has in its memory is in no file of the template's.
			token := rand.Text()
			if _, err := v.Agent().Unpack(ctx, "/tmp", archive(t, "token", []byte(token))); err != nil {
				t.Fatal(err)
			}
			testInspector(ctx, t, m, v, v, token)

			// The same by way of the registry, as from another process.
			runtime := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(runtime, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("XDG_RUNTIME_DIR", runtime)
			info := m.Entry(v)
			info.Name, info.Named = "lab", true
			entry, err := registry.Register(v, info, nil)
			if err != nil {
				t.Fatal(err)
			}
			joined, err := registry.Find(ctx, "")
			if err != nil {
				t.Fatal(err)
			}
			defer joined.Close()
			if joined.Arch != arch || joined.QEMU != v.PID() || joined.Kernel.Release != m.Kernel.Release || joined.Template != v.Template() || joined.Template == "" {
				t.Errorf("the machine is known as %+v", joined.Info)
			}
			testInspector(ctx, t, m, v, joined, token)
			testVanish(t, v, filepath.Join(runtime, "labctl", "lab.sock"))
			ended := make(chan error, 1)
			go func() { ended <- joined.Wait(ctx) }()
			if err := entry.Close(nil); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("Wait = %v", err)
			}
			if _, err := joined.Registers(ctx); err == nil || outcome.Of(err) != outcome.GuestCrashed {
				t.Errorf("Registers of a machine that has ended = %v", err)
			}
		})
	}
}

// testInspector looks at v by in.
func testInspector(ctx context.Context, t *testing.T, m *Machine, v *vm.VM, in vm.Inspector, token string) {
	t.Helper()
	mem, err := in.Memory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if forbidden := os.Getenv(forbiddenEnv) != ""; forbidden != (mem.File == nil) || forbidden != strings.Contains(mem.Slow, "permission denied: this user may not read") {
		t.Fatalf("the memory is that of the file %v (%s), while this host forbids that: %t", mem.File, mem.Slow, forbidden)
	}
	if sum := size(mem); sum < uint64(m.Target.MemoryMB-1)<<20 || sum > uint64(m.Target.MemoryMB)<<20 {
		t.Errorf("%d bytes of memory in %+v, want about %d MB", sum, mem.Regions, m.Target.MemoryMB)
	}
	for _, what := range []string{"Linux version " + m.Kernel.Release, token} {
		if !contains(t, mem, what) {
			t.Errorf("the memory does not have %q", what)
		}
	}
	if _, err := mem.ReadAt(make([]byte, 16), int64(mem.Regions[len(mem.Regions)-1].Base+mem.Regions[len(mem.Regions)-1].Size-8)); err != io.EOF {
		t.Errorf("ReadAt beyond the memory = %v, want EOF", err)
	}
	testTasks(ctx, t, m, in)
	regs, err := in.Registers(ctx)
	if err != nil || strings.Count(regs, "CPU#") != m.Target.CPUs {
		t.Errorf("Registers = %.100q, %v; want those of %d CPUs", regs, err, m.Target.CPUs)
	}
	testStop(t, v, in)
	testGDB(ctx, t, v, in)
}

// testTasks finds the kernel in the memory, and lists the tasks with their stacks.
func testTasks(ctx context.Context, t *testing.T, m *Machine, in vm.Inspector) {
	t.Helper()
	start := time.Now()
	g, err := outside.Open(ctx, in, m.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	found := time.Since(start)
	tasks, err := g.Tasks(ctx)
	if err != nil {
		t.Fatal(err)
	}
	listed, frames := time.Since(start)-found, 0
	for i := range tasks.List {
		if s, err := tasks.Stack(&tasks.List[i]); err == nil {
			frames += len(s.Frames)
		}
	}
	t.Logf("the kernel is found in %v, %d tasks are listed in %v, their stacks read in %v: %d frames", found, len(tasks.List), listed, time.Since(start)-found-listed, frames)
	if one := tasks.Find(1); one == nil || one.Comm != "labinit" || frames < 100 {
		t.Errorf("%d tasks with %d frames; pid 1 is %+v", len(tasks.List), frames, one)
	}
}

func size(m *vm.Memory) (sum uint64) {
	for _, r := range m.Regions {
		sum += r.Size
	}
	return sum
}

func contains(t *testing.T, m *vm.Memory, what string) bool {
	t.Helper()
	const step = 1 << 20
	buf := make([]byte, step+256)
	for _, r := range m.Regions {
		for off := uint64(0); off < r.Size; off += step {
			n, err := m.ReadAt(buf[:min(uint64(len(buf)), r.Size-off)], int64(r.Base+off))
			if err != nil && err != io.EOF {
				t.Fatalf("ReadAt(%#x): %v", r.Base+off, err)
			}
			if bytes.Contains(buf[:n], []byte(what)) {
				return true
			}
		}
	}
	return false
}

// answers reports whether the guest's agent answers.
func answers(v *vm.VM, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(v.Context(), wait)
	defer cancel()
	_, err := v.Agent().Stat(ctx)
	return err == nil
}

func testStop(t *testing.T, v *vm.VM, in vm.Inspector) {
	t.Helper()
	one, err := in.Stop(v.Context())
	if err != nil {
		t.Fatal(err)
	}
	two, err := in.Stop(v.Context())
	if err != nil {
		t.Fatal(err)
	}
	if answers(v, time.Second) {
		t.Error("a stopped guest answers")
	}
	for range 2 { // the second time does nothing
		if err := one(); err != nil {
			t.Error(err)
		}
	}
	if answers(v, time.Second) {
		t.Error("a guest that is held by another answers")
	}
	if err := two(); err != nil {
		t.Error(err)
	}
	if !answers(v, v.Patient(20*time.Second)) {
		t.Error("a guest that was resumed does not answer")
	}
}

func testGDB(ctx context.Context, t *testing.T, v *vm.VM, in vm.Inspector) {
	t.Helper()
	at := symbol(t, v, "schedule")
	for range 2 {
		conn, err := in.GDB(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.GDB(ctx); err == nil || !strings.Contains(err.Error(), vm.ErrDebugged.Error()) || outcome.Of(err) != outcome.BadInput {
			t.Errorf("second GDB = %v, want %v", err, vm.ErrDebugged)
		}
		if answers(v, time.Second) {
			t.Error("the guest runs with a debugger connected")
		}
		// A breakpoint that every task meets must be gone afterwards.
		gdb := &stub{t, conn, bufio.NewReader(conn)}
		if got := gdb.ask("?"); !strings.HasPrefix(got, "T") {
			t.Errorf("gdb: why it stopped = %q", got)
		}
		if got := gdb.ask(fmt.Sprintf("Z0,%x,4", at)); got != "OK" {
			t.Errorf("gdb: breakpoint = %q", got)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if !answers(v, v.Patient(20*time.Second)) {
			t.Fatal("the guest does not run after the debugger")
		}
	}
	res, err := v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "ids"}}, agent.IO{})
	if err != nil || res.Code != 0 {
		t.Errorf("a program after the debugger = %+v, %v", res, v.Why(err))
	}
}

// testVanish stops the guest and goes away without a word.
func testVanish(t *testing.T, v *vm.VM, socket string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`{"schema":"labctl/machine/v1","op":"stop"}`, `{"schema":"labctl/machine/v1","op":"dance"}`, "rubbish"} {
		fmt.Fprintln(conn, line)
		got, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || strings.Contains(got, `"error"`) != !strings.Contains(line, "stop") {
			t.Errorf("%s is answered by %q, %v", line, got, err)
		}
	}
	if answers(v, time.Second) {
		t.Error("a stopped guest answers")
	}
	conn.Close()
	if !answers(v, v.Patient(20*time.Second)) {
		t.Error("the guest does not go on without the one who has stopped it")
	}
}
