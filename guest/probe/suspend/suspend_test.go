package suspend

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the program that a child executes.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "ids" {
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSuspend(t *testing.T) {
	for _, tc := range []struct {
		flags         uint64
		end           string
		held, written bool
	}{
		{vforkFlags, "exit", true, true},
		{vforkFlags, "exec", true, true},
		{unix.CLONE_VFORK, "exit", true, false},
		{unix.CLONE_VM, "exit", false, true},
		{0, "exit", false, false},
		{0, "exec", false, false},
	} {
		t.Run(fmt.Sprintf("%#x %s", tc.flags, tc.end), func(t *testing.T) {
			res, err := run(t.Context(), json.RawMessage(fmt.Sprintf(`{"flags":%d,"sleep_ms":5,"end":%q}`, tc.flags, tc.end)))
			if err != nil {
				t.Fatal(err)
			}
			if res.Data["outlived"] != tc.held || res.Data["written"] != tc.written {
				t.Errorf("data %v; want outlived %v, written %v", res.Data, tc.held, tc.written)
			}
			if tc.held {
				if res.Data["state"] != "D" || res.Data["held_ns"].(int64) < 5e6 {
					t.Errorf("data %v; want state D for at least 5 ms", res.Data)
				}
			}
			child := res.Tasks[1]
			if child.Status == nil || *child.Status != 0 || child.TID == 0 || child.TID != child.PID || child.Asked.Flags != tc.flags {
				t.Errorf("child %+v; want flags %#x, status 0", child, tc.flags)
			}
			if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
				t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
			}
		})
	}
}

func TestBadParameters(t *testing.T) {
	for _, params := range []string{`{"flags":17}`, `{"flags":65536}`, `{"sleep_ms":-1}`, `{"end":"abort"}`, `{"x":1}`} {
		if res, err := run(t.Context(), json.RawMessage(params)); err == nil {
			t.Errorf("%s gave %+v; want an error", params, res)
		}
	}
}
