// Package facts looks up what a lab's expressions ask of a kernel, in its image
// and configuration, without booting it.
package facts

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"

	"labctl/guest/wire"
	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/kernel/ctype"
	"labctl/host/lab"
	"labctl/host/lab/expr"
	"labctl/host/lab/result"
	"labctl/host/outcome"
	"labctl/host/targets"
)

// Of answers what is asked of a kernel on a machine.
func Of(ctx context.Context, k *kernel.Kernel, t targets.Target, a expr.Asks) (result.Kernel, error) {
	out := result.Kernel{
		Release: k.Release, Arch: t.Arch, CPUs: int64(t.CPUs),
		Config: map[string]string{}, Symbols: map[string]bool{}, Members: map[string]result.Member{},
	}
	if t.Board {
		out.Board = t.Name
	}
	_, out.BTF = k.Files["btf"]
	for _, name := range a.Config {
		out.Config[name], _ = k.Option(name)
	}
	img := images.of(k)
	if err := img.findSymbols(ctx, a.Symbols, out.Symbols); err != nil {
		return out, err
	}
	return out, img.findMembers(ctx, a.Members, out.Members)
}

// images are what was last read of kernels: most runs look at one, and each lab
// asks for other names in it.
var images imageCache

const maxImages = 2

type imageCache struct {
	mu   sync.Mutex
	last []*image
}

// image is a kernel's symbols and types, read when they are first asked for.
type image struct {
	dir, sum string
	bits     int // word size of the kernel
	symbols  func(context.Context) ([]byte, error)
	types    func(context.Context) (*btf.Spec, error) // nil without BTF
	decoding sync.Mutex                               // types are decoded as they are asked for
}

func (c *imageCache) of(k *kernel.Kernel) *image {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, img := range c.last {
		if img.dir == k.Dir && img.sum == k.Files["vmlinuz"].SHA256 {
			return img
		}
	}
	img := &image{dir: k.Dir, sum: k.Files["vmlinuz"].SHA256, bits: arch.Bits(k.Arch)}
	img.symbols = kept(k.Kallsyms)
	img.types = kept(k.Types)
	c.last = append(c.last[max(0, len(c.last)+1-maxImages):], img)
	return img
}

// kept calls read until it succeeds, and then gives what it gave. An error is not
// kept: it may be the context's.
func kept[T any](read func(context.Context) (T, error)) func(context.Context) (T, error) {
	var mu sync.Mutex
	var have bool
	var v T
	return func(ctx context.Context) (_ T, err error) {
		mu.Lock()
		defer mu.Unlock()
		if !have {
			v, err = read(ctx)
			have = err == nil
		}
		return v, err
	}
}

// findSymbols looks for " T name" in the kernel's own list.
func (img *image) findSymbols(ctx context.Context, names []string, found map[string]bool) error {
	if len(names) == 0 {
		return nil
	}
	all, err := img.symbols(ctx)
	if err != nil {
		return fmt.Errorf("look up symbols: %w", err)
	}
	for _, name := range names {
		needle := []byte(" " + name + "\n")
		found[name] = bytes.Contains(all, needle) || bytes.HasSuffix(all, needle[:len(needle)-1])
	}
	return nil
}

func (img *image) findMembers(ctx context.Context, names []string, found map[string]result.Member) error {
	for _, name := range names {
		found[name] = result.Member{}
	}
	if len(names) == 0 {
		return nil
	}
	img.decoding.Lock()
	defer img.decoding.Unlock()
	spec, err := img.types(ctx)
	if err != nil {
		return outcome.Default(outcome.BadInput, fmt.Errorf("look up members: %w", err))
	}
	if spec == nil {
		return nil
	}
	for _, name := range names {
		of, member, _ := strings.Cut(name, ".")
		structs, err := ctype.Structs(spec, of)
		if err != nil {
			return outcome.Default(outcome.BadInput, fmt.Errorf("look up members: %w", err))
		}
		for _, s := range structs {
			all := ctype.Members(s, img.bits)
			if i := slices.IndexFunc(all, func(m ctype.Member) bool { return m.Name == member }); i >= 0 {
				found[name] = result.Member{There: true, Offset: int64(all[i].Offset), Size: int64(all[i].Size)}
				break
			}
		}
	}
	return nil
}

// Missing says which needs of a lab a kernel and a machine do not meet, a
// sentence each. Files of the guest are looked at by the run: see Later.
func Missing(n lab.Needs, k *result.Kernel, t targets.Target) (why []string) {
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	for _, board := range n.NotOn {
		if t.Name == board {
			add("it does not run on %s", board)
		}
	}
	for _, o := range n.Config {
		name, want, exact := strings.Cut(o, "=")
		got := k.Config[name]
		switch {
		case exact && got != want:
			add("it needs CONFIG_%s=%s, this kernel has %q", name, want, got)
		case !exact && got == "":
			add("it needs CONFIG_%s, which this kernel does not set", name)
		}
	}
	for _, name := range n.Privileges {
		p, _ := wire.FindPrivilege(name)
		for _, o := range p.Config {
			if k.Config[o] == "" {
				add("its programs need the privilege %s, which takes CONFIG_%s, which this kernel does not set", name, o)
			}
		}
	}
	for _, s := range n.Symbols {
		if !k.Symbols[s] {
			add("it needs the kernel symbol %s, which this kernel does not have", s)
		}
	}
	for _, m := range n.Members {
		if !k.Members[m].There {
			add("it needs %s, which this kernel's types do not have", m)
		}
	}
	if t.Fixed && n.CPUs > t.CPUs {
		add("it needs %d CPUs, %s has %d", n.CPUs, t.Name, t.CPUs)
	}
	if t.Fixed && n.MemoryMB > t.MemoryMB {
		add("it needs %d MB of memory, %s has %d", n.MemoryMB, t.Name, t.MemoryMB)
	}
	if n.NUMANodes > 1 && t.Fixed {
		add("it needs %d NUMA nodes, %s has one", n.NUMANodes, t.Name)
	}
	if when := n.Exprs(); when != nil {
		switch v, err := when.Eval(expr.Input{Kernel: k}); {
		case err != nil:
			add("needs.when: %v", err)
		case !v.True:
			add("%s", n.WhyNot.In("en"))
		}
	}
	return why
}

// Later are the needs that nobody knows of before the guest is up: files of it.
func Later(n lab.Needs) []string { return n.Files }
