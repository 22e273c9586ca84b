package machine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/faults"
	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/outside"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// TestGuilty: what keeps a guest from going on is in the error's line, and all tasks with
// their stacks are in the record.
func TestGuilty(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			m, err := Prepare(t.Context(), Env{Cache: cache, Say: func(s string) { t.Log(s) }}, Spec{Arch: arch, Kernel: "6.12", CPUs: 2})
			if err != nil {
				t.Fatal(err)
			}
			// Each on one architecture: starting machines takes most of the time.
			if arch == "arm64" {
				t.Run("deadlock", func(t *testing.T) {
					g := load(t, m, faults.Deadlock)
					g.want(t, `: fault:\d+ waits for a mutex that it holds itself, in (rtnl_lock|fault_deadlock \[labfault\])$`, `(?m)^-00\d\|__mutex_lock`, `(?m)^-00\d\|fault_deadlock\(`)
				})
				t.Run("PID 1", func(t *testing.T) {
					g := stickInit(t, m)
					g.want(t, `: labinit:\d+ keeps CPU \d, in \w+clock_settime$`, `(?m)^// labinit, pid 1(, tid \d+)?, on CPU \d\n(-\d.*\n| -->.*\n)*?-\d+\|\w+clock_settime`)
				})
				return
			}
			t.Run("spin", func(t *testing.T) {
				g := load(t, m, faults.Spin, "stay")
				g.want(t, `: \[labspin\]:\d+ keeps CPU \d, in fault_spin \[labfault\]$`, `(?m)^// \[labspin\], pid \d+, on CPU \d\n(-\d.*\n| -->.*\n)*?-\d+\|fault_spin\(`, `\[kthreadd\]\n`, `\blabinit\n`)
			})
			t.Run("panic in an interrupt", func(t *testing.T) {
				g := boots(t, m)
				err := g.v.Why(g.run(t, faults.IPI, nil))
				var crashed *vm.CrashError
				if !errors.As(err, &crashed) || !strings.Contains(err.Error(), faults.PanicText) || crashed.Tasks != g.dir.File(record.TasksFile) {
					t.Fatalf("the end is %T %v; want the panic, with tasks", err, err)
				}
				g.wantTasks(t, `(?m)^-0\d\d\|panic\(`, `(?m)^-0\d\d\|fault_ipi\(`, `\[swapper/1\]\n`)
			})
		})
	}
}

type guilty struct {
	v   *vm.VM
	m   *Machine
	dir record.Dir
}

func boots(t *testing.T, m *Machine) *guilty {
	t.Helper()
	v, dir := boot(t, m)
	return &guilty{v, m, dir}
}

// run runs a program that loads a module with a fault.
func (g *guilty) run(t *testing.T, f faults.Fault, out *signalWriter, args ...string) error {
	t.Helper()
	arch := g.m.Target.Arch
	donors, err := g.m.Kernel.Modules(faults.Donor)
	if err != nil {
		t.Fatal(err)
	}
	module, err := faults.Build(donors[len(donors)-1].Data, faults.Donor, f)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "fault")
	if err := faults.WriteProgram(dir, map[string][]byte{arch: module}); err != nil {
		t.Fatal(err)
	}
	p, err := program.Find(t.Context(), dir, arch)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var bundle program.Bundle
	if err := bundle.AddProgram(p); err != nil {
		t.Fatal(err)
	}
	if err := bundle.Send(g.v.Context(), g.v.Agent()); err != nil {
		t.Fatal(err)
	}
	if out == nil {
		out = &signalWriter{}
	}
	res, err := g.v.Agent().Exec(g.v.Context(), wire.ExecParams{Argv: append([]string{p.Argv0}, args...)}, agent.IO{Stdout: out, Stderr: out})
	if err == nil {
		t.Errorf("%s ended with %+v: %s", f, res, out.String())
	}
	return err
}

// signalWriter tells when it gets a text.
type signalWriter struct {
	bytes.Buffer
	ch chan struct{}
}

func (w *signalWriter) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if w.ch != nil && strings.Contains(w.String(), "waiting") {
		close(w.ch)
		w.ch = nil
	}
	return n, err
}

// load boots a machine and has a program be at fault in it, until that is to be seen.
func load(t *testing.T, m *Machine, f faults.Fault, args ...string) *guilty {
	t.Helper()
	g := boots(t, m)
	out := &signalWriter{ch: make(chan struct{})}
	waiting := out.ch
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.run(t, f, out, args...) // ends with the guest
	}()
	t.Cleanup(func() { g.v.Close(); <-done })
	if len(args) > 0 {
		select {
		case <-waiting:
		case <-done:
			t.Fatalf("%s %v ended", f, args)
		}
		return g
	}
	g.until(t, func(o *outside.Guest) bool {
		tasks, err := o.Tasks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range tasks.List {
			if one.Comm != "fault" || one.State != "D" {
				continue
			}
			s, err := tasks.Stack(&one)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(s.Frames, func(f stack.Frame) bool { return strings.HasPrefix(f.Base(), "fault_") }) {
				return true
			}
		}
		return false
	})
	return g
}

// until waits for something to be seen from outside.
func (g *guilty) until(t *testing.T, ok func(*outside.Guest) bool) {
	t.Helper()
	o, err := outside.Open(t.Context(), g.v, g.m.Kernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for end := time.Now().Add(g.v.Patient(time.Minute)); !ok(o); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was to happen did not")
		}
	}
}

// stickInit boots a machine and makes its PID 1 loop in a system call.
func stickInit(t *testing.T, m *Machine) *guilty {
	t.Helper()
	g := boots(t, m)
	name, code := "__x64_sys_clock_settime", []byte{0xeb, 0xfe} // jmp .
	if m.Target.Arch == "arm64" {
		name, code = "__arm64_sys_clock_settime", []byte{0, 0, 0, 0x14} // b .
	}
	at := symbol(t, g.v, name)
	patch(t, g.v, at, code)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.v.Agent().Resume(g.v.Context(), wire.ResumeParams{UnixNano: time.Now().UnixNano(), Entropy: make([]byte, vm.EntropyBytes)}) // ends with the guest
	}()
	t.Cleanup(func() { g.v.Close(); <-done })
	g.until(t, func(o *outside.Guest) bool {
		cpus, err := o.CPUs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cpus {
			if c.PC >= at && c.PC < at+uint64(len(code)) {
				return true
			}
		}
		return false
	})
	return g
}

// want holds what a deadline says against patterns.
func (g *guilty) want(t *testing.T, line string, tasks ...string) {
	t.Helper()
	err := g.v.Why(context.DeadlineExceeded)
	var late *vm.DeadlineError
	if !errors.As(err, &late) || !regexp.MustCompile(line).MatchString(err.Error()) || late.Tasks != g.dir.File(record.TasksFile) {
		t.Errorf("the deadline is %T %v; want it to end with %s", err, err, line)
	}
	g.wantTasks(t, tasks...)
}

func (g *guilty) wantTasks(t *testing.T, patterns ...string) {
	t.Helper()
	text, err := os.ReadFile(g.dir.File(record.TasksFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range patterns {
		if !regexp.MustCompile(p).Match(text) {
			t.Errorf("no %s in\n%s", p, text)
		}
	}
}
