package mmu

// Level is one level of a page table.
type Level struct {
	Name  string // the kernel's name of an entry at this level: "PGD"
	Shift uint   // the lowest bit of the virtual address that selects an entry
	Bits  uint   // how many bits select it
}

// Flag is a bit of an entry, or several.
type Flag struct {
	Mask  uint64
	Value uint64 // of the bits under Mask when the flag is set
	Name  string
	Leaf  bool   // only in an entry that maps memory, not in one that points to a table
	Table bool   // only in an entry that points to a table
	Level string // only at the level of that name, if it has one
}

// Format is how one architecture, in one configuration, lays out page tables.
type Format struct {
	Name   string  // "x86-64, 4 levels"
	Arch   string  // GOARCH
	Levels []Level // outermost first
	Entry  int     // bytes of an entry
	Flags  []Flag  // in the order in which they are printed

	// Sign says that addresses above the tables' reach are the sign extension of
	// the highest bit: one table maps both halves of the address space.
	Sign bool
	// next explains an entry: whether it is valid; where it points to, and whether
	// to memory of the level's size or to a table. Size, if it is not 0, is that of
	// the memory instead of the level's.
	next func(entry uint64, level, levels int) (e explained)
	// noExec are the bits of which one forbids the kernel to execute the memory.
	noExec uint64
	// Own are the flags of the kernel's own entries. It has some where the hardware's have
	// no bits for accessed and dirty: so many bytes before each of the lowest level. own
	// tells whether such an entry maps memory, and which.
	Own       []Flag
	ownBefore uint64
	own       func(entry uint64) (phys uint64, ok bool)
}

type explained struct {
	valid bool
	leaf  bool
	phys  uint64
	size  uint64
}

// Page returns the size of the smallest page.
func (f *Format) Page() uint64 { return 1 << f.Levels[len(f.Levels)-1].Shift }

// VABits returns how many bits of an address the tables translate.
func (f *Format) VABits() uint { return f.Levels[0].Shift + f.Levels[0].Bits }

var x86Flags = []Flag{
	// arch/x86/include/asm/pgtable_types.h
	{Mask: 1 << 0, Value: 1 << 0, Name: "PRESENT"},
	{Mask: 1 << 1, Value: 1 << 1, Name: "RW"},
	{Mask: 1 << 1, Name: "RO"},
	{Mask: 1 << 2, Value: 1 << 2, Name: "USER"},
	{Mask: 1 << 3, Value: 1 << 3, Name: "PWT"},
	{Mask: 1 << 4, Value: 1 << 4, Name: "PCD"},
	{Mask: 1 << 5, Value: 1 << 5, Name: "ACCESSED"},
	{Mask: 1 << 6, Value: 1 << 6, Name: "DIRTY", Leaf: true},
	{Mask: 1 << 8, Value: 1 << 8, Name: "GLOBAL", Leaf: true},
	{Mask: 1 << 63, Value: 1 << 63, Name: "NX"},
}

// x86 explains an entry of x86-64 (Intel SDM volume 3, 4.5): bit 7 of a PUD or PMD makes
// it map memory.
func x86(entry uint64, level, levels int) (e explained) {
	const addr = 0x000ffffffffff000
	last := level == levels-1
	e.valid = entry&1 != 0
	e.leaf = last || entry&(1<<7) != 0 && level >= levels-3
	e.phys = entry & addr
	return e
}

var armFlags = []Flag{
	// arch/arm64/include/asm/pgtable-hwdef.h, pgtable-prot.h
	{Mask: 1, Value: 1, Name: "VALID"},
	{Mask: 1 << 6, Value: 1 << 6, Name: "USER", Leaf: true},
	{Mask: 1 << 7, Value: 1 << 7, Name: "RO", Leaf: true},
	{Mask: 1 << 7, Name: "RW", Leaf: true},
	{Mask: 3 << 8, Value: 3 << 8, Name: "SHARED", Leaf: true},
	{Mask: 1 << 10, Value: 1 << 10, Name: "AF", Leaf: true},
	{Mask: 1 << 11, Value: 1 << 11, Name: "NG", Leaf: true},
	{Mask: 1 << 51, Value: 1 << 51, Name: "DBM", Leaf: true},
	{Mask: 1 << 52, Value: 1 << 52, Name: "CONT", Leaf: true},
	{Mask: 1 << 53, Value: 1 << 53, Name: "PXN", Leaf: true},
	{Mask: 1 << 54, Value: 1 << 54, Name: "UXN", Leaf: true},
	{Mask: 1 << 55, Value: 1 << 55, Name: "DIRTY", Leaf: true},
	{Mask: 1 << 59, Value: 1 << 59, Name: "PXNTable", Table: true},
	{Mask: 1 << 60, Value: 1 << 60, Name: "UXNTable", Table: true},
}

