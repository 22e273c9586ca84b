package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"labctl/guest/wire"
	"labctl/host/machine"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/trace/creation"
	"labctl/host/vm"
)

func (a *app) probeCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "probe",
		Short: "Make tasks in a guest and see the kernel make them",
		Args:  cobra.ArbitraryArgs,
		RunE:  needSubcommand,
	}
	c.AddCommand(a.probeLs(), a.probeRun())
	return c
}

func (a *app) probeLs() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the probes",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.printJSON(wire.Probes())
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "PROBE\tMAKES\tWHAT IT DOES\tPARAMETERS")
			for _, p := range wire.Probes() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, p.Makes, p.Summary, p.Params)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

type probeOptions struct {
	spec   machine.Spec
	names  []string
	all    bool
	params string
	style  string
	raw    bool
	asJSON bool
	out    string
}

func (a *app) probeRun() *cobra.Command {
	var o probeOptions
	c := &cobra.Command{
		Use:   "run PROBE... | --all",
		Short: "Run probes under the trace and print results and stacks",
		Long: `Boot a guest, run each probe with the task-creation trace armed, and print what
it reported, how the kernel made its tasks, and whether both agree. Everything
is kept in a run record (run.json, console.log, qemu.txt, trace and stacks).`,
		Example: `  labctl probe run fork --arch arm64
  labctl probe run vfork --kernel 5.10 --style ftrace
  labctl probe run fork --params '{"flags":1024}'
  labctl probe run --all --arch amd64,arm64`,
		RunE: func(c *cobra.Command, args []string) error {
			o.names = args
			return a.runProbes(c.Context(), o)
		},
	}
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.Lookup("arch").Usage = "architecture, or several: amd64,arm64 (default: the host's)"
	f.BoolVar(&o.all, "all", false, "every probe that makes tasks")
	f.StringVar(&o.params, "params", "", "the probe's parameters, a JSON object")
	f.StringVar(&o.style, "style", report.TRACE32, "how stacks are printed: "+strings.Join(report.Styles, ", "))
	f.BoolVar(&o.raw, "raw", false, "show the frames of the tracing machinery that were trimmed, too")
	f.BoolVar(&o.asJSON, "json", false, "print the run record's JSON")
	f.StringVar(&o.out, "out", "", "folder of the run record (default: labctl-out/TIME-NAME)")
	return c
}

// check validates what does not need a guest.
func (o *probeOptions) check() error {
	if o.all == (len(o.names) > 0) {
		return usageError{fmt.Errorf("probe run needs the names of probes, or --all (known: %s)", strings.Join(probe.Names(), ", "))}
	}
	if o.all {
		for _, p := range wire.Probes() {
			if p.Makes != "" {
				o.names = append(o.names, p.Name)
			}
		}
	}
	for _, n := range o.names {
		if _, ok := probe.Find(n); !ok {
			return usageError{unknown("probe run", n, probe.Names())}
		}
	}
	if o.params != "" {
		if len(o.names) != 1 {
			return usageError{errors.New("--params is for one probe")}
		}
		var obj map[string]any
		if err := json.Unmarshal([]byte(o.params), &obj); err != nil {
			return usageError{fmt.Errorf("--params %s: want a JSON object: %w", o.params, err)}
		}
	}
	if !slices.Contains(report.Styles, o.style) {
		return usageError{unknown("--style", o.style, report.Styles)}
	}
	return nil
}

// runProbes runs the probes on each machine asked for, all at once, and prints
// the machines in order.
func (a *app) runProbes(ctx context.Context, o probeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	archs := strings.Split(o.spec.Arch, ",")
	for _, arch := range archs {
		if _, err := machine.FindTarget(arch, o.spec.Board); err != nil {
			return err
		}
	}
	env, err := a.env()
	if err != nil {
		return err
	}
	name := "probe-" + o.names[0]
	if len(o.names) > 1 {
		name = "probes"
	}
	runs := make([]*probeRun, len(archs))
	var wg sync.WaitGroup
	for i, arch := range archs {
		r := &probeRun{a: a, o: o, spec: o.spec}
		r.spec.Arch = arch
		if len(archs) > 1 {
			r.run.Name = name + "-" + arch
			if o.out != "" {
				r.out = filepath.Join(o.out, arch)
			}
		} else {
			r.run.Name, r.out = name, o.out
		}
		runs[i] = r
		wg.Go(func() { r.err = r.do(ctx, env) })
	}
	wg.Wait()

	var errs *multierror.Error
	failed := 0
	for _, r := range runs {
		if r.err != nil {
			errs = multierror.Append(errs, r.err)
		}
		if err := r.print(a.stdout); err != nil {
			return err
		}
		for _, p := range r.run.Probes {
			for _, f := range p.Findings {
				if !f.OK {
					failed++
				}
			}
		}
	}
	switch {
	case errs != nil && len(errs.Errors) == 1:
		return errs.Errors[0]
	case errs != nil:
		return errs
	case failed > 0:
		return checkError{failed}
	}
	return nil
}

