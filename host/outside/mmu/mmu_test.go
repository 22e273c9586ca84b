package mmu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// memory is guest-physical memory from 0 on.
type memory []byte

func (m memory) put(f *Format, at, entry uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], entry)
	copy(m[at:at+uint64(f.Entry)], b[:])
}

// table is what an entry of a format that points to a table looks like, and page what one
// that maps memory does.
func tableEntry(f *Format, at uint64) uint64 {
	switch {
	case f.Arch == "amd64":
		return at | 0x63
	case f.Entry == 4:
		return at | 1
	}
	return at | 3
}

func leafEntry(f *Format, phys uint64, level int) uint64 {
	last := level == len(f.Levels)-1
	switch {
	case f.Arch == "amd64" && last:
		return phys | 0x63
	case f.Arch == "amd64":
		return phys | 0xe3
	case f.Entry == 4:
		return phys | 2
	case last:
		return phys | 0x403
	}
	return phys | 0x401
}

// build makes tables that map one address, with a leaf at a level.
func build(f *Format, va, phys uint64, leaf int) (memory, Table) {
	m := make(memory, 4<<20)
	at, next := uint64(0x10000), uint64(0x30000)
	root := at
	for i, l := range f.Levels {
		slot := at + va>>l.Shift&(1<<l.Bits-1)*uint64(f.Entry)
		if i == leaf {
			m.put(f, slot, leafEntry(f, phys, i))
			break
		}
		m.put(f, slot, tableEntry(f, next))
		at, next = next, next+0x20000
	}
	return m, Table{Format: f, Root: root}
}

// TestWalk maps an address by each format, at each level that can map memory.
func TestWalk(t *testing.T) {
	for i := range Formats {
		f := &Formats[i]
		va := f.kernelHalf(uint64(0x5a5a5a5a5a5a5a5a)&(1<<f.VABits()-1) | 1<<(f.VABits()-1))
		for leaf := range f.Levels {
			level := f.Levels[leaf]
			if f.Arch == "amd64" && leaf < len(f.Levels)-3 || f.Arch != "amd64" && f.Entry == 8 && leaf == 0 && len(f.Levels) > 3 {
				continue // maps no memory
			}
			t.Run(fmt.Sprintf("%s/%s", f.Name, level.Name), func(t *testing.T) {
				phys := uint64(1) << 40 >> level.Shift << level.Shift
				if f.Entry == 4 {
					phys = 0x40000000
				}
				m, table := build(f, va, phys, leaf)
				w, err := table.Walk(bytes.NewReader(m), va)
				want := phys | va&(1<<level.Shift-1)
				if err != nil || w.Phys != want || w.Page != 1<<level.Shift || len(w.Steps) != leaf+1 || !w.Steps[leaf].Leaf {
					t.Errorf("Walk(%#x) = %+v, %v; want %#x in a page of %#x", va, w, err, want, uint64(1)<<level.Shift)
				}
				// The kernel's own tables map nothing of the other half.
				own := Table{Format: f, Root: table.Root, Kernel: true}
				if w, err := own.Walk(bytes.NewReader(m), va); err != nil || w.Phys != want {
					t.Errorf("Walk(%#x) of the kernel's = %+v, %v; want %#x", va, w, err, want)
				}
				if f.Arch == "arm64" {
					low := va & (1<<f.VABits() - 1)
					var no *NotMappedError
					if w, err := own.Walk(bytes.NewReader(m), low); !errors.As(err, &no) {
						t.Errorf("Walk(%#x) of the kernel's = %+v, %v; want that it is not mapped", low, w, err)
					}
				}
				// The neighbour is not mapped.
				w, err = table.Walk(bytes.NewReader(m), va^1<<level.Shift)
				var no *NotMappedError
				if !errors.As(err, &no) || no.Level != level.Name || len(w.Steps) != leaf+1 {
					t.Errorf("Walk of the neighbour = %+v, %v; want an empty %s", w, err, level.Name)
				}
				if f.Arch != "arm" {
					if got := table.Executable(bytes.NewReader(m), want); len(got) != 1 || got[0] != va {
						t.Errorf("Executable(%#x) = %#x, want %#x", want, got, va)
					}
				}
			})
		}
	}
}

