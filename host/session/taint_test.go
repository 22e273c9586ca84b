package session

import (
	"testing"

	"labctl/host/crash"
)

// TestHidden: what taints a kernel is a report, unless its console has one.
func TestHidden(t *testing.T) {
	warn, oops := &crash.Report{Kind: crash.Warning}, &crash.Report{Kind: crash.Oops}
	const die, warned, unsigned = 1 << 7, 1 << 9, 1 << 13
	for _, tt := range []struct {
		tainted uint64
		reports []*crash.Report
		want    []crash.Kind
	}{
		{0, nil, nil},
		{unsigned, nil, nil},
		{warned | unsigned, nil, []crash.Kind{crash.Warning}},
		{warned, []*crash.Report{warn}, nil},
		{die, []*crash.Report{warn}, []crash.Kind{crash.Oops}},
		{die, []*crash.Report{oops}, nil},
		{die, []*crash.Report{{Kind: crash.Panic}}, nil},
		{die | warned, nil, []crash.Kind{crash.Oops, crash.Warning}},
		{die | warned, []*crash.Report{oops}, nil},
	} {
		got := hidden(tt.tainted, tt.reports)
		ok := len(got) == len(tt.want)
		for i := range min(len(got), len(tt.want)) {
			ok = ok && got[i].Kind == tt.want[i] && got[i].Title != "" && len(got[i].Lines) == 1
		}
		if !ok {
			t.Errorf("hidden(%d, %d reports) = %v, want %v", tt.tainted, len(tt.reports), got, tt.want)
		}
	}
}
