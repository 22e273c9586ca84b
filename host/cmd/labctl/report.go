package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/see"
	"labctl/host/lab/show"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/matrix/render"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/page"
	"labctl/host/record"
	"labctl/host/scratch"
	"labctl/host/view"
)

func (a *app) reportCmd() *cobra.Command {
	var lf labFlags
	var format, out, html, origin, url string
	c := &cobra.Command{
		Use:   "report RECORD",
		Short: "Show a matrix or lab runs from their records, as text or for a CI system",
		Long: `Show the results of a matrix, a lab, or several labs, from the directory that was its
--out. Nothing is run; labs are judged again by the lab as it is now.

  text      a table, the failures, the sums
  junit     JUnit XML, for GitLab, Jenkins and viewers for GitHub: a suite for
            each kernel on each target, a test case for each work
  ktap      the kernel's test protocol, version 1: checks in labs in machines
  markdown  a summary for GitHub, with what each lab shows: at most 1 MiB
  json      all of it (schema ` + matrix.Schema + `)
  kcidb     a report for KCIDB, schema 5.0, of --origin; with --url its files are
            referred to where the directory is published

With --html FILE it is one page for people, which loads nothing from anywhere: of a
matrix its map, failures and the fork of all kernels side by side; of a class the
gradebook; of any run's record its tasks, timeline, stacks, checks and claims with
what was seen, console and commands, in English and Korean. Each record has such a
page as ` + record.PageFile + ` already.

The exit status is 0 when the report is written, whatever it says.`,
		Example: `  labctl report matrix-out
  labctl report matrix-out --format junit --out junit.xml
  labctl report labctl-out/20261122-080000-lab-P7 --html p7.html
  labctl report matrix-out --format markdown >>"$GITHUB_STEP_SUMMARY"
  labctl report labctl-out/20261122-080000-labs-arm64 --format ktap
  labctl report matrix-out --format kcidb --origin mylab --url https://ci.example/42`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return outcome.Inputf("%s takes the directory of a matrix, of a lab's run, or of several", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if html != "" && (c.Flags().Changed("format") || out != "") {
				return outcome.Inputf("--html FILE is a page of its own, without --format and --out; call labctl report once for each")
			}
			if !slices.Contains(render.Formats, format) {
				return nearest.Unknown("--format", format, render.Formats)
			}
			if format != "kcidb" && (origin != "" || url != "") {
				return outcome.Inputf("--origin and --url go with --format kcidb")
			}
			if html != "" {
				if err := page.Write(args[0], html, a.pageLang(&lf), func(id string) (*lab.Lab, error) { return a.find(&lf, id) }); err != nil {
					return fmt.Errorf("report %s: %w", args[0], err)
				}
				return nil
			}
			r, err := cell.Read(args[0], func(id string) (*lab.Lab, error) { return a.find(&lf, id) })
			if err != nil {
				return outcome.Default(outcome.BadInput, fmt.Errorf("report %s: %w", args[0], err))
			}
			seen := func(res *matrix.Result) string { return a.seen(args[0], res, &lf) }
			if out == "" {
				o := a.reportOptions(args[0])
				o.Seen, o.Origin, o.URL = seen, origin, url
				return render.Write(a.stdout, format, r, o)
			}
			var b bytes.Buffer
			if err := render.Write(&b, format, r, render.Options{Width: wide, Dir: args[0], Seen: seen, Origin: origin, URL: url}); err != nil {
				return err
			}
			return writeReport(out, b.Bytes())
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "text", strings.Join(render.Formats, ", "))
	f.StringVar(&out, "out", "", "write a file instead of standard output")
	f.StringVar(&origin, "origin", "", "with --format kcidb: the name that KCIDB knows your system by")
	f.StringVar(&url, "url", "", "with --format kcidb: where the directory is published")
	f.StringVar(&html, "html", "", "write one page for people to this file")
	f.StringVar(&lf.lang, "lang", "", "with --html and markdown: the language: en, ko (default: that of LANG)")
	f.StringVar(&lf.dir, "labs", "", "a directory with labs of your own, instead of labctl's")
	return c
}

// seen is what a lab's record shows, as Markdown. A result that names no directory is of
// the one that was given, or was not kept.
func (a *app) seen(dir string, res *matrix.Result, lf *labFlags) string {
	r, err := judge.Read(filepath.Join(dir, res.Record), func(id string) (*lab.Lab, error) { return a.find(lf, id) })
	if err != nil {
		return ""
	}
	var b strings.Builder
	if err := view.Markdown(&b, see.Views(r.Lab, r.Result), a.pageLang(lf)); err != nil {
		return ""
	}
	return b.String()
}

// pageLang is the language in which a page opens.
func (a *app) pageLang(o *labFlags) string {
	if slices.Contains(lab.Languages, o.lang) {
		return o.lang
	}
	return show.Lang()
}

func writeReport(file string, b []byte) error {
	if err := scratch.Write(file, b, 0o644); err != nil {
		return outcome.Default(outcome.BadInput, fmt.Errorf("write a report: %w", err))
	}
	return nil
}

// wide is the width of a table that is not for a terminal.
const wide = 120

// reportOptions are those of a report on standard output; dir holds the records.
func (a *app) reportOptions(dir string) render.Options {
	o := render.Options{Width: wide, Dir: dir}
	if isTerminal(a.stdout) {
		o.Colour = os.Getenv("NO_COLOR") == ""
		o.Width = cmp.Or(a.width(), wide)
	}
	return o
}