// TestOwn: on 32-bit arm the hardware's entry of a page that was not accessed since it became
// old is empty, and the kernel's own says what is mapped.
func TestOwn(t *testing.T) {
	f := Find("arm, short descriptors")
	const va, root, table = 0xb6b4e000, 0x4000, 0x8800
	for _, tt := range []struct {
		name       string
		entry, own uint64
		mapped     bool
		phys       uint64
		flags      string
	}{
		{name: "young", entry: 0x4849dc7f, own: 0x4849d75f, mapped: true, phys: 0x4849d000, flags: "USER RW B C SHARED NG XN YOUNG DIRTY WRITE"},
		{name: "old", own: 0x4849d7dd, mapped: true, phys: 0x4849d000, flags: "OLD DIRTY"},
		{name: "PROT_NONE", own: 0x4849df5f},
		{name: "swapped", own: 0x4849d70c},
		{name: "none"},
	} {
		m := make(memory, 1<<20)
		m.put(f, root+va>>20*4, table|0x35)
		m.put(f, table+va>>12&0xff*4, tt.entry)
		m.put(f, table-2048+va>>12&0xff*4, tt.own)
		w, err := Table{Format: f, Root: root}.Walk(bytes.NewReader(m), va)
		var no *NotMappedError
		if !tt.mapped {
			if !errors.As(err, &no) {
				t.Errorf("%s: %+v, %v; want that it is not mapped", tt.name, w, err)
			}
			continue
		}
		if err != nil || w.Phys != tt.phys || w.Page != 4096 || len(w.Steps) != 2 {
			t.Errorf("%s: %+v, %v; want %#x", tt.name, w, err, tt.phys)
			continue
		}
		if got := strings.Join(f.Names(w.Steps[1]), " "); got != tt.flags {
			t.Errorf("%s: %s; want %s", tt.name, got, tt.flags)
		}
	}
}

// TestWide: the bits of an address above 47 are where each format has them.
func TestWide(t *testing.T) {
	for name, c := range map[string]struct{ entry, phys uint64 }{
		"arm64, 64 KB pages, 3 levels, 52-bit addresses": {0x0000000012345403 &^ 0xf000, 0x0000000012340000},
		"arm64, 4 KB pages, 5 levels, 52-bit addresses":  {3<<48 | 0x12345000 | 2<<8 | 0x403, 3<<48 | 2<<50 | 0x12345000},
		"arm64, 4 KB pages, 4 levels":                    {0x12345000 | 3<<8 | 0x403, 0x12345000},
		"x86-64, 4 levels":                               {1<<63 | 1<<51 | 0x12345063, 1<<51 | 0x12345000},
	} {
		f := Find(name)
		if e := f.next(c.entry, len(f.Levels)-1, len(f.Levels)); !e.valid || !e.leaf || e.phys != c.phys {
			t.Errorf("%s: entry %#x is %+v, want %#x", name, c.entry, e, c.phys)
		}
	}
	f := Find("arm64, 64 KB pages, 3 levels, 52-bit addresses")
	if e := f.next(0x10000|0xa<<12|3, 2, 3); e.phys != 0xa<<48|0x10000 {
		t.Errorf("64 KB granule: %#x", e.phys)
	}
	short := Find("arm, short descriptors")
	for _, c := range []struct {
		entry uint64
		level int
		want  explained
	}{
		{0x40200c1e, 0, explained{valid: true, leaf: true, phys: 0x40200000}},
		{0x41040c1e, 0, explained{valid: true, leaf: true, phys: 0x41000000, size: 16 << 20}},
		{0x40201c01, 0, explained{valid: true, phys: 0x40201c00}},
		{0x40210001, 1, explained{valid: true, leaf: true, phys: 0x40210000, size: 64 << 10}},
		{0, 0, explained{}},
		{0, 1, explained{}},
	} {
		if got := short.next(c.entry, c.level, 2); got != c.want {
			t.Errorf("short descriptor %#x at level %d = %+v, want %+v", c.entry, c.level, got, c.want)
		}
	}
}

