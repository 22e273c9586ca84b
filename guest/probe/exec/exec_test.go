package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"runtime"
	"slices"
	"testing"

	"labctl/guest/probe"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

// The main goroutine stays on the leader, as labprobe's does.
func init() { runtime.LockOSThread() }

// TestMain lets the test binary be labprobe.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "ids" {
		json.NewEncoder(os.Stdout).Encode(&wire.ProbeResult{Probe: "ids", Tasks: []wire.Task{probe.Self()}})
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "exec" {
		res, err := run(context.Background(), json.RawMessage(os.Args[2]))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		json.NewEncoder(os.Stdout).Encode(res)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestInChild(t *testing.T) {
	for _, tc := range []struct {
		params string
		status int
		errno  string
	}{
		{``, 0, ""},
		{`{"file":"/nowhere"}`, 127 << 8, "ENOENT"},
		{`{"file":"/"}`, 127 << 8, "EACCES"},
	} {
		res, err := run(t.Context(), json.RawMessage(tc.params))
		if err != nil {
			t.Fatalf("%s: %v", tc.params, err)
		}
		child := res.Tasks[1]
		if child.PID != child.TID || child.PPID != os.Getpid() || child.Status == nil || *child.Status != tc.status || child.TID != res.Data["returned"] {
			t.Errorf("%s: child %+v; want a child of ours, status %#x", tc.params, child, tc.status)
		}
		if res.Data["went_on"] != (tc.errno != "") || res.Data["errno"] != tc.errno {
			t.Errorf("%s: data %v; want errno %q", tc.params, res.Data, tc.errno)
		}
		image, ok := res.Data["image"].(wire.Task)
		if ok != (tc.errno == "") || ok && (image.PID != child.PID || image.TID != child.TID || image.PPID != child.PPID) {
			t.Errorf("%s: the new image is %+v; want the ids of %+v", tc.params, image, child)
		}
		if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("%s: wait4(-1) = %d, %v; want ECHILD: a child was left behind", tc.params, pid, err)
		}
	}
}

func TestOtherPrograms(t *testing.T) {
	for _, params := range []string{`{"x":1}`, `{"by":"leader"}`, `{"file":""}`, `{"file":"a\u0000b"}`, `{"file":"/bin/true"}`,
		`{"by":"thread","file":"/nowhere"}`, `{"before":{"pid":1}}`} {
		if res, err := run(t.Context(), json.RawMessage(params)); err == nil {
			t.Errorf("%s gave %+v; want an error", params, res)
		}
	}
}

// TestByThread has another process replace itself.
func TestByThread(t *testing.T) {
	for range 10 {
		cmd := osexec.CommandContext(t.Context(), self, "exec", `{"by":"thread"}`)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
		var res struct {
			Tasks []wire.Task
			Data  struct {
				Before before
				After  process
			}
		}
		if err := json.Unmarshal(out, &res); err != nil {
			t.Fatal(err)
		}
		b, a := res.Data.Before, res.Data.After
		if b.PID != cmd.Process.Pid || a.PID != b.PID || len(res.Tasks) != 1 || res.Tasks[0].PID != b.PID || res.Tasks[0].TID != b.PID {
			t.Errorf("pid %d before, %d after, task %+v; want %d", b.PID, a.PID, res.Tasks, cmd.Process.Pid)
		}
		if b.Caller == b.PID || !slices.Contains(b.Tasks, b.Caller) || slices.Contains(a.Tasks, b.Caller) {
			t.Errorf("caller %d; want a thread of %v that is not in %v", b.Caller, b.Tasks, a.Tasks)
		}
		if b.CallerStart <= b.Start || a.Start != b.Start {
			t.Errorf("births: leader %d, caller %d, afterwards %d; want the leader's afterwards", b.Start, b.CallerStart, a.Start)
		}
	}
}
