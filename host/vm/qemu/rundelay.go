package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// RunDelays returns for how long each of a process's threads, by TID, has been ready to run
// without a CPU (the second number of /proc/PID/task/TID/schedstat, Documentation/
// scheduler/sched-stats.rst). It is empty where the host's kernel does not count that,
// and once the process has ended.
func RunDelays(pid int) map[int]time.Duration {
	out := map[int]time.Duration{}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range files {
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		if words := strings.Fields(string(data)); len(words) == 3 {
			if ns, err := strconv.ParseInt(words[1], 10, 64); err == nil {
				out[tid] = time.Duration(ns)
			}
		}
	}
	return out
}

// Starved returns the longest time that one thread lacked a CPU between two readings of
// RunDelays.
func Starved(before, after map[int]time.Duration) time.Duration {
	var most time.Duration
	for tid, d := range after {
		most = max(most, d-before[tid])
	}
	return most
}
