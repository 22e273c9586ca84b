package main

import (
	"errors"

	"github.com/spf13/cobra"

	"labctl/host/lab/facts"
	"labctl/host/outcome"
)

func (a *app) kernelInfo() *cobra.Command {
	var arch string
	var asJSON bool
	c := &cobra.Command{
		Use:   "info KERNEL",
		Short: "Show what a kernel contains and supports, from its image",
		Long: `Read a kernel image, cached or in a file, and show its version, configuration,
BTF, symbol and unwind tables, the functions that create tasks, and which labs it
can run. Nothing is booted or downloaded.`,
		Example: `  labctl kernel info 6.12
  labctl kernel info gomod:github.com/gokrazy/kernel.rpi
  labctl kernel info ./vmlinux --json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return outcome.Inputf("%s requires one kernel: labctl kernel info 6.12", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkArch(arch); err != nil {
				return err
			}
			env, err := a.env()
			if err != nil {
				return err
			}
			set, err := a.load(&labFlags{})
			if err != nil {
				return err
			}
			r, err := facts.Report(c.Context(), env.Cache, args[0], arch, set.Labs)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(r)
			} else {
				err = r.Print(a.stdout)
			}
			return errors.Join(err, a.broken(set))
		},
	}
	c.Flags().StringVar(&arch, "arch", "", "architecture (default: the kernel's only one, or the host's)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
