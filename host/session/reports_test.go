package session

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"labctl/guest/wire"
	"labctl/host/crash"
	"labctl/host/faults"
	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// TestReports provokes a warning and an oops on real kernels, one after the other in
// one machine, and wants them with their kind, task and first frame.
func TestReports(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{"5.10", "7.2"} { // 6.12 is run by the scripts of labctl
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(series+"-"+arch, func(t *testing.T) {
				ref, err := kernel.ParseRef(series)
				if err != nil {
					t.Fatal(err)
				}
				k, err := cache.Get(t.Context(), ref, arch, nil)
				if err != nil {
					t.Fatal(err)
				}
				var bundle program.Bundle
				for _, f := range []faults.Fault{faults.Warn, faults.Oops} {
					p := faulty(t, k, arch, f)
					defer p.Close()
					if err := bundle.AddProgram(p); err != nil {
						t.Fatal(err)
					}
				}
				var said []string
				env := Env{Env: machine.Env{Cache: cache, Say: func(s string) { t.Log(s) }}, Warn: func(err error) { said = append(said, err.Error()) }}
				o := Options{Name: "reports", Out: t.TempDir(), Spec: machine.Spec{Arch: arch, Kernel: series}}
				s, err := Run(t.Context(), env, o, func(ctx context.Context, s *Session) error {
					if err := bundle.Send(ctx, s.VM.Agent()); err != nil {
						return err
					}
					for _, argv := range [][]string{{"/run/labctl/warn"}, {"/run/labctl/oops", "child"}} {
						var out strings.Builder
						res, err := s.VM.Agent().Exec(ctx, wire.ExecParams{Argv: argv}, agent.IO{Stdout: &out, Stderr: &out})
						if err != nil || !res.Exited || res.Code != 0 {
							return fmt.Errorf("%v ended with %+v, %w: %s", argv, res, err, out.String())
						}
					}
					// At a deadline the oops is what there is to see.
					late := new(vm.DeadlineError)
					if err := s.VM.Why(context.DeadlineExceeded); !errors.As(err, &late) || len(late.Reports) == 0 || late.Reports[0].Kind != crash.Oops {
						return fmt.Errorf("a deadline is %w, with reports %v; want the oops", err, late.Reports)
					}
					return nil
				})
				var reported *ReportedError
				if !errors.As(err, &reported) || reported.Report.Kind != crash.Oops || outcome.Of(err) != outcome.KernelReported || outcome.HowOf(err) != "oops" {
					t.Fatalf("Run = %v (%s, %s); want the oops", err, outcome.Of(err), outcome.HowOf(err))
				}
				want := []record.Brief{{Kind: "warning", Task: "warn", In: "refcount_warn_saturate"}, {Kind: "oops", Task: "exe", In: faults.Oops.Function()}}
				// A guest whose host has no time for it reports that it hangs.
				reports := slices.DeleteFunc(s.Run.Reports, func(c *record.Crash) bool { return crash.Kind(c.Kind).Hang() })
				said = slices.DeleteFunc(said, func(line string) bool {
					return strings.Contains(line, "soft lockup") || strings.Contains(line, "stall")
				})
				if len(reports) != len(want) || len(said) != len(want) {
					t.Fatalf("%d reports, said %q; want %d", len(reports), said, len(want))
				}
				for i, w := range want {
					b := reports[i].Brief()
					comm, pid, _ := strings.Cut(b.Task, ":")
					if b.Kind != w.Kind || comm != w.Task || pid == "" || b.In != w.In {
						t.Errorf("report %d is %+v, want %+v", i, b, w)
					}
					if line := b.String() + "; " + s.Dir.File(record.RunFile); said[i] != line {
						t.Errorf("said %q, want %q", said[i], line)
					}
				}
				kept, err := s.Dir.ReadRun()
				if err != nil || len(kept.Reports) < len(want) || kept.Outcome.Kind != outcome.KernelReported || kept.Outcome.Crash == nil || kept.Outcome.Crash.Kind != "oops" {
					t.Errorf("the record: %v, outcome %+v; want both reports and the oops", err, kept.Outcome)
				}
			})
		}
	}
}

