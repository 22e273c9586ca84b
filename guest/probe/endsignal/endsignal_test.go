package endsignal

import (
	"context"
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

func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestEndSignal(t *testing.T) {
	ordinary := map[string]string{"plain": "", "wclone": "ECHILD", "wall": ""}
	clone := map[string]string{"plain": "ECHILD", "wclone": "", "wall": ""}
	for _, tc := range []struct {
		signal int
		exec   bool
		ends   int // the exit signal that it ends with
		waits  map[string]string
	}{
		{0, false, 0, clone},
		{17, false, 17, ordinary},
		{10, false, 10, clone},
		{28, false, 28, clone},
		{0, true, 17, ordinary}, // execve sets it: de_thread in fs/exec.c
		{10, true, 17, ordinary},
	} {
		res, err := run(t.Context(), json.RawMessage(fmt.Sprintf(`{"exit_signal":%d,"exec":%t}`, tc.signal, tc.exec)))
		if err != nil {
			t.Fatalf("%+v: %v", tc, err)
		}
		wait4 := ""
		if tc.waits["plain"] != "" {
			wait4 = "ECHILD"
		}
		want := map[string]any{"returned": res.Tasks[1].TID, "state": "Z", "signal": tc.ends, "waits": tc.waits, "wait4": wait4}
		if fmt.Sprint(res.Data) != fmt.Sprint(want) {
			t.Errorf("%+v: data %v; want %v", tc, res.Data, want)
		}
		child := res.Tasks[1]
		if child.Status == nil || *child.Status != 0 || child.Asked.ExitSignal != tc.signal || child.Asked.Flags != 0 {
			t.Errorf("%+v: child %+v; want status 0, the signal that was asked for", tc, child)
		}
		noChildren(t)
	}
}

func TestBadParameters(t *testing.T) {
	for _, bad := range []string{`{"x":1}`, `{"exit_signal":9}`, `{"exit_signal":-1}`, `{"exit_signal":65}`, `{"exec":1}`} {
		if res, err := run(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("%s gave %+v; want an error", bad, res)
		}
	}
}

// TestGivenUp has a context end before the child does.
func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := zombie(ctx, os.Getpid()); err == nil {
		t.Errorf("zombie = %+v; want the context's error", s)
	}
	noChildren(t)
}
