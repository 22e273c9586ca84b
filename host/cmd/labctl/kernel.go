package main

import (
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/target"
)

func (a *app) kernelCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "kernel",
		Short: "Get and keep kernels",
		Long: `Kernels come from Debian's archive, by apt in a folder of labctl's own: nothing
on this host is installed or changed. Mirror, keys and proxy are the host's own;
LABCTL_DEBIAN_MIRROR names another mirror.`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,
	}
	c.AddCommand(a.kernelLs(), a.kernelPull(), a.kernelRm())
	return c
}

// arches are the architectures that some target has.
func arches() []string {
	var all []string
	for _, t := range target.All {
		if !slices.Contains(all, t.Arch) {
			all = append(all, t.Arch)
		}
	}
	return all
}

func checkArch(arch string) error {
	if arch == "" || slices.Contains(arches(), arch) {
		return nil
	}
	return usageError{unknown("--arch", arch, arches())}
}

func (a *app) kernelLs() *cobra.Command {
	var arch string
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List known kernels and those that are cached",
		Example: "  labctl kernel ls\n  labctl kernel ls --arch arm64 --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkArch(arch); err != nil {
				return err
			}
			env, err := a.env()
			if err != nil {
				return err
			}
			rows, err := env.Cache.Sources(arch)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(rows)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "KERNEL\tARCH\tSOURCE\tCACHED\tSIZE")
			for _, r := range rows {
				name := r.Name
				if r.LongTerm {
					name += " (long-term)"
				}
				cached, size := "-", "-"
				if r.Kernel != nil {
					cached = r.Kernel.Release
					size = megabytes(r.Kernel)
				}
				source := r.Source
				if r.Suite != "" {
					source += ":" + r.Suite
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, r.Arch, source, cached, size)
			}
			return w.Flush()
		},
	}
	c.Flags().StringVar(&arch, "arch", "", "only this architecture")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func megabytes(k *kernel.Kernel) string {
	var n int64
	for _, f := range k.Files {
		n += f.Size
	}
	return fmt.Sprintf("%d MB", (n+1<<19)>>20)
}

func (a *app) kernelPull() *cobra.Command {
	var archs []string
	c := &cobra.Command{
		Use:   "pull KERNEL...",
		Short: "Download kernels into the cache",
		Example: `  labctl kernel pull 6.12
  labctl kernel pull 5.10 7.2 --arch amd64,arm64
  labctl kernel pull debian:trixie --arch arm64`,
		Args: needArgs("a kernel: labctl kernel pull 6.12"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := a.env()
			if err != nil {
				return err
			}
			if len(archs) == 0 {
				archs = []string{target.Host().Arch}
			}
			for _, arch := range archs {
				if err := checkArch(arch); err != nil {
					return err
				}
			}
			var refs []kernel.Ref
			for _, arg := range args {
				ref, err := kernel.ParseRef(arg)
				if err != nil {
					return usageError{err}
				}
				refs = append(refs, ref)
			}
			for _, ref := range refs {
				for _, arch := range archs {
					k, err := env.Cache.Pull(c.Context(), ref, arch, env.PullOf(ref, arch))
					if err != nil {
						return err
					}
					fmt.Fprintf(a.stdout, "%s\t%s\t%s\n", ref, arch, k)
				}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&archs, "arch", nil, "architectures: amd64, arm64, arm (default: the host's)")
	return c
}

func needArgs(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("%s needs %s", c.CommandPath(), what)}
		}
		return nil
	}
}

func (a *app) kernelRm() *cobra.Command {
	var archs []string
	var all bool
	c := &cobra.Command{
		Use:     "rm KERNEL...",
		Short:   "Remove cached kernels",
		Example: "  labctl kernel rm 6.12 --arch arm64\n  labctl kernel rm --all",
		Args: func(c *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usageError{fmt.Errorf("%s: --all takes no names", c.CommandPath())}
			}
			if all {
				return nil
			}
			return needArgs("a kernel, or --all")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			env, err := a.env()
			if err != nil {
				return err
			}
			if len(archs) == 0 {
				archs = arches()
			}
			for _, arch := range archs {
				if err := checkArch(arch); err != nil {
					return err
				}
			}
			var doomed []*kernel.Kernel
			if all {
				if doomed, err = env.Cache.List(); err != nil {
					return err
				}
			}
			for _, arg := range args {
				found, err := findCached(env, arg, archs)
				if err != nil {
					return err
				}
				doomed = append(doomed, found...)
			}
			for _, k := range doomed {
				if err := env.Cache.Remove(k); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "removed %s\n", k)
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&archs, "arch", nil, "only these architectures (default: all)")
	c.Flags().BoolVar(&all, "all", false, "remove every cached kernel")
	return c
}

func findCached(env machine.Env, name string, archs []string) ([]*kernel.Kernel, error) {
	ref, err := kernel.ParseRef(name)
	if err != nil {
		return nil, usageError{err}
	}
	if ref.Path != "" {
		return nil, usageError{fmt.Errorf("kernel rm: %s is a file of yours; labctl removes only what it pulled", name)}
	}
	var found []*kernel.Kernel
	var last error
	for _, arch := range archs {
		k, err := env.Cache.Find(ref, arch)
		if err != nil {
			last = err
			continue
		}
		found = append(found, k)
	}
	if len(found) == 0 {
		return nil, last
	}
	return found, nil
}
