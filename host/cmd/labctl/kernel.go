package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/targets"
	"labctl/host/text"
	"labctl/host/ui/table"
)

func (a *app) kernelCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "kernel",
		Short: "Manage kernels",
		Long: `Kernels are downloaded from Debian's archive with apt, in a directory private to
labctl: nothing on this host is installed or changed. The host's mirror, keys and
proxy are used; LABCTL_DEBIAN_MIRROR selects another mirror. Kernels can also be
Go modules, fetched by the go command with its configured proxy and checksum
database, files of yours, or built with labctl kernel build.

A kernel is named by its series (6.12, 6.12-cloud), its source (debian:trixie,
gomod:github.com/gokrazy/kernel.rpi), as build:NAME, by the release of a cached
kernel, as oci:IMAGE, a container image, or by a path that contains a slash, to an
image or a kernel tree. Add
your own sources to labctl/kernels.yaml in your configuration directory, or to
the file that LABCTL_KERNELS names.`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,
	}
	c.AddCommand(a.kernelLs(), a.kernelPull(), a.kernelBuild(), a.kernelInfo(), a.kernelRm())
	return c
}

func checkArch(name string) error {
	if name == "" || slices.Contains(arch.Names(), name) {
		return nil
	}
	return nearest.Unknown("--arch", name, arch.Names())
}

func (a *app) kernelLs() *cobra.Command {
	var arch string
	var asJSON, remote bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List known and cached kernels",
		Long: `List known and cached kernels or, with --remote, what each source currently
serves. If a source does not answer, its line shows the error; the exit status is
3 if no source answered.`,
		Example: "  labctl kernel ls\n  labctl kernel ls --arch arm64 --json\n  labctl kernel ls --remote",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkArch(arch); err != nil {
				return err
			}
			env, err := a.env()
			if err != nil {
				return err
			}
			if remote {
				return a.listOffers(c.Context(), env, arch, asJSON)
			}
			rows, err := env.Cache.Sources(arch)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(rows)
			}
			w := a.table("KERNEL", "ARCH", "SOURCE", "CACHED", "SIZE", "DEBUG")
			for _, r := range rows {
				name := r.Name
				if r.LongTerm {
					name += " (long-term)"
				}
				cached, size, debug := "-", "-", "-"
				if r.Kernel != nil {
					cached = r.Kernel.Release
					size = megabytes(r.Kernel)
				}
				if r.Debug > 0 {
					debug = inMegabytes(r.Debug)
				}
				w.Row(name, r.Arch, r.From, cached, size, debug)
			}
			return w.Write(a.stdout)
		},
	}
	c.Flags().StringVar(&arch, "arch", "", "only this architecture")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&remote, "remote", false, "query the sources for what they currently serve")
	return c
}

// offerPatience bounds the time that one source may take to answer. An index is up to
// 10 MB.
const offerPatience = 2 * time.Minute

// listOffers prints what the sources currently serve, each as it answers: some take
// minutes, and all of them much longer.
func (a *app) listOffers(ctx context.Context, env session.Env, arch string, asJSON bool) error {
	rows, err := env.Cache.Sources(arch)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(r kernel.Row) bool { return r.Source == kernel.KindBuild }) // nobody serves them
	head := []string{"KERNEL", "ARCH", "SOURCE", "CACHED", "TODAY"}
	line := func(cells ...any) error {
		w := a.table(head...)
		w.Head = nil
		for i := range w.Columns { // as wide as the widest row that may come
			w.Columns[i].Min = table.Width(head[i])
		}
		for _, r := range rows {
			for i, s := range []string{r.Name, r.Arch, r.From} {
				w.Columns[i].Min = max(w.Columns[i].Min, table.Width(s))
			}
		}
		w.Row(cells...)
		return w.Write(a.stdout)
	}
	if !asJSON {
		if err := line("KERNEL", "ARCH", "SOURCE", "CACHED", "TODAY"); err != nil {
			return err
		}
	}
	asked, answered := len(rows), 0
	offers, err := env.Cache.Offers(ctx, arch, offerPatience, func(o kernel.Offer) {
		answered++
		if !asJSON {
			cached, today := "-", o.Version
			if o.Cached {
				cached = "yes"
			}
			switch {
			case o.Err != nil:
				today = "error: " + text.Line(o.Error, 300)
			case !strings.HasSuffix(o.From, o.Package):
				today += " " + o.Package
			}
			a.progress.Above(func() { _ = line(o.Name, o.Arch, o.From, cached, text.Clean(today)) })
		}
		a.progress.Status(fmt.Sprintf("%s for %s answered, %d of %d", o.From, o.Arch, answered, asked))
	})
	a.progress.Status("")
	if err != nil {
		return err
	}
	if asJSON {
		err = a.printJSON(offers)
	}
	if err != nil || len(offers) == 0 || slices.ContainsFunc(offers, func(o kernel.Offer) bool { return o.Err == nil }) {
		return err
	}
	return fmt.Errorf("%w: no kernel source answered; see the errors in the list", kernel.ErrHostLacks)
}

