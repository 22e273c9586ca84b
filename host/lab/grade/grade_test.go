package grade

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/runner"
	"labctl/host/lab/see"
	"labctl/host/machine"
	"labctl/host/session"
)

// directory holds the labs as they are on disk.
const folder = "../../../labs"

// The default kernel, whatever is cached, is what users get; the labs are
// written for every kernel, and `labctl lab run --all --kernel K` runs the rest.
const series = "6.12"

func setup(t *testing.T) (session.Env, *lab.Set) {
	t.Helper()
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	set, err := lab.Load(os.DirFS(folder))
	if err != nil || len(set.Broken) > 0 {
		t.Fatalf("load labs: %v, %v", err, set.Broken)
	}
	return session.Env{Env: machine.Env{Cache: cache, Say: func(line string) { t.Log(line) }}}, set
}

// turn bounds the machines that run at once.
var turn = make(chan struct{}, runtime.GOMAXPROCS(0))

func inTurn(t *testing.T, name string, f func(*testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		turn <- struct{}{}
		defer func() { <-turn }()
		start := time.Now()
		f(t)
		t.Logf("%.2f s", time.Since(start).Seconds())
	})
}

// TestLabs runs every lab, and holds its exercise against its solution, its
// skeleton and its wrong programs.
func TestLabs(t *testing.T) {
	env, set := setup(t)
	for _, arch := range []string{"amd64", "arm64"} {
		spec := machine.Spec{Arch: arch, Kernel: series}
		for _, l := range set.Labs {
			inTurn(t, l.ID+"-"+arch, func(t *testing.T) { runLab(t, env, spec, l) })
			if l.Exercise == nil {
				continue
			}
			dir := filepath.Join(folder, filepath.Dir(l.File))
			programs := []string{lab.Solution}
			if arch == "arm64" { // what makes a program wrong is the same on every architecture
				wrong, err := filepath.Glob(filepath.Join(dir, lab.Wrong, "*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range wrong {
					programs = append(programs, filepath.Join(lab.Wrong, filepath.Base(w)))
				}
			}
			programs = append(programs, lab.Exercise)
			inTurn(t, l.ID+"-"+arch+"-exercise", func(t *testing.T) { gradePrograms(t, env, spec, l, dir, programs) })
		}
	}
}

// runLab gives a lab a second machine before it calls it wrong: several labs
// measure time, and a busy host may hold a machine for longer than any bound that
// would still tell something. What the first one said is in the log.
func runLab(t *testing.T, env session.Env, spec machine.Spec, l *lab.Lab) {
	bad := complaints(t, env, spec, l)
	if len(bad) == 0 {
		return
	}
	t.Logf("once more, after: %s", strings.Join(bad, "; "))
	for _, b := range complaints(t, env, spec, l) {
		t.Error(b)
	}
}

func complaints(t *testing.T, env session.Env, spec machine.Spec, l *lab.Lab) (bad []string) {
	ran, err := runner.Lab(t.Context(), env, session.Options{Keep: session.KeepNothing, Spec: spec}, l)
	if ran.Report == nil {
		return []string{err.Error()}
	}
	r := ran.Report
	for _, c := range r.Checks {
		if c.Verdict == judge.Fail {
			bad = append(bad, fmt.Sprintf("check %s fails: %s %v", c.ID, c.Error, c.Seen))
		}
	}
	for _, c := range r.Claims {
		if c.Verdict == judge.Unknown {
			bad = append(bad, fmt.Sprintf("claim %s: %s", c.ID, c.Error))
		}
	}
	for _, v := range see.Views(l, ran.Result) {
		if v.Failed != "" {
			bad = append(bad, fmt.Sprintf("view %s: %s", v.ID, v.Failed))
		}
	}
	return bad
}

// gradePrograms wants the first program to pass, and the others to fail those
// checks that the lab says, and no others.
func gradePrograms(t *testing.T, env session.Env, spec machine.Spec, l *lab.Lab, dir string, programs []string) {
	var all []Submission
	for _, name := range programs {
		all = append(all, Submission{Src: os.DirFS(filepath.Join(dir, name)), Shown: name})
	}
	grades, err := Several(t.Context(), env, spec, l, all)
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range grades {
		want := l.Exercise.Fails[programs[i]]
		if d := cmp.Diff(verdicts(l, want), g.verdicts()); d != "" {
			// Is it so by itself, or by what those before it have left, or what a
			// busy host has done to it?
			t.Logf("%s: %s; once more, alone, after -want +got\n%s", programs[i], g.Outcome, d)
			if g, err = One(t.Context(), env, session.Options{Spec: spec}, l, all[i]); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(verdicts(l, want), g.verdicts()); d != "" {
			t.Errorf("%s: %s (%s): -want +got\n%s", programs[i], g.Outcome, g.Message, d)
			if g.Report != nil {
				for _, c := range g.Report.Checks {
					t.Logf("  %s: %s %s %v", c.ID, c.Verdict, c.Error, c.Seen)
				}
			}
		}
	}
}

// verdicts are those of a program that fails these checks.
func verdicts(l *lab.Lab, fails []string) map[string]judge.Verdict {
	all := map[string]judge.Verdict{}
	for _, c := range l.Exercise.Checks {
		all[c.ID] = judge.Pass
		if slices.Contains(fails, c.ID) {
			all[c.ID] = judge.Fail
		}
	}
	return all
}

func (g *Grade) verdicts() map[string]judge.Verdict {
	all := map[string]judge.Verdict{}
	if g.Report != nil {
		for _, c := range g.Report.Checks {
			all[c.ID] = c.Verdict
		}
	}
	return all
}
