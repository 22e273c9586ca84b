package visible

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestVisible(t *testing.T) {
	res, err := run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	self, thread := res.Tasks[0], res.Tasks[1]
	if thread.Role != "thread" || thread.PID != self.PID || thread.TID == self.TID || thread.TID != res.Data["returned"] {
		t.Errorf("thread %+v of %+v; want its leader's pid and a tid of its own", thread, self)
	}
	pid, tid := os.Getpid(), thread.TID
	for name, want := range map[string]view{
		"leader": {TID: pid, Listed: true, Opened: true, InTask: true, StatusTGID: pid, StatusPID: pid},
		"thread": {TID: tid, Opened: true, InTask: true, StatusTGID: pid, StatusPID: tid},
		"after":  {TID: tid, Errno: "ENOENT"},
	} {
		if got := res.Data[name]; got != want {
			t.Errorf("%s = %+v; want %+v", name, got, want)
		}
	}
	if through := res.Data["through"].([]int); !slices.Contains(through, pid) || !slices.Contains(through, tid) {
		t.Errorf("/proc/%d/task has %v; want %d and %d in it", tid, through, pid, tid)
	}
	if res.Data["comm"] != threadName || res.Data["execute"] != "EACCES" {
		t.Errorf("comm %v, executed: %v; want %s and EACCES", res.Data["comm"], res.Data["execute"], threadName)
	}
	if got := res.Data["ps_ely"].([]string); len(got) != 1 {
		t.Errorf("ps -ely has %q of process %d; want one line", got, pid)
	}
	if got := res.Data["ps_elf"].([]string); !slices.ContainsFunc(got, func(l string) bool {
		return slices.Contains(strings.Fields(l), strconv.Itoa(tid))
	}) {
		t.Errorf("ps -eLf has %q of process %d; want thread %d in it", got, pid, tid)
	}
	if _, err := json.Marshal(res); err != nil {
		t.Error(err)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestBadParameters(t *testing.T) {
	if res, err := run(t.Context(), json.RawMessage(`{"x":1}`)); err == nil {
		t.Errorf("run gave %+v; want an error", res)
	}
}

func TestField(t *testing.T) {
	const status = "Name:\tx Pid:\t9\nTgid:\t7\nNgid:\t0\nPid:\t12\nPPid:\t1\n"
	for key, want := range map[string]int{"Tgid:": 7, "Pid:": 12, "PPid:": 1} {
		if got, err := field(status, key); err != nil || got != want {
			t.Errorf("field %s = %d, %v; want %d", key, got, err, want)
		}
	}
	for _, bad := range []string{"", "Pid\t12\n", "Pid:\tx\n"} {
		if got, err := field(bad, "Pid:"); err == nil {
			t.Errorf("field of %q = %d; want an error", bad, got)
		}
	}
}
