package judge

import (
	"strings"
	"testing"

	"labctl/host/lab"
	"labctl/host/lab/result"
)

const config = `id: T1
topic: process
title: {en: Try, ko: 시험}
summary: {en: One., ko: 하나.}
source: {seed: "seed0: a"}
steps:
  - {id: fork, probe: fork}
checks:
  - {id: holds, says: {en: A., ko: 가.}, that: fork.pid == 10}
  - {id: fails, says: {en: A., ko: 가.}, that: fork.pid == 11, seen: fork.data, hint: {en: look, ko: 보라}}
  - {id: cannot, says: {en: A., ko: 가.}, that: fork.data.nothing == 1}
  - {id: elsewhere, says: {en: A., ko: 가.}, when: kernel.arch == "arm64", why_not: {en: not arm64, ko: 아님}, that: "false"}
claims:
  - {id: yes, says: {en: A., ko: 가.}, source: s, confirmed: fork.pid == 10, refuted: fork.pid == 11, evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: no, says: {en: A., ko: 가.}, source: s, confirmed: fork.pid == 11, refuted: fork.pid == 10, evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: depends, says: {en: A., ko: 가.}, source: s, confirmed: fork.pid == 11, evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: both, says: {en: A., ko: 가.}, source: s, confirmed: fork.pid == 10, refuted: fork.pid == 10, evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: broken, says: {en: A., ko: 가.}, source: s, confirmed: "fork.tasks[3].pid == 10", evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: off, says: {en: A., ko: 가.}, source: s, when: kernel.btf, why_not: {en: no BTF, ko: 없음}, confirmed: fork.pid == 10, evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: rule, says: {en: A., ko: 가.}, source: s, confirmed: fork.pid == 11, not_enforced: fork.pid == 10, risk: {en: all, ko: 모두}, tests: [ltp/vfork01], evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: rule-holds, says: {en: A., ko: 가.}, source: s, confirmed: fork.pid == 10, not_enforced: fork.pid == 11, risk: {en: all, ko: 모두}, evidence: string(fork.pid), why: {en: a, ko: 가}}
  - {id: rule-both, says: {en: A., ko: 가.}, source: s, refuted: fork.pid == 10, not_enforced: fork.pid == 10, risk: {en: all, ko: 모두}, evidence: string(fork.pid), why: {en: a, ko: 가}}
exercise:
  checks: [{id: one, says: {en: A., ko: 가.}, that: program.exit == 0}]
  hints: [{en: a, ko: 가}]
`

