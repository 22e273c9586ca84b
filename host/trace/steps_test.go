package trace

import (
	"strings"
	"testing"

	"labctl/guest/wire"
	"labctl/host/trace/collect"
	"labctl/host/trace/export/tracedat"
)

// captured is a real run of the lab P1 on 6.12, which has four steps.
func captured(t *testing.T) *collect.Result {
	t.Helper()
	f, err := tracedat.Open("../lab/runner/testdata/P1-arm64.dat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &collect.Result{Capture: &f.Capture}
}

// TestPart parts a capture by its marks; host/lab/runner has the rest of it.
func TestPart(t *testing.T) {
	for _, tt := range []struct {
		names  string
		lost   int64
		cut    string
		want   string // of the error
		events int    // of the last step
	}{
		{names: "fork thread second raw", events: 26},
		{names: "fork thread", events: 78}, // what follows has no mark of these
		{names: "fork thread second raw more", want: "it has no mark of step more"},
		{names: "fork thread second raw more", lost: 3}, // it may be among those
		{names: "fork", cut: "its bound was reached", want: "it is cut short: its bound was reached"},
		{names: ""},
	} {
		res, names := captured(t), strings.Fields(tt.names)
		res.Stopped.CPUs = []wire.CaptureCPU{{CPU: 0, Dropped: tt.lost}}
		res.Stopped.Truncated = tt.cut
		p, err := Part(res, names)
		if tt.want != "" {
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s, %d lost: error %v; want %s", tt.names, tt.lost, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s, %d lost: %v", tt.names, tt.lost, err)
			continue
		}
		if len(p.Steps) != len(names) || p.Lost != tt.lost || p.Damaged != 0 {
			t.Errorf("%s: %d steps, %d lost, %d damaged; want %d, %d, 0", tt.names, len(p.Steps), p.Lost, p.Damaged, len(names), tt.lost)
		}
		for i, s := range p.Steps {
			if i == len(p.Steps)-1 && len(s.Events) != tt.events {
				t.Errorf("%s: the last step has %d events; want %d", tt.names, len(s.Events), tt.events)
			}
			// Marks without a step are nobody's.
			if want := max(0, 4-len(names)); i == len(names)-1 && len(s.Strange) != want {
				t.Errorf("%s: step %s has strange marks %q; want %d", tt.names, names[i], s.Strange, want)
			}
			if i < 4 && (s.Ended || s.NewTasks < 6) {
				t.Errorf("%s: step %s has ended: %t, with %d new tasks; want no end mark, and 6 or more", tt.names, names[i], s.Ended, s.NewTasks)
			}
			if i < 4 && len(s.Creations) < 6 {
				t.Errorf("%s: step %s has %d creations; want 6 or more", tt.names, names[i], len(s.Creations))
			}
		}
	}
}
