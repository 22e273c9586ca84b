package accel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"labctl/host/cachedir"
	"labctl/host/vm/qemu"
)

var (
	withKVM    = flag.Bool("kvm", false, "also try KVM on this host")
	kernelFile = flag.String("kernel", "", "also boot this kernel, of the host's architecture")
)

var binaries = map[string]string{"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}

// other is an architecture that KVM on this host cannot run.
func other() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// The guests under TCG, where every step works.
func TestGuestsRunUnderTCG(t *testing.T) {
	for arch, binary := range binaries {
		t.Run(arch, func(t *testing.T) {
			begin := time.Now()
			if err := prove(t.Context(), "tcg", Options{Binary: binary, Arch: arch}); err != nil {
				t.Error(err)
			}
			t.Logf("took %v", time.Since(begin))
		})
	}
}

func TestGuestSources(t *testing.T) {
	for _, tt := range []struct {
		want  []byte
		tools []string
		make  string
	}{
		{amd64Code, []string{"as", "ld"}, "as --64 -o $1/o guest/amd64.S && ld -Ttext=0xf0000 --oformat=binary -o $1/bin $1/o"},
		{arm64Code, []string{"llvm-mc", "llvm-objcopy"}, "llvm-mc -triple=aarch64 -filetype=obj -o $1/o guest/arm64.S && llvm-objcopy -O binary $1/o $1/bin"},
	} {
		t.Run(tt.tools[0], func(t *testing.T) {
			for _, tool := range tt.tools {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skipf("%s is not installed, so the source cannot be compared with the code", tool)
				}
			}
			dir := t.TempDir()
			if out, err := exec.Command("sh", "-c", tt.make, "sh", dir).CombinedOutput(); err != nil {
				t.Skipf("these tools do not assemble it: %v\n%s", err, out)
			}
			got, err := os.ReadFile(filepath.Join(dir, "bin"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, tt.want) {
				t.Error("the code is not what the source gives: go generate")
			}
		})
	}
}

// patched returns the amd64 guest with the first occurrence of old replaced.
func patched(t *testing.T, old, new []byte) guest {
	t.Helper()
	g := guests["amd64"]
	image := g.image()
	i := bytes.Index(image, old)
	if i < 0 || len(old) != len(new) {
		t.Fatalf("no %x to patch", old)
	}
	copy(image[i:], new)
	g.image = func() []byte { return image }
	return g
}

// Defective guests simulate a KVM that breaks guests.
func TestFailingGuests(t *testing.T) {
	shlx := []byte{0xc4, 0xe2, 0xf1, 0xf7, 0xc0}
	for _, tt := range []struct {
		name     string
		old, new []byte
		want     string
	}{
		{"undefined instruction", shlx, []byte{0x0f, 0x0b, 0x90, 0x90, 0x90}, `unexpected exception "F" at vector instructions`},
		{"wrong result", shlx, []byte{0x31, 0xc0, 0x90, 0x90, 0x90}, "wrong result at vector instructions"},
		{"triple fault", []byte{0x0f, 0x30, 0x0f, 0x20, 0xc0}, []byte{0x90, 0x90, 0x0f, 0x20, 0xc0}, "no answer at long mode"},
		{"end without its letters", []byte{0xb0, 'T', 0xee}, []byte{0xeb, 0x08, 0x90}, "no answer at timer interrupts: qemu-system-x86_64 exited with status 85"},
		{"crawl", []byte{0x00, 0x2d, 0x31, 0x01}, []byte{0xff, 0xff, 0xff, 0xff}, "no answer at speed after 4."},
		{"hang", []byte{0xfa, 0xfc}, []byte{0xeb, 0xfe}, "no answer at first instruction after 4."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := patched(t, tt.old, tt.new).run(t.Context(), "tcg", binaries["amd64"])
			var found *failure
			if !errors.As(err, &found) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("run = %v; want a failure with %q", err, tt.want)
			}
		})
	}
}

func TestQEMUsRefusalIsTheReason(t *testing.T) {
	err := prove(t.Context(), "nonesuch", Options{Binary: binaries["amd64"], Arch: "amd64"})
	var found *failure
	if !errors.As(err, &found) || !strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("prove = %v; want a failure that quotes QEMU on nonesuch", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("reason %q; want one line", err)
	}
}

func TestEndedContextIsNoVerdict(t *testing.T) {
	g := patched(t, []byte{0xfa, 0xfc}, []byte{0xeb, 0xfe})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := g.run(ctx, "tcg", binaries["amd64"])
	var found *failure
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &found) {
		t.Errorf("run = %v; want DeadlineExceeded and no failure", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %v; want the context's 0.3 s", took)
	}
}

func TestJudge(t *testing.T) {
	g := guests["amd64"]
	for said, want := range map[string]string{
		"":              "no answer at first instruction",
		"RLCMEVSTX":     "",
		"RLCM":          "no answer at exceptions and ring 3",
		"RLC?":          "wrong result at model-specific registers",
		"RL!M":          `unexpected exception "M" at CPUID`,
		"RL!":           `unexpected exception "" at CPUID`,
		"RLCMEVSTXX":    `unexpected output "X" after the end`,
		"\x00\xff":      `unexpected output "\x00\xff" at first instruction`,
		"RLCMEVSTX\x00": `unexpected output "\x00" after the end`,
	} {
		if got := g.judge(said); got != want {
			t.Errorf("judge(%q) = %q; want %q", said, got, want)
		}
	}
}

