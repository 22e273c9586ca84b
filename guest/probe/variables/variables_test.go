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

const maps = `00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x y
00651000-00652000 rw-p 00051000 08:02 173521 /usr/bin/x y
7ffd0000-7fff0000 rw-p 00000000 00:00 0 [stack]
`

func TestFind(t *testing.T) {
	for addr, want := range map[uint64]string{0x400000: "r-xp", 0x451fff: "r-xp", 0x651008: "rw-p", 0x7ffeffff: "rw-p"} {
		if got, err := find(maps, addr); err != nil || got != want {
			t.Errorf("find %#x = %q, %v; want %q", addr, got, err, want)
		}
	}
	for _, addr := range []uint64{0, 0x452000, 0x652000, 1 << 63} {
		if got, err := find(maps, addr); err == nil {
			t.Errorf("find %#x = %q; want an error", addr, got)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add(maps, uint64(0x651008))
	f.Add("- rw-p\nx-y z\n1-2\n", uint64(1))
	f.Fuzz(func(t *testing.T, text string, addr uint64) {
		if got, err := find(text, addr); err == nil && got == "" {
			t.Errorf("find = %q without an error", got)
		}
	})
}