// arm64 explains an entry of VMSAv8-64 and of LPAE (Arm ARM, D8.3): of the two lowest
// bits 01 is a block, 11 a table or, at the last level, a page. wide are the bits of the
// address above bit 47, and where they are in the entry.
func arm64(page uint, wide func(entry uint64) uint64) func(uint64, int, int) explained {
	low := uint64(1)<<48 - 1<<page
	return func(entry uint64, level, levels int) (e explained) {
		last := level == levels-1
		e.phys = entry & low
		if wide != nil {
			e.phys |= wide(entry)
		}
		switch entry & 3 {
		case 3:
			e.valid, e.leaf = true, last
		case 1:
			e.valid, e.leaf = !last, true
		}
		return e
	}
}

// lpa is where 64 KB granules keep bits 48 to 51 of an address, lpa2 where smaller ones
// keep bits 48 to 51 (FEAT_LPA, FEAT_LPA2).
func lpa(entry uint64) uint64  { return entry >> 12 & 0xf << 48 }
func lpa2(entry uint64) uint64 { return entry&(3<<48) | entry>>8&3<<50 }

// armShort explains an entry of the short descriptors of 32-bit Arm (Arm ARM, G5.4):
// sections of 1 MB and supersections of 16 MB in the first level, pages of 4 and 64 KB
// in the second.
func armShort(entry uint64, level, levels int) (e explained) {
	kind := entry & 3
	switch {
	case level == 0 && kind == 1:
		return explained{valid: true, phys: entry &^ 0x3ff}
	case level == 0 && kind >= 2 && entry&(1<<18) != 0:
		return explained{valid: true, leaf: true, phys: entry & 0xff000000, size: 16 << 20}
	case level == 0 && kind >= 2:
		return explained{valid: true, leaf: true, phys: entry & 0xfff00000}
	case level == 1 && kind == 1:
		return explained{valid: true, leaf: true, phys: entry & 0xffff0000, size: 64 << 10}
	case level == 1 && kind >= 2:
		return explained{valid: true, leaf: true, phys: entry & 0xfffff000}
	}
	return explained{}
}

// arch/arm/include/asm/pgtable-2level-hwdef.h
var shortFlags = []Flag{
	{Mask: 3, Value: 1, Name: "TABLE", Table: true},
	{Mask: 1 << 5, Value: 1 << 5, Name: "USER", Leaf: true, Level: "PTE"},
	{Mask: 1 << 11, Value: 1 << 11, Name: "USER", Leaf: true, Level: "PGD"},
	{Mask: 1 << 9, Value: 1 << 9, Name: "RO", Leaf: true, Level: "PTE"},
	{Mask: 1 << 9, Name: "RW", Leaf: true, Level: "PTE"},
	{Mask: 1 << 15, Value: 1 << 15, Name: "RO", Leaf: true, Level: "PGD"},
	{Mask: 1 << 15, Name: "RW", Leaf: true, Level: "PGD"},
	{Mask: 1 << 2, Value: 1 << 2, Name: "B", Leaf: true},
	{Mask: 1 << 3, Value: 1 << 3, Name: "C", Leaf: true},
	{Mask: 1 << 10, Value: 1 << 10, Name: "SHARED", Leaf: true, Level: "PTE"},
	{Mask: 1 << 11, Value: 1 << 11, Name: "NG", Leaf: true, Level: "PTE"},
	{Mask: 1<<15 | 3, Value: 1<<15 | 1, Name: "XN", Leaf: true, Level: "PTE"}, // of 64 KB
	{Mask: 3, Value: 3, Name: "XN", Leaf: true, Level: "PTE"},
	{Mask: 1 << 4, Value: 1 << 4, Name: "XN", Leaf: true, Level: "PGD"},
}

// The kernel's own entries, "Linux PTEs", are in the lower half of the page that has the
// hardware's (arch/arm/include/asm/pgtable-2level.h). The hardware's is empty as long as the
// page is old, and allows writing when it is dirty.
const ownShortBefore = 2048

var ownShortFlags = []Flag{
	{Mask: 1 << 1, Value: 1 << 1, Name: "YOUNG"},
	{Mask: 1 << 1, Name: "OLD"},
	{Mask: 1 << 6, Value: 1 << 6, Name: "DIRTY"},
	{Mask: 1 << 7, Name: "WRITE"},
}

func ownShort(entry uint64) (phys uint64, ok bool) {
	const present, none = 1 << 0, 1 << 11 // none: PROT_NONE
	return entry & 0xfffff000, entry&present != 0 && entry&none == 0
}