func load(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.Parse([]byte(config), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func good(l *lab.Lab) *result.Result {
	return &result.Result{Lab: "T1", SHA256: l.SHA256, Kernel: result.Kernel{Arch: "amd64"}, Steps: []*result.Step{{ID: "fork", PID: 10, Data: map[string]any{"a": int64(1)}}}}
}

func TestJudge(t *testing.T) {
	l := load(t)
	r, err := Judge(l, good(l))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Verdict{Pass, Fail, Fail, NotApplicable} {
		if got := r.Checks[i].Verdict; got != want {
			t.Errorf("check %s: %s; want %s", r.Checks[i].ID, got, want)
		}
	}
	if c := r.Checks[1]; len(c.Seen) != 2 || c.Seen[0].String() != "fork.pid = 10" || c.Seen[1].String() != `fork.data = {"a": 1}` || c.Hint == nil {
		t.Errorf("failed check = %+v; want fork.pid, its own seen and a hint", c)
	}
	if c := r.Checks[2]; !strings.Contains(c.Error, "no such key") {
		t.Errorf("check that cannot be = %+v; want the reason", c)
	}
	if c := r.Checks[3]; c.Why == nil || c.Why.EN != "not arm64" {
		t.Errorf("check elsewhere = %+v; want the reason", c)
	}
	if r.Passed() != 1 || r.Failed() != 2 || r.Verdict() != Fail || r.Changed {
		t.Errorf("report: %d pass, %d fail, %s, changed %t", r.Passed(), r.Failed(), r.Verdict(), r.Changed)
	}
	for i, want := range []Verdict{Confirmed, Refuted, Depends, Unknown, Unknown, NotApplicable, NotEnforced, Confirmed, Unknown} {
		c := r.Claims[i]
		if c.Verdict != want || (c.Verdict == Unknown) != (c.Error != "") {
			t.Errorf("claim %s: %s, error %q; want %s", c.ID, c.Verdict, c.Error, want)
		}
	}
	if c := r.Claims[6]; c.Risk == nil || c.Risk.EN != "all" || len(c.Tests) != 1 {
		t.Errorf("rule that is not enforced: risk %v, tests %q; want both", c.Risk, c.Tests)
	}
	if c := r.Claims[7]; c.Risk != nil {
		t.Errorf("rule that holds: risk %v; want none", c.Risk)
	}
	if r.Claims[0].Evidence != "10" {
		t.Errorf("evidence %q; want 10", r.Claims[0].Evidence)
	}
}

// TestAfter: what shows nothing by itself fails with what it rests on, and holds where
// that does not apply.
func TestAfter(t *testing.T) {
	l, err := lab.Parse([]byte(strings.Replace(config, "claims:\n", `  - {id: rests, says: {en: A., ko: 가.}, after: [holds, fails], that: fork.pid == 10}
  - {id: on-those, says: {en: A., ko: 가.}, after: [rests], that: fork.pid == 10}
  - {id: on-none, says: {en: A., ko: 가.}, after: [holds, elsewhere], that: fork.pid == 10}
claims:
`, 1)), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Judge(l, good(l))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Check{
		{ID: "rests", Verdict: Fail, Error: "it would show nothing without fails, which does not hold"},
		{ID: "on-those", Verdict: Fail, Error: "it would show nothing without rests, which does not hold"},
		{ID: "on-none", Verdict: Pass},
	} {
		if c := r.Checks[4+i]; c.ID != want.ID || c.Verdict != want.Verdict || c.Error != want.Error {
			t.Errorf("check %d: %+v; want %+v", 4+i, c, want)
		}
	}
}

// TestTampered: of bent evidence no check passes, and what fails still does.
func TestTampered(t *testing.T) {
	l := load(t)
	res := good(l)
	res.Steps[0].Tampered = []string{"tracing_on:\x1b[2J 1 before"}
	r, err := Judge(l, res)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Verdict{Tampered, Fail, Fail, NotApplicable} {
		if got := r.Checks[i].Verdict; got != want {
			t.Errorf("check %s: %s; want %s", r.Checks[i].ID, got, want)
		}
	}
	if len(r.Tampered) != 1 || !strings.HasPrefix(r.Tampered[0], "step fork: tracing_on:") || strings.Contains(r.Tampered[0], "\x1b") {
		t.Errorf("tampered: %q; want the step and its reason, clean", r.Tampered)
	}
	if r.Passed() != 0 || r.Failed() != 3 || r.Verdict() != Tampered {
		t.Errorf("%d pass, %d fail, %s; want 0, 3, %s", r.Passed(), r.Failed(), r.Verdict(), Tampered)
	}
}

// TestSilent: a check that fails says so when an event that it looks at is nowhere.
func TestSilent(t *testing.T) {
	l, err := lab.Parse([]byte(strings.Replace(config, "that: fork.pid == 10}", "that: 'fork.on(\"sched_switch\").size() + fork.on(\"leave\").size() + fork.on(\"gone\").size() > 9'}", 1)), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	res := good(l)
	res.Steps[0].Events = []result.Event{{Name: "sched_switch"}}
	res.Steps[0].NotTraced = []string{"sched/gone: no such event"}
	r, err := Judge(l, res)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range r.Checks[0].Seen[len(r.Checks[0].Seen)-2:] {
		got = append(got, s.String())
	}
	want := `on("gone") = not traced: sched/gone: no such event; on("leave") = armed, and it never fired, in this step and all others`
	if strings.Join(got, "; ") != want {
		t.Errorf("seen last: %s; want %s", strings.Join(got, "; "), want)
	}
}

// TestNothingIsTold gives results by which a lab must not pass.
func TestNothingIsTold(t *testing.T) {
	l := load(t)
	for _, tt := range []struct {
		name  string
		spoil func(*result.Result)
		check string // that fails
		err   string
	}{
		{"lost events", func(r *result.Result) { r.Steps[0].Lost = 1 }, "trace-fork", ""},
		{"probe failed", func(r *result.Result) { r.Steps[0].Exit = 1 }, "step-fork", ""},
		{"crashed", func(r *result.Result) { r.Unfinished = "guest crashed:\x1b[2J\npanic" }, "", "the run failed: guest crashed"},
		{"step missing", func(r *result.Result) { r.Steps = nil }, "", "step fork is not in the result"},
		{"another lab's", func(r *result.Result) { r.Lab = "T2" }, "", "is of lab T2"},
		{"exercise without its step", func(r *result.Result) { r.Exercise = true }, "", "step program is not"},
	} {
		r := good(l)
		tt.spoil(r)
		rep, err := Judge(l, r)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil || rep.Checks[0].ID != tt.check || rep.Checks[0].Verdict != Fail {
			t.Errorf("%s: %+v, %v; want check %s to fail", tt.name, rep, err, tt.check)
		}
	}
	r := good(l)
	r.Steps, r.Missing = nil, []string{"it needs X"}
	if rep, err := Judge(l, r); err != nil || rep.Verdict() != NotApplicable || rep.Passed() != 0 {
		t.Errorf("a lab that was not run: %+v, %v", rep, err)
	}
	r = good(l)
	r.SHA256 = "other"
	if rep, err := Judge(l, r); err != nil || !rep.Changed {
		t.Errorf("a lab that has changed: %+v, %v", rep, err)
	}
}

// TestNotRun: what looks at a step that this host could not build is neither a
// pass nor a failure, by whichever of its expressions.
func TestNotRun(t *testing.T) {
	config := strings.Replace(config, "  - {id: fork, probe: fork}\n", "  - {id: fork, probe: fork}\n  - {id: libc, program: libc}\n", 1)
	config = strings.Replace(config, "claims:\n", `  - {id: of-c, says: {en: A., ko: 가.}, that: libc.exit == 0 && fork.exit == 0}
  - {id: shown, says: {en: A., ko: 가.}, that: fork.pid == 10, seen: libc.data}
claims:
  - {id: c, says: {en: A., ko: 가.}, source: s, confirmed: fork.pid == 10, evidence: string(libc.pid), why: {en: a, ko: 가}}
`, 1)
	l, err := lab.Parse([]byte(config), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	res := good(l)
	res.Steps = append(res.Steps, &result.Step{ID: "libc", NoCompiler: "some-gcc"})
	r, err := Judge(l, res)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Checks[0]; c.Verdict != Pass {
		t.Errorf("check %s: %s; want %s", c.ID, c.Verdict, Pass)
	}
	for _, c := range r.Checks[4:] {
		if c.Verdict != NotApplicable || c.Why == nil || !strings.Contains(c.Why.EN, "some-gcc") || !strings.Contains(c.Why.KO, "some-gcc") {
			t.Errorf("check %s: %s, %v; want %s because of some-gcc", c.ID, c.Verdict, c.Why, NotApplicable)
		}
	}
	if c := r.Claims[0]; c.Verdict != NotApplicable || c.Why == nil || !strings.Contains(c.Why.EN, "some-gcc") {
		t.Errorf("claim %s: %s, %v; want %s because of some-gcc", c.ID, c.Verdict, c.Why, NotApplicable)
	}
	res.Steps[1] = &result.Step{ID: "libc", NoCall: "clone3"}
	if r, err := Judge(l, res); err != nil || r.Checks[4].Verdict != NotApplicable || !strings.Contains(r.Checks[4].Why.EN, "no system call clone3") || !strings.Contains(r.Checks[4].Why.KO, "clone3") {
		t.Errorf("a system call that is not there: %+v, %v; want %s because of it", r.Checks[4], err, NotApplicable)
	}
	// Of a program, unlike a probe, the checks say what its exit status means.
	res.Steps[1] = &result.Step{ID: "libc", Exit: 1}
	if r, err := Judge(l, res); err != nil || r.Checks[0].ID != "holds" {
		t.Errorf("a program that exits 1: check %s, %v; want the lab's own checks alone", r.Checks[0].ID, err)
	}
}

// TestExitSignals: without types no exit signal is traced, and what asks for one
// cannot be told; the flags still can.
func TestExitSignals(t *testing.T) {
	l, err := lab.Parse([]byte(strings.Replace(config, "that: fork.pid == 10}", "that: 'fork.creations.all(c, c.flags == 0 && c.exit_signal == 17)'}", 1)), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		made  []result.Creation
		other []result.Creation
		want  Verdict
	}{
		{"traced", []result.Creation{{ExitSignal: 17}}, nil, Pass},
		{"traced, and another", []result.Creation{{ExitSignal: 10}}, nil, Fail},
		{"not traced", []result.Creation{{ExitSignal: -1}}, nil, NotApplicable},
		{"traced of another task", []result.Creation{{ExitSignal: -1}}, []result.Creation{{ExitSignal: 0}}, Fail},
		{"nothing traced", []result.Creation{{Flags: -1, ExitSignal: -1}}, nil, Fail},
	} {
		r := good(l)
		r.Steps[0].Creations, r.Steps[0].Others = tt.made, tt.other
		rep, err := Judge(l, r)
		if err != nil {
			t.Fatal(err)
		}
		if c := rep.Checks[0]; c.Verdict != tt.want || (c.Verdict == NotApplicable) != (c.Why != nil) {
			t.Errorf("%s: %s, why %v; want %s", tt.name, c.Verdict, c.Why, tt.want)
		}
		if c := rep.Checks[1]; c.Verdict != Fail {
			t.Errorf("%s: a check that needs no signal: %s; want %s", tt.name, c.Verdict, Fail)
		}
	}
}

// TestEarly: a check is judged when what it looks at is there, and not before.
func TestEarly(t *testing.T) {
	const two = `id: T1
topic: process
title: {en: Try, ko: 시험}
summary: {en: One., ko: 하나.}
steps:
  - {id: a, probe: fork}
  - {id: b, shell: "b"}
checks:
  - {id: first, says: {en: A., ko: 가.}, that: a.pid == 10}
  - {id: wrong, says: {en: A., ko: 가.}, that: a.pid == 11}
  - {id: both, says: {en: A., ko: 가.}, that: a.pid < b.pid, after: [first]}
  - {id: after-wrong, says: {en: A., ko: 가.}, that: a.pid == 10, after: [wrong]}
  - {id: traced, says: {en: A., ko: 가.}, that: a.creations.size() == 0}
  - {id: shown, says: {en: A., ko: 가.}, that: a.pid == 10, seen: a.events}
  - {id: kernel, says: {en: A., ko: 가.}, that: kernel.arch == "amd64"}
`
	l, err := lab.Parse([]byte(two), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := &result.Result{Lab: "T1", Kernel: result.Kernel{Arch: "amd64"}}
	for _, tt := range []struct {
		step *result.Step
		want string
	}{
		{nil, ""},
		{&result.Step{ID: "a", PID: 10}, "first pass, wrong fail"},
		{&result.Step{ID: "b", PID: 20}, "first pass, wrong fail, both pass"},
	} {
		if tt.step != nil {
			r.Steps = append(r.Steps, tt.step)
		}
		var got []string
		for _, c := range Early(l, r) {
			got = append(got, c.ID+" "+string(c.Verdict))
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("with %d steps: %q; want %q", len(r.Steps), s, tt.want)
		}
	}
}
