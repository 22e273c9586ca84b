package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// The agent starts its own program to enlist another one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == EnlistName {
		runtime.LockOSThread()
		Enlist(os.Args)
	}
	os.Exit(m.Run())
}

func TestStartEnlisted(t *testing.T) {
	c := newChildren()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go c.collect(ctx)
	list := func() *os.File {
		f, err := os.CreateTemp(t.TempDir(), "set_event_pid")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	lists := []*os.File{list(), list()}
	out := list()
	attr := &syscall.ProcAttr{Env: []string{"LAB=7"}, Files: []uintptr{0, out.Fd(), 2}}
	// It has the arguments, the environment and the open files of one started
	// without lists.
	argv := []string{"other-name", "-c", `echo $0 $LAB $1; ls /proc/self/fd | wc -l`, "zero", "one"}
	ch, err := c.start("/bin/sh", argv, attr)
	if err != nil {
		t.Fatal(err)
	}
	<-ch.done
	plain, err := os.ReadFile(out.Name())
	if err != nil || !bytes.HasPrefix(plain, []byte("zero 7 one\n")) {
		t.Fatalf("the program said %q, %v", plain, err)
	}
	if ch, err = c.startEnlisted("/bin/sh", argv, attr, lists); err != nil {
		t.Fatal(err)
	}
	<-ch.done
	pid := strconv.Itoa(ch.pid)
	for i, f := range lists {
		if got, err := os.ReadFile(f.Name()); err != nil || string(got) != pid {
			t.Errorf("list %d = %q, %v; want %s", i, got, err, pid)
		}
	}
	got, err := os.ReadFile(out.Name())
	if want := string(plain) + string(plain); err != nil || string(got) != want {
		t.Errorf("the program said %q, %v; want %q", got, err, want)
	}

	// A start that fails is the same as without lists.
	for _, path := range []string{"/no/such/program", "/etc/passwd"} {
		_, want := c.start(path, []string{path}, attr)
		_, err := c.startEnlisted(path, []string{path}, attr, lists)
		if !errors.Is(err, want) || want == nil {
			t.Errorf("startEnlisted(%s) = %v; want %v", path, err, want)
		}
	}
	// A list that takes no number is an error, and the program does not run.
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := c.startEnlisted("/bin/sh", []string{"sh", "-c", "echo ran"}, attr, []*os.File{full}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("startEnlisted with a full list = %v; want %v", err, unix.ENOSPC)
	}
	if got, _ := os.ReadFile(out.Name()); bytes.Contains(got, []byte("ran")) {
		t.Error("the program ran, though it could not be enlisted")
	}
}

func TestRecordErrors(t *testing.T) {
	h := serve(t)
	for _, tt := range []struct {
		op     wire.Op
		params any
		want   string
	}{
		{wire.OpCapture, wire.CaptureParams{Instance: "x"}, "open tracefs"},
		{wire.OpCapture, map[string]any{"instance": "x", "nosuch": 1}, "unknown field"},
		{wire.OpExec, wire.ExecParams{Argv: []string{"true"}, Instance: "x"}, `no capture "x" is under way`},
		{wire.OpSleepers, wire.SleepersParams{}, "want 1 or more"},
	} {
		if res := h.start(tt.op, tt.params).wait(); !strings.Contains(res.Err, tt.want) {
			t.Errorf("%s %+v: err = %q, want %q in it", tt.op, tt.params, res.Err, tt.want)
		}
	}
}

func TestSleepers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("/proc/PID/stack is root's alone to read")
	}
	h := serve(t)
	prog := h.start(wire.OpExec, sh("echo ready; exec sleep 100"))
	prog.until("ready")
	defer prog.control(wire.Control{Signal: int(syscall.SIGKILL)})

	c := h.start(wire.OpSleepers, wire.SleepersParams{Max: 100000})
	res := c.wait()
	done, err := wire.Decode[wire.Slept](res.Value)
	if err != nil || res.Err != "" {
		t.Fatalf("sleepers = %+v, %v", res, err)
	}
	lines := strings.Split(strings.TrimSpace(c.text(wire.Extra)), "\n")
	if done.Sleepers != len(lines) || done.Tasks < done.Sleepers || done.More {
		t.Errorf("%+v, and %d lines", done, len(lines))
	}
	var found bool
	for _, line := range lines {
		var s wire.Sleeper
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if s.Comm == "sleep" && s.State == "S" && s.TID == s.PID && s.PPID == os.Getpid() {
			found = true
		}
	}
	if !found {
		t.Error("the sleep that runs is not among the sleepers")
	}
	c = h.start(wire.OpSleepers, wire.SleepersParams{Max: 1})
	res = c.wait()
	if done, err = wire.Decode[wire.Slept](res.Value); err != nil || done.Sleepers != 1 || !done.More {
		t.Errorf("sleepers, at most 1 = %+v, %v", done, err)
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		text string
		want wire.Sleeper
		ok   bool
	}{
		{"1 (labinit) S 0 1 1 0 -1 4194560 9", wire.Sleeper{Comm: "labinit", State: "S"}, true},
		{"2 (kthreadd) S 0 0 0 0 -1 2129984 0", wire.Sleeper{Comm: "kthreadd", State: "S", Kernel: true}, true},
		{"9 (a) R (b)) D 7 9 9 0 -1 64 0", wire.Sleeper{Comm: "a) R (b)", State: "D", PPID: 7}, true},
		{"9 (a) S 7 9", wire.Sleeper{}, false},
		{"9 )a( S 7 9 9 0 -1 64 0", wire.Sleeper{}, false},
		{"", wire.Sleeper{}, false},
	} {
		got, ok := parseStat(tt.text)
		if ok != tt.ok || ok && (got.Comm != tt.want.Comm || got.State != tt.want.State || got.PPID != tt.want.PPID || got.Kernel != tt.want.Kernel) {
			t.Errorf("parseStat(%q) = %+v, %v; want %+v, %v", tt.text, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("1 (labinit) S 0 1 1 0 -1 4194560 9")
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := parseStat(text); ok && len(s.Comm) > len(text) {
			t.Errorf("parseStat(%q) = %+v", text, s)
		}
	})
}
