package trace

import (
	"strings"
	"testing"

	"labctl/host/record"
	"labctl/host/trace/collect"
	"labctl/host/trace/plan"
)

const oneHist = `# event histogram
#
# trigger info: hist:keys=comm:vals=hitcount:sort=hitcount:size=2048 [paused]
#

{ comm: sh                                                 } hitcount:         15

Totals:
    Hits: 15
    Entries: 1
    Dropped: 0
`

// TestReadHists: which histogram is whose, and what is said of a text that is not what was
// armed.
func TestReadHists(t *testing.T) {
	empty := strings.NewReplacer("{ comm: sh                                                 } hitcount:         15", "", "15", "0", "Entries: 1", "Entries: 0").Replace(oneHist)
	hist := func(name, event string) plan.Line {
		return plan.Line{Kind: "hist", Name: name, Armed: []string{event}, Count: 1}
	}
	tr := record.Trace{Lines: []plan.Line{
		hist("x", "a/b"), {Kind: "hist", Name: "gone", Why: "no"}, hist("y", "a/b"), hist("z", "c/d"), hist("w", "e/f"),
	}}
	readHists(&tr, []collect.Hist{
		{Event: "a/b", Text: []byte(oneHist + "\n\n" + empty)},
		{Event: "c/d", Text: []byte(oneHist + oneHist)},
		{Event: "e/f", Text: []byte("nothing")},
	})
	if len(tr.Hists) != 5 {
		t.Fatalf("%d histograms, want 5", len(tr.Hists))
	}
	for i, want := range []string{"", "", "2 histograms of the event, and 1 are armed", "2 histograms of the event, and 1 are armed", "it cannot be read: no histogram"} {
		if got := tr.Hists[i].Disputed; !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("histogram %d: %q, want %q", i+1, got, want)
		}
	}
	for i, idle := range []int{0, 0, 1, 0, 0} {
		if got := tr.Lines[i].Idle; got != idle {
			t.Errorf("%s: %d never hit, want %d", tr.Lines[i].Name, got, idle)
		}
	}
}
