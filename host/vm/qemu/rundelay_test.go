package qemu

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStarved: of two loops on one CPU each waits for the other.
func TestStarved(t *testing.T) {
	if len(RunDelays(os.Getpid())) == 0 {
		t.Skip("this host's kernel has no schedstat")
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	var one unix.CPUSet
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	var pids []int
	for range 2 {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		if err := unix.SchedSetaffinity(cmd.Process.Pid, &one); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, cmd.Process.Pid)
	}
	before := RunDelays(pids[0])
	for {
		if got := Starved(before, RunDelays(pids[0])); got > 100*time.Millisecond {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("a loop that shares its CPU was never starved")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got := Starved(before, before); got != 0 {
		t.Errorf("Starved of equal readings = %v, want 0", got)
	}
	if got := RunDelays(1 << 30); len(got) != 0 {
		t.Errorf("RunDelays of no process = %v", got)
	}
}
