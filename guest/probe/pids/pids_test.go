package pids

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bound is a file like pid_max, which the kernel does not look at.
func bound(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pid_max")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestOrder(t *testing.T) {
	path := bound(t, "4194304\n")
	res, err := run(t.Context(), path, json.RawMessage(`{"forks":3}`))
	if err != nil {
		t.Fatal(err)
	}
	made := res.Data["made"].([]int)
	if len(made) != 3 || made[0] == made[1] || made[1] == made[2] || res.Data["pid_max"] != 4194304 {
		t.Errorf("data %v; want three numbers and pid_max 4194304", res.Data)
	}
	if last := res.Tasks[1]; last.TID != made[2] || last.PID != made[2] || last.Status == nil || *last.Status != 0 {
		t.Errorf("child %+v; want number %d, as the call returned, and status 0", last, made[2])
	}
	if text, _ := os.ReadFile(path); string(text) != "4194304\n" {
		t.Errorf("pid_max is now %q; want it untouched", text)
	}
	noChildren(t)
}

// TestNoWrap has a pid_max that does nothing: what was must be set back.
func TestNoWrap(t *testing.T) {
	path := bound(t, "77777")
	res, err := run(t.Context(), path, json.RawMessage(`{"forks":1,"wrap":true}`))
	if err == nil {
		t.Fatalf("run = %+v; want an error, for nothing bounds the numbers", res)
	}
	if text, _ := os.ReadFile(path); string(text) != "77777" {
		t.Errorf("pid_max is now %q; want 77777 again", text)
	}
	noChildren(t)
}

func TestBadInput(t *testing.T) {
	for _, tc := range []struct{ file, params, want string }{
		{"32768", `{"forks":0}`, "forks 0"},
		{"32768", `{"forks":1001}`, "forks 1001"},
		{"32768", `{"x":1}`, "unknown field"},
		{"many", ``, "pid_max"},
	} {
		if res, err := run(t.Context(), bound(t, tc.file), json.RawMessage(tc.params)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("run %s with pid_max %s = %+v, %v; want an error with %q", tc.params, tc.file, res, err, tc.want)
		}
	}
	noChildren(t)
}
