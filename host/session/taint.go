package session

import (
	"fmt"
	"time"

	"labctl/host/crash"
)

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
	for _, t := range crash.Unexplained(tainted, reports) {
		more = append(more, &crash.Report{Kind: t.Kind, Title: t.Title, Count: 1, Lines: []string{fmt.Sprintf("/proc/sys/kernel/tainted: %d", tainted)}})
	}
	return more
}
