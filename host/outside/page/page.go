// Package page follows an address of a guest through the page tables to the page frame, and
// tells what the kernel keeps about that.
package page

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/outside/mmu"
)

// Entry is one level of the walk.
type Entry struct {
	mmu.Step
	Flags []string `json:"flags"`
}

// Result is what became of an address.
type Result struct {
	Addr    uint64  `json:"addr"`
	Format  string  `json:"format"`
	Entries []Entry `json:"entries"`
	Mapped  bool    `json:"mapped"`
	Why     string  `json:"why,omitempty"` // it is not mapped
	Phys    uint64  `json:"phys,omitempty"`
	Size    uint64  `json:"page_size,omitempty"`
	Frame   *Frame  `json:"frame,omitempty"`
	NoFrame string  `json:"no_frame,omitempty"` // why nothing is known of the frame
}

// Frame is a struct page.
type Frame struct {
	PFN      uint64   `json:"pfn"`
	Addr     uint64   `json:"addr"` // of the struct page
	RefCount int64    `json:"refcount"`
	MapCount int64    `json:"mapcount"` // how often it is mapped to user space
	Typed    bool     `json:"typed"`    // it has a type in place of a map count
	Flags    []string `json:"flags"`
	Head     uint64   `json:"head,omitempty"` // PFN of the compound page's first, if that is another
}

// Table returns the page tables that a task uses for an address: its process's, or the
// kernel's.
func Table(l *kern.Look, task, addr uint64) (mmu.Table, error) {
	t := l.K.Table()
	kernelHalf := addr>>63 != 0
	if l.K.Word() == 4 {
		kernelHalf = addr >= 0xc0000000
	}
	if kernelHalf && !t.Format.Sign || task == 0 {
		return t, nil
	}
	o := l.Object("task_struct", task)
	at := o.Uint("mm")
	if at == 0 || o.Err() != nil {
		return t, o.Err()
	}
	mm := l.Object("mm_struct", at)
	pgd := mm.Uint("pgd")
	if mm.Err() != nil {
		return t, mm.Err()
	}
	w, err := t.Walk(l.K.Phys(), pgd)
	if err != nil {
		return t, fmt.Errorf("page tables of the process: %w", err)
	}
	t.Root, t.Kernel = w.Phys, false
	return t, nil
}

// Walk follows an address.
func Walk(l *kern.Look, t mmu.Table, addr uint64) (Result, error) {
	r := Result{Addr: addr, Format: t.Format.Name, Entries: []Entry{}}
	w, err := t.Walk(l.K.Phys(), addr)
	for _, s := range w.Steps {
		r.Entries = append(r.Entries, Entry{s, t.Format.Names(s)})
	}
	var no *mmu.NotMappedError
	switch {
	case errors.As(err, &no):
		r.Why = err.Error()
		return r, nil
	case err != nil:
		return r, err
	}
	r.Mapped, r.Phys, r.Size = true, w.Phys, w.Page
	if r.Frame, err = FrameOf(l, w.Phys/t.Format.Page()); err != nil {
		r.NoFrame = err.Error()
	}
	return r, nil
}

// FrameOf returns what the kernel keeps about a page frame.
func FrameOf(l *kern.Look, pfn uint64) (*Frame, error) {
	base, err := memmap(l)
	if err != nil {
		return nil, err
	}
	size, err := l.K.Size("page")
	if err != nil {
		return nil, err
	}
	f := &Frame{PFN: pfn, Addr: base + pfn*uint64(size)}
	p := l.Object("page", f.Addr)
	if head := headOf(p, base, uint64(size)); head != p.Addr {
		f.Head = (head - base) / uint64(size)
		p.Addr = head
	}
	f.RefCount = p.Int("_refcount.counter")
	// Of a tail, the page's own count: the head has the whole's.
	own := l.Object("page", f.Addr)
	f.MapCount = own.Int("_mapcount.counter") + 1
	if f.MapCount < 0 {
		f.Typed, f.MapCount = true, 0
	}
	flags := own.Uint("flags")
	if own.Err() != nil {
		flags = 0
	}
	f.Flags = flagNames(l, flags)
	return f, cmp.Or(p.Err(), own.Err())
}