func TestMaps(t *testing.T) {
	for _, c := range []struct {
		format string
		va     uint64
		want   bool
	}{
		{"x86-64, 4 levels", 0x7fffffffffff, true},
		{"x86-64, 4 levels", 0x800000000000, false},
		{"x86-64, 4 levels", 0xffff800000000000, true},
		{"x86-64, 4 levels", 0xffff7fffffffffff, false},
		{"x86-64, 5 levels", 0xffff7fffffffffff, true},
		{"arm64, 4 KB pages, 4 levels", 0xffff000000000000, true},
		{"arm64, 4 KB pages, 4 levels", 0xdead000000000000, false},
		{"arm, short descriptors", 0xffffffff, true},
		{"arm, short descriptors", 0x100000000, false},
	} {
		if got := Find(c.format).maps(c.va); got != c.want {
			t.Errorf("%s maps %#x = %t, want %t", c.format, c.va, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		format string
		entry  uint64
		own    uint64
		level  string
		leaf   bool
		want   string
	}{
		{"x86-64, 4 levels", 0x8000000000000063, 0, "PTE", true, "PRESENT RW ACCESSED DIRTY NX"},
		{"x86-64, 4 levels", 0x25, 0, "PTE", false, "PRESENT RO USER ACCESSED"},
		{"arm64, 4 KB pages, 4 levels", 0x0020000044460fc3, 0, "PTE", true, "VALID USER RO SHARED AF NG PXN"},
		{"arm64, 4 KB pages, 4 levels", 0x0800000048949003, 0, "PTE", false, "VALID PXNTable"},
		{"arm, short descriptors", 0x4849dc7f, 0x4849d75f, "PTE", true, "USER RW B C SHARED NG XN YOUNG DIRTY WRITE"},
		{"arm, short descriptors", 0x4849de7f, 0x4849d71f, "PTE", true, "USER RO B C SHARED NG XN YOUNG WRITE"},
		{"arm, short descriptors", 0, 0x4849d7dd, "PTE", true, "OLD DIRTY"},
		{"arm, short descriptors", 0x4284dc35, 0, "PGD", false, "TABLE"},
		{"arm, short descriptors", 0x4201141e, 0, "PGD", true, "RW B C XN"},
	} {
		if diff := cmp.Diff(c.want, strings.Join(Find(c.format).Names(Step{Level: c.level, Entry: c.entry, Leaf: c.leaf, Own: c.own}), " ")); diff != "" {
			t.Errorf("%s: %#x (-want +got):\n%s", c.format, c.entry, diff)
		}
	}
}

func TestRead(t *testing.T) {
	m := bytes.NewReader(make([]byte, 100))
	var no *NoMemoryError
	if err := Read(m, make([]byte, 8), 96); !errors.As(err, &no) || no.Addr != 100 {
		t.Errorf("Read across the end = %v, want no memory at 100", err)
	}
	if err := Read(m, make([]byte, 8), 1<<63); !errors.As(err, &no) {
		t.Errorf("Read of 1<<63 = %v", err)
	}
	if err := Read(m, make([]byte, 8), 92); err != nil {
		t.Error(err)
	}
}

// FuzzWalk walks and searches tables of any contents, in a memory of a few pages.
func FuzzWalk(f *testing.F) {
	f.Add(0, uint64(0x1000), uint64(0xffff800012345678), []byte("\x00\x12\x63\x20\x00\x00\x00\x00\x00\x00"))
	f.Add(2, uint64(0x1000), uint64(0xffff800012345678), []byte("\x00\x12\x03\x10\x00\x00\x00\x00\x00\x00"))
	f.Add(11, uint64(0x1000), uint64(0xc0008000), []byte("\x00\x12\x01\x10\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, format int, root, va uint64, words []byte) {
		m := make(memory, 64<<10)
		for ; len(words) >= 10; words = words[10:] { // where, and what
			at := int(binary.LittleEndian.Uint16(words)) &^ 7
			copy(m[at:at+8], words[2:10])
		}
		table := Table{Format: &Formats[uint(format)%uint(len(Formats))], Root: root}
		w, err := table.Walk(bytes.NewReader(m), va)
		if len(w.Steps) > len(table.Format.Levels) || err == nil && w.Page == 0 {
			t.Errorf("Walk = %+v, %v", w, err)
		}
		for _, at := range table.Executable(bytes.NewReader(m), va) {
			if !table.Format.maps(at) {
				t.Errorf("Executable found %#x", at)
			}
		}
	})
}
