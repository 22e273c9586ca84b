package clone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"labctl/guest/probe"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the program that spawn starts again, as
// labprobe is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "ids" {
		switch os.Getenv("CLONE_TEST_IDS") {
		case "hang":
			time.Sleep(time.Hour)
		case "garbage":
			fmt.Print("{}")
		case "flood":
			for {
				fmt.Println(strings.Repeat("x", 1<<16))
			}
		default:
			res, err := ids(context.Background(), nil)
			if err != nil {
				panic(err)
			}
			json.NewEncoder(os.Stdout).Encode(res)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func run(t *testing.T, name, params string) *wire.ProbeResult {
	t.Helper()
	p, ok := probe.Lookup(name)
	if !ok {
		t.Fatalf("no probe %q", name)
	}
	res, err := p.Run(t.Context(), json.RawMessage(params))
	if err != nil {
		t.Fatalf("%s %s: %v", name, params, err)
	}
	return res
}

func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestProbes(t *testing.T) {
	native := func(name string) string {
		if runtime.GOARCH == "arm64" {
			return "clone"
		}
		return name
	}
	const sigchld = int(unix.SIGCHLD)
	for _, tc := range []struct {
		name, params string
		role         string
		asked        wire.Asked
	}{
		{"spawn", ``, "child", wire.Asked{Syscall: "os.StartProcess", Unknown: true}},
		{"fork", ``, "child", wire.Asked{Syscall: "clone", ExitSignal: sigchld}},
		{"fork", `{"flags":18874368}`, "child", wire.Asked{Syscall: "clone", Flags: 0x1200000, ExitSignal: sigchld}},
		{"fork", `{"syscall":"fork"}`, "child", wire.Asked{Syscall: native("fork"), ExitSignal: sigchld}},
		{"vfork", ``, "child", wire.Asked{Syscall: native("vfork"), Flags: 0x4100, ExitSignal: sigchld}},
		{"vfork", `{"syscall":"clone"}`, "child", wire.Asked{Syscall: "clone", Flags: 0x4100, ExitSignal: sigchld}},
		{"thread", ``, "thread", wire.Asked{Syscall: "clone", Flags: 0x3d0f00}},
		{"clone3", ``, "child", wire.Asked{Syscall: "clone3", ExitSignal: sigchld}},
		{"clone3", `{"flags":4096,"exit_signal":0,"size":88}`, "child", wire.Asked{Syscall: "clone3", Flags: unix.CLONE_PIDFD}},
		{"clone3", fmt.Sprintf(`{"flags":%d,"exit_signal":0}`, rawclone.PThreadFlags), "thread", wire.Asked{Syscall: "clone3", Flags: 0x3d0f00}},
	} {
		t.Run(tc.name+tc.params, func(t *testing.T) {
			res := run(t, tc.name, tc.params)
			if len(res.Tasks) != 2 || res.Probe != tc.name || res.Method == "" {
				t.Fatalf("result %+v; want two tasks, probe %s and a method", res, tc.name)
			}
			self, made := res.Tasks[0], res.Tasks[1]
			if self.Role != "self" || self.PID != os.Getpid() || self.Asked != nil || self.Status != nil {
				t.Errorf("self = %+v", self)
			}
			if made.Role != tc.role || made.Asked == nil || *made.Asked != tc.asked {
				t.Errorf("task %+v asked %+v; want role %s, %+v", made, made.Asked, tc.role, tc.asked)
			}
			if made.TID != res.Data["returned"] || made.TGID != made.PID || made.Comm == "" {
				t.Errorf("task %+v; want tid %v, as the call returned, and a name", made, res.Data["returned"])
			}
			if tc.role == "thread" {
				if made.PID != self.PID || made.TID == self.TID || made.PPID != self.PPID || made.Status != nil {
					t.Errorf("thread %+v of %+v; want the same pid and parent, another tid, no status", made, self)
				}
			} else if made.PID != made.TID || made.PPID != self.PID || made.Status == nil || *made.Status != 0 {
				t.Errorf("child %+v of %+v; want a pid of its own, our pid as parent, status 0", made, self)
			}
			noChildren(t)
		})
	}
}

func TestBadParameters(t *testing.T) {
	for _, tc := range []struct{ name, params string }{
		{"ids", `{"x":1}`}, {"spawn", `{"x":1}`}, {"thread", `{"flags":1}`},
		{"fork", `{"syscall":"vfork"}`}, {"fork", `{"syscall":"fork","flags":256}`}, {"fork", `{"flags":17}`}, {"fork", `{"flags":-1}`},
		{"vfork", `{"syscall":"fork"}`},
		{"clone3", `{"size":96}`}, {"clone3", `{"size":8}`}, {"clone3", `{"exit_signal":-1}`}, {"clone3", `{"flags":65536}`},
	} {
		p, _ := probe.Lookup(tc.name)
		if res, err := p.Run(t.Context(), json.RawMessage(tc.params)); err == nil {
			t.Errorf("%s %s gave %+v; want an error", tc.name, tc.params, res)
		}
	}
	noChildren(t)
}

// TestSpawnOfAStrangeChild starts children that answer badly or not at all.
func TestSpawnOfAStrangeChild(t *testing.T) {
	for _, how := range []string{"hang", "garbage", "flood"} {
		t.Run(how, func(t *testing.T) {
			t.Setenv("CLONE_TEST_IDS", how)
			patience := 10 * time.Second
			if how == "hang" {
				patience = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			res, err := spawn(ctx, nil)
			if err == nil || errors.Is(err, context.DeadlineExceeded) != (how == "hang") {
				t.Errorf("spawn = %+v, %v", res, err)
			}
			noChildren(t)
		})
	}
}
