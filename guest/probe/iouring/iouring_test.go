package iouring

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"labctl/guest/probe/procfs"
)

// rest is a stat line from field 5 on: a kernel thread's flags.
const rest = " 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 288 0 0 18446744073709551615 0 0 0 0 0 0 0 2147483647 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"

// task writes the stat of a task below root.
func task(t *testing.T, root, dir, tid, comm, ppid string) {
	t.Helper()
	at := filepath.Join(root, dir, tid)
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	text := tid + " (" + comm + ") S " + ppid + rest
	if err := os.WriteFile(filepath.Join(at, "stat"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	const self = 100
	for _, tc := range []struct {
		name           string
		dir, tid, comm string
		ppid           string
		want           poller
	}{
		{"thread", "100/task", "104", "iou-sqp-100", "1", poller{TID: 104, TGID: 100, PPID: 1, Comm: "iou-sqp-100", Flags: 2129984, Kthread: true}},
		{"kernel thread", ".", "205", "io_uring-sq", "2", poller{TID: 205, TGID: 205, PPID: 2, Comm: "io_uring-sq", Flags: 2129984, Kthread: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			task(t, root, ".", "1", "init", "0")
			task(t, root, ".", "100", "labprobe", "1")
			task(t, root, "100/task", "100", "labprobe", "1")
			task(t, root, tc.dir, tc.tid, tc.comm, tc.ppid)
			got, err := find(root, self)
			if err != nil || got == nil || *got != tc.want {
				t.Errorf("find = %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
	root := t.TempDir()
	task(t, root, "100/task", "100", "labprobe", "1")
	if got, err := find(root, self); got != nil || err != nil {
		t.Errorf("find = %+v, %v where there is none; want neither", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := look(ctx, root, self); err == nil {
		t.Errorf("look = %+v after its time; want an error", got)
	}
}

// TestPoller asks the kernel at hand, which may refuse.
func TestPoller(t *testing.T) {
	res, err := run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := res.Data["task"].(*poller)
	if (p == nil) != (res.Data["errno"] != "") {
		t.Fatalf("data %v; want a task or an errno", res.Data)
	}
	if p != nil && !p.Kthread && (p.TGID != os.Getpid() || p.Flags&procfs.PFKthread != 0) {
		t.Errorf("task %s of group %s; want one of our threads", p.Comm, strconv.Itoa(p.TGID))
	}
	if res, err := run(t.Context(), json.RawMessage(`{"x":1}`)); err == nil {
		t.Errorf(`{"x":1} gave %+v; want an error`, res)
	}
}
