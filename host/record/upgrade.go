package record

import (
	"strings"

	"labctl/host/outcome"
)

// schemaV1 is the schema before Schema.
const schemaV1 = "labctl/run/v1"

// upgradeV1 makes a run.json of schemaV1 one of Schema. Fields that neither has stay
// as they are, for the strict reading of the result to name.
//
// In v1 a probe's trace was the kernel's text: "bad_lines" counted lines that could
// not be read, "trace" the bytes and entries of the text, and "armed" had nothing
// but the symbols of probes and, as texts, what was missing.
func upgradeV1(run map[string]any) {
	probes, _ := run["probes"].([]any)
	for _, p := range probes {
		if p, ok := p.(map[string]any); ok {
			upgradeProbe(p)
		}
	}
	if o, ok := run["outcome"].(map[string]any); ok {
		upgradeOutcome(o)
	}
}

func upgradeProbe(p map[string]any) {
	delete(p, "trace")
	if n, ok := p["bad_lines"]; ok {
		delete(p, "bad_lines")
		p["damaged"] = n
	}
	armed, ok := p["armed"].(map[string]any)
	if !ok {
		return
	}
	// "event sched/nosuch: no such file or directory"
	if missing, ok := armed["missing"].([]any); ok {
		for i, m := range missing {
			if m, ok := m.(string); ok {
				what, why, _ := strings.Cut(m, ": ")
				missing[i] = map[string]string{"what": what, "why": why}
			}
		}
	}
}

// outcomesV1 are the kinds of outcomes that v1 had words of its own for.
var outcomesV1 = map[outcome.Kind]struct {
	kind outcome.Kind
	how  outcome.How
}{
	"checks": {kind: outcome.CheckFailed},
	"boot":   {outcome.GuestCrashed, outcome.NotBooted},
	"crash":  {outcome.GuestCrashed, outcome.Reset}, // or what its report says
	"off":    {outcome.GuestCrashed, outcome.PoweredOff},
	"agent":  {outcome.GuestCrashed, outcome.Silent},
	"probe":  {outcome.CheckFailed, outcome.ProbeFailed},
	"host":   {kind: outcome.HostLacks}, // and whatever else nobody had classified
}

// upgradeOutcome puts the kinds of v1, some of which said how a guest went, into
// today's.
func upgradeOutcome(o map[string]any) {
	kind, _ := o["kind"].(string)
	old, ok := outcomesV1[outcome.Kind(kind)]
	if !ok {
		return
	}
	if crash, ok := o["crash"].(map[string]any); ok && kind == "crash" {
		how, _ := crash["kind"].(string)
		old.how = outcome.How(how)
	}
	o["kind"] = string(old.kind)
	if old.how != "" {
		o["how"] = string(old.how)
	}
}
