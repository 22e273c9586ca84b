package schedule

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
)

// Overhead is what a machine takes of the host beside its own memory, in MB: QEMU,
// the code that it translates, and what labctl keeps of the trace.
const Overhead = 300

// Host is what this host, or the container that labctl is in, has for machines. A
// user who asks for so many jobs at a time knows better: 0 asks for none.
//
// A machine that waits, for its link or for labctl, leaves its CPU to another: for
// four CPUs there is one more at it.
func Host(jobs int) Budget {
	if jobs > 0 {
		return Budget{Jobs: jobs}
	}
	cpus := runtime.GOMAXPROCS(0)
	return Budget{CPUs: cpus + (cpus+3)/4, MemoryMB: hostMemoryMB()}
}

// hostMemoryMB is the memory that is to be had, 0 when that is not known.
func hostMemoryMB() int {
	read := func(name string) []byte {
		b, _ := os.ReadFile(name) // none: not known
		return b
	}
	const group = "/sys/fs/cgroup/memory."
	return memoryMB(read("/proc/meminfo"), read(group+"max"), read(group+"current"), read(group+"stat"))
}

// memoryMB reads /proc/meminfo, and memory.max, memory.current and memory.stat of
// a control group (Documentation/admin-guide/cgroup-v2.rst), whose cached files
// give way as the host's do.
func memoryMB(meminfo, limit, current, stat []byte) int {
	have := number(meminfo, "MemAvailable: %d kB") >> 10
	if limit := number(limit, "%d"); limit > 0 {
		free := limit - number(current, "%d") + number(stat, "inactive_file %d") + number(stat, "active_file %d")
		have = min(have, max(1, free>>20))
	}
	return have
}

// number is the first that a line of the text has by a format; 0 for none.
func number(text []byte, format string) (n int) {
	for line := range bytes.Lines(text) {
		if got, _ := fmt.Sscanf(string(line), format, &n); got == 1 {
			return n
		}
	}
	return 0
}
