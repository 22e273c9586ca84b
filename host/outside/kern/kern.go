// Package kern is a running kernel as it is seen from outside the guest: its memory by
// virtual addresses, its symbols at the addresses where they run, and the layout of its
// types.
//
//	k, err := kern.Open(ctx, image, memory)   // finds the kernel in the memory
//	l := k.Look()                             // one look at it
//	t := l.Object("task_struct", addr)
//	pid := t.Uint("pid")
//	if err := t.Err(); err != nil { … }
//
// Everything comes from the kernel's image: symbols from kallsyms, types from BTF. No
// debug information is needed, and no version is compared.
//
// The guest goes on running, and it is not trusted: a pointer may lead anywhere, a list
// may have no end, and what is read may be half written. Readers are bounded, and say
// what they could not read.
package kern

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/cilium/ebpf/btf"

	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/kernel/symtab"
	"labctl/host/outcome"
	"labctl/host/outside/mmu"
	"labctl/host/vm"
)

// Kernel is a running kernel. It is safe for concurrent use.
type Kernel struct {
	Image *kernel.Kernel

	phys    io.ReaderAt // by guest-physical addresses
	slow    bool        // each read of it takes long
	regions []vm.Region
	syms    *symtab.Table
	anchor  Anchor
	table   mmu.Table
	bits    int // word size

	members map[string]kernel.Member
	types   func() (*btf.Spec, error)
	mu      sync.Mutex // for members that are looked up, and types, which are no safer
}

// Open finds a kernel in a guest's memory. known, unless it is nil, is where it was found
// before, in this machine or in another that started from the same template; it is
// checked.
func Open(ctx context.Context, image *kernel.Kernel, m *vm.Memory, known *Anchor) (_ *Kernel, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	k := &Kernel{Image: image, phys: m, slow: m.Slow != "", regions: m.Regions, bits: arch.Bits(image.Arch)}
	if k.syms, err = image.Symbols(ctx); err != nil {
		return nil, err
	}
	if k.members, err = layouts(ctx, image); err != nil {
		return nil, err
	}
	k.types = sync.OnceValues(func() (*btf.Spec, error) {
		spec, err := image.KnownTypes(context.WithoutCancel(ctx))
		if err == nil && spec == nil {
			err = NoTypes(image)
		}
		return spec, err
	})
	if known == nil || !k.settle(*known) {
		if err := k.find(); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", image, err)
		}
	}
	return k, nil
}

// Anchor returns where the kernel is, for Open.
func (k *Kernel) Anchor() Anchor { return k.anchor }

// Table returns the kernel's own page tables.
func (k *Kernel) Table() mmu.Table { return k.table }

// Phys returns the guest's physical memory, for mmu.Table.
func (k *Kernel) Phys() io.ReaderAt { return k.phys }

// Word returns the size of the kernel's unsigned long, in bytes.
func (k *Kernel) Word() int { return k.bits / 8 }

// NoTypesError reports a kernel whose types are not known.
type NoTypesError struct{ Kernel, Hint string }

// NoTypes returns the error for a kernel.
func NoTypes(k *kernel.Kernel) *NoTypesError { return &NoTypesError{k.String(), k.TypesHint()} }

func (e *NoTypesError) Error() string {
	return fmt.Sprintf("kernel %s was built without BTF (CONFIG_DEBUG_INFO_BTF): the layout of its structures is not known; %s", e.Kernel, e.Hint)
}

// Outcome is BadInput.
func (e *NoTypesError) Outcome() outcome.Kind { return outcome.BadInput }

// Types returns all of the kernel's types. It takes some tens of milliseconds when it is
// called first; what Member finds takes none. A *NoTypesError means that there are none.
// A Spec is not safe for concurrent use.
func (k *Kernel) Types() (*btf.Spec, error) { return k.types() }

// HasTypes reports whether the layout of structures is known.
func (k *Kernel) HasTypes() bool { return len(k.members) > 0 }

// Addr returns the address at which a symbol runs. Of several with one name, it is the
// first.
func (k *Kernel) Addr(name string) (uint64, bool) {
	found := k.syms.Named(name)
	if len(found) == 0 {
		return 0, false
	}
	return k.running(found[0].Addr), true
}

// Addrs returns the addresses at which the symbols of a name run.
func (k *Kernel) Addrs(name string) (addrs []uint64) {
	for _, s := range k.syms.Named(name) {
		addrs = append(addrs, k.running(s.Addr))
	}
	return addrs
}

// running turns a link address into one at which the kernel runs. Symbols of per-CPU
// variables may be offsets, and stay what they are.
func (k *Kernel) running(link uint64) uint64 {
	if !k.kernelHalf(link) {
		return link
	}
	return link + k.anchor.Slide
}

// kernelHalf reports whether an address is in the kernel's half of the address space.
func (k *Kernel) kernelHalf(addr uint64) bool {
	if k.bits == 32 {
		return addr>>30 != 0 && addr>>32 == 0
	}
	return addr>>63 != 0
}

// NoSymbolError reports that a kernel has no symbol of a name.
type NoSymbolError struct {
	Name, Kernel string
	NoData       bool   // the kernel has symbols of functions only
	Command      string // which gets the others, if there is one
}

func (e *NoSymbolError) Error() string {
	if e.NoData {
		return fmt.Sprintf("kernel %s has no symbol %s: it has symbols of functions only (no CONFIG_KALLSYMS_ALL)%s", e.Kernel, e.Name, getsOthers(e.Command))
	}
	return fmt.Sprintf("kernel %s has no symbol %s", e.Kernel, e.Name)
}

// getsOthers is the end of a line that symbols of data are not there.
func getsOthers(command string) string {
	if command == "" {
		return ""
	}
	return "; " + command + " gets the others"
}

// Outcome is BadInput.
func (e *NoSymbolError) Outcome() outcome.Kind { return outcome.BadInput }

// MustAddr is Addr with an error.
func (k *Kernel) MustAddr(name string) (uint64, error) {
	addr, ok := k.Addr(name)
	if !ok {
		return 0, &NoSymbolError{Name: name, Kernel: k.Image.String(), NoData: k.noData(), Command: k.Image.DebugCommand()}
	}
	return addr, nil
}

// noData reports whether the kernel has symbols of functions only.
func (k *Kernel) noData() bool { return len(k.syms.Named("init_task")) == 0 }

// Symbols returns the kernel's symbols at their link addresses. Addresses in the running
// kernel are Running of theirs.
func (k *Kernel) Symbols() *symtab.Table { return k.syms }

// Running turns the address of a symbol of Symbols into that at which it runs.
func (k *Kernel) Running(link uint64) uint64 { return k.running(link) }

// InText reports whether an address is in the kernel's own code.
func (k *Kernel) InText(addr uint64) bool {
	for _, part := range [][2]string{{"_stext", "_etext"}, {"_sinittext", "_einittext"}} {
		lo, ok1 := k.Addr(part[0])
		hi, ok2 := k.Addr(part[1])
		if ok1 && ok2 && addr >= lo && addr < hi {
			return true
		}
	}
	return false
}
