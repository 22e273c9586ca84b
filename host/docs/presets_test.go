package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/trace"
	"labctl/host/trace/plan"
	"labctl/host/trace/preset"
)

func TestPresets(t *testing.T) {
	check := func(name string, events int64, lines ...plan.Line) trace.Check {
		return trace.Check{Preset: preset.Preset{Name: name, EN: "en " + name, KO: "ko " + name}, Lines: lines, Events: events}
	}
	renamed := plan.Line{Kind: "function", Name: "_do_fork", Armed: []string{"kernel_clone"}, Count: 1, Why: "renamed"}
	missing := plan.Line{Kind: "function", Name: "rpi", Why: "not here"}
	event := plan.Line{Kind: "event", Name: "sched/sched_switch", Armed: []string{"sched/sched_switch"}, Count: 1}
	noTracer := plan.Line{Kind: "tracer", Name: "function", Why: "none of its functions"}
	failed := check("c", 0)
	failed.Error = "it did not"
	all := []trace.Checks{
		{Arch: "amd64", Release: "5.10.0-32-amd64", Presets: []trace.Check{check("a", 3, renamed, event), check("b", 0, missing, event, noTracer), check("c", 1, event)}},
		{Arch: "arm64", Release: "7.2.12+deb14-arm64", Presets: []trace.Check{check("a", 3, renamed, missing), check("b", 1, missing, event, noTracer), failed}},
	}
	got := presets(all)
	at := len(presets(nil)) - len("| preset | what it shows | 무엇을 보이는가 |\n|---|---|---|\n")
	want := `| preset | what it shows | 무엇을 보이는가 | 5.10, amd64 | 7.2, arm64 |
|---|---|---|---|---|
| ` + "`a`" + ` | en a | ko a | 2/2 | 1/2 |
| ` + "`b`" + ` | en b | ko b | 1/2, no tracer | 1/2, no tracer |
| ` + "`c`" + ` | en c | ko c | 1/1 | failed: it did not |

## What is missing, and why

| name | missing | kernels | presets |
|---|---|---|---|
| ` + "`rpi`" + ` | not here | all | b, a |

## What has another name

| name | traced as | kernels | presets |
|---|---|---|---|
| ` + "`_do_fork`" + ` | ` + "`kernel_clone`" + `: renamed | all | a |

This page is written by ` + "`make presets`" + `, on these kernels: 5.10.0-32-amd64, 7.2.12+deb14-arm64.
`
	if d := cmp.Diff(want, got[at:]); d != "" {
		t.Errorf("page: -want +got\n%s", d)
	}
}
