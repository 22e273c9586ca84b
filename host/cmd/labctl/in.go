package main

import (
	"strings"

	"github.com/spf13/cobra"

	"labctl/host/outcome"
	"labctl/host/registry"
	"labctl/host/session"
)

// inFlag is the flag --in: a machine that runs, in place of one that is started.
type inFlag struct {
	name    string
	machine *registry.Machine
}

func (f *inFlag) flag(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "in", "", "run in this machine, which labctl up keeps")
	c.RegisterFlagCompletionFunc("in", machineNames(true))
}

// settled are the flags of machineFlags that a running machine has settled.
var settled = []string{"arch", "board", "kernel", "smp", "mem", "numa", "append", "module", "cold", "from"}

// find finds the machine, if one is named.
func (f *inFlag) find(c *cobra.Command) (err error) {
	if !c.Flags().Changed("in") {
		return nil
	}
	for _, name := range settled {
		if c.Flags().Changed(name) {
			return outcome.Inputf("--in %s: this machine runs already; omit --%s", f.name, name)
		}
	}
	if f.name == "" {
		return outcome.Inputf("--in: name a machine; labctl vm ls lists them")
	}
	f.machine, err = registry.Find(c.Context(), f.name)
	return err
}

func (f *inFlag) close() {
	if f.machine != nil {
		f.machine.Close()
	}
}

func (a *app) shCmd() *cobra.Command {
	var o session.ShellOptions
	c := &cobra.Command{
		Use:   "sh [NAME] [-- LINE]",
		Short: "Open a shell in a running machine",
		Long: `Open a shell in a machine that labctl up keeps, or run one line in it. On a terminal
the shell is interactive; exit or Ctrl-D leaves, Ctrl-A x from anywhere. Elsewhere it
reads its commands from standard input. The machine goes on afterwards. Without NAME
it is the only one that runs.

The exit status is the shell's, as with boot.`,
		Example: `  labctl sh lab
  labctl sh lab -- 'ps; uname -a'
  echo 'uname -a' | labctl sh lab`,
		ValidArgsFunction: machineNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			names := args
			if n := c.ArgsLenAtDash(); n >= 0 {
				names, o.Line, o.OneLine = args[:n], strings.Join(args[n:], " "), true
			}
			if err := atMostOne("a machine's name, and a line after --")(c, names); err != nil {
				return err
			}
			if o.OneLine && strings.TrimSpace(o.Line) == "" {
				return outcome.Inputf("sh --: no line to run")
			}
			name := ""
			if len(names) > 0 {
				name = names[0]
			}
			m, err := registry.Find(c.Context(), name)
			if err != nil {
				return err
			}
			defer m.Close()
			env, err := a.env()
			if err != nil {
				return err
			}
			o.Name, o.In, o.Keep = "sh", m, session.KeepTrouble
			return a.shell(c.Context(), env, o)
		},
	}
	failOnFlag(c, &o.FailOn)
	return c
}
