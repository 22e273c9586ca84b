package arguments

import (
	"encoding/json"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestArguments(t *testing.T) {
	child, tls := "fifth", "fourth" // CONFIG_CLONE_BACKWARDS
	if runtime.GOARCH == "amd64" {
		child, tls = tls, child
	}
	for by, want := range map[string]map[string]string{
		"clone": {"parent_settid": "third", "child_settid": child, "settls": tls, "child_cleartid": "", "child_cleartid and vm": child},
		"clone3": {"parent_settid": "parent_tid", "child_settid": "child_tid", "settls": "tls", "child_cleartid": "",
			"child_cleartid and vm": "child_tid"},
	} {
		res, err := run(t.Context(), json.RawMessage(`{"by":"`+by+`"}`))
		if err != nil {
			t.Fatalf("%s: %v", by, err)
		}
		rows := res.Data["rows"].(map[string]row)
		if len(rows) != len(want) || len(res.Tasks) != len(want)+1 {
			t.Errorf("%s: rows %v, %d tasks; want %d rows, a task each", by, rows, len(res.Tasks), len(want))
		}
		for name, place := range want {
			r := rows[name]
			if r.Place != place || r.TID == 0 || r.Words[0] == 0 || r.Words[1] <= r.Words[0] || r.Words[2] <= r.Words[1] {
				t.Errorf("%s with %s: %+v; want place %q, a tid and three addresses", by, name, r, place)
			}
		}
		for _, task := range res.Tasks[1:] {
			if task.Status == nil || *task.Status != 0 || task.PPID != unix.Getpid() || task.Asked.Syscall != by {
				t.Errorf("%s: task %+v; want a child of ours, status 0", by, task)
			}
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestBadParameters(t *testing.T) {
	for _, bad := range []string{`{"x":1}`, `{"by":"fork"}`} {
		if res, err := run(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("%s gave %+v; want an error", bad, res)
		}
	}
}
