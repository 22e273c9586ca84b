package session

import (
	"fmt"
	"slices"
	"time"

	"labctl/host/crash"
)

// The console can be made silent (dmesg -n 1, quiet), and since 6.13 a thread may print
// it after the fact. What taints a kernel it does not forget, and the agent reads it
// after each program: bits of
// /proc/sys/kernel/tainted (Documentation/admin-guide/tainted-kernels.rst) that only
// reports set.
var taints = []struct {
	bit   uint
	kind  crash.Kind // of the least report that explains it
	title string
}{
	{7, crash.Oops, "the kernel is tainted by an oops (D), which its console does not show"},
	{9, crash.Warning, "the kernel is tainted by a warning (W), which its console does not show"},
}

// taintLag is how long the console may take; vm.Patient scales it.
const taintLag = time.Second

// awaitReports waits for the reports that the kernel is tainted by.
func (s *Session) awaitReports() {
	for end := time.Now().Add(s.VM.Patient(taintLag)); len(hidden(s.VM.Agent().Tainted(), s.VM.Reports())) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

// hidden are reports in place of those that the kernel is tainted by and that are not
// among the reports of its console.
func hidden(tainted uint64, reports []*crash.Report) (more []*crash.Report) {
	for _, t := range taints {
		explained := slices.ContainsFunc(reports, func(r *crash.Report) bool { return r.Kind.Severity() >= t.kind.Severity() })
		if tainted&(1<<t.bit) != 0 && !explained {
			more = append(more, &crash.Report{Kind: t.kind, Title: t.title, Count: 1, Lines: []string{fmt.Sprintf("/proc/sys/kernel/tainted: %d", tainted)}})
		}
	}
	return more
}
