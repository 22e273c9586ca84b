package wire

import "testing"

func TestTraceNameString(t *testing.T) {
	for want, n := range map[string]TraceName{
		"f: a":                 {File: "f", Asked: "a", Became: "a"},
		"f: a (why)":           {File: "f", Asked: "a", Became: "a", Why: "why"},
		"f: a → b":             {File: "f", Asked: "a", Became: "b"},
		"f: a → b (why)":       {File: "f", Asked: "a", Became: "b", Why: "why"},
		"f: a is not there":    {File: "f", Asked: "a"},
		"f: a is not there: w": {File: "f", Asked: "a", Why: "w"},
	} {
		if got := n.String(); got != want {
			t.Errorf("%+v is %q, want %q", n, got, want)
		}
	}
}
