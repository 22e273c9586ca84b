package share

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestShare(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []uint64{0, unix.CLONE_VM, unix.CLONE_FILES, unix.CLONE_FS, unix.CLONE_FILES | unix.CLONE_FS, allowed} {
		res, err := run(t.Context(), json.RawMessage(fmt.Sprintf(`{"flags":%d}`, flags)))
		if err != nil {
			t.Fatalf("flags %#x: %v", flags, err)
		}
		want := map[string]any{
			"returned":   res.Tasks[1].TID,
			"variable":   map[string]uintptr{"before": 100, "after": 100},
			"descriptor": seen{Number: 200, Errno: "EBADF"},
			"outlives":   seen{Number: 200, Errno: "EBADF"},
			"directory":  map[string]string{"before": "/", "after": "/"},
			"closed":     "",
		}
		if flags&unix.CLONE_VM != 0 {
			want["variable"] = map[string]uintptr{"before": 100, "after": 200}
		}
		if flags&unix.CLONE_FILES != 0 {
			there := seen{Number: 200, Path: "/proc/version", Read: "Linux"}
			want["descriptor"], want["outlives"], want["closed"] = there, there, "EBADF"
		}
		if flags&unix.CLONE_FS != 0 {
			want["directory"] = map[string]string{"before": "/", "after": "/proc"}
		}
		for name := range want {
			if got := res.Data[name]; fmt.Sprint(got) != fmt.Sprint(want[name]) {
				t.Errorf("flags %#x: %s = %+v; want %+v", flags, name, got, want[name])
			}
		}
		child := res.Tasks[1]
		if child.Status == nil || *child.Status != 0 || child.PID == os.Getpid() || child.Asked.Flags != flags {
			t.Errorf("flags %#x: child %+v; want a child of its own, status 0", flags, child)
		}
		if now, _ := os.Getwd(); now != wd {
			t.Errorf("flags %#x: left in %s; want %s", flags, now, wd)
		}
		for _, fd := range []uintptr{opened, closed} {
			if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("flags %#x: descriptor %d was left open", flags, fd)
			}
		}
		if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
		}
	}
}

func TestBadParameters(t *testing.T) {
	for _, bad := range []string{`{"x":1}`, `{"flags":-1}`, `{"flags":17}`, `{"flags":2304}`, `{"flags":16640}`} {
		if res, err := run(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("%s gave %+v; want an error", bad, res)
		}
	}
}

// TestTaken finds a descriptor of the probe's in use.
func TestTaken(t *testing.T) {
	if err := unix.Dup3(1, opened, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(opened)
	if res, err := run(t.Context(), nil); err == nil {
		t.Errorf("run = %+v; want an error: the descriptor is in use", res)
	}
}
