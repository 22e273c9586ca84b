package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"labctl/host/kernel"
	"labctl/host/kernel/check"
	"labctl/host/lab"
	"labctl/host/lab/facts"
	"labctl/host/machine"
	"labctl/host/target"
	"labctl/host/text"
)

// kernelReport is what `kernel info` says.
type kernelReport struct {
	*kernel.Info
	Target string `json:"target"` // the machine that labs are looked at for; "" when labctl has none
	// Labs is what can run there. Files of the guest that some labs need are not
	// known before it is up.
	Labs []labVerdict `json:"labs"`
}

type labVerdict struct {
	ID      string   `json:"id"`
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing,omitempty"`
}

func (a *app) kernelInfo() *cobra.Command {
	var arch string
	var asJSON bool
	c := &cobra.Command{
		Use:   "info KERNEL",
		Short: "Say what a kernel is and can do, from its image alone",
		Long: `Read a kernel's image, cached or in a file, and say what is in it: version,
configuration, types, tables, the functions by which tasks are made, and which
labs it can run. Nothing is booted or downloaded.`,
		Example: `  labctl kernel info 6.12
  labctl kernel info gomod:github.com/gokrazy/kernel.rpi
  labctl kernel info ./vmlinux --json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("%s takes one kernel: labctl kernel info 6.12", c.CommandPath())}
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
			r, err := a.examineKernel(c.Context(), env, args[0], arch)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(r)
			}
			return a.printKernel(r)
		},
	}
	c.Flags().StringVar(&arch, "arch", "", "architecture (default: the only one that there is, or the host's)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// examineKernel looks at a kernel that is at hand, also at one for which labctl
// has no machine.
func (a *app) examineKernel(ctx context.Context, env machine.Env, name, arch string) (*kernelReport, error) {
	ref, err := kernel.ParseRef(name)
	if err != nil {
		return nil, usageError{err}
	}
	if arch == "" {
		only, err := env.Cache.ArchOf(ref)
		if err != nil {
			return nil, err
		}
		arch = cmp.Or(only, target.Host().Arch)
	}
	k, err := env.Cache.Find(ref, arch)
	if err != nil {
		return nil, err
	}
	r := &kernelReport{Labs: []labVerdict{}}
	if r.Info, err = k.Info(ctx); err != nil {
		return nil, err
	}
	t, ok := target.Find(k.Arch)
	if !ok {
		return r, nil
	}
	r.Target = t.Name
	set, err := a.load(&labFlags{})
	if err != nil {
		return nil, err
	}
	for _, l := range set.Labs {
		v, err := judgeLab(ctx, l, k, t)
		if err != nil {
			return nil, err
		}
		r.Labs = append(r.Labs, v)
	}
	return r, a.broken(set)
}

// judgeLab says what a kernel lacks for a lab. Every lab boots, and is traced.
func judgeLab(ctx context.Context, l *lab.Lab, k *kernel.Kernel, t target.Target) (labVerdict, error) {
	v := labVerdict{ID: l.ID}
	known, err := facts.Of(ctx, k, t, l.Asks())
	if err != nil && !errors.Is(err, kernel.ErrNoKallsyms) {
		return v, err
	}
	if !k.HasConfig() {
		v.Missing = []string{"its configuration is not known: there is none in the image or beside it"}
		return v, nil
	}
	for _, m := range check.Check(k.Option, slices.Concat(t.Features, []string{"trace"})...) {
		v.Missing = append(v.Missing, m.String())
	}
	v.Missing = append(v.Missing, facts.Missing(l.Needs, &known, t)...)
	v.Ready = len(v.Missing) == 0
	return v, nil
}

func (a *app) printKernel(r *kernelReport) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, text.Clean(fmt.Sprintf(format, args...)))
	}
	row("release", "%s", r.Release)
	row("arch", "%s", r.Arch)
	row("source", "%s", strings.TrimSpace(r.Source+" "+r.Version))
	for _, p := range r.Packages {
		row("package", "%s %s sha256:%s", p.Name, p.Version, p.SHA256)
	}
	if r.Sum != "" {
		row("sum", "%s", r.Sum)
	}
	row("banner", "%s", r.Banner)
	packed := "not compressed"
	if r.Compression != "" {
		packed = fmt.Sprintf("%s, %d bytes unpacked", r.Compression, r.Unpacked)
	}
	row("image", "%s", r.Image)
	row("", "%s, %d bytes, %s", r.Kind, r.Size, packed)
	row("", "sha256:%s", r.SHA256)
	if r.Arch == "amd64" {
		row("PVH", "%s", yesNo(r.PVH, "QEMU starts its vmlinux", "QEMU starts the bzImage, which unpacks itself"))
		row("ORC", "%s", yesNo(r.ORC > 0, fmt.Sprintf("%d entries", r.ORC), ""))
	}
	if r.BTF != nil {
		row("BTF", "%d bytes, %d types", r.BTF.Bytes, r.BTF.Types)
	} else {
		row("BTF", "none: offsets and prototypes are not known")
	}
	if r.Kallsyms != nil {
		row("kallsyms", "%d symbols, %d bytes as text", r.Kallsyms.Symbols, r.Kallsyms.Bytes)
		for _, f := range kernel.CreationFamilies {
			if names := r.Kallsyms.Creation[f]; len(names) > 0 {
				row("  "+f, "%s", strings.Join(names, ", "))
			}
		}
	} else {
		row("kallsyms", "%s", r.NoKallsyms)
	}
	if !r.HasConfig {
		row("config", "none in the image or beside it")
	}
	for i, f := range r.Features {
		name := ""
		if i == 0 {
			name = "config"
		}
		row(name, "%s: %s", f.Name, cmp.Or(strings.Join(f.Missing, "; "), "ok"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	a.printReady(r)
	return nil
}

func yesNo(yes bool, ifYes, ifNo string) string {
	word, more := "no", ifNo
	if yes {
		word, more = "yes", ifYes
	}
	if more != "" {
		word += ": " + more
	}
	return word
}

// printReady puts labs that lack the same things into one line.
func (a *app) printReady(r *kernelReport) {
	if r.Target == "" {
		fmt.Fprintf(a.stdout, "\nlabs: labctl has no machine for %s\n", text.Clean(r.Arch))
		return
	}
	var ready, whys []string
	ids := map[string][]string{}
	for _, l := range r.Labs {
		if l.Ready {
			ready = append(ready, l.ID)
			continue
		}
		why := strings.Join(l.Missing, "; ")
		if ids[why] == nil {
			whys = append(whys, why)
		}
		ids[why] = append(ids[why], l.ID)
	}
	fmt.Fprintf(a.stdout, "\nlabs on %s: %d of %d can run: %s\n", r.Target, len(ready), len(r.Labs), cmp.Or(strings.Join(ready, " "), "none"))
	for _, why := range whys {
		fmt.Fprintf(a.stdout, "  not %s: %s\n", strings.Join(ids[why], " "), text.Clean(why))
	}
}