func FuzzJudge(f *testing.F) {
	for _, s := range []string{"", "RLCMEVSTX", "RLC?", "RL!M", "RMLEVSTX"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		for arch, g := range guests {
			all := ""
			for _, s := range g.steps {
				all += string(rune(s.letter))
			}
			got := g.judge(said)
			if (got == "") != (said == all) || strings.Contains(got, "\n") {
				t.Errorf("%s: judge(%q) = %q; want praise for %q alone, in one line", arch, said, got, all)
			}
		}
	})
}

func TestJudgeKernel(t *testing.T) {
	const first = "[    0.000000] Linux version 6.12.107+deb13-amd64\n"
	exit := &qemu.ExitError{Code: -1, Argv: []string{"q"}}
	for _, tt := range []struct {
		name string
		r    result
		want string
	}{
		{"silent until stopped", result{stopped: true, err: exit}, "no first line"},
		{"firmware only", result{console: "Probing EDD (edd=off to disable)... ok\n", internal: true, err: exit}, "no first line"},
		{"lives", result{console: first, stopped: true, err: exit}, ""},
		{"KVM gives up later", result{console: first, internal: true, err: exit}, "QEMU stopped"},
		{"QEMU aborts later", result{console: first, err: exit}, "QEMU stopped"},
		{"triple fault", result{console: first}, "silent reset"},
		{"no root", result{console: first + "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"}, ""},
		{"power off", result{console: first + "[    1.0] reboot: Power down\n"}, ""},
	} {
		if got := judgeKernel(tt.r); got != tt.want {
			t.Errorf("%s: judgeKernel = %q; want %q", tt.name, got, tt.want)
		}
	}
}

