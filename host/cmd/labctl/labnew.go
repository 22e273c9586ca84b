package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"labctl/host/lab/lint"
	"labctl/host/lab/skeleton"
	"labctl/host/outcome"
)

func (a *app) labNew(o *labFlags) *cobra.Command {
	var from string
	n := skeleton.Options{}
	c := &cobra.Command{
		Use:   "new ID",
		Short: "Begin a lab of your own: one that works and waits to be changed, or a copy",
		Long: `Write a lab to the directory of --labs (default: the current one). It has an
experiment, a lesson and an exercise with its solution, and passes labctl lab lint.
With --from it is a copy of another lab; --withhold leaves its solution and its wrong
programs out, for the copy that learners get.`,
		Example: `  labctl lab new W1 --labs course
  labctl lab new W2 --from P1 --withhold --labs handout`,
		Args: oneLab,
		RunE: func(_ *cobra.Command, args []string) error {
			n.ID, n.Dir = args[0], "."
			own := *o
			if o.dir != "" {
				n.Dir, own.dir = o.dir, ""
			}
			if from != "" {
				l, err := a.find(o, from)
				if err != nil && o.dir != "" {
					l, err = a.find(&own, from)
				}
				if err != nil {
					return err
				}
				n.From = l
			} else if n.Withhold {
				return outcome.Inputf("--withhold is for a copy: give --from")
			}
			dir, err := skeleton.Write(n)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, dir)
			a.say(fmt.Sprintf("labctl lab run %s --labs %s runs it, labctl lab lint %s --labs %s finds what is wrong with it", n.ID, n.Dir, n.ID, n.Dir))
			return nil
		},
	}
	c.Flags().StringVar(&from, "from", "", "copy this lab, of --labs or of labctl's own")
	c.Flags().BoolVar(&n.Withhold, "withhold", false, "with --from: without the solution and the wrong programs")
	return c
}

func (a *app) labLint(o *labFlags) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "lint [LAB...]",
		Short: "Find what is wrong with labs: every error, and names that no kernel has",
		Long: `Check labs, all of --labs or those named by id or directory, and print everything that
is wrong, a line each. Events, functions and symbols are looked up in the kernels in
the cache, so a name that none of them has is found before a check trusts that it
never happened. Exit status 2 if there is an error; warnings alone are none.`,
		Example: `  labctl lab lint --labs course
  labctl lab lint W1 --labs course`,
		RunE: func(c *cobra.Command, names []string) error {
			root, err := o.root()
			if err != nil {
				return err
			}
			env, err := a.env()
			if err != nil {
				return err
			}
			kernels, err := lint.Cached(c.Context(), env.Cache)
			if err != nil {
				return err
			}
			found, labs, err := lint.Labs(root, names, kernels)
			if err != nil {
				return err
			}
			if labs == 0 {
				return outcome.Inputf("no labs to check: give --labs DIR, with a directory for each lab")
			}
			errs := 0
			for _, e := range found {
				if !e.Warning {
					errs++
				}
				if !asJSON {
					fmt.Fprintln(a.stdout, e)
				}
			}
			if asJSON {
				if err := a.printJSON(lint.JSON(found)); err != nil {
					return err
				}
			}
			a.say(fmt.Sprintf("labs: %d, errors: %d, warnings: %d", labs, errs, len(found)-errs))
			if errs > 0 {
				return &outcome.StatusError{Status: outcome.BadInput.ExitStatus()} // they are printed
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
