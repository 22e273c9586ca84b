package machine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/kernel"
	"labctl/host/record"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// TestHang hangs a kernel: a debugger patches a system call with an endless loop with
// interrupts disabled, and a program then calls it.
func TestHang(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	env := Env{Cache: cache, Say: func(s string) { t.Log(s) }}
	for _, tt := range []struct {
		arch   string
		cpus   int
		silent bool // with another CPU the agent may answer, or wait for this one
		symbol string
		code   []byte
	}{
		{"arm64", 1, true, "__arm64_sys_getppid", []byte{0xdf, 0x4f, 0x03, 0xd5, 0, 0, 0, 0x14}}, // msr daifset, #15; b .
		{"amd64", 2, false, "__do_sys_getppid", []byte{0xfa, 0xeb, 0xfe}},                        // cli; jmp .
	} {
		t.Run(fmt.Sprintf("%s-%d", tt.arch, tt.cpus), func(t *testing.T) {
			m, err := Prepare(t.Context(), env, Spec{Arch: tt.arch, Kernel: "6.12", CPUs: tt.cpus})
			if err != nil {
				t.Fatal(err)
			}
			v, dir := boot(t, m)
			at := symbol(t, v, tt.symbol)
			patch(t, v, at, tt.code)

			ctx, cancel := context.WithTimeoutCause(v.Context(), 6*time.Second, fmt.Errorf("test: %w", context.DeadlineExceeded))
			defer cancel()
			_, err = v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "ids"}}, agent.IO{})
			err = v.Why(err)
			var late *vm.DeadlineError
			var silent *vm.AgentError
			if !errors.As(err, &late) || tt.silent && !errors.As(err, &silent) {
				t.Fatalf("error is %T %v; want a deadline, the agent silent: %t", err, err, tt.silent)
			}
			stuck := 0
			for _, c := range late.CPUs {
				if c.PC >= at && c.PC < at+uint64(len(tt.code)) && c.Masked {
					stuck++
				}
			}
			if len(late.CPUs) != tt.cpus || stuck != 1 {
				t.Errorf("CPUs %v; want %d, one of them at 0x%x", late.CPUs, tt.cpus, at)
			}
			kept, err := os.ReadFile(dir.File(record.RegistersFile))
			if err != nil || string(kept) != late.Registers || late.File != dir.File(record.RegistersFile) {
				t.Errorf("%s holds %d bytes, %v; want the %d of the error", late.File, len(kept), err, len(late.Registers))
			}
		})
	}
}

// TestReset: a triple fault is not a shutdown by the guest. Without an
// interrupt table there is none for int3, and none for that.
func TestReset(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Prepare(t.Context(), Env{Cache: cache, Say: func(s string) { t.Log(s) }}, Spec{Arch: "amd64", Kernel: "6.12"})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := boot(t, m)
	code := []byte{0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc} // push 0; push 0; lidt [rsp]; int3
	patch(t, v, symbol(t, v, "__do_sys_getppid"), code)
	_, err = v.Agent().Exec(v.Context(), wire.ExecParams{Argv: []string{"/labctl/labprobe", "ids"}}, agent.IO{})
	if err := v.Why(err); !errors.Is(err, vm.ErrReset) {
		t.Errorf("the guest ended by %v, want ErrReset", err)
	}
	if err := end(t, v, 20*time.Second); !errors.Is(err, vm.ErrReset) {
		t.Errorf("the context ended by %v, want ErrReset", err)
	}
}

// TestExpire: a deadline over the whole machine leaves its registers, too.
func TestExpire(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Prepare(t.Context(), Env{Cache: cache}, Spec{Arch: "arm64", Kernel: "6.12", CPUs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Template(t.Context(), Env{Cache: cache}); err != nil {
		t.Fatal(err)
	}
	why := errors.New("no more time")
	// On a busy host it takes longer until the guest is what the deadline is over.
	var v *vm.VM
	for limit := 6 * time.Second; ; limit *= 4 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), limit, why)
		defer cancel()
		if v, err = m.Boot(ctx, Env{Cache: cache}, record.Dir{}, nil); err == nil {
			defer v.Close()
			_, err = v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "ids"}, Stdin: true}, agent.IO{})
		}
		if err == nil {
			break
		}
		if ctx.Err() == nil || limit > 5*time.Minute {
			t.Fatal(err)
		}
		t.Logf("not up in %v", limit)
	}
	err = end(t, v, 10*time.Minute)
	var late *vm.DeadlineError
	if !errors.As(err, &late) || !errors.Is(err, why) || len(late.CPUs) != 1 || v.Why(why) != err {
		t.Errorf("the guest's end is %T %v, want a *DeadlineError of %q with its CPU", err, err, why)
	}
}

