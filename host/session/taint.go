package session

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"labctl/host/crash"
)

// The console can be made silent (dmesg -n 1, quiet), and since 6.13 a thread may print
// it after the fact. What taints a kernel it does not forget: bits of
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

// Limits on the question, whose answer a guest that hangs does not give, and on how
// long the console may take; vm.Patient scales both.
const (
	taintWait = 2 * time.Second
	taintLag  = time.Second
)

// ask asks the kernel whether it has reported anything, once the work is done.
func (s *Session) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.VM.Patient(taintWait))
	defer cancel()
	var b bytes.Buffer
	if s.VM.Agent().ReadFile(ctx, "/proc/sys/kernel/tainted", 64, &b) != nil {
		return
	}
	s.tainted, _ = strconv.ParseUint(strings.TrimSpace(b.String()), 10, 64)
	for end := time.Now().Add(s.VM.Patient(taintLag)); len(hidden(s.tainted, s.VM.Reports())) > 0 && time.Now().Before(end); {
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
