package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"labctl/guest/ksym"
	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/facts"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/host/targets"
	"labctl/host/text"
)

// kernelReport is what `kernel info` says.
type kernelReport struct {
	*kernel.Info
	// Machines are those of the kernel's architecture; none when labctl has none.
	Machines []machineReport `json:"machines"`
}

// machineReport says what a kernel can run on a machine.
type machineReport struct {
	Name    string       `json:"name"`
	Missing []string     `json:"missing,omitempty"` // why it does not come up there, traced as labs are
	Labs    []labVerdict `json:"labs"`              // none when it does not
}

// labVerdict is of one lab. Files of the guest that some need are not known
// before it is up.
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
				return outcome.Inputf("%s takes one kernel: labctl kernel info 6.12", c.CommandPath())
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
func (a *app) examineKernel(ctx context.Context, env session.Env, name, arch string) (*kernelReport, error) {
	ref, err := kernel.ParseRef(name)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	if arch == "" {
		only, err := env.Cache.ArchOf(ref)
		if err != nil {
			return nil, err
		}
		arch = cmp.Or(only, targets.Host().Arch)
	}
	k, err := env.Cache.Find(ref, arch)
	if err != nil {
		return nil, err
	}
	r := &kernelReport{Machines: []machineReport{}}
	if r.Info, err = k.Info(ctx); err != nil {
		return nil, err
	}
	set, err := a.load(&labFlags{})
	if err != nil {
		return nil, err
	}
	for _, t := range targets.All {
		if t.Arch != k.Arch {
			continue
		}
		m, err := judgeMachine(ctx, k, t, set.Labs)
		if err != nil {
			return nil, err
		}
		r.Machines = append(r.Machines, m)
	}
	return r, a.broken(set)
}

// judgeMachine says what a kernel can run on a machine.
func judgeMachine(ctx context.Context, k *kernel.Kernel, t targets.Target, labs []*lab.Lab) (machineReport, error) {
	m := machineReport{Name: t.Name, Labs: []labVerdict{}}
	if !k.HasConfig() {
		m.Missing = []string{"its configuration is not known: there is none in the image or beside it"}
		return m, nil
	}
	if m.Missing = machine.Lacks(t, k, "trace"); len(m.Missing) > 0 {
		return m, nil
	}
	for _, l := range labs {
		known, err := facts.Of(ctx, k, t, l.Asks())
		if err != nil && !errors.Is(err, kernel.ErrNoKallsyms) {
			return m, err
		}
		missing := facts.Missing(l.Needs, &known, t)
		m.Labs = append(m.Labs, labVerdict{l.ID, len(missing) == 0, missing})
	}
	return m, nil
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
	if a, _ := arch.Find(r.Arch); a.ORC {
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
		for _, f := range ksym.CreationFamilies {
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
	if len(r.Machines) == 0 {
		fmt.Fprintf(a.stdout, "\nlabs: labctl has no machine for %s\n", text.Clean(r.Arch))
		return
	}
	fmt.Fprintln(a.stdout)
	for _, m := range r.Machines {
		if len(m.Missing) > 0 {
			fmt.Fprintf(a.stdout, "labs on %s: none: %s\n", m.Name, text.Clean(strings.Join(m.Missing, "; ")))
			continue
		}
		var ready, whys []string
		ids := map[string][]string{}
		for _, l := range m.Labs {
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
		fmt.Fprintf(a.stdout, "labs on %s: %d of %d: %s\n", m.Name, len(ready), len(m.Labs), strings.Join(ready, " "))
		for _, why := range whys {
			fmt.Fprintf(a.stdout, "  not %s: %s\n", strings.Join(ids[why], " "), text.Clean(why))
		}
	}
}
