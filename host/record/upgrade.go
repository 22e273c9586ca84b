package record

import (
	"strings"
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