func megabytes(k *kernel.Kernel) string {
	var n int64
	for _, f := range k.Files {
		n += f.Size
	}
	return inMegabytes(n)
}

func inMegabytes(n int64) string { return fmt.Sprintf("%d MB", (n+1<<19)>>20) }

func (a *app) kernelPull() *cobra.Command {
	var archs []string
	var debug bool
	c := &cobra.Command{
		Use:   "pull KERNEL...",
		Short: "Download kernels into the cache",
		Long: `Download kernels into the cache.

With --debug, Debian's debug package of each kernel is downloaded, too, which is
700 MB to 1.2 GB, and its vmlinux with DWARF is kept beside the kernel. A kernel that
was built without BTF, as all of arm are, has types then: ps, stack, struct and debug
find them by themselves. pahole has to be installed for that. A kernel that has BTF has
types of its own; its package adds the symbols of variables, where they lack. kernel rm
removes both.`,
		Example: `  labctl kernel pull 6.12
  labctl kernel pull 5.10 7.2 --arch amd64,arm64
  labctl kernel pull 5.10..7.2 --arch arm64
  labctl kernel pull debian:trixie --arch arm64
  labctl kernel pull 6.12-cloud gomod:github.com/gokrazy/kernel.rpi
  labctl kernel pull oci:registry.example/lvh-images/kernel-images:6.6-main
  labctl kernel pull 6.12 --arch arm --debug`,
		Args: needArgs("a kernel: labctl kernel pull 6.12"),
		RunE: func(c *cobra.Command, args []string) error {
			env, err := a.env()
			if err != nil {
				return err
			}
			for _, arch := range archs {
				if err := checkArch(arch); err != nil {
					return err
				}
			}
			wanted, err := toPull(env, args, archs)
			if err != nil {
				return outcome.Default(outcome.BadInput, err)
			}
			for _, w := range wanted {
				for _, arch := range w.archs {
					k, err := env.Cache.Pull(c.Context(), w.ref, arch, env.PullOf(w.ref, arch))
					if err != nil {
						return err
					}
					fmt.Fprintf(a.stdout, "%s\t%s\t%s\n", w.ref, arch, k)
					if !debug {
						continue
					}
					if err := env.Cache.PullDebug(c.Context(), k, env.PullOf(w.ref, arch)); err != nil {
						return err
					}
					path, _ := k.DebugFile()
					fmt.Fprintf(a.stdout, "%s\t%s\t%s\n", w.ref, arch, path)
				}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&archs, "arch", nil, "architectures: amd64, arm64, arm (default: the kernel's only one, or the host's)")
	c.Flags().BoolVar(&debug, "debug", false, "also its debug package: types for a kernel without BTF")
	return c
}

type pulled struct {
	ref   kernel.Ref
	archs []string
}

// toPull are the kernels that the arguments of kernel pull name, and for what.
func toPull(env session.Env, args, archs []string) (all []pulled, err error) {
	for _, arg := range args {
		span, ok, err := kernel.ParseSpan(arg)
		switch {
		case err != nil:
			return nil, err
		case ok:
			of := archs
			if len(of) == 0 {
				of = []string{targets.Host().Arch}
			}
			found, err := env.Cache.Within(span, of)
			if err != nil {
				return nil, err
			}
			for _, f := range found {
				ref, err := kernel.ParseRef(f.Name)
				if err != nil {
					return nil, err
				}
				all = append(all, pulled{ref, f.Archs})
			}
			continue
		}
		ref, err := kernel.ParseRef(arg)
		if err != nil {
			return nil, err
		}
		of := archs
		if len(of) == 0 {
			only, err := env.Cache.ArchOf(ref)
			if err != nil {
				return nil, err
			}
			of = []string{cmp.Or(only, targets.Host().Arch)}
		}
		all = append(all, pulled{ref, of})
	}
	return all, nil
}

func needArgs(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return outcome.Inputf("%s needs %s", c.CommandPath(), what)
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
				return outcome.Inputf("%s: --all does not allow names", c.CommandPath())
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
				archs = arch.Names()
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

func findCached(env session.Env, name string, archs []string) ([]*kernel.Kernel, error) {
	ref, err := kernel.ParseRef(name)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	if ref.Path != "" {
		return nil, outcome.Inputf("kernel rm: %s is a file; labctl removes only cached kernels", name)
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
