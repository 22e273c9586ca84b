package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/host/vm/qemu"
)

// TestParseRegisters parses QEMU 7.2's output for two guests whose first CPU loops with
// interrupts disabled.
func TestParseRegisters(t *testing.T) {
	for _, tt := range []struct {
		file string
		want []string
	}{
		{"amd64.txt", []string{
			"CPU 0: pc 0xffffffff8b2e3471, CPL=0, interrupts masked",
			"CPU 1: pc 0xffffffff8bf0356f, CPL=0, halted",
		}},
		// A kernel that stopped before its first line, with an address in R15.
		{"amd64-r15.txt", []string{
			"CPU 0: pc 0xffffffff81506142, CPL=0, halted, interrupts masked",
			"CPU 1: pc 0xfd09a, CPL=0, halted, interrupts masked",
		}},
		{"arm64.txt", []string{
			"CPU 0: pc 0xffffac6942ec946c, EL1h, interrupts masked",
			"CPU 1: pc 0xffffac6943cf31c0, EL1h, interrupts masked",
		}},
	} {
		b, err := os.ReadFile(filepath.Join("testdata/registers", tt.file))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range ParseRegisters(string(b)) {
			got = append(got, c.String())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.file, diff)
		}
	}
	// arm, as target/arm/cpu.c prints it.
	got := ParseRegisters("\nCPU#0\nR00=00000000 R01=c1804ec8 R02=00000001 R03=c0119ea0\nR12=00000000 R13=c1801f68 R14=c0109a3c R15=c0109a40\nPSR=600f0013 -ZC- A NS svc32\n")
	want := []CPU{{PC: 0xc0109a40, Mode: "svc32", Regs: map[string]uint64{
		"r00": 0, "r01": 0xc1804ec8, "r02": 1, "r03": 0xc0119ea0, "r12": 0, "r13": 0xc1801f68, "r14": 0xc0109a3c, "r15": 0xc0109a40, "psr": 0x600f0013,
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arm (-want +got):\n%s", diff)
	}
}

// TestRegisterNames: the registers that stacks are unwound from.
func TestRegisterNames(t *testing.T) {
	for file, want := range map[string]map[string]uint64{
		"amd64.txt": {"rip": 0xffffffff8b2e3471, "rsp": 0, "rbp": 0, "r8": 0, "r13": 0},
		"arm64.txt": {"pc": 0xffffac6942ec946c, "sp": 0, "x29": 0, "x30": 0, "x00": 0},
	} {
		b, err := os.ReadFile(filepath.Join("testdata/registers", file))
		if err != nil {
			t.Fatal(err)
		}
		cpu := ParseRegisters(string(b))[0]
		for name, v := range want {
			if got, ok := cpu.Regs[name]; !ok || v != 0 && got != v {
				t.Errorf("%s: %s = %#x, %t; want %#x", file, name, got, ok, v)
			}
		}
	}
}

func FuzzParseRegisters(f *testing.F) {
	files, err := filepath.Glob("testdata/registers/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, out string) {
		cpus := ParseRegisters(out)
		if len(cpus) > maxCPUs {
			t.Errorf("%d CPUs, want at most %d", len(cpus), maxCPUs)
		}
		for _, c := range cpus {
			if s := c.String(); len(s) > 200 && len(c.Mode) < 50 || strings.ContainsAny(s, "\n\x1b") {
				t.Errorf("CPU %q", s)
			}
		}
	})
}

// TestRefused: a QEMU that rejects its command line, or lacks the machine, is not
// reported as a dead guest.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		machine string
		why     string
	}{
		{"a machine that it lacks", "nosuch", "qemu-system-aarch64 exited with status 1: "},
		{"an option that the machine lacks", "virt,nosuch=on", "nosuch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tgt := row(t, "arm64")
			tgt.Machine = tt.machine
			cfg := Config{Target: tgt, Link: tgt.Links[0], Image: "/dev/null", Accel: "tcg", ConsoleLog: filepath.Join(t.TempDir(), "console.log")}
			_, err := Boot(t.Context(), cfg)
			var boot *BootError
			var refused *RefusedError
			var exit *qemu.ExitError
			if !errors.As(err, &boot) || !errors.As(err, &refused) || !errors.As(err, &exit) || boot.Deadline || !strings.Contains(fmt.Sprint(err), tt.why) {
				t.Errorf("Boot = %T %v; want a *BootError with a *RefusedError: %s", err, err, tt.why)
			}
		})
	}
}

func TestStateErrors(t *testing.T) {
	cause := errors.New("probe x: deadline")
	late := &DeadlineError{After: 1500 * time.Millisecond, Cause: cause}
	if got, want := late.Error(), "probe x: deadline (the guest is up for 1.5 s)"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	var as *DeadlineError
	silent := error(&AgentError{late})
	if !errors.As(silent, &as) || as != late || !errors.Is(silent, cause) {
		t.Errorf("%v does not hold its DeadlineError and that one's cause", silent)
	}
}
