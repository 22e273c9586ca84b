// Package mmu walks a guest's page tables from outside the guest.
//
// Formats are rows of data: x86-64 with 4 and 5 levels, arm64 with pages of 4, 16 and
// 64 KB and addresses of 48 and 52 bits, and both formats of 32-bit Arm. Nothing here
// trusts the guest: a table may be anything, and a walk reads one entry for each level.
package mmu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"labctl/host/outcome"
)

// Table is a page table: the tree that starts at a guest-physical address.
type Table struct {
	Format *Format
	Root   uint64
	Kernel bool // it is the kernel's own
}

// Step is what a walk found at one level.
type Step struct {
	Level string `json:"level"`
	At    uint64 `json:"at"`    // guest-physical address of the entry
	Index int    `json:"index"` // of the entry in its table
	Entry uint64 `json:"entry"`
	Leaf  bool   `json:"leaf"` // it maps memory
	// Own is the kernel's own entry for the same memory, where it has some (Format.Own); 0
	// otherwise. It says what is mapped where the hardware's is empty, until an access.
	Own uint64 `json:"own,omitempty"`
}

// Walk is the translation of an address.
type Walk struct {
	Steps []Step `json:"steps"`
	Phys  uint64 `json:"phys"` // guest-physical address
	Page  uint64 `json:"page"` // size of the page, in bytes
}

// NotMappedError reports a virtual address that page tables do not map.
type NotMappedError struct {
	Addr  uint64
	Level string // where the walk ended; "" if the address is beyond what tables map
}

func (e *NotMappedError) Error() string {
	if e.Level == "" {
		return fmt.Sprintf("address %#x is not one that page tables can map", e.Addr)
	}
	return fmt.Sprintf("address %#x is not mapped: its %s is not present", e.Addr, e.Level)
}

// Outcome is BadInput.
func (e *NotMappedError) Outcome() outcome.Kind { return outcome.BadInput }

// NoMemoryError reports a guest-physical address that is not memory of the guest.
type NoMemoryError struct{ Addr uint64 }

func (e *NoMemoryError) Error() string {
	return fmt.Sprintf("guest-physical address %#x is not memory of the guest", e.Addr)
}

// Outcome is BadInput.
func (e *NoMemoryError) Outcome() outcome.Kind { return outcome.BadInput }

// Read fills p from a guest-physical address on.
func Read(m io.ReaderAt, p []byte, addr uint64) error {
	if int64(addr) < 0 {
		return &NoMemoryError{addr}
	}
	n, err := m.ReadAt(p, int64(addr))
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return &NoMemoryError{addr + uint64(n)}
	}
	return err
}

// Walk translates a virtual address. On a *NotMappedError the walk has the steps up to
// the empty entry.
func (t Table) Walk(m io.ReaderAt, va uint64) (Walk, error) {
	var w Walk
	f := t.Format
	// The tables of arm64 for the kernel are not those for processes: an address of the other
	// half would find the entry of one that has the same lower bits.
	if !f.maps(va) || t.Kernel && f.kernelHalf(va) != va {
		return w, &NotMappedError{Addr: va}
	}
	at := t.Root
	for i, l := range f.Levels {
		s := Step{Level: l.Name, Index: int(va >> l.Shift & (1<<l.Bits - 1))}
		s.At = at + uint64(s.Index*f.Entry)
		var err error
		if s.Entry, err = f.read(m, s.At); err != nil {
			return w, fmt.Errorf("page table of %#x: %s: %w", va, l.Name, err)
		}
		e := f.next(s.Entry, i, len(f.Levels))
		if f.own != nil && i == len(f.Levels)-1 && s.At >= f.ownBefore && (e.valid || s.Entry == 0) {
			own, err := f.read(m, s.At-f.ownBefore)
			if phys, ok := f.own(own); err == nil && ok {
				s.Own = own
				if !e.valid {
					e = explained{valid: true, leaf: true, phys: phys}
				}
			}
		}
		s.Leaf = e.valid && e.leaf
		w.Steps = append(w.Steps, s)
		if !e.valid {
			return w, &NotMappedError{Addr: va, Level: l.Name}
		}
		if e.leaf {
			w.Page = e.size
			if w.Page == 0 {
				w.Page = 1 << l.Shift
			}
			w.Phys = e.phys&^(w.Page-1) | va&(w.Page-1)
			return w, nil
		}
		at = e.phys
	}
	return w, &NotMappedError{Addr: va, Level: f.Levels[len(f.Levels)-1].Name}
}

// maps reports whether an address is one that the tables can map. Bits above their reach
// are all equal; on x86 they are also equal to the highest bit below.
func (f *Format) maps(va uint64) bool {
	bits := f.VABits()
	if f.Arch == "arm" {
		return va>>32 == 0
	}
	if f.Sign {
		return int64(va)<<(64-bits)>>(64-bits) == int64(va)
	}
	above := va >> bits
	return above == 0 || above == 1<<(64-bits)-1
}

func (f *Format) read(m io.ReaderAt, at uint64) (uint64, error) {
	var b [8]byte
	if err := Read(m, b[:f.Entry], at); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// maxEntries limits the entries that a search reads: those of a guest with some gigabytes.
const maxEntries = 4 << 20

// Executable searches the tables for virtual addresses at which a physical one is mapped
// so that the kernel can execute it. A kernel maps all memory, and its own text once
// more: only there it is executable. It returns the first few, in ascending order of
// their entries.
func (t Table) Executable(m io.ReaderAt, phys uint64) []uint64 {
	s := search{t: t, m: m, phys: phys, left: maxEntries, seen: map[place]bool{}}
	s.table(t.Root, 0, 0)
	return s.found
}

type search struct {
	t     Table
	m     io.ReaderAt
	phys  uint64
	left  int
	found []uint64
	seen  map[place]bool
}

// place is a table at a level. What maps nothing new is not read again: tables of a
// damaged guest may lead back to themselves.
type place struct {
	at    uint64
	level int
}

func (s *search) table(at uint64, level int, va uint64) {
	f := s.t.Format
	l := f.Levels[level]
	if s.left -= 1 << l.Bits; s.left < 0 || len(s.found) >= 8 || s.seen[place{at, level}] {
		return
	}
	s.seen[place{at, level}] = true
	raw := make([]byte, f.Entry<<l.Bits)
	if Read(s.m, raw, at) != nil {
		return
	}
	for i := range 1 << l.Bits {
		var b [8]byte
		copy(b[:], raw[i*f.Entry:(i+1)*f.Entry])
		entry := binary.LittleEndian.Uint64(b[:])
		e := f.next(entry, level, len(f.Levels))
		va := va | uint64(i)<<l.Shift
		switch {
		case !e.valid:
		case !e.leaf:
			s.table(e.phys, level+1, va)
		case entry&f.noExec == 0:
			size := e.size
			if size == 0 {
				size = 1 << l.Shift
			}
			if start := e.phys &^ (size - 1); s.phys >= start && s.phys-start < size && len(s.found) < 8 {
				s.found = append(s.found, f.kernelHalf(va|(s.phys-start)))
			}
		}
	}
}

// kernelHalf completes an address of which the tables give the lower bits. The tables of
// arm64 that hold the kernel map the upper half only.
func (f *Format) kernelHalf(va uint64) uint64 {
	switch bits := f.VABits(); {
	case f.Arch == "arm":
		return va
	case f.Sign:
		return uint64(int64(va) << (64 - bits) >> (64 - bits))
	default:
		return va | ^uint64(0)<<bits
	}
}
