package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestKillLeavesNothing kills labctl in ways that it cannot handle, at several
// moments of a run. QEMU must be gone soon after.
func TestKillLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	for _, c := range []struct {
		wait time.Duration
		args []string
	}{
		{0, nil},
		{100 * time.Millisecond, nil},
		{1500 * time.Millisecond, nil},
		{300 * time.Millisecond, []string{"--cold"}},
		{4 * time.Second, []string{"--cold"}},
		// A template of its own, so that the kill comes while it is made.
		{2 * time.Second, []string{"--append", "labctl.test=kill"}},
	} {
		wait := c.wait
		cmd := exec.Command("labctl", append([]string{"boot", "--arch", "arm64", "--kernel", "6.12"}, c.args...)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if wait > 0 { // the moment counts from QEMU's start
			for end := time.Now().Add(time.Minute); len(qemusOf(tmp)) == 0; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("QEMU did not start within a minute")
				}
			}
		}
		time.Sleep(wait)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		in.Close()
		left := qemusOf(tmp)
		for end := time.Now().Add(2 * time.Second); len(left) > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			left = qemusOf(tmp)
		}
		if len(left) > 0 {
			t.Errorf("boot %v killed %v after QEMU's start: QEMU %v is left", c.args, wait, left)
		}
	}
	// What a killed labctl could not remove is its console's folder, which is
	// what someone who looks for the reason wants. Nothing else may be there.
	others, _ := filepath.Glob(filepath.Join(tmp, "*"))
	for _, o := range others {
		// goimports is made by golang.org/x/tools when it runs in a test binary.
		if ok, _ := filepath.Match("labctl-boot-*", filepath.Base(o)); !ok && filepath.Base(o) != "goimports" {
			t.Errorf("left behind: %s", o)
		}
	}
}
