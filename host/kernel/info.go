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

// Info is what an image says of itself, without being booted.
type Info struct {
	Name     string           `json:"name"` // a reference that finds this very kernel
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
	Compression string     `json:"compression"` // "" for none
	Unpacked    int64      `json:"unpacked"`    // bytes without compression
	PVH         bool       `json:"pvh"`

	// HasConfig says whether the configuration is known; without it nothing is
	// said of Features.
	HasConfig bool      `json:"has_config"`
	Features  []Feature `json:"features"`

	BTF *BTFInfo `json:"btf"` // nil when it has none
	ORC int      `json:"orc"` // entries of the unwinder's table; 0 for none
	// Kallsyms is nil when the image has no table of symbols that can be read;
	// NoKallsyms says why.
	Kallsyms   *KallsymsInfo `json:"kallsyms"`
	NoKallsyms string        `json:"no_kallsyms,omitempty"`
}

// Feature says whether a kernel has the options of a feature.
type Feature struct {
	Name    string   `json:"name"`
	Summary string   `json:"summary"`
	Missing []string `json:"missing"` // "CONFIG_KPROBES is not set, want y"
}

// BTFInfo is the size of the types.
type BTFInfo struct {
	Bytes int `json:"bytes"`
	Types int `json:"types"`
}

// KallsymsInfo is the kernel's own table of symbols.
type KallsymsInfo struct {
	Bytes   int `json:"bytes"` // as /proc/kallsyms has it
	Symbols int `json:"symbols"`
	// Creation are the functions of the image by which tasks are made, by family
	// (ksym.CreationFamilies), in the order of their names.
	Creation map[string][]string `json:"creation"`
}

// Info reads the image and what was found in it. The symbols are decoded once
// and kept, as by Kallsyms.
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

// From is the source that the kernel came from: "debian:trixie-cloud", "build".
func (k *Kernel) From() string {
	return (&Source{Kind: k.Source, Suite: k.Suite, Flavour: k.Flavour, Module: k.Module}).ref()
}

// features holds the configuration against every feature.
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

// btfInfo is nil for a kernel without BTF.
func (k *Kernel) btfInfo(ctx context.Context) (_ *BTFInfo, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	spec, err := k.Types(ctx)
	if spec == nil || err != nil {
		return nil, err
	}
	out := &BTFInfo{Bytes: int(k.Files[btfFile].Size)}
	for _, err := range spec.All() {
		if err != nil {
			return nil, fmt.Errorf("types of kernel %s: read BTF: %w", k, err)
		}
		out.Types++
	}
	return out, nil
}

// readKallsyms counts symbols and picks those that make tasks.
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
