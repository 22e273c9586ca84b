package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/arch"
	"labctl/host/kernel/kbuild"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/targets"
)

type kernelBuildOptions struct {
	source    string
	keyring   string
	archs     []string
	profile   string
	fragments []string
	jobs      int
	fresh     bool
	noTest    bool
	asJSON    bool
}

// builtKernel is a build and what its kernel showed in a first run.
type builtKernel struct {
	*kbuild.Result
	SelfTest *session.SelfTest `json:"self_test,omitempty"` // nil if it was cached, or not wanted
}

func (a *app) kernelBuild() *cobra.Command {
	var o kernelBuildOptions
	c := &cobra.Command{
		Use:   "build [NAME] --source SOURCE",
		Short: "Build a kernel from source",
		Long: `Build a kernel and store it in the cache as build:NAME, for --kernel. The default
NAME is its profile and series: lab-6.12.

SOURCE is debian:6.12 (Debian's package linux-source-6.12), the directory of a
kernel tree, or a tarball of one; tar:TARBALL wants a signature beside the tarball, as
kernel.org has, by one of the keys in --keyring. The tree is built out of tree. The next build
with the same name reuses the objects, and a build with the same source, options
and compiler returns the cached kernel immediately.

The configuration is defined by a profile, which is a list of fragments, and
further fragments; later ones take precedence. A fragment is the name of one of
labctl's, or a file with lines of a .config. Every requested option is checked in
the result: if Kconfig dropped one, the error names the unmet dependency.

A kernel that was built is booted once, and the stack of a fork is taken: one that
is not whole is reported, since all that labctl shows rests on stacks.

` + fragmentHelp(),
		Example: `  labctl kernel build --source debian:6.12
  labctl kernel build --source debian:6.12 --arch amd64,arm64 --fragment numa
  labctl kernel build mine --source ~/linux --fragment base,ftrace,virtio,./mine.config
  labctl boot --kernel build:mine`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return outcome.Inputf("%s takes one name; unexpected argument %q", c.CommandPath(), args[1])
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
	f.StringVar(&o.source, "source", "", "debian:SERIES, the directory of a tree, a tarball, or tar:TARBALL")
	f.StringVar(&o.keyring, "keyring", "", "the keys that may have signed a tar:TARBALL (default: kernel-keys.asc in labctl's configuration directory)")
	f.StringSliceVar(&o.archs, "arch", nil, "architectures: "+strings.Join(arch.Names(), ", ")+" (default: the host's)")
	f.StringVar(&o.profile, "profile", "", "profile (default: lab, unless --fragment is given)")
	f.StringSliceVar(&o.fragments, "fragment", nil, "fragments: names, or files, whose names contain a slash or end in .config")
	intFlag(f, &o.jobs, "jobs", 1, 1000, "number of parallel jobs (default: one per CPU)")
	f.BoolVar(&o.fresh, "fresh", false, "check whether Debian has a newer source package than the cached one")
	f.BoolVar(&o.noTest, "no-test", false, "do not boot the kernel that was built")
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
		return outcome.Inputf("kernel build needs a source: --source debian:6.12, a directory, or a tarball")
	}
	if len(o.archs) == 0 {
		o.archs = []string{targets.Host().Arch}
	}
	if o.profile == "" && len(o.fragments) == 0 {
		o.profile = "lab"
	}
	source, err := kbuild.ParseSource(o.source)
	if err == nil && o.keyring != "" && !source.Signed {
		err = outcome.Inputf("--keyring goes with --source tar:TARBALL")
	}
	source.Keyring = o.keyring
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
	var results []builtKernel
	for _, req := range reqs {
		res, err := b.Build(c.Context(), req)
		end()
		if err != nil {
			return err
		}
		built := builtKernel{Result: res}
		if !o.asJSON {
			a.printBuild(res)
		}
		if !res.Cached && !o.noTest {
			test, err := session.Test(c.Context(), env, res.Kernel)
			if err != nil {
				return fmt.Errorf("%s is built, but: %w", res.Ref, err)
			}
			built.SelfTest = &test
			a.sayTest(req.Plan, test)
		}
		results = append(results, built)
	}
	if o.asJSON {
		return a.printJSON(results)
	}
	return nil
}

// sayTest reports the self test of a kernel.
func (a *app) sayTest(plan *kbuild.Plan, t session.SelfTest) {
	switch {
	case t.Why != "":
		a.say("not booted, since it cannot be traced: " + t.Why)
		return
	case t.Gap == "":
		a.say("it boots, and the stack of a fork is whole: " + strings.Join(t.Stack, " < "))
	default:
		a.say(fmt.Sprintf("it boots, but the stack of a fork is not whole: %s: %s", t.Gap, strings.Join(t.Stack, " < ")))
		if !slices.Contains(plan.Fragments, "frame-pointers") {
			a.say("stacks that need no tables of the compiler's: add --fragment frame-pointers")
		}
	}
	if t.Skipped > 0 {
		what := "function"
		if t.Skipped > 1 {
			what = fmt.Sprintf("%d functions", t.Skipped)
		}
		a.say("its tracer leaves the innermost " + what + " out of the stacks of events; labs that need what is missing say so")
	}
}

func (a *app) printBuild(r *kbuild.Result) {
	how := fmt.Sprintf("built in %s, %d objects", (time.Duration(r.Build.Seconds) * time.Second), r.Build.Objects)
	if r.Cached {
		how = "cached: same source, options and compiler"
	}
	fmt.Fprintf(a.stdout, "%s\t%s\t%s\t%s\n", r.Ref, r.Arch, r.Release, how)
}
