package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/arch"
	"labctl/host/kernel/kbuild"
	"labctl/host/outcome"
	"labctl/host/targets"
)

type kernelBuildOptions struct {
	source    string
	archs     []string
	profile   string
	fragments []string
	jobs      int
	fresh     bool
	asJSON    bool
}

func (a *app) kernelBuild() *cobra.Command {
	var o kernelBuildOptions
	c := &cobra.Command{
		Use:   "build [NAME] --source SOURCE",
		Short: "Build a kernel from source",
		Long: `Build a kernel and keep it in the cache as build:NAME, for --kernel. Without a
NAME it is called after its profile and series: lab-6.12.

SOURCE is debian:6.12 (Debian's package linux-source-6.12), the folder of a
kernel tree, or a tarball of one. The tree is built outside of itself; the next
build of the name goes on from the objects of this one, and one of the same
source, options and compiler is there at once.

What is asked of the configuration is a profile, which is a list of fragments,
and further fragments, of which later ones win. A fragment is the name of one
that labctl has, or a file with lines of a .config. Every option asked for is
looked up in the result: one that did not survive is an error, with the
dependency that killed it.

` + fragmentHelp(),
		Example: `  labctl kernel build --source debian:6.12
  labctl kernel build --source debian:6.12 --arch amd64,arm64 --fragment numa
  labctl kernel build mine --source ~/linux --fragment base,ftrace,virtio,./mine.config
  labctl boot --kernel build:mine`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return outcome.Inputf("%s takes one name, got %q too", c.CommandPath(), args[1])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return a.buildKernels(c, name, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.source, "source", "", "debian:SERIES, the folder of a tree, or a tarball")
	f.StringSliceVar(&o.archs, "arch", nil, "architectures: "+strings.Join(arch.Names(), ", ")+" (default: the host's)")
	f.StringVar(&o.profile, "profile", "", "profile (default: lab, where no --fragment is given)")
	f.StringSliceVar(&o.fragments, "fragment", nil, "fragments, by name or as files with a slash or .config in their names")
	f.IntVar(&o.jobs, "jobs", 0, "compilers at a time (default: as many as this host has CPUs)")
	f.BoolVar(&o.fresh, "fresh", false, "look whether Debian has a newer source package than the one that is here")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	return c
}

// fragmentHelp lists profiles and fragments.
func fragmentHelp() string {
	var b strings.Builder
	for _, p := range kbuild.Profiles() {
		fmt.Fprintf(&b, "Profile %s (%s): %s.\n", p.Name, p.Summary, strings.Join(p.Fragments, ", "))
	}
	fmt.Fprintf(&b, "Fragments: %s.", strings.Join(kbuild.Fragments(), ", "))
	return b.String()
}

func (a *app) buildKernels(c *cobra.Command, name string, o kernelBuildOptions) error {
	if o.source == "" {
		return outcome.Inputf("kernel build needs a source: --source debian:6.12, a folder, or a tarball")
	}
	if o.jobs < 0 {
		return outcome.Inputf("--jobs %d: want 1 or more", o.jobs)
	}
	if len(o.archs) == 0 {
		o.archs = []string{targets.Host().Arch}
	}
	if o.profile == "" && len(o.fragments) == 0 {
		o.profile = "lab"
	}
	source, err := kbuild.ParseSource(o.source)
	if err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	var reqs []kbuild.Request
	for _, arch := range o.archs {
		if err := checkArch(arch); err != nil {
			return err
		}
		plan, err := kbuild.NewPlan(arch, o.profile, o.fragments)
		if err != nil {
			return outcome.Default(outcome.BadInput, err)
		}
		reqs = append(reqs, kbuild.Request{Name: name, Arch: arch, Source: source, Fresh: o.fresh, Plan: plan, Jobs: o.jobs})
	}
	env, err := a.env()
	if err != nil {
		return err
	}
	b, err := kbuild.New(env.Cache)
	if err != nil {
		return err
	}
	made, end := a.progress.Build()
	b.Say, b.Pull, b.Made = a.say, a.progress.Pull, made
	var results []*kbuild.Result
	for _, req := range reqs {
		res, err := b.Build(c.Context(), req)
		end()
		if err != nil {
			return err
		}
		results = append(results, res)
		if !o.asJSON {
			a.printBuild(res)
		}
	}
	if o.asJSON {
		return a.printJSON(results)
	}
	return nil
}

func (a *app) printBuild(r *kbuild.Result) {
	how := fmt.Sprintf("built in %s, %d objects", (time.Duration(r.Build.Seconds) * time.Second), r.Build.Objects)
	if r.Cached {
		how = "was built before of the same source, options and compiler"
	}
	fmt.Fprintf(a.stdout, "%s\t%s\t%s\t%s\n", r.Ref, r.Arch, r.Release, how)
}
