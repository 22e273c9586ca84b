package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"labctl/guest/catalogue"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/report"
	"labctl/host/session"
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
				return a.printJSON(catalogue.Probes())
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "PROBE\tMAKES\tWHAT IT DOES\tPARAMETERS")
			for _, p := range catalogue.Probes() {
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
is kept in a run record (run.json, trace.dat, stacks.txt, console.log, qemu.txt).`,
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
		return outcome.Inputf("probe run needs the names of probes, or --all (known: %s)", strings.Join(catalogue.Names(), ", "))
	}
	if o.all {
		for _, p := range catalogue.Probes() {
			if p.Makes != "" {
				o.names = append(o.names, p.Name)
			}
		}
	}
	for _, n := range o.names {
		if _, ok := catalogue.Find(n); !ok {
			return unknown("probe run", n, catalogue.Names())
		}
	}
	if o.params != "" {
		if len(o.names) != 1 {
			return outcome.Inputf("--params is for one probe")
		}
		var obj map[string]any
		if err := json.Unmarshal([]byte(o.params), &obj); err != nil {
			return outcome.Inputf("--params %s: want a JSON object: %w", o.params, err)
		}
	}
	if !slices.Contains(report.Styles, o.style) {
		return unknown("--style", o.style, report.Styles)
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
	sessions, errs := make([]*session.Session, len(archs)), make([]error, len(archs))
	var wg sync.WaitGroup
	for i, arch := range archs {
		wg.Go(func() { sessions[i], errs[i] = session.Probes(ctx, env, o.of(arch, len(archs) > 1)) })
	}
	wg.Wait()

	var all *multierror.Error
	failed := 0
	for i, s := range sessions {
		switch outcome.Of(errs[i]) {
		case outcome.OK, outcome.CheckFailed:
		default:
			all = multierror.Append(all, errs[i])
		}
		if err := a.printProbes(&o, s); err != nil {
			return err
		}
		for _, p := range s.Run.Probes {
			failed += p.Failed()
		}
	}
	switch {
	case all != nil && len(all.Errors) == 1:
		return all.Errors[0]
	case all != nil:
		return all
	}
	return outcome.Checks(failed)
}

// of are the probes on one architecture, of several or alone.
func (o *probeOptions) of(arch string, several bool) session.ProbeOptions {
	po := session.ProbeOptions{Names: o.names, Options: session.Options{Name: "probe-" + o.names[0], Out: o.out, Spec: o.spec}}
	if len(o.names) > 1 {
		po.Name = "probes"
	}
	po.Spec.Arch = arch
	if several {
		po.Name += "-" + arch
		if o.out != "" {
			po.Out = filepath.Join(o.out, arch)
		}
	}
	if o.params != "" {
		po.Params = json.RawMessage(o.params)
	}
	return po
}

func (a *app) printProbes(o *probeOptions, s *session.Session) error {
	switch {
	case !s.Booted():
		return nil
	case o.asJSON:
		return a.printJSON(&s.Run)
	}
	if err := report.Probes(a.stdout, &s.Run, report.Options{Style: o.style, Raw: o.raw}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "run record: %s\n", s.Dir.Path)
	return err
}