// faulty builds a program that loads a module with a fault, called as the fault.
func faulty(t *testing.T, k *kernel.Kernel, arch string, f faults.Fault) *program.Program {
	t.Helper()
	donors, err := k.Modules(faults.Donor)
	if err != nil {
		t.Fatal(err)
	}
	module, err := faults.Build(donors[len(donors)-1].Data, faults.Donor, f)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() + "/" + string(f)
	if err := faults.WriteProgram(dir, map[string][]byte{arch: module}); err != nil {
		t.Fatal(err)
	}
	p, err := program.Find(t.Context(), dir, arch)
	if err != nil {
		t.Fatal(err)
	}
	p.Argv0 = path.Join(path.Dir(p.Argv0), string(f)) // two of one name would be one
	return p
}

// TestFailOn: reports at or above the severity fail a run that has not ended worse.
func TestFailOn(t *testing.T) {
	warn := &crash.Report{Kind: crash.Warning, Title: "w"}
	hang := &crash.Report{Kind: crash.HungTask, Title: "h"}
	oops := &crash.Report{Kind: crash.Oops, Title: "o"}
	reports := func(r ...*crash.Report) []*crash.Report { return r }
	for _, tt := range []struct {
		name    string
		reports []*crash.Report
		failOn  record.FailOn
		err     error
		want    outcome.Kind
		short   string // of a *ReportedError, none if empty
	}{
		{"nothing", nil, "", nil, outcome.OK, ""},
		{"a warning", reports(warn), "", nil, outcome.OK, ""},
		{"a warning fails", reports(warn), record.FailOnWarn, nil, outcome.KernelReported, "the kernel's warning fails this run (--fail-on warn); the program's own status was 0"},
		{"a hang", reports(hang, warn), record.FailOnOops, nil, outcome.OK, ""},
		{"a hang fails", reports(warn, hang), record.FailOnBug, nil, outcome.KernelReported, "the kernel's hung task fails this run (--fail-on bug); the program's own status was 0"},
		{"an oops", reports(warn, oops, hang), "", nil, outcome.KernelReported, "the kernel's oops fails this run (--fail-on oops); the program's own status was 0"},
		{"an oops that is wanted", reports(oops), record.FailOnNone, nil, outcome.OK, ""},
		{"a status", reports(oops), "", &outcome.StatusError{Status: 3}, outcome.KernelReported, "the kernel's oops fails this run (--fail-on oops); the program's own status was 3"},
		{"checks", reports(oops), "", &outcome.ChecksError{Failed: 2}, outcome.KernelReported, "the kernel's oops fails this run (--fail-on oops); 2 checks failed"},
		{"a deadline", reports(oops), "", outcome.ErrTimeout, outcome.Deadline, ""},
		{"a signal", reports(oops), "", &outcome.SignalError{Signal: 2}, outcome.Interrupted, ""},
	} {
		s := &Session{o: Options{FailOn: tt.failOn}, reports: tt.reports, program: true}
		err := s.failOn(tt.err)
		short := ""
		var reported *ReportedError
		if errors.As(err, &reported) {
			short = reported.Short()
		}
		if got := outcome.Of(err); got != tt.want || short != tt.short || outcome.Quiet(err) && tt.short != "" {
			t.Errorf("%s: failOn = %v, %s, %q; want %s, %q", tt.name, err, got, short, tt.want, tt.short)
		}
	}
}

// TestSayReports: so many are said, the others are counted.
func TestSayReports(t *testing.T) {
	var said []string
	s := &Session{env: Env{Warn: func(err error) { said = append(said, err.Error()) }}}
	for range maxReports + 3 {
		s.Run.Reports = append(s.Run.Reports, &record.Crash{Kind: "warning", Title: "a\x1b[2J\nb"})
	}
	s.Run.Reports[0] = &record.Crash{Kind: "oom", Title: "t", Victim: &record.Task{Comm: "v", PID: 7}, Task: &record.Task{Comm: "other", PID: 8}}
	s.sayReports(nil)
	if n := len(said); n != maxReports+1 || said[n-1] != "and 3 more reports of the kernel" {
		t.Errorf("said %q; want %d and the number of the others", said, maxReports)
	}
	if want := "kernel warning: a\ufffd[2J b"; said[1] != want {
		t.Errorf("said %q, want %q", said[1], want)
	}
	said, s.Run.Reports = nil, append(s.Run.Reports[:1], &record.Crash{Kind: "panic", Title: "p"})
	s.sayReports(&vm.CrashError{Report: &crash.Report{Kind: crash.Panic, Title: "p"}})
	if len(said) != 1 {
		t.Errorf("said %q of a kernel that died, want all but its death", said)
	}
	if want := "kernel oom: t (task v:7); give more memory with --mem"; said[0] != want {
		t.Errorf("said %q, want %q", said[0], want)
	}
}
