package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const x86 = "qemu-system-x86_64"

// helperEnv makes the test binary start a QEMU and then die in the way it names.
const helperEnv = "QEMU_TEST_HELPER"

func TestMain(m *testing.M) {
	if how := os.Getenv(helperEnv); how != "" {
		helper(how)
	}
	os.Exit(m.Run())
}

func helper(how string) {
	c, err := New(x86, Defaults{}, Machine{Type: "none"}, options{"-S"}, QMP{})
	if err == nil {
		var p *Process
		if p, err = Start(context.Background(), c); err == nil {
			fmt.Println(p.PID())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	io.ReadFull(os.Stdin, make([]byte, 1)) // until the parent has looked at QEMU
	switch how {
	case "exit":
		os.Exit(0)
	case "panic":
		panic("as asked")
	case "goexit":
		runtime.Goexit()
	}
	select {}
}

// gone returns a function that waits for the process to end. A pidfd works also where
// orphans are not reaped, and with reused pids.
func gone(t *testing.T, pid int) func(within time.Duration) bool {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pidfd of %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(within time.Duration) bool {
		for end := time.Now().Add(within); time.Now().Before(end); {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds())+1)
			if n == 1 {
				return true
			}
			if err != nil && err != unix.EINTR {
				t.Fatalf("poll pidfd of %d: %v", pid, err)
			}
		}
		return false
	}
}

func TestNoQEMUSurvivesUs(t *testing.T) {
	found, err := find(x86)
	if err != nil {
		t.Fatal(err)
	}
	want, err := filepath.EvalSymlinks(found)
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"exit", "panic", "goexit", "SIGKILL", "SIGTERM", "SIGQUIT", "SIGSEGV"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), helperEnv+"="+how)
			cmd.Stderr = io.Discard
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatalf("helper: %v", err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != want {
				t.Fatalf("process %d is %q, %v; want %s", pid, exe, err, want)
			}
			wait := gone(t, pid)
			if wait(100 * time.Millisecond) {
				t.Fatal("QEMU left before the helper")
			}
			if sig := unix.SignalNum(how); sig != 0 {
				err = cmd.Process.Signal(sig)
			} else if how == "goexit" {
				// The main goroutine exits, but the program continues: so must QEMU.
				in.Write([]byte{1})
				if wait(300 * time.Millisecond) {
					t.Fatal("QEMU left with a goroutine")
				}
				err = cmd.Process.Kill()
			} else {
				_, err = in.Write([]byte{1})
			}
			if err != nil {
				t.Fatal(err)
			}
			if !wait(10 * time.Second) {
				unix.Kill(pid, unix.SIGKILL)
				t.Errorf("QEMU %d outlived a helper that ended by %s", pid, how)
			}
			cmd.Wait()
		})
	}
}

// options are passed to QEMU verbatim.
type options []string

func (o options) Args(c *Cmdline) error { c.Add(o...); return nil }

