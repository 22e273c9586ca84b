package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/report"
	"labctl/host/scratch"
	"labctl/host/stack"
	"labctl/host/trace/convert"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/firefox"
	"labctl/host/trace/export/tracedat"
	"labctl/host/trace/stats"
)

// onDash is the name of standard output.
const onDash = "-"

func (a *app) traceConvertCmd() *cobra.Command {
	var to, out, style string
	var forms strings.Builder
	for _, f := range convert.Formats {
		fmt.Fprintf(&forms, "  %-9s %s\n", f.Name, f.For)
	}
	c := &cobra.Command{
		Use:   "convert FILE",
		Short: "Write anyone's trace.dat in the form of another tool",
		Long: `Read a trace.dat, labctl's or trace-cmd's (version 6 or 7, compressed or not, of one
instance or several), and write its events for another tool. No machine is started.

` + forms.String() + `
Events that the file does not describe are written with their bytes. What cannot be read
is a line on standard error each, and the rest is written; the exit status is 1 then.`,
		Example: `  labctl trace convert trace.dat
  labctl trace convert trace.dat --to text | less
  labctl trace convert trace.dat --to firefox --out /tmp/p.json
  labctl trace convert trace.dat --to folded | flamegraph.pl >t.svg
  labctl trace convert trace.dat --to json | jq 'select(.event == "sched_switch")'`,
		Args: oneTrace,
		RunE: func(_ *cobra.Command, args []string) error {
			f, ok := convert.Find(to)
			if !ok {
				return nearest.Unknown("--to", to, convert.Names())
			}
			o := convert.Options{}
			if o.Style, ok = stack.FindStyle(style); !ok || !slices.Contains(stackStyles(), style) {
				return nearest.Unknown("--style", style, stackStyles())
			}
			return a.convertTrace(args[0], f, out, o)
		},
	}
	c.Flags().StringVar(&to, "to", convert.Formats[0].Name, strings.Join(convert.Names(), ", "))
	c.Flags().StringVarP(&out, "out", "o", "", "file to write, - for standard output (default: standard output for folded, text and json, else FILE's name with another ending, in the current directory)")
	c.Flags().StringVar(&style, "style", "ftrace", "how text prints stacks: "+strings.Join(stackStyles(), ", "))
	return c
}

func oneTrace(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return outcome.Inputf("%s takes one trace.dat", c.CommandPath())
	}
	return nil
}

// openTrace opens a trace.dat, and says what it lacks.
func (a *app) openTrace(name string) (*tracedat.File, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		name = filepath.Join(name, "trace.dat") // of a run record
	}
	f, err := tracedat.Open(name)
	if err != nil {
		return nil, err
	}
	for _, n := range f.Notes {
		fmt.Fprintf(a.stderr, "labctl: %s: %s\n", report.Clean(name), n)
	}
	return f, nil
}

func (a *app) convertTrace(name string, form convert.Format, out string, o convert.Options) error {
	f, err := a.openTrace(name)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := decode.Open(&f.Capture)
	if err != nil {
		return outcome.Default(outcome.BadInput, fmt.Errorf("read %s: %w", name, err))
	}
	switch {
	case out == onDash && !form.Text && isTerminal(a.stdout):
		return outcome.Inputf("--to %s is not text: --out FILE", form.Name)
	case out == "" && form.Text:
		out = onDash
	case out == "":
		out = strings.TrimSuffix(filepath.Base(name), ".dat") + form.Ext
	}
	if out == onDash {
		return a.incomplete(name, form.Write(a.stdout, d, o))
	}
	file, err := scratch.Create(filepath.Dir(out))
	if err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	defer file.Close()
	left := form.Write(file, d, o)
	if !readOn(left) {
		return fmt.Errorf("write %s: %w", out, left)
	}
	if err := file.Keep(filepath.Base(out), 0o644); err != nil {
		return outcome.Default(outcome.BadInput, fmt.Errorf("write %s: %w", out, err))
	}
	var events int64
	for _, s := range d.Stats() {
		events += s.Events
	}
	fmt.Fprintf(a.stderr, "%s: %d events, for %s\n", report.Clean(out), events, strings.SplitN(form.For, ":", 2)[0])
	return a.incomplete(name, left)
}

// readOn reports whether all that could be read was written.
func readOn(err error) bool {
	var damage *decode.Damage
	var cut *firefox.Cut
	return err == nil || errors.As(err, &damage) || errors.As(err, &cut)
}

// incomplete says of what the trace was read in part.
func (a *app) incomplete(name string, err error) error {
	var damage *decode.Damage
	if errors.As(err, &damage) {
		return fmt.Errorf("%s is damaged, what could be read was written: the first place: %w", name, err)
	}
	return err
}

func (a *app) traceStatsCmd() *cobra.Command {
	var asJSON bool
	top := 10
	c := &cobra.Command{
		Use:   "stats FILE",
		Short: "Count what a trace.dat has: events, lost ones, CPUs, functions, tasks",
		Long: `Count the events of anyone's trace.dat by their kind, CPU, task and function, and what
was lost. A function is one that was traced, called, or probed.

The exit status is 1 when some of the file cannot be read.`,
		Example: `  labctl trace stats trace.dat
  labctl trace stats labctl-out/20261122-080000-trace-ls --top 30
  labctl trace stats trace.dat --json | jq .lost`,
		Args: oneTrace,
		RunE: func(_ *cobra.Command, args []string) error {
			if top < 1 {
				return outcome.Inputf("--top %d: at least 1", top)
			}
			f, err := a.openTrace(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			s, err := stats.Of(&f.Capture)
			if err != nil {
				return outcome.Default(outcome.BadInput, fmt.Errorf("read %s: %w", args[0], err))
			}
			s.File, s.Version, s.Notes = report.Clean(args[0]), f.Version, f.Notes
			if asJSON {
				err = a.printJSON(s)
			} else {
				err = report.TraceStats(a.stdout, s, top, a.width())
			}
			if err == nil && s.Damaged > 0 {
				err = outcome.New(outcome.CheckFailed, fmt.Sprintf("%s is damaged: %d places could not be read", args[0], s.Damaged))
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON (schema "+stats.Schema+")")
	c.Flags().IntVar(&top, "top", top, "rows of each list")
	return c
}
