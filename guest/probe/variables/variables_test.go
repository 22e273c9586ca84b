package variables

import (
	"encoding/json"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestVariables(t *testing.T) {
	before, added := values{2, 3}, values{3, 4}
	for _, tc := range []struct {
		params string
		role   string
		parent values
		same   map[string]bool
	}{
		{``, "child", before, map[string]bool{}},
		{`{"flags":256}`, "child", added, map[string]bool{"vm": true}},
		{`{"flags":67840,"exit_signal":0}`, "thread", added, map[string]bool{"vm": true, "sighand": true}},
		{`{"flags":1024}`, "child", before, map[string]bool{"files": true}},
	} {
		t.Run(tc.params, func(t *testing.T) {
			res, err := run(t.Context(), json.RawMessage(tc.params))
			if err != nil {
				t.Fatal(err)
			}
			task := res.Tasks[1]
			if task.Role != tc.role || task.TID != res.Data["returned"] || (task.PID == os.Getpid()) != (tc.role == "thread") {
				t.Errorf("task %+v; want a %s", task, tc.role)
			}
			for name, want := range map[string]values{"child": added, "child_mem": added, "parent": tc.parent, "parent_mem": tc.parent} {
				if got := res.Data[name]; got != want {
					t.Errorf("%s = %+v; want %+v", name, got, want)
				}
			}
			if same := res.Data["same"].(map[string]bool); same != nil {
				for name := range structures {
					if same[name] != tc.same[name] {
						t.Errorf("%s the same: %v; want %v", name, same[name], tc.same[name])
					}
				}
			}
			if res.Data["in_task"] != (tc.role == "thread") || res.Data["child_maps"] != "rw-p" || res.Data["parent_maps"] != "rw-p" {
				t.Errorf("data %+v; want it in task/ when it is a thread, g in a private mapping", res.Data)
			}
			if tc.role == "thread" && res.Data["wait"] != "ECHILD" {
				t.Errorf("wait for a thread: %v; want ECHILD", res.Data["wait"])
			}
			if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
				t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
			}
		})
	}
}

func TestBadParameters(t *testing.T) {
	for _, bad := range []string{`{"x":1}`, `{"flags":16640}`, `{"flags":65536}`, `{"flags":-1}`, `{"exit_signal":-1}`} {
		if res, err := run(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("run %s gave %+v; want an error", bad, res)
		}
	}
}