func startNone(t *testing.T, ctx context.Context, more ...Device) *Process {
	t.Helper()
	c, err := New(x86, append([]Device{Defaults{}, Sandbox{}, Machine{Type: "none"}, options{"-S"}}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// A goroutine that exits while locked ends its thread. QEMU must not be affected, even
// if that goroutine called Start.
func TestStartersThreadMayEnd(t *testing.T) {
	started := make(chan *Process)
	go func() {
		defer close(started)
		runtime.LockOSThread()
		started <- startNone(t, context.Background())
	}()
	p, ok := <-started
	if !ok {
		return // startNone has told why
	}
	<-started
	select {
	case <-p.Done():
		t.Errorf("QEMU left: %v", p.Wait())
	case <-time.After(300 * time.Millisecond):
	}
}

func TestContextEndsQEMU(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	p := startNone(t, ctx)
	wait := gone(t, p.PID())
	why := errors.New("lab closed")
	cancel(why)
	err := p.Wait()
	var exit *ExitError
	if !errors.Is(err, why) || !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL || exit.Code != -1 {
		t.Errorf("Wait() = %v; want the cause and an *ExitError by SIGKILL", err)
	}
	if !wait(time.Second) {
		t.Error("QEMU lives")
	}
	if _, err := Start(ctx, &Command{Binary: x86}); !errors.Is(err, why) {
		t.Errorf("Start in an ended context = %v; want its cause", err)
	}
}

func TestKill(t *testing.T) {
	p := startNone(t, t.Context())
	p.Kill()
	var exit *ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Errorf("Wait() = %v; want *ExitError by SIGKILL", err)
	}
	p.Kill() // again, on nothing
}

// TestBadOptionIsTold: the error quotes QEMU's message about an option, whatever its
// wording in this version.
func TestBadOptionIsTold(t *testing.T) {
	p, err := Start(t.Context(), &Command{Binary: x86, Args: []string{"-nonesuch"}})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Wait()
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 1 || exit.Signal != 0 {
		t.Fatalf("Wait() = %#v; want *ExitError of status 1", err)
	}
	why, ok := strings.CutPrefix(err.Error(), x86+" exited with status 1: ")
	if !ok || !strings.Contains(why, "-nonesuch") || !strings.Contains(exit.Stderr, x86+": "+why+"\n") {
		t.Errorf("Error() = %q; want the line on -nonesuch of what QEMU printed, %q", err, exit.Stderr)
	}
}

func TestReason(t *testing.T) {
	for stderr, want := range map[string]string{
		"": "",
		"q: unsupported machine type\nUse -machine help to list supported machines\n":               "unsupported machine type",
		"q: unsupported machine type: \"nonesuch\"\nUse -machine help to list supported machines\n": `unsupported machine type: "nonesuch"`,
		"q: warning: first\nq: last\nhint\n":                                                        "last",
		"no name\nat all\n":                                                                         "at all",
	} {
		if got := reason(stderr, "q:"); got != want {
			t.Errorf("reason(%q) = %q; want %q", stderr, got, want)
		}
	}
}

func TestNotFound(t *testing.T) {
	for _, binary := range []string{"qemu-system-nonesuch", filepath.Join(t.TempDir(), "qemu-system-x86_64")} {
		_, err := Start(t.Context(), &Command{Binary: binary})
		var nf *NotFoundError
		if !errors.As(err, &nf) || nf.Binary != binary || !strings.Contains(nf.Remedy, "apt-get install") {
			t.Errorf("Start(%s) = %v; want *NotFoundError with a remedy", binary, err)
		}
		if _, err := Version(binary); !errors.As(err, &nf) {
			t.Errorf("Version(%s) = %v; want *NotFoundError", binary, err)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	p, err := Start(t.Context(), &Command{Binary: "sh", Args: []string{"-c", "head -c 300000 /dev/zero | tr '\\0' x; echo; echo the end >&2; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Wait()
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || len(exit.Stderr) != MaxStderr {
		t.Fatalf("Wait() = %.100v; want *ExitError of status 3 with %d bytes", err, MaxStderr)
	}
	if got, want := err.Error(), "sh exited with status 3: the end"; got != want {
		t.Errorf("Error() = %q; want %q", got, want)
	}
}

// QEMU's children are killed with it.
func TestGroupGoesWithLeader(t *testing.T) {
	p, err := Start(t.Context(), &Command{Binary: "sh", Args: []string{"-c", "sleep 1000 & echo $!; read x <&3"}, slots: []slot{{name: "go"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	for p.Stderr() == "" {
		time.Sleep(5 * time.Millisecond)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(p.Stderr()))
	if err != nil {
		t.Fatal(err)
	}
	wait := gone(t, pid)
	p.Conn("go").Close()
	if !wait(10 * time.Second) {
		t.Error("the leader's child lives")
	}
	p.Wait()
}

// Every device of a machine in one command that the real QEMU accepts, with its sockets
// connected correctly.
func TestQEMUTakesAllDevices(t *testing.T) {
	ram := filepath.Join(t.TempDir(), "ram, 1")
	raw := filepath.Join(t.TempDir(), "Image")
	if err := os.WriteFile(raw, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		binary  string
		devices []Device
	}{
		"amd64": {x86, []Device{
			Machine{Type: "q35"}, CPU("max"), Accel{Name: "tcg", Thread: "single"}, SMP(2), Memory{MiB: 64, File: ram, Share: true},
			Serial{Name: "console"}, Serial{Name: "second"}, DebugExit{},
			VirtioSerial{Driver: "virtio-serial-pci", Ports: []string{"labctl"}},
		}},
		"arm64": {"qemu-system-aarch64", []Device{
			Machine{Type: "virt", Options: []string{"gic-version=3"}}, CPU("cortex-a57"), Accel{Name: "tcg", Thread: "multi"}, SMP(2), Memory{MiB: 64},
			Kernel{Image: raw, Initrd: raw, Append: []string{"x"}}, Serial{Name: "console", Console: "ttyAMA0"},
			VirtioSerial{Driver: "virtio-serial-device", Ports: []string{"labctl", "more"}},
		}},
		"raspi3b": {"qemu-system-aarch64", []Device{
			Machine{Type: "raspi3b"}, Kernel{Image: raw}, NoSerial{}, Serial{Name: "console", Console: "ttyS1"},
		}},
		"incoming": {x86, []Device{Machine{Type: "q35"}, Memory{MiB: 64, File: ram}, Incoming{State: os.Stdin, FD: new(int)}}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(tt.binary, append([]Device{Defaults{}, Sandbox{}, options{"-S"}, QMP{}}, tt.devices...)...)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			p, err := Start(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Kill()
			talk(t, p, "qmp_capabilities")
			chardevs := talk(t, p, "query-chardev")
			for _, s := range c.slots {
				if s.file == nil && !strings.Contains(chardevs, `"label": "`+s.name+`"`) {
					t.Errorf("query-chardev = %s; want %s", chardevs, s.name)
				}
			}
			if strings.Contains(chardevs, "disconnected") {
				t.Errorf("query-chardev = %s; want all connected", chardevs)
			}
		})
	}
}

// talk sends a raw QMP command and returns the line of the reply.
func talk(t *testing.T, p *Process, command string) string {
	t.Helper()
	conn := p.Conn(QMPName)
	r := bufio.NewReader(oneByte{conn})
	fmt.Fprintf(conn, `{"execute":%q}`, command)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("QMP %s: %v; QEMU said %q", command, err, p.Stderr())
		}
		if strings.Contains(line, `"return"`) || strings.Contains(line, `"error"`) {
			return line
		}
	}
}

// oneByte keeps a bufio.Reader from reading more than it needs.
type oneByte struct{ net.Conn }

func (c oneByte) Read(b []byte) (int, error) { return c.Conn.Read(b[:min(len(b), 1)]) }

func TestInheritedFile(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("from the file")
	f.Seek(0, io.SeekStart)
	c := &Cmdline{}
	if err := c.Chardev("first"); err != nil {
		t.Fatal(err)
	}
	fd := c.File(f)
	p, err := Start(t.Context(), &Command{Binary: "sh", Args: []string{"-c", fmt.Sprintf("cat <&%d; echo to the socket >&3", fd)}, slots: c.slots})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := p.Stderr(); got != "from the file" {
		t.Errorf("file held %q", got)
	}
	if got, err := io.ReadAll(p.Conn("first")); err != nil || string(got) != "to the socket\n" {
		t.Errorf("socket after the end = %q, %v", got, err)
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("the caller's file was closed: %v", err)
	}
}

// Starting and ending leaks no descriptors.
func TestDescriptorsAreClosed(t *testing.T) {
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := count()
	for range 5 {
		p := startNone(t, t.Context(), QMP{}, Serial{Name: "console"})
		p.Kill()
		p.Conn(QMPName).Close()
		p.Conn("console").Close()
	}
	c, err := New(filepath.Join(t.TempDir()), QMP{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), c); err == nil {
		t.Error("Start of a directory succeeded")
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestProbe(t *testing.T) {
	f, err := Inspect(x86)
	if err != nil {
		t.Fatal(err)
	}
	if f.Version == "" || f.ModTime.IsZero() || !filepath.IsAbs(f.Path) {
		t.Errorf("Probe(%s) = %+v; want version, path and time", x86, f)
	}

	// A QEMU without seccomp, and its replacement by one that has it.
	fake := filepath.Join(t.TempDir(), "qemu-system-fake")
	write := func(version, sandbox string, mod time.Time) {
		t.Helper()
		script := fmt.Sprintf("#!/bin/sh\n[ $1 = --version ] && echo 'QEMU emulator version %s (test)' && exit\n%s\n", version, sandbox)
		if err := os.WriteFile(fake, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(fake, mod, mod); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	write("7.2.1", "echo '-sandbox support is not enabled in this QEMU binary' >&2; exit 1", old)
	for range 2 {
		if f, err := Inspect(fake); err != nil || f.Version != "7.2.1" || f.Sandbox {
			t.Errorf("Probe = %+v, %v; want 7.2.1 without sandbox", f, err)
		}
		write("cached", "exit 1", old)
	}
	c, err := New(fake, Sandbox{})
	if err != nil || len(c.Args) != 0 {
		t.Errorf("New(Sandbox) = %v, %v; want no option", c, err)
	}
	write("8.0", "exit 0", time.Now())
	if f, err := Inspect(fake); err != nil || f.Version != "8.0" || !f.Sandbox {
		t.Errorf("Probe = %+v, %v; want 8.0 with sandbox", f, err)
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n")
	f.Add("QEMU emulator version 9.2.0\n")
	f.Add("true (GNU coreutils) 9.1")
	f.Add("version ")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseVersion(text)
		if err == nil && (v == "" || strings.ContainsAny(v, " \n")) {
			t.Errorf("parseVersion(%q) = %q", text, v)
		}
	})
}
