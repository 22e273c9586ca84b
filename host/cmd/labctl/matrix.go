package main

import (
	"github.com/spf13/cobra"
)

func (a *app) matrixCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "matrix",
		Short: "Run labs, programs and tests on many kernels and machines",
		Long: `Run work on every kernel and machine of a plan, several cells at a time, and
keep a record of each. See labctl matrix run --help.`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,
	}
	// One line a subcommand: each has a file of its own.
	c.AddCommand()
	return c
}