// headOf returns the address of the first struct page of a compound page, which is the
// page's own if it is no tail. The lowest bit of the member marks a tail; the others are
// the head's address, or (7.x, compound_info) may be the bits of the tail's address that
// it shares with the head's.
func headOf(p *kern.Object, base, size uint64) uint64 {
	member := "compound_head"
	if !p.Has(member) {
		member = "compound_info"
	}
	info := p.Uint(member)
	if p.Err() != nil || info&1 == 0 {
		return p.Addr
	}
	below := func(head uint64) bool { return head-base < p.Addr-base } // base may lie before address 0
	if head := info - 1; below(head) && (head-base)%size == 0 {
		return head
	}
	if head := p.Addr & info; below(head) {
		return head
	}
	return p.Addr
}

// memmap returns the address that the struct page of frame 0 has or would have: with
// CONFIG_SPARSEMEM_VMEMMAP that to which all sections' maps are relative
// (mm/sparse.c, sparse_encode_mem_map).
func memmap(l *kern.Look) (uint64, error) {
	if base, err := flat(l); base != 0 || err != nil {
		return base, err
	}
	at, err := l.K.MustAddr("mem_section")
	if err != nil {
		return 0, err
	}
	roots, err := l.Pointer(at)
	if err != nil {
		return 0, err
	}
	size, err := l.K.Size("mem_section")
	if err != nil {
		return 0, err
	}
	const (
		maxRoots = 4096
		flagBits = 0xfff // of SECTION_MARKED_PRESENT and the others
	)
	word := uint64(l.K.Word())
	for i := range uint64(maxRoots) {
		root, err := l.Pointer(roots + i*word)
		if err != nil {
			break
		}
		if root == 0 {
			continue
		}
		for j := range l.K.Table().Format.Page() / uint64(size) {
			s := l.Object("mem_section", root+j*uint64(size))
			if m := s.Uint("section_mem_map"); m&1 != 0 && s.Err() == nil {
				return m &^ flagBits, nil
			}
		}
	}
	return 0, outcome.New(outcome.BadInput, "the kernel's map of memory is not found")
}

// flat is memmap where one array has all (CONFIG_FLATMEM), 0 elsewhere. On 32-bit arm it
// begins with the frame of a variable (arch/arm/include/asm/memory.h, PHYS_PFN_OFFSET).
func flat(l *kern.Look) (uint64, error) {
	all, ok1 := l.K.Addr("mem_map")
	first, ok2 := l.K.Addr("__pv_phys_pfn_offset")
	if !ok1 || !ok2 {
		return 0, nil
	}
	base, err := l.Pointer(all)
	if err != nil {
		return 0, err
	}
	pfn, err := l.Pointer(first)
	if err != nil {
		return 0, err
	}
	size, err := l.K.Size("page")
	if err != nil {
		return 0, err
	}
	return base - pfn*uint64(size), nil
}

// flagNames names the flags of a page by enum pageflags.
func flagNames(l *kern.Look, flags uint64) []string {
	names := []string{}
	spec, err := l.K.Types()
	if err != nil {
		return names
	}
	var e *btf.Enum
	if spec.TypeByName("pageflags", &e) != nil {
		return names
	}
	seen := map[uint64]bool{}
	n := uint64(64)
	for _, v := range e.Values {
		if v.Name == "__NR_PAGEFLAGS" {
			n = v.Value
		}
	}
	for _, v := range e.Values {
		if v.Value < n && flags>>v.Value&1 != 0 && !seen[v.Value] {
			seen[v.Value] = true
			names = append(names, strings.TrimPrefix(v.Name, "PG_"))
		}
	}
	return names
}
