package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/lab/progress"
	"labctl/host/lab/show"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/serve"
)

func (a *app) serveCmd() *cobra.Command {
	var o serve.Options
	var lf labFlags
	var browse bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Show lessons, labs and a live machine in a browser",
		Long: `Serve a page on 127.0.0.1, and print the link to it: lessons; labs that are run, with
their checks; a live machine, whose tasks, stacks and page tables are read from outside
while a terminal works in it; exercises, graded at every save of a folder in this
directory, with hints, and answers after a try. Progress is kept in the user's data
directory.

The machine is one of the page's own, which other commands can use as well (labctl sh
serve), or with --in one that labctl up keeps. --class shows the gradebook of a class as
labctl lab check --class fills it; DIR is its --out.

The link has a token: who has it may drive machines as you. Ctrl-C ends the page and all
that it has started.`,
		Example: `  labctl serve
  labctl serve --kernel 6.12 --lang ko
  labctl serve --in lab --port 8080
  labctl serve --class monday`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if lf.lang == "" {
				lf.lang = show.Lang()
			}
			if !slices.Contains(lab.Languages, lf.lang) {
				return nearest.Unknown("--lang", lf.lang, lab.Languages)
			}
			if o.In != "" {
				for _, name := range settled {
					if c.Flags().Changed(name) && name != "kernel" && name != "arch" {
						return outcome.Inputf("--in %s: this machine runs already; omit --%s", o.In, name)
					}
				}
			}
			return a.serve(c.Context(), o, &lf, browse)
		},
	}
	machineFlags(c, &o.Spec)
	f := c.Flags()
	intFlag(f, &o.Port, "port", 1, 65535, "port on 127.0.0.1 (default: a free one)")
	f.StringVar(&o.In, "in", "", "show this machine, which labctl up keeps")
	f.StringVar(&o.Class, "class", "", "show the gradebook of the class in this directory")
	f.StringVar(&lf.dir, "labs", "", "a directory with labs of your own, instead of labctl's")
	f.StringVar(&lf.lang, "lang", "", "language to begin with: en, ko (default: that of LANG)")
	f.BoolVar(&browse, "open", os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "", "open the link in a browser")
	c.RegisterFlagCompletionFunc("in", machineNames(true))
	return c
}

func (a *app) serve(ctx context.Context, o serve.Options, lf *labFlags, browse bool) (err error) {
	if o.Env, err = a.env(); err != nil {
		return err
	}
	o.Env.Say = nil // the page says it
	if o.Labs, err = lf.root(); err != nil {
		return err
	}
	if o.Progress, err = progress.Open(""); err != nil {
		return err
	}
	if o.Dir, err = os.Getwd(); err != nil {
		return outcome.Default(outcome.HostLacks, err)
	}
	o.Lang = lf.lang
	o.Ready = func(link string) error {
		if !serve.HasTerminal() {
			a.say("this labctl was built without the page's terminal: make ui && make, where npm is, has it; labctl sh works as ever")
		}
		if _, err := fmt.Fprintf(a.stdout, "%s\n", link); err != nil {
			return err
		}
		a.say("Ctrl-C ends the page and all that it has started")
		if browse {
			a.browse(ctx, link)
		}
		return nil
	}
	return serve.Serve(ctx, o)
}

// browse opens a link in the user's browser, if there is one.
func (a *app) browse(ctx context.Context, link string) {
	open, err := exec.LookPath("xdg-open")
	if err != nil {
		return
	}
	cmd := exec.CommandContext(ctx, open, link)
	if cmd.Start() == nil {
		go cmd.Wait()
	}
}
