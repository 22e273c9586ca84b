package tasks

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestList(t *testing.T) {
	res, err := list(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	self, child := res.Tasks[0], res.Tasks[1]
	rows := res.Data["rows"].([]row)
	find := func(pid int) row {
		i := slices.IndexFunc(rows, func(r row) bool { return r.PID == pid })
		if i < 0 {
			t.Fatalf("no row of process %d in %+v", pid, rows)
		}
		return rows[i]
	}
	if r := find(self.PID); r.Kthread || !r.VM || r.Exe == "" || r.Cmdline == 0 || r.PPID != os.Getppid() {
		t.Errorf("our own row %+v; want a user process with memory, a program and arguments", r)
	}
	if r := find(child.PID); r.PPID != self.PID || r.Kthread || !r.VM {
		t.Errorf("the child's row %+v; want parent %d and memory", r, self.PID)
	}
	if res.Data["zero"] != false {
		t.Errorf("there is a /proc/0")
	}
	noChildren(t)
}

func TestLine(t *testing.T) {
	const status = "Name:\tkthreadd\nKthread:\t1\nVmSizes:\t3\nEmpty:\n"
	for name, want := range map[string]string{"Kthread": "1", "Empty": "", "Name": "kthreadd"} {
		if got, ok := line([]byte(status), name); got != want || !ok {
			t.Errorf("line %s = %q, %v; want %q", name, got, ok, want)
		}
	}
	if got, ok := line([]byte(status), "VmSize"); ok {
		t.Errorf("line VmSize = %q; want none", got)
	}
}

func TestStates(t *testing.T) {
	res, err := states(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := res.Data["rows"].([]seen)
	if len(rows) != len(poses) || len(res.Tasks) != len(poses)+1 {
		t.Fatalf("%d rows, %d tasks; want %d and one more", len(rows), len(res.Tasks), len(poses))
	}
	for i, p := range poses {
		r, task := rows[i], res.Tasks[i+1]
		if r.What != p.what || r.State != string(p.state) || r.PID != task.PID {
			t.Errorf("row %+v of task %+v; want %s in state %c", r, task, p.what, p.state)
		}
		want := unix.WaitStatus(unix.SIGKILL)
		if p.state == 'Z' {
			want = 0
		}
		if task.Status == nil || unix.WaitStatus(*task.Status) != want {
			t.Errorf("%s: %+v; want wait status %#x", p.what, task, want)
		}
		if slices.Contains([]byte("SD"), p.state) && len(r.Stack) > 0 && r.WChan != "0" && !slices.Contains(r.Stack, r.WChan) {
			t.Errorf("%s sleeps in %s, which is not in its stack %v", p.what, r.WChan, r.Stack)
		}
	}
	noChildren(t)
}

func TestBadParameters(t *testing.T) {
	for name, run := range map[string]func(context.Context, json.RawMessage) (*wire.ProbeResult, error){"tasklist": list, "states": states} {
		if res, err := run(t.Context(), json.RawMessage(`{"x":1}`)); err == nil {
			t.Errorf("%s {\"x\":1} gave %+v; want an error", name, res)
		}
	}
	noChildren(t)
}
