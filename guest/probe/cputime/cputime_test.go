package cputime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCPUTime(t *testing.T) {
	res, err := run(t.Context(), json.RawMessage(`{"ticks":10}`))
	if err != nil {
		t.Fatal(err)
	}
	busy, idle := res.Data["busy"].(times), res.Data["idle"].(times)
	leader, again := res.Data["leader"].(times), res.Data["again"].(times)
	if busy.Own < 10 || idle.Own*2 > busy.Own {
		t.Errorf("own times: busy %d, idle %d; want 10 or more, and idle less than half of that", busy.Own, idle.Own)
	}
	if leader.Whole > busy.Whole || busy.Whole > idle.Whole || idle.Whole > again.Whole {
		t.Errorf("whole times %d, %d, %d, %d; want one rising number", leader.Whole, busy.Whole, idle.Whole, again.Whole)
	}
	if sum := res.Data["sum"].(uint64); sum < busy.Own || sum > leader.Whole+1 {
		t.Errorf("the threads' own times are %d together; want %d to %d", sum, busy.Own, leader.Whole+1)
	}
	for i, name := range []string{"self", "busy", "idle"} {
		if got := res.Tasks[i]; got.Role != map[bool]string{true: "self", false: "thread"}[i == 0] || got.PID != os.Getpid() || i > 0 && got.Comm != name {
			t.Errorf("task %d = %+v; want %s", i, got, name)
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestBadParameters(t *testing.T) {
	for _, bad := range []string{`{"x":1}`, `{"ticks":0}`, `{"ticks":-1}`, `{"ticks":100000}`} {
		if res, err := run(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("run %s gave %+v; want an error", bad, res)
		}
	}
}

// line is a stat line with these times.
func line(utime, stime string) string {
	return "9 (x) S 1 9 9 0 -1 4194560 1 0 0 0 " + utime + " " + stime + " 0 0 20 0 3 0 100 0 0" + strings.Repeat(" 0", 30) + "\n"
}

func TestRead(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{
		"12/stat":        line("40", "2"),
		"9/task/12/stat": line("1", "3"),
	}
	write := func() {
		for name, text := range files {
			file := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	want := times{TID: 12, Whole: 42, WholeUser: 40, Own: 4, OwnUser: 1, RunNS: -1}
	if got, err := read(root, 9, 12); err != nil || got != want {
		t.Errorf("read = %+v, %v; want %+v", got, err, want)
	}
	files["12/schedstat"] = "123456 7 8\n"
	write()
	want.RunNS = 123456
	if got, err := read(root, 9, 12); err != nil || got != want {
		t.Errorf("read = %+v, %v; want %+v", got, err, want)
	}
	files["12/schedstat"] = "many\n"
	write()
	if got, err := read(root, 9, 12); err == nil {
		t.Errorf("read of a broken schedstat = %+v; want an error", got)
	}
}
