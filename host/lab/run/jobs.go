package run

import (
	"bytes"
	"fmt"
	"os"
	"runtime"

	"labctl/host/machine"
)

// overhead is what a machine takes of the host beside its own memory, in MB: QEMU,
// the code that it translates, and what labctl keeps of the trace.
const overhead = 300

// Jobs is how many machines of a kind this host can run at once: as many as it has
// CPUs, and memory for.
func Jobs(asked machine.Spec) int {
	memory := asked.MemoryMB
	if t, err := machine.FindTarget(asked.Arch, asked.Board); err == nil && memory == 0 {
		memory = t.MemoryMB
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return runtime.NumCPU()
	}
	return jobs(text, memory, runtime.NumCPU())
}

// jobs reads /proc/meminfo.
func jobs(meminfo []byte, memoryMB, cpus int) int {
	for line := range bytes.Lines(meminfo) {
		var kb int
		if n, _ := fmt.Sscanf(string(line), "MemAvailable: %d kB", &kb); n == 1 {
			return max(1, min(cpus, kb>>10/(memoryMB+overhead)))
		}
	}
	return cpus
}