// probeRun is the probes on one machine.
type probeRun struct {
	a    *app
	o    probeOptions
	spec machine.Spec
	out  string

	run record.Run
	dir record.Dir
	err error
}

// do boots, runs and records. The record is written however it ends.
func (r *probeRun) do(ctx context.Context, env machine.Env) (err error) {
	start := time.Now()
	r.spec.Features = []string{"trace"}
	m, err := machine.Prepare(ctx, env, r.spec)
	if err != nil {
		return err
	}
	if r.dir, err = record.Create(r.out, r.run.Name, start); err != nil {
		return err
	}
	r.run.Labctl, r.run.Started, r.run.Command = versionString(), start.UTC(), os.Args
	var v *vm.VM
	defer func() {
		if v != nil {
			for _, rep := range v.Reports() {
				r.run.Reports = append(r.run.Reports, record.NewCrash(rep))
			}
		}
		r.run.Seconds = time.Since(start).Seconds()
		r.run.Outcome = outcome(err, r.run.Probes)
		err = errors.Join(err, r.write())
	}()
	r.a.say(fmt.Sprintf("starting %s on %s (%s)", m.Kernel, m.Target.Name, m.Verdict.Accel))
	v, err = m.Boot(ctx, env, r.dir, nil)
	m.Describe(&r.run, v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	for _, note := range v.Hello().Notes {
		r.a.say("guest: " + report.Clean(note))
	}
	for _, name := range r.o.names {
		var params json.RawMessage
		if r.o.params != "" {
			params = json.RawMessage(r.o.params)
		}
		p, trace, err := probe.Run(ctx, v, m.Kernel, name, params)
		r.run.Probes = append(r.run.Probes, p)
		if len(trace) > 0 {
			file := record.TraceFile
			if len(r.o.names) > 1 {
				file = "trace-" + name + ".txt"
			}
			if err := r.dir.WriteFile(file, trace); err != nil {
				return err
			}
		}
		if err != nil {
			err = v.Why(err)
			if p.Exit != nil {
				if oom := killedByOOM(v, *p.Exit); oom != nil {
					err = fmt.Errorf("%w: %w", err, oom)
				}
			}
			return err
		}
	}
	return nil
}

func (r *probeRun) write() error {
	var b strings.Builder
	for _, p := range r.run.Probes {
		if len(p.Creations) > 0 {
			fmt.Fprintf(&b, "// probe %s\n%s\n", p.Name, creation.Text(p.Creations))
		}
	}
	if err := r.dir.WriteFile(record.StacksFile, []byte(b.String())); err != nil {
		return err
	}
	return r.dir.WriteRun(&r.run)
}

// outcome puts an error into the record's words.
func outcome(err error, probes []record.Probe) record.Outcome {
	var boot *vm.BootError
	var late *vm.DeadlineError
	var silent *vm.AgentError
	var crashed *vm.CrashError
	var failed *probe.FailedError
	var sig interrupted
	o := record.Outcome{Kind: "ok"}
	if err != nil {
		o = record.Outcome{Kind: "host", Message: err.Error()}
	}
	switch {
	case err == nil:
		for _, p := range probes {
			for _, f := range p.Findings {
				if !f.OK {
					o.Kind = "checks"
				}
			}
		}
	case errors.As(err, &sig):
		o.Kind = "interrupted"
	case errors.As(err, &crashed):
		o.Kind, o.Crash = "crash", record.NewCrash(crashed.Report)
	case errors.Is(err, vm.ErrReset):
		o.Kind = "crash"
	case errors.As(err, &late):
		o.Kind = "deadline"
		if errors.As(err, &silent) {
			o.Kind = "agent"
		}
		hung(&o, late.State)
	case errors.As(err, &boot):
		o.Kind, o.Phase = "boot", string(boot.Phase)
		if boot.Deadline {
			o.Kind = "deadline"
		}
		hung(&o, boot.State)
	case errors.Is(err, vm.ErrPoweredOff):
		o.Kind = "off"
	case errors.Is(err, probe.ErrDeadline), errors.Is(err, errDeadline):
		o.Kind = "deadline"
	case errors.As(err, &failed):
		o.Kind = "probe"
	}
	return o
}

// hung puts what was seen of a guest that did not end into the record.
func hung(o *record.Outcome, s vm.State) {
	for _, c := range s.CPUs {
		o.CPUs = append(o.CPUs, c.String())
	}
	if n := len(s.Hangs); n > 0 {
		o.Crash = record.NewCrash(s.Hangs[n-1])
	}
}

func (r *probeRun) print(w io.Writer) error {
	if r.run.Kernel.Release == "" {
		return nil // nothing was booted
	}
	if r.o.asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(&r.run)
	}
	if err := report.Probes(w, &r.run, report.Options{Style: r.o.style, Raw: r.o.raw}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "run record: %s\n", r.dir.Path)
	return err
}