// symbol returns the address of a symbol in the guest's running kernel.
func symbol(t *testing.T, v *vm.VM, name string) uint64 {
	t.Helper()
	var all bytes.Buffer
	if err := v.Agent().ReadFile(v.Context(), "/proc/kallsyms", 64<<20, &all); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(all.String()) {
		if f := strings.Fields(line); len(f) >= 3 && f[2] == name {
			at, err := strconv.ParseUint(f[0], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
	}
	t.Fatalf("the kernel has no %s", name)
	return 0
}

// patch writes code into the guest's kernel with QEMU's gdbstub.
func patch(t *testing.T, v *vm.VM, at uint64, code []byte) {
	t.Helper()
	conn, err := v.GDB(v.Context())
	if err != nil {
		t.Fatal(err)
	}
	gdb := &stub{t, conn, bufio.NewReader(conn)}
	if got := gdb.ask(fmt.Sprintf("M%x,%x:%s", at, len(code), hex.EncodeToString(code))); got != "OK" {
		t.Fatalf("gdb: write %d bytes: %s", len(code), got)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// stub is a connection to QEMU's gdbstub.
type stub struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// ask sends a packet and returns the reply.
func (s *stub) ask(packet string) string {
	s.t.Helper()
	s.conn.SetDeadline(time.Now().Add(20 * time.Second))
	sum := byte(0)
	for _, c := range []byte(packet) {
		sum += c
	}
	fmt.Fprintf(s.conn, "$%s#%02x", packet, sum)
	if _, err := s.r.ReadString('$'); err != nil {
		s.t.Fatalf("gdb %.20s: %v", packet, err)
	}
	reply, err := s.r.ReadString('#')
	if err != nil {
		s.t.Fatalf("gdb %.20s: %v", packet, err)
	}
	fmt.Fprint(s.conn, "+")
	return strings.TrimSuffix(reply, "#")
}

// TestOOM: the victim of the OOM killer is found by its pid.
func TestOOM(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Prepare(t.Context(), Env{Cache: cache, Say: func(s string) { t.Log(s) }}, Spec{Arch: "arm64", Kernel: "6.12", MemoryMB: 256})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := boot(t, m)
	if _, err := v.Agent().Unpack(v.Context(), "/tmp", glutton(t)); err != nil {
		t.Fatal(err)
	}
	res, err := v.Agent().Exec(v.Context(), wire.ExecParams{Argv: []string{"/tmp/glutton"}}, agent.IO{})
	if err != nil {
		t.Fatal(err)
	}
	r := v.Killed(res.PID)
	if !res.Signaled || res.Signal != 9 || r == nil || r.Kind != crash.OOM || r.Victim.PID != res.PID || len(r.Stack().Frames) == 0 {
		t.Errorf("glutton ended with %+v, Killed = %+v; want SIGKILL and its report with a stack", res, r)
	}
	if last := v.Killed(0); last == nil || last.Victim.PID != res.PID {
		t.Errorf("Killed(0) = %+v, want the last victim, %d", last, res.PID)
	}
}

// glutton returns an archive with an arm64 program that allocates memory endlessly.
func glutton(t *testing.T) io.Reader {
	t.Helper()
	dir := t.TempDir()
	const source = `package main

var kept [][]byte

func main() {
	for {
		b := make([]byte, 4<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
}
`
	file := filepath.Join(dir, "glutton.go")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "glutton"), file)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	prog, err := os.ReadFile(filepath.Join(dir, "glutton"))
	if err != nil {
		t.Fatal(err)
	}
	return archive(t, "glutton", prog)
}

// archive returns a tar archive with one file.
func archive(t *testing.T, name string, content []byte) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}
