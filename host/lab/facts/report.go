package facts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"labctl/guest/ksym"
	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/targets"
	"labctl/host/text"
	"labctl/host/ui/table"
)

// KernelReport describes a kernel, as read from its image, and what it can run.
type KernelReport struct {
	*kernel.Info
	// Machines are those of the kernel's architecture; empty if labctl has none.
	Machines []MachineReport `json:"machines"`
}

// MachineReport describes what a kernel can run on a machine.
type MachineReport struct {
	Name    string       `json:"name"`
	Missing []string     `json:"missing,omitempty"` // why it does not boot there with tracing, which labs need
	Labs    []LabVerdict `json:"labs"`              // empty if it does not boot
}

// LabVerdict reports whether a lab can run. It ignores requirements on files of
// the guest, which are unknown until it is booted.
type LabVerdict struct {
	ID      string   `json:"id"`
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing,omitempty"`
}

// Report examines a cached kernel or a file, including one for which labctl has no
// machine. An empty goarch means the kernel's only architecture, or the host's.
func Report(ctx context.Context, cache *kernel.Cache, name, goarch string, labs []*lab.Lab) (*KernelReport, error) {
	ref, err := kernel.ParseRef(name)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	if goarch == "" {
		only, err := cache.ArchOf(ref)
		if err != nil {
			return nil, err
		}
		goarch = cmp.Or(only, targets.Host().Arch)
	}
	k, err := cache.Find(ref, goarch)
	if err != nil {
		return nil, err
	}
	r := &KernelReport{Machines: []MachineReport{}}
	if r.Info, err = k.Info(ctx); err != nil {
		return nil, err
	}
	for _, t := range targets.All {
		if t.Arch != k.Arch {
			continue
		}
		m, err := reportMachine(ctx, k, t, labs)
		if err != nil {
			return nil, err
		}
		r.Machines = append(r.Machines, m)
	}
	return r, nil
}

// reportMachine determines what a kernel can run on a machine.
func reportMachine(ctx context.Context, k *kernel.Kernel, t targets.Target, labs []*lab.Lab) (MachineReport, error) {
	m := MachineReport{Name: t.Name, Labs: []LabVerdict{}}
	if !k.HasConfig() {
		m.Missing = []string{"its configuration is unknown: there is none in the image or next to it"}
		return m, nil
	}
	if m.Missing = machine.Lacks(t, k, "trace"); len(m.Missing) > 0 {
		return m, nil
	}
	for _, l := range labs {
		known, err := Of(ctx, k, t, l.Asks())
		if err != nil && !errors.Is(err, kernel.ErrNoKallsyms) {
			return m, err
		}
		missing := Missing(l.Needs, &known, t)
		m.Labs = append(m.Labs, LabVerdict{l.ID, len(missing) == 0, missing})
	}
	return m, nil
}

// Print writes the report as text.
func (r *KernelReport) Print(out io.Writer) error {
	w := table.New(0)
	row := func(name, format string, args ...any) {
		w.Row(name, text.Clean(fmt.Sprintf(format, args...)))
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
		packed = fmt.Sprintf("%s, %d bytes decompressed", r.Compression, r.Unpacked)
	}
	row("image", "%s", r.Image)
	row("", "%s, %d bytes, %s", r.Kind, r.Size, packed)
	row("", "sha256:%s", r.SHA256)
	if a, _ := arch.Find(r.Arch); a.ORC {
		row("PVH", "%s", yesNo(r.PVH, "QEMU boots its vmlinux", "QEMU boots the bzImage, which decompresses itself"))
		row("ORC", "%s", yesNo(r.ORC > 0, fmt.Sprintf("%d entries", r.ORC), ""))
	}
	if r.BTF != nil {
		row("BTF", "%d bytes, %d types", r.BTF.Bytes, r.BTF.Types)
	} else {
		row("BTF", "none: struct offsets and prototypes are unknown")
	}
	if r.Debug != "" {
		row("debug", "%s", r.Debug)
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
		row("config", "none in the image or next to it")
	}
	for i, f := range r.Features {
		name := ""
		if i == 0 {
			name = "config"
		}
		row(name, "%s: %s", f.Name, cmp.Or(strings.Join(f.Missing, "; "), "ok"))
	}
	if err := w.Write(out); err != nil {
		return err
	}
	return r.printReady(out)
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
func (r *KernelReport) printReady(out io.Writer) error {
	if len(r.Machines) == 0 {
		_, err := fmt.Fprintf(out, "\nlabs: labctl has no machine for %s\n", text.Clean(r.Arch))
		return err
	}
	var b strings.Builder
	fmt.Fprintln(&b)
	for _, m := range r.Machines {
		if len(m.Missing) > 0 {
			fmt.Fprintf(&b, "labs on %s: none: %s\n", m.Name, text.Clean(strings.Join(m.Missing, "; ")))
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
		fmt.Fprintf(&b, "labs on %s: %d of %d: %s\n", m.Name, len(ready), len(m.Labs), strings.Join(ready, " "))
		for _, why := range whys {
			fmt.Fprintf(&b, "  not %s: %s\n", strings.Join(ids[why], " "), text.Clean(why))
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
