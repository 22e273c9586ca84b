package record

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/crash"
	"labctl/host/outcome"
)

// hung is an error as host/vm has them: it knows what was seen of the guest.
type hung struct {
	error
	kind outcome.Kind
	how  outcome.How
}

func (h *hung) Outcome() outcome.Kind { return h.kind }
func (h *hung) How() outcome.How      { return h.how }
func (h *hung) Reached() string       { return "init" }
func (h *hung) Seen() ([]string, *crash.Report) {
	return []string{"CPU 0: pc 0x1"}, &crash.Report{Kind: crash.Stall, Title: "a stall"}
}

func TestNewOutcome(t *testing.T) {
	late := &hung{errors.New("late"), outcome.Deadline, outcome.NotBooted}
	full := Outcome{
		Kind: outcome.Deadline, How: outcome.NotBooted, Phase: "init", CPUs: []string{"CPU 0: pc 0x1"},
		Crash: &Crash{Kind: "stall", Title: "a stall"},
	}
	with := func(o Outcome, message string) Outcome { o.Message = message; return o }
	for _, tt := range []struct {
		name string
		err  error
		want Outcome
	}{
		{"well", nil, Outcome{Kind: outcome.OK}},
		{"a program's own status", fmt.Errorf("x: %w", &outcome.StatusError{Status: 3}), Outcome{Kind: outcome.OK}},
		{"nobody's", errors.New("x"), Outcome{Kind: outcome.Internal, Message: "x"}},
		{"checks", outcome.Checks(2), Outcome{Kind: outcome.CheckFailed, Message: "2 checks failed"}},
		{"a guest that hung", fmt.Errorf("boot: %w", late), with(full, "boot: late")},
		{"one that decides, and a disk that was full", errors.Join(outcome.Hostf("disk"), late), with(full, "disk\nlate")},
		{"one that does not decide", errors.Join(outcome.New(outcome.GuestCrashed, "panic"), late), Outcome{Kind: outcome.GuestCrashed, Message: "panic\nlate"}},
	} {
		if diff := cmp.Diff(tt.want, NewOutcome(tt.err)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestUpgradeOutcome has each kind of v1.
func TestUpgradeOutcome(t *testing.T) {
	for _, tt := range []struct {
		old  string // of the outcome
		want Outcome
	}{
		{`"kind":"ok"`, Outcome{Kind: outcome.OK}},
		{`"kind":"checks"`, Outcome{Kind: outcome.CheckFailed}},
		{`"kind":"boot","phase":"init","message":"m"`, Outcome{Kind: outcome.GuestCrashed, How: outcome.NotBooted, Phase: "init", Message: "m"}},
		{`"kind":"crash","crash":{"kind":"panic","title":"t","lines":["l"]}`, Outcome{Kind: outcome.GuestCrashed, How: "panic", Crash: &Crash{Kind: "panic", Title: "t", Lines: []string{"l"}}}},
		{`"kind":"crash"`, Outcome{Kind: outcome.GuestCrashed, How: outcome.Reset}},
		{`"kind":"off"`, Outcome{Kind: outcome.GuestCrashed, How: outcome.PoweredOff}},
		{`"kind":"deadline","cpus":["CPU 0"]`, Outcome{Kind: outcome.Deadline, CPUs: []string{"CPU 0"}}},
		{`"kind":"agent"`, Outcome{Kind: outcome.GuestCrashed, How: outcome.Silent}},
		{`"kind":"probe"`, Outcome{Kind: outcome.CheckFailed, How: outcome.ProbeFailed}},
		{`"kind":"host"`, Outcome{Kind: outcome.HostLacks}},
		{`"kind":"interrupted"`, Outcome{Kind: outcome.Interrupted}},
	} {
		r, err := Decode([]byte(`{"schema":"labctl/run/v1","name":"x","outcome":{` + tt.old + `}}`))
		if err != nil {
			t.Errorf("%s: %v", tt.old, err)
			continue
		}
		if diff := cmp.Diff(tt.want, r.Outcome); diff != "" || r.Schema != Schema {
			t.Errorf("%s, schema %s (-want +got):\n%s", tt.old, r.Schema, diff)
		}
	}
	for _, bad := range []string{`"kind":"fine"`, `"kind":3`, `"kind":"ok","x":1`} {
		if r, err := Decode([]byte(`{"schema":"labctl/run/v1","outcome":{` + bad + `}}`)); err == nil {
			t.Errorf("an outcome with %s is %+v; want an error", bad, r.Outcome)
		}
	}
	if _, err := Decode([]byte(`{"schema":"labctl/run/v2","outcome":{"kind":"checks"}}`)); err == nil || !strings.Contains(err.Error(), `outcome "checks" is not known`) {
		t.Errorf("a kind of v1 in v2: %v; want an error", err)
	}
}
