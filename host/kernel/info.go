package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"labctl/guest/ksym"
	"labctl/host/kernel/check"
	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
)

// Info describes a kernel image, as read from the image without booting it.
type Info struct {
	Name     string           `json:"name"` // a reference that finds exactly this kernel
	Release  string           `json:"release"`
	Arch     string           `json:"arch"`
	Banner   string           `json:"banner"` // "Linux version …"
	Source   string           `json:"source"` // "debian:trixie", "gomod:MODULE", "build", "file"
	Version  string           `json:"version,omitempty"`
	Packages []debian.Package `json:"packages,omitempty"`
	Module   string           `json:"module,omitempty"`
	Sum      string           `json:"sum,omitempty"`
	Pulled   time.Time        `json:"pulled"`

	Image       string     `json:"image"`
	SHA256      string     `json:"sha256"`
	Size        int64      `json:"size"`
	Kind        image.Kind `json:"kind"`
	Compression string     `json:"compression"` // "" if not compressed
	Unpacked    int64      `json:"unpacked"`    // size in bytes when decompressed
	PVH         bool       `json:"pvh"`

	// HasConfig reports whether the configuration is known; without it, Features
	// is empty.
	HasConfig bool      `json:"has_config"`
	Features  []Feature `json:"features"`

	BTF *BTFInfo `json:"btf"` // nil without BTF
	// Debug is the path of the vmlinux of its debug package, if that was pulled.
	Debug string `json:"debug,omitempty"`
	ORC   int    `json:"orc"` // number of entries of the ORC unwind table; 0 without one
	// Kallsyms is nil if the image has no readable kallsyms table; NoKallsyms is
	// the reason.
	Kallsyms   *KallsymsInfo `json:"kallsyms"`
	NoKallsyms string        `json:"no_kallsyms,omitempty"`
}

// Feature reports whether a kernel has the options of a feature.
type Feature struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary"`
	Missing []string `json:"missing"` // "CONFIG_KPROBES is not set, want y"
}

// BTFInfo is the size of the kernel's BTF.
type BTFInfo struct {
	Bytes int `json:"bytes"`
	Types int `json:"types"`
}

// KallsymsInfo describes the kernel's kallsyms table.
type KallsymsInfo struct {
	Bytes   int `json:"bytes"` // in the form of /proc/kallsyms
	Symbols int `json:"symbols"`
	// Creation lists the image's task creation functions by family
	// (ksym.CreationFamilies), sorted by name.
	Creation map[string][]string `json:"creation"`
}

// Info describes the kernel's image. The symbols are decoded once and cached, as
// by Kallsyms.
func (k *Kernel) Info(ctx context.Context) (*Info, error) {
	img, err := k.open()
	if err != nil {
		return nil, err
	}
	out := &Info{
		Name: k.Ref.String(), Release: k.Release, Arch: k.Arch, Banner: img.Banner, Source: k.From(),
		Version: k.Version, Packages: k.Packages, Module: k.Module, Sum: k.Sum, Pulled: k.Pulled,
		Image: k.Image(), SHA256: k.Files[imageFile].SHA256, Size: k.Files[imageFile].Size,
		Kind: img.Kind, Compression: img.Compression, Unpacked: int64(len(img.Kernel)), PVH: img.HasPVH(),
		HasConfig: k.HasConfig(), ORC: img.ORC(),
	}
	out.Debug, _ = k.DebugFile()
	if out.HasConfig {
		out.Features = k.features()
	}
	if out.BTF, err = k.btfInfo(ctx); err != nil {
		return nil, err
	}
	text, err := k.Kallsyms(ctx)
	switch {
	case errors.Is(err, image.ErrNoKallsyms):
		out.NoKallsyms = err.Error()
	case err != nil:
		return nil, err
	default:
		out.Kallsyms = readKallsyms(text)
	}
	return out, nil
}

// From returns the kernel's source: "debian:trixie-cloud", "build".
func (k *Kernel) From() string {
	return (&Source{Kind: k.Source, Suite: k.Suite, Flavour: k.Flavour, Module: k.Module, Container: k.Container}).ref()
}

// features checks the configuration against every feature.
func (k *Kernel) features() []Feature {
	var out []Feature
	for _, f := range check.All() {
		row := Feature{Name: f.Name, Summary: f.Summary, Missing: []string{}}
		for _, m := range check.Check(k.Option, f.Name) {
			got := "is not set"
			if m.Got != "" {
				got = "is " + m.Got
			}
			row.Missing = append(row.Missing, fmt.Sprintf("CONFIG_%s %s, want %s", m.Name, got, strings.Join(m.Accept, " or ")))
		}
		out = append(out, row)
	}
	return out
}

// btfInfo returns nil for a kernel without BTF.
func (k *Kernel) btfInfo(ctx context.Context) (_ *BTFInfo, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	spec, err := k.Types(ctx)
	if spec == nil || err != nil {
		return nil, err
	}
	out := &BTFInfo{Bytes: int(k.Files[btfFile].Size)}
	for _, err := range spec.All() {
		if err != nil {
			return nil, fmt.Errorf("BTF of kernel %s: %w", k, err)
		}
		out.Types++
	}
	return out, nil
}

// Creation lists the image's task creation functions by family
// (ksym.CreationFamilies), sorted by name. The error is that of Kallsyms.
func (k *Kernel) Creation(ctx context.Context) (map[string][]string, error) {
	text, err := k.Kallsyms(ctx)
	if err != nil {
		return nil, err
	}
	return readKallsyms(text).Creation, nil
}

// readKallsyms counts the symbols and collects those that create tasks.
func readKallsyms(text []byte) *KallsymsInfo {
	out := &KallsymsInfo{Bytes: len(text), Creation: map[string][]string{}}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) < 3 {
			continue
		}
		out.Symbols++
		if kind := f[1][0]; kind != 't' && kind != 'T' && kind != 'W' && kind != 'w' {
			continue
		}
		name := string(f[2])
		sym, ok := ksym.Family(name)
		if ok && slices.Contains(ksym.CreationFamilies, sym.Family) && !slices.Contains(out.Creation[sym.Family], name) {
			out.Creation[sym.Family] = append(out.Creation[sym.Family], name)
		}
	}
	for _, names := range out.Creation {
		slices.Sort(names)
	}
	return out
}
