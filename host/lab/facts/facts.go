// Package facts looks up what a lab's expressions ask of a kernel, in its image
// and configuration, without booting it.
package facts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/expr"
	"labctl/host/lab/result"
	"labctl/host/target"
)

// Of answers what is asked of a kernel on a machine.
func Of(ctx context.Context, k *kernel.Kernel, t target.Target, a expr.Asks) (result.Kernel, error) {
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
	if err := symbols(ctx, k, a.Symbols, out.Symbols); err != nil {
		return out, err
	}
	return out, members(k, a.Members, out.Members)
}

// symbols looks for " T name" in the kernel's own list.
func symbols(ctx context.Context, k *kernel.Kernel, names []string, found map[string]bool) error {
	if len(names) == 0 {
		return nil
	}
	all, err := k.Kallsyms(ctx)
	if err != nil {
		return fmt.Errorf("look up symbols: %w", err)
	}
	for _, name := range names {
		needle := []byte(" " + name + "\n")
		found[name] = bytes.Contains(all, needle) || bytes.HasSuffix(all, needle[:len(needle)-1])
	}
	return nil
}

func members(k *kernel.Kernel, names []string, found map[string]result.Member) error {
	for _, name := range names {
		found[name] = result.Member{}
	}
	if _, ok := k.Files["btf"]; !ok || len(names) == 0 {
		return nil
	}
	blob, err := os.ReadFile(filepath.Join(k.Dir, "btf"))
	if err != nil {
		return fmt.Errorf("look up members: %w", err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		return fmt.Errorf("look up members: read BTF of kernel %s: %w", k, err)
	}
	for _, name := range names {
		of, member, _ := strings.Cut(name, ".")
		types, err := spec.AnyTypesByName(of)
		if errors.Is(err, btf.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look up members: %s: %w", of, err)
		}
		for _, t := range types {
			if s, ok := t.(*btf.Struct); ok {
				if m, ok := find(s.Members, member, 0, 0); ok {
					found[name] = m
					break
				}
			}
		}
	}
	return nil
}

// find looks through anonymous members, too.
func find(members []btf.Member, name string, base btf.Bits, depth int) (result.Member, bool) {
	if depth > 16 {
		return result.Member{}, false
	}
	for _, m := range members {
		at := base + m.Offset
		if m.Name == name {
			size, err := btf.Sizeof(m.Type)
			if err != nil {
				size = 0 // a flexible array
			}
			return result.Member{There: true, Offset: int64(at / 8), Size: int64(size)}, true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if found, ok := find(inner, name, at, depth+1); ok {
			return found, true
		}
	}
	return result.Member{}, false
}

// Missing says which needs of a lab a kernel and a machine do not meet, a
// sentence each. Files of the guest are looked at by the run.
func Missing(n lab.Needs, k *result.Kernel, t target.Target) (why []string) {
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
	if n.NUMANodes > 1 {
		add("it needs %d NUMA nodes, labctl's machines have one", n.NUMANodes)
	}
	return why
}
