package runner

import (
	"bytes"
	"fmt"
	"os"
	"runtime"

	"labctl/host/machine"
)

// Overhead is what a machine takes of the host beside its own memory, in MB: QEMU,
// the code that it translates, and what labctl keeps of the trace.
const Overhead = 300

// Jobs is how many machines of a kind this host can run at once: as many as it has
// CPUs, and memory for.
func Jobs(asked machine.Spec) int {
	memory := asked.MemoryMB
	if t, err := machine.FindTarget(asked.Arch, asked.Board); err == nil && memory == 0 {
		memory = t.MemoryMB
	}
	have, cpus := MemoryMB(), runtime.GOMAXPROCS(0)
	if have == 0 {
		return cpus
	}
	return max(1, min(cpus, have/(memory+Overhead)))
}

// MemoryMB is how much memory machines can have on this host, or in the container
// that labctl is in; 0 when that is not known.
func MemoryMB() int {
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
