package trace

import (
	"fmt"
	"slices"
	"strings"

	"labctl/host/record"
	"labctl/host/trace/collect"
	"labctl/host/trace/hist"
	"labctl/host/trace/plan"
)

// readHists reads the histograms into t, and says of the lines which of them have counted
// nothing.
func readHists(t *record.Trace, files []collect.Hist) {
	for _, f := range files {
		var lines []*plan.Line
		for i := range t.Lines {
			if l := &t.Lines[i]; l.Kind == "hist" && !l.Missing() && l.Armed[0] == f.Event {
				lines = append(lines, l)
			}
		}
		hists, err := hist.Parse(f.Event, string(f.Text))
		// Those of --wakeup have variables, which no other can have.
		hists = slices.DeleteFunc(hists, func(h hist.Histogram) bool { return strings.Contains(h.Trigger, ":labctl_") })
		switch {
		case err != nil:
			hists = append(hists, hist.Histogram{Event: f.Event, Disputed: "it cannot be read: " + err.Error()})
		case len(hists) != len(lines):
			for i := range hists {
				hists[i].Disputed = fmt.Sprintf("the kernel's text has %d histograms of the event, and %d are armed", len(hists), len(lines))
			}
		default:
			// The kernel has them in the order in which they were armed.
			for i, l := range lines {
				l.Idle, l.Never = 0, nil
				if hists[i].Hits+hists[i].Dropped == 0 {
					l.Idle, l.Never = 1, l.Names()
				}
			}
		}
		t.Hists = append(t.Hists, hists...)
	}
}
