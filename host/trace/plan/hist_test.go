package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

func TestHist(t *testing.T) {
	k := names(t, "", "sched:sched_switch sched:sched_waking kmem:kmalloc kmem:kmem_cache_alloc raw_syscalls:sys_enter a:twice b:twice")
	for _, tt := range []struct {
		asked string
		want  wire.CaptureHist // without its name
		why   string           // it is missing
	}{
		{asked: "sched:sched_switch key=next_comm", want: wire.CaptureHist{Event: "sched/sched_switch", Specs: []string{"keys=next_comm:sort=hitcount.descending"}}},
		{asked: "sched_switch hist:keys=next_comm,prev_state.hex:vals=prev_prio:sort=next_comm:size=256 if prev_prio < 100 && x == \"if\"",
			want: wire.CaptureHist{Event: "sched/sched_switch", Specs: []string{"keys=next_comm,prev_state.hex:vals=prev_prio:sort=next_comm:size=256"}, Filter: "prev_prio < 100 && x == \"if\""}},
		{asked: "sched/sched_waking key=comm,common_stacktrace", want: wire.CaptureHist{Event: "sched/sched_waking", Specs: []string{
			"keys=comm,common_stacktrace:sort=hitcount.descending", "keys=comm,stacktrace:sort=hitcount.descending"}}},
		{asked: "kmem:kmalloc key=bytes_req.log2", want: wire.CaptureHist{Event: "kmem/kmalloc", Specs: []string{"keys=bytes_req.log2:sort=bytes_req"}}},
		{asked: "kmem:kmalloc key=bytes_req.buckets=100 val=bytes_alloc", want: wire.CaptureHist{Event: "kmem/kmalloc", Specs: []string{"keys=bytes_req.buckets=100:vals=bytes_alloc:sort=bytes_req"}}},
		{asked: "kmem:kmalloc_node key=call_site.sym", want: wire.CaptureHist{Event: "kmem/kmalloc", Specs: []string{"keys=call_site.sym:sort=hitcount.descending"}}},
		{asked: "labctl:open key=dfd", want: wire.CaptureHist{Event: "labctl/open", Specs: []string{"keys=dfd:sort=hitcount.descending"}}},
		{asked: "sched:nosuch key=a", why: "this kernel has no such event"},
		{asked: "twice key=a", why: "several systems have an event of this name: a/twice, b/twice"},
	} {
		p, err := Make(Request{Hists: []string{tt.asked}, Creations: NoCreations}, k)
		if err != nil {
			t.Errorf("%s: %v", tt.asked, err)
			continue
		}
		l := p.Lines[0]
		if tt.why != "" {
			if l.Why != tt.why || !l.Missing() || len(p.Params.Hists) != 0 {
				t.Errorf("%s: line %+v; want it missing: %s", tt.asked, l, tt.why)
			}
			continue
		}
		if len(p.Params.Hists) != 1 {
			t.Errorf("%s: %d histograms, line %+v", tt.asked, len(p.Params.Hists), l)
			continue
		}
		got := p.Params.Hists[0]
		tt.want.Name = got.Name
		if d := cmp.Diff(tt.want, got); d != "" || got.Name != l.Name || l.Kind != "hist" || l.Armed[0] != got.Event || len(p.Params.Events) != 0 {
			t.Errorf("%s: line %+v (-want +got):\n%s", tt.asked, l, d)
		}
		p.Took(wire.CaptureArmed{Missing: []wire.CaptureMissing{{What: "hist " + got.Name, Why: "busy"}}})
		if l := p.Lines[0]; !l.Missing() || l.Why != "busy" || len(p.Lines) != 1 {
			t.Errorf("%s: refused, the lines are %+v", tt.asked, p.Lines)
		}
	}
	p, err := Make(Request{Hists: []string{"a:b key=" + strings.Repeat("x,", 100) + "x"}}, k)
	if err != nil || len(p.Lines[0].Name) > 160 {
		t.Errorf("a long one: %v, its name has %d bytes", err, len(p.Lines[0].Name))
	}
}

func TestHistErrors(t *testing.T) {
	for asked, want := range map[string]string{
		"":                             "want one event",
		"sched:* key=a":                "want one event",
		"a:b":                          "key=FIELD is missing",
		"a:b if x > 1":                 "key=FIELD is missing",
		"a:b key=":                     "want a field",
		"a:b key=a key=b":              "give fields once",
		"a:b key=a.percent":            "draws bars",
		"a:b key=a.buckets=x":          "want a field",
		"a:b key=ts0=common_timestamp": "want a field",
		"a:b key=a val=$x":             "want a field",
		"a:b key=a size=64":            "from 128 to 131072",
		"a:b key=a size=x":             "from 128 to 131072",
		"a:b key=a onmatch(x.y).z(a)":  "want key=",
		"a:b key=a name=x":             "want key=",
		"a:b key=a if x == 1\n!hist":   "one line",
		"a:b key=a\nhist:keys=b":       "want a field",
	} {
		err := Check(Request{Hists: []string{asked}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v; want %q", asked, err, want)
		}
	}
}

func FuzzParseHist(f *testing.F) {
	f.Add("sched:sched_switch key=next_comm,common_pid.execname:val=a.hex sort=hitcount.descending size=256 if prev_prio < 100")
	f.Fuzz(func(t *testing.T, asked string) {
		h, err := parseHist(asked)
		if err != nil {
			return
		}
		for _, spec := range h.specs() {
			if strings.ContainsAny(spec, " \n;#$") || !strings.HasPrefix(spec, "keys=") {
				t.Errorf("%q makes the trigger %q", asked, spec)
			}
		}
		if strings.ContainsAny(h.filter, "\n\x00") {
			t.Errorf("%q makes the filter %q", asked, h.filter)
		}
	})
}
