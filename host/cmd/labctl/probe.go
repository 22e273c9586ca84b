package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"labctl/guest/catalogue"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/session"
)

func (a *app) probeCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "probe",
		Short: "Create tasks in a guest and see the kernel create them",
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
			w := a.table("PROBE", "MAKES", "WHAT IT DOES", "PARAMETERS")
			w.Columns[2].Wrap = true
			for _, p := range catalogue.Probes() {
				w.Row(p.Name, p.Makes, p.Summary, p.Params)
			}
			return w.Write(a.stdout)
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
	failOn record.FailOn
}

func (a *app) probeRun() *cobra.Command {
	var o probeOptions
	c := &cobra.Command{
		Use:   "run PROBE... | --all",
		Short: "Run probes under the trace and print results and stacks",
		Long: `Boot a guest, run each probe with the task-creation trace armed, and print what
it reported, how the kernel created its tasks, and whether both agree. Everything
is kept in a run record (run.json, trace.dat, stacks.txt, console.log, qemu.txt),
of several architectures in a matrix directory with a record for each.`,
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
	f.BoolVar(&o.all, "all", false, "every probe that creates tasks")
	f.StringVar(&o.params, "params", "", "the probe's parameters, a JSON object")
	f.StringVar(&o.style, "style", report.TRACE32, "how stacks are printed: "+strings.Join(report.Styles, ", "))
	f.BoolVar(&o.raw, "raw", false, "show the frames of the tracing machinery that were trimmed, too")
	f.BoolVar(&o.asJSON, "json", false, "print the run record's JSON")
	failOnFlag(c, &o.failOn)
	f.StringVar(&o.out, "out", "", "directory of the run record, or of the matrix (default: labctl-out/TIME-NAME)")
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
			return nearest.Unknown("probe", n, catalogue.Names())
		}
	}
	if o.params != "" {
		if len(o.names) != 1 {
			return outcome.Inputf("--params is for one probe")
		}
		var obj map[string]any
		var line bytes.Buffer
		err := json.Unmarshal([]byte(o.params), &obj)
		if err == nil {
			err = json.Compact(&line, []byte(o.params))
		}
		if err != nil {
			return outcome.Inputf("--params %s: want a JSON object: %w", o.params, err)
		}
		o.params = line.String()
	}
	if !slices.Contains(report.Styles, o.style) {
		return nearest.Unknown("--style", o.style, report.Styles)
	}
	return nil
}

// runProbes runs the probes on the machine asked for, or on several as the cells of
// a matrix, and prints the machines in their order.
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
	if len(archs) > 1 {
		return a.probeSeveral(ctx, env, &o, name, archs)
	}
	s, err := session.Probes(ctx, env, session.ProbeOptions{
		Options: session.Options{Name: name, Out: o.out, Spec: o.spec, FailOn: o.failOn}, Names: o.names, Params: json.RawMessage(o.params),
	})
	if perr := a.printProbes(&o, &s.Run, s.Dir); perr != nil {
		return perr
	}
	return err
}

func (a *app) probeSeveral(ctx context.Context, env session.Env, o *probeOptions, name string, archs []string) error {
	work := matrix.Work{Kind: matrix.Probes, Name: strings.Join(o.names, ",")}
	if o.params != "" {
		work.Args = []string{o.params}
	}
	var plan []matrix.Cell
	for _, arch := range archs {
		spec := o.spec
		spec.Arch = arch
		c, err := cell.On(env.Env, spec)
		if err != nil {
			return err
		}
		if c.Work = work; !slices.ContainsFunc(plan, c.Equal) {
			plan = append(plan, c)
		}
	}
	r := &cell.Runner{Env: env, Spec: o.spec, FailOn: o.failOn}
	defer r.Close()
	m, err := r.Matrix(ctx, cell.Options{Name: name, Plan: plan, Out: o.out, Label: name, Watch: a.progress.Cells})
	if err != nil {
		return err
	}
	for _, res := range m.Results.Results {
		d := record.Dir{Path: filepath.Join(m.Dir, res.Record)}
		run, err := d.ReadRun()
		if err == nil {
			err = a.printProbes(o, run, d)
		}
		if err != nil {
			return err
		}
	}
	return matrixEnd(m.Results, m.Dir, matrixOutput{asJSON: true})
}

func (a *app) printProbes(o *probeOptions, run *record.Run, dir record.Dir) error {
	switch {
	case run.Kernel.Release == "": // nothing was booted
		return nil
	case o.asJSON:
		return a.printJSON(run)
	}
	if err := report.Probes(a.stdout, run, report.Options{Style: o.style, Raw: o.raw}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "run record: %s\n", dir.Path)
	return err
}