// Formats lists what is known, for each architecture the most likely first. Names of
// levels are the kernel's (Documentation/mm/page_tables.rst), which leaves out the upper
// ones where there are fewer.
var Formats = []Format{
	{Name: "x86-64, 4 levels", Arch: "amd64", Entry: 8, Sign: true, Flags: x86Flags, next: x86, noExec: 1 << 63,
		Levels: []Level{{"PGD", 39, 9}, {"PUD", 30, 9}, {"PMD", 21, 9}, {"PTE", 12, 9}}},
	{Name: "x86-64, 5 levels", Arch: "amd64", Entry: 8, Sign: true, Flags: x86Flags, next: x86, noExec: 1 << 63,
		Levels: []Level{{"PGD", 48, 9}, {"P4D", 39, 9}, {"PUD", 30, 9}, {"PMD", 21, 9}, {"PTE", 12, 9}}},

	{Name: "arm64, 4 KB pages, 4 levels", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(12, nil), noExec: 1 << 53,
		Levels: []Level{{"PGD", 39, 9}, {"PUD", 30, 9}, {"PMD", 21, 9}, {"PTE", 12, 9}}},
	{Name: "arm64, 4 KB pages, 3 levels", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(12, nil), noExec: 1 << 53,
		Levels: []Level{{"PGD", 30, 9}, {"PMD", 21, 9}, {"PTE", 12, 9}}},
	{Name: "arm64, 4 KB pages, 5 levels, 52-bit addresses", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(12, lpa2), noExec: 1 << 53,
		Levels: []Level{{"PGD", 48, 4}, {"P4D", 39, 9}, {"PUD", 30, 9}, {"PMD", 21, 9}, {"PTE", 12, 9}}},
	{Name: "arm64, 16 KB pages, 4 levels", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(14, nil), noExec: 1 << 53,
		Levels: []Level{{"PGD", 47, 1}, {"PUD", 36, 11}, {"PMD", 25, 11}, {"PTE", 14, 11}}},
	{Name: "arm64, 16 KB pages, 3 levels", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(14, nil), noExec: 1 << 53,
		Levels: []Level{{"PGD", 36, 11}, {"PMD", 25, 11}, {"PTE", 14, 11}}},
	{Name: "arm64, 16 KB pages, 4 levels, 52-bit addresses", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(14, lpa2), noExec: 1 << 53,
		Levels: []Level{{"PGD", 47, 5}, {"PUD", 36, 11}, {"PMD", 25, 11}, {"PTE", 14, 11}}},
	{Name: "arm64, 64 KB pages, 3 levels", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(16, nil), noExec: 1 << 53,
		Levels: []Level{{"PGD", 42, 6}, {"PMD", 29, 13}, {"PTE", 16, 13}}},
	{Name: "arm64, 64 KB pages, 3 levels, 52-bit addresses", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(16, lpa), noExec: 1 << 53,
		Levels: []Level{{"PGD", 42, 10}, {"PMD", 29, 13}, {"PTE", 16, 13}}},
	{Name: "arm64, 64 KB pages, 2 levels", Arch: "arm64", Entry: 8, Flags: armFlags, next: arm64(16, nil), noExec: 1 << 53,
		Levels: []Level{{"PGD", 29, 13}, {"PTE", 16, 13}}},

	{Name: "arm, short descriptors", Arch: "arm", Entry: 4, Sign: true, Flags: shortFlags, next: armShort, Own: ownShortFlags, ownBefore: ownShortBefore, own: ownShort,
		Levels: []Level{{"PGD", 20, 12}, {"PTE", 12, 8}}},
	{Name: "arm, long descriptors", Arch: "arm", Entry: 8, Sign: true, Flags: armFlags, next: arm64(12, nil), noExec: 1 << 53,
		Levels: []Level{{"PGD", 30, 2}, {"PMD", 21, 9}, {"PTE", 12, 9}}},
}

// Of returns the formats of an architecture, the most likely first.
func Of(arch string) []*Format {
	var out []*Format
	for i := range Formats {
		if Formats[i].Arch == arch {
			out = append(out, &Formats[i])
		}
	}
	return out
}

// Find returns the format with a name, nil if there is none.
func Find(name string) *Format {
	for i := range Formats {
		if Formats[i].Name == name {
			return &Formats[i]
		}
	}
	return nil
}

// Names returns the names of the flags that are set in the entry that a walk found.
func (f *Format) Names(s Step) []string {
	var names []string
	for _, fl := range f.Flags {
		if s.Entry&fl.Mask == fl.Value && s.Entry != 0 && (!fl.Leaf || s.Leaf) && (!fl.Table || !s.Leaf) && (fl.Level == "" || fl.Level == s.Level) {
			names = append(names, fl.Name)
		}
	}
	for _, fl := range f.Own {
		if s.Own != 0 && s.Own&fl.Mask == fl.Value {
			names = append(names, fl.Name)
		}
	}
	return names
}