func TestComplaint(t *testing.T) {
	const sign = "qemu-system-x86_64: "
	for in, want := range map[string]string{
		"": "",
		sign + "warning: host doesn't support requested feature: CPUID.01H:ECX.pni [bit 0]\n":                                                                                 "",
		sign + "error: failed to set MSR 0x10a to 0x69\n" + sign + "../../target/i386/kvm/kvm.c:3183: kvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.\n": "error: failed to set MSR 0x10a to 0x69",
		"KVM internal error. Suberror: 1\nextra data[0]: 0x0000000000000001\n":                                                                                                "KVM internal error. Suberror: 1",
	} {
		if got := complaint(in, sign); got != want {
			t.Errorf("complaint(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestOtherArchitecturesTakeTCG(t *testing.T) {
	for _, forced := range []string{"", "kvm", "tcg"} {
		t.Setenv(Env, forced)
		arch := other()
		v, err := Best(t.Context(), binaries[arch], arch)
		if err != nil {
			t.Fatal(err)
		}
		want, err := qemu.Version(binaries[arch])
		if err != nil {
			t.Fatal(err)
		}
		if v.Accel != "tcg" || v.Arch != arch || v.QEMU != want || !strings.Contains(v.Reason, "cannot run "+arch) {
			t.Errorf("Best(%s) with %s=%q = %+v; want tcg by QEMU %s", arch, Env, forced, v, want)
		}
	}
}

func TestForced(t *testing.T) {
	binary := binaries[runtime.GOARCH]
	for _, forced := range []string{"kvm", "tcg"} {
		t.Setenv(Env, forced)
		v, err := Fresh(t.Context(), binary, runtime.GOARCH)
		if err != nil || v.Accel != forced || v.Reason != Env+"="+forced {
			t.Errorf("Fresh with %s=%s = %+v, %v", Env, forced, v, err)
		}
	}
	t.Setenv(Env, "yes")
	if _, err := Best(t.Context(), binary, runtime.GOARCH); err == nil || !strings.Contains(err.Error(), "want kvm or tcg") {
		t.Errorf("Best with %s=yes = %v; want an error", Env, err)
	}
	var nf *qemu.NotFoundError
	if _, err := Best(t.Context(), "qemu-system-nonesuch", "amd64"); !errors.As(err, &nf) {
		t.Errorf("Best(nonesuch) = %v; want *NotFoundError", err)
	}
}

func TestDeviceTrouble(t *testing.T) {
	dir := t.TempDir()
	if got, want := deviceTrouble(filepath.Join(dir, "kvm")), "no "+dir+"/kvm"; got != want {
		t.Errorf("deviceTrouble(absent) = %q; want %q", got, want)
	}
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := deviceTrouble(there); got != "" {
		t.Errorf("deviceTrouble(usable) = %q; want none", got)
	}
	if got := deviceTrouble(dir); got == "" {
		t.Error("deviceTrouble(directory) = none")
	}
}

func TestCache(t *testing.T) {
	t.Setenv("LABCTL_CACHE", filepath.Join(t.TempDir(), "new"))
	f, err := qemu.Inspect(binaries["amd64"])
	if err != nil {
		t.Fatal(err)
	}
	k := hostKey(f)
	if k.Kernel == "" || k.Boot == "" || k.QEMU == "" || k.ModTime == 0 {
		t.Errorf("hostKey = %+v; want all but the device", k)
	}
	v := Verdict{Arch: "amd64", Accel: "kvm", Reason: "r", QEMU: "7", When: time.Now()}
	if _, ok := load("b", "amd64", k); ok {
		t.Error("load from nothing succeeded")
	}
	if err := store("b", k, v); err != nil {
		t.Fatal(err)
	}
	got, ok := load("b", "amd64", k)
	if !ok || !got.When.Equal(v.When) || got.Reason != v.Reason {
		t.Errorf("load = %+v, %v; want %+v", got, ok, v)
	}
	for name, change := range map[string]func(*key){
		"QEMU":   func(k *key) { k.QEMU = "8" },
		"binary": func(k *key) { k.ModTime++ },
		"kernel": func(k *key) { k.Kernel += "x" },
		"boot":   func(k *key) { k.Boot += "x" },
		"device": func(k *key) { k.Device ^= fs.ModePerm },
		"user":   func(k *key) { k.User++ },
	} {
		changed := k
		change(&changed)
		if _, ok := load("b", "amd64", changed); ok {
			t.Errorf("load with another %s succeeded", name)
		}
	}
	if _, ok := load("b", "arm64", k); ok {
		t.Error("load of another architecture succeeded")
	}
	if _, ok := load("c", "amd64", k); ok {
		t.Error("load of another binary succeeded")
	}

	dir, err := cachedir.Dir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, noteName), []byte("{ garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := load("b", "amd64", k); ok {
		t.Error("load of garbage succeeded")
	}
	if err := store("b", k, v); err != nil {
		t.Errorf("store over garbage: %v", err)
	}
}

func TestVerdictAge(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		accel string
		age   time.Duration
		want  bool
	}{
		{"kvm", 0, true},
		{"kvm", 100 * 24 * time.Hour, true},
		{"tcg", doubtAfter - time.Second, true},
		{"tcg", doubtAfter + time.Second, false},
		{"kvm", -time.Hour, false},
		{"hvf", 0, false},
		{"", 0, false},
	} {
		e := entry{Verdict: Verdict{Arch: "amd64", Accel: tt.accel, When: now.Add(-tt.age)}}
		if got := e.holds("amd64", key{}, now); got != tt.want {
			t.Errorf("%q of %v ago holds: %v; want %v", tt.accel, tt.age, got, tt.want)
		}
	}
}

func TestStoreAtOnce(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("LABCTL_CACHE", dir)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := store("b", key{}, Verdict{Arch: "amd64", Accel: "kvm", When: time.Now()}); err != nil {
					t.Error(err)
				}
				if _, ok := load("b", "amd64", key{}); !ok {
					t.Error("the file was not whole")
				}
			}
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(dir, "."+noteName+"-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzCache(f *testing.F) {
	f.Add([]byte(`{"qemu-system-x86_64 amd64":{"key":{"qemu":"7.2.22"},"verdict":{"arch":"amd64","accel":"kvm","when":"2026-01-02T03:04:05Z"}}}`))
	f.Add([]byte(`{"b amd64":{"verdict":{"accel":"-net"}}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var all kept
		if json.Unmarshal(text, &all) != nil {
			return
		}
		for _, e := range all {
			if e.holds(e.Verdict.Arch, e.Key, time.Now()) && e.Verdict.Accel != "kvm" && e.Verdict.Accel != "tcg" {
				t.Errorf("%q holds %q", text, e.Verdict.Accel)
			}
		}
	})
}

// With -kvm: whatever this host's KVM does, the verdict is in time and the cached one
// is the same.
func TestThisHost(t *testing.T) {
	if !*withKVM {
		t.Skip("opens /dev/kvm: run with -kvm")
	}
	t.Setenv("LABCTL_CACHE", t.TempDir())
	begin := time.Now()
	v, err := Fresh(t.Context(), binaries[runtime.GOARCH], runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v in %v", v, time.Since(begin))
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v; want at most 10 s", took)
	}
	begin = time.Now()
	again, err := Best(t.Context(), binaries[runtime.GOARCH], runtime.GOARCH)
	if err != nil || !again.When.Equal(v.When) || again.Accel != v.Accel {
		t.Errorf("Best = %+v, %v; want the kept %+v", again, err, v)
	}
	t.Logf("from the cache in %v", time.Since(begin))
}

// With -kernel: a kernel that boots under TCG passes the trial.
func TestKernelUnderTCG(t *testing.T) {
	if *kernelFile == "" {
		t.Skip("needs a kernel: run with -kernel FILE")
	}
	o := Options{Binary: binaries[runtime.GOARCH], Arch: runtime.GOARCH, Kernel: *kernelFile, FirstLine: time.Minute}
	begin := time.Now()
	if err := prove(t.Context(), "tcg", o); err != nil {
		t.Error(err)
	}
	t.Logf("took %v", time.Since(begin))
}
