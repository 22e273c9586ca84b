package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/record"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// boot starts m and, if the test fails, logs the command line and the end of the
// console.
func boot(t *testing.T, m *Machine) (*vm.VM, record.Dir) {
	t.Helper()
	dir := record.Dir{Path: t.TempDir()}
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Boot(t.Context(), Env{Cache: cache, Say: func(s string) { t.Log(s) }}, dir, nil)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, name := range []string{record.QEMUFile, record.ConsoleFile} {
			b, _ := os.ReadFile(dir.File(name))
			t.Logf("%s:\n%s", name, b[max(0, len(b)-4000):])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return v, dir
}

// end waits for the guest's end and returns its cause.
func end(t *testing.T, v *vm.VM, within time.Duration) error {
	t.Helper()
	select {
	case <-v.Context().Done():
		return context.Cause(v.Context())
	case <-time.After(within):
		t.Fatalf("the guest is still there after %s", within)
		return nil
	}
}

func TestBoot(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	env := Env{Cache: cache, Say: func(s string) { t.Log(s) }}
	m, err := Prepare(t.Context(), env, Spec{Arch: "arm64", Kernel: "6.12", Commands: true, Cold: true})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("power off", func(t *testing.T) {
		v, dir := boot(t, m)
		var got []string
		for _, p := range v.Timings() {
			got = append(got, string(p.Phase))
			if p.Took <= 0 {
				t.Errorf("phase %s took %s, want more than nothing", p.Phase, p.Took)
			}
		}
		if want := "qemu kernel init hello"; strings.Join(got, " ") != want {
			t.Errorf("phases %q, want %s", got, want)
		}
		if h := v.Hello(); h.Arch != "arm64" || h.CPUs != m.Target.CPUs || h.Release != m.Kernel.Release {
			t.Errorf("hello %+v, want arm64, %d CPUs, %s", h, m.Target.CPUs, m.Kernel.Release)
		}
		var out bytes.Buffer
		res, err := v.Agent().Exec(v.Context(), wire.ExecParams{Argv: []string{"/bin/sh", "-c", "uname -m; exit 3"}}, agent.IO{Stdout: &out})
		if err != nil || res.Code != 3 || out.String() != "aarch64\n" {
			t.Errorf("Exec = %+v, %v, output %q", res, err, out.String())
		}

		var run record.Run
		m.Describe(&run, v)
		if run.Kernel.SHA256 == "" || run.Target.CPUs != m.Target.CPUs || run.QEMU.Version == "" || len(run.Phases) != 4 {
			t.Errorf("Describe = %+v", run)
		}
		b, err := os.ReadFile(dir.File(record.QEMUFile))
		if err != nil || !strings.HasPrefix(string(b), "qemu-system-aarch64 ") {
			t.Errorf("qemu.txt = %.40q, %v", b, err)
		}
		if b, err := os.ReadFile(dir.File(record.ConsoleFile)); err != nil || !bytes.Contains(b, []byte("Linux version "+m.Kernel.Release)) {
			t.Errorf("console.log of %d bytes, %v: no banner", len(b), err)
		}

		_, err = v.Agent().Exec(v.Context(), wire.ExecParams{Argv: []string{"poweroff"}}, agent.IO{})
		if why := v.Why(err); why != nil && !errors.Is(why, vm.ErrPoweredOff) {
			t.Errorf("poweroff = %v", why)
		}
		if err := end(t, v, time.Minute); !errors.Is(err, vm.ErrPoweredOff) {
			t.Errorf("the guest ended by %v, want ErrPoweredOff", err)
		}
		if len(v.Reports()) != 0 {
			t.Errorf("crashes on the console: %v", v.Reports())
		}
	})

	t.Run("QEMU killed", func(t *testing.T) {
		v, _ := boot(t, m)
		var killed time.Time
		started := func(*agent.Call) {
			time.AfterFunc(500*time.Millisecond, func() {
				killed = time.Now()
				syscall.Kill(v.PID(), syscall.SIGKILL)
			})
		}
		_, err := v.Agent().Exec(v.Context(), wire.ExecParams{Argv: []string{"sleep", "100"}}, agent.IO{Started: started})
		why := v.Why(err)
		if took := time.Since(killed); took > 10*time.Second {
			t.Errorf("the error came after %s", took)
		}
		if got, want := fmt.Sprint(why), "qemu-system-aarch64 was killed by SIGKILL"; !strings.Contains(got, want) {
			t.Errorf("Exec = %v: %v, want %q", err, why, want)
		}
		if err := end(t, v, 10*time.Second); fmt.Sprint(err) != fmt.Sprint(why) {
			t.Errorf("the guest ended by %v, the program by %v", err, why)
		}
	})

	t.Run("closed", func(t *testing.T) {
		v, _ := boot(t, m)
		if err := v.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		if err := end(t, v, time.Second); err == nil || errors.Is(err, vm.ErrPoweredOff) || !strings.Contains(err.Error(), "the VM was closed") {
			t.Errorf("the guest ended by %v, want that it was closed", err)
		}
	})
}
