package machine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
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
			mem, err := v.Memory(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			if sum := size(mem); sum < uint64(m.Target.MemoryMB-1)<<20 || sum > uint64(m.Target.MemoryMB)<<20 {
				t.Errorf("%d bytes of memory in %+v, want about %d MB", sum, mem.Regions, m.Target.MemoryMB)
			}
			for _, what := range []string{"Linux version " + m.Kernel.Release, token} {
				if !contains(t, mem, what) {
					t.Errorf("the memory does not have %q", what)
				}
			}
			regs, err := v.Registers(ctx)
			if err != nil || strings.Count(regs, "CPU#") != m.Target.CPUs {
				t.Errorf("Registers = %.100q, %v; want those of %d CPUs", regs, err, m.Target.CPUs)
			}
			testStop(t, v)
			testGDB(ctx, t, v)
		})
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

func testStop(t *testing.T, v *vm.VM) {
	t.Helper()
	one, err := v.Stop(v.Context())
	if err != nil {
		t.Fatal(err)
	}
	two, err := v.Stop(v.Context())
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

func testGDB(ctx context.Context, t *testing.T, v *vm.VM) {
	t.Helper()
	at := symbol(t, v, "schedule")
	for range 2 {
		conn, err := v.GDB(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.GDB(ctx); !errors.Is(err, vm.ErrDebugged) {
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
