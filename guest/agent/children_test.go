package agent

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// As PID 1 does, adopt orphans while many programs start and end: every status
// must reach the program it belongs to, and no orphan may stay a zombie.
func TestChildrenCollect(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := newChildren()
	go c.collect(ctx)

	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				code := i*10 + j
				ch, err := c.start("/bin/sh", []string{"sh", "-c", fmt.Sprintf("(sleep 0.0%d &) ; exit %d", j, code)}, &syscall.ProcAttr{
					Env: os.Environ(),
					Sys: &syscall.SysProcAttr{Setpgid: true},
				})
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-ch.done:
				case <-time.After(20 * time.Second):
					t.Errorf("no status for %d", ch.pid)
					return
				}
				if got := ch.status.ExitStatus(); got != code {
					t.Errorf("exit status = %d, want %d", got, code)
				}
				if err := c.signal(ch, syscall.SIGTERM); err != unix.ESRCH {
					t.Errorf("signal after the end = %v, want %v", err, unix.ESRCH)
				}
			}
		})
	}
	wg.Wait()
	// The last orphans end soon; then this process has no child at all.
	for range 500 {
		var info unix.Siginfo
		if unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == unix.ECHILD {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("orphans are left")
}
