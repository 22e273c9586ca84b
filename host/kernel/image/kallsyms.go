package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"labctl/host/arch"
	"labctl/host/outcome"
)

// ErrNoKallsyms is wrapped when a kernel has no readable kallsyms table: it was
// built without CONFIG_KALLSYMS, or its table has a layout unknown to labctl.
var ErrNoKallsyms = outcome.New(outcome.BadInput, "no kallsyms table")

// Limits on a plausible table.
const (
	minSymbols = 1000
	maxSymbols = 2_000_000
	maxText    = 128 << 20 // bytes of the text form
)

// group is the number of names per marker.
const group = 256

// maxAlign is the largest alignment of a table.
const maxAlign = 256

// flatBase is the assumed address of the first byte of an Image, whose header does
// not contain it: the link address of an arm64 kernel with 48-bit addresses
// (KIMAGE_VADDR).
const flatBase = 0xffff800080000000

// Kallsyms returns the kernel's symbols in the form of /proc/kallsyms,
// "ffffffff81000000 T _text", at their link addresses. For a flat image whose table
// does not determine them, addresses are relative to flatBase.
//
// The tables have no header and no fixed offset. scripts/kallsyms.c writes them in
// one of four orders. In each the token table is followed by its index, and the
// number of names by the names:
//
//	addresses, number, names, markers, token table, token index       (to 4.5)
//	offsets, base, number, names, markers, token table, token index   (to 6.3)
//	number, names, markers, token table, token index, offsets, base   (from 6.4)
//	the same with offsets relative to their own address and no base   (7.x)
//
// Each starts at a multiple of the size of an unsigned long. To 4.19 the directive
// for that is .align, which on arm and arm64 takes a power of two: there each starts
// at a multiple of 16 or 256.
//
// A name is a length and that many bytes, each the index of a token; its first
// letter is the type. Markers are the offsets of every 256th name.
func (img *Image) Kallsyms() ([]byte, error) {
	t := kallsyms{b: img.Kernel, long: arch.Bits(img.Arch) / 8}
	t.address = func(off int) (uint64, bool) { return flatBase + uint64(off), true }
	if data, ok := img.VmlinuxELF(); ok {
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoKallsyms, err)
		}
		t.address = func(off int) (uint64, bool) { return elfAddress(f, uint64(off)) }
	}
	return t.read()
}

// elfAddress returns the address that a byte of an ELF file is loaded at.
func elfAddress(f *elf.File, off uint64) (uint64, bool) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && off >= p.Off && off-p.Off < p.Filesz {
			return p.Vaddr + off - p.Off, true
		}
	}
	return 0, false
}

// kallsyms is the state of the search for the tables in a kernel. All positions
// are offsets in b.
type kallsyms struct {
	b       []byte
	long    int                                  // size of the kernel's unsigned long
	address func(off int) (addr uint64, ok bool) // address of a byte of b

	tokens  [256][]byte
	index   int // offset of the token index
	align   int // of the start of each table
	num     int // number of names
	numAt   int // offset of that number
	names   int // offset of the first name
	lengths int // total length of the expanded names, with their types
}

func (t *kallsyms) read() ([]byte, error) {
	for from := 0; ; {
		table, ok := t.findTokens(from)
		if !ok {
			return nil, ErrNoKallsyms
		}
		if t.findNames(table) {
			if addrs, ok := t.addresses(); ok {
				return t.text(addrs), nil
			}
		}
		from = t.index + 4
	}
}

func (t *kallsyms) u16(off int) int { return int(binary.LittleEndian.Uint16(t.b[off:])) }
func (t *kallsyms) u32(off int) uint32 {
	return binary.LittleEndian.Uint32(t.b[off:])
}

// findTokens searches for the token index, starting at an offset: 256 ascending
// two-byte numbers, the first of them 0. They are the offsets of that many strings
// in the token table, which ends just before the index.
func (t *kallsyms) findTokens(from int) (table int, ok bool) {
	for at := from; at+2*256 <= len(t.b); at += 4 {
		if t.u16(at) != 0 || !t.rising(at) {
			continue
		}
		t.index = at
		last := t.u16(at + 2*255)
		// The last token is short and is followed by padding.
		for table := at - last - 2; table >= max(0, at-last-64-maxAlign); table-- {
			if t.cutTokens(table) {
				return table, true
			}
		}
	}
	return 0, false
}

func (t *kallsyms) rising(at int) bool {
	for i := 1; i < 256; i++ {
		if d := t.u16(at+2*i) - t.u16(at+2*i-2); d < 2 || d > 64 {
			return false
		}
	}
	return true
}

// cutTokens splits the table at the offsets in the index. Each string ends where
// the next starts.
func (t *kallsyms) cutTokens(table int) bool {
	for i := range 256 {
		start := table + t.u16(t.index+2*i)
		n := bytes.IndexByte(t.b[start:t.index], 0)
		if n < 1 || i < 255 && start+n+1 != table+t.u16(t.index+2*i+2) {
			return false
		}
		t.tokens[i] = t.b[start : start+n]
	}
	return true
}

// findNames finds the markers before the token table, and with them the names.
func (t *kallsyms) findNames(table int) bool {
	const reach = 32 << 20 // names are a few megabytes
	for at := table &^ 3; at >= max(8, table-reach); at -= 4 {
		for _, width := range []int{4, 8} { // 8: unsigned long, to 4.19
			if n := t.markers(at, width, table); n*group >= minSymbols && t.namesBefore(at, n, width) {
				return true
			}
		}
	}
	return false
}

// marker returns the i-th of the markers at an offset.
func (t *kallsyms) marker(at, i, width int) uint32 { return t.u32(at + i*width) }

// markers counts the numbers at an offset that can be markers: the first is 0 and
// each next one is larger by the size of 256 names.
func (t *kallsyms) markers(at, width, end int) int {
	if at+2*width > end || t.u32(at) != 0 {
		return 0
	}
	for n := 1; ; n++ {
		if at+(n+1)*width > end || width == 8 && t.u32(at+n*width+4) != 0 {
			return n
		}
		if d := int64(t.marker(at, n, width)) - int64(t.marker(at, n-1, width)); d < 2*group || d > 130*group {
			return n
		}
	}
}

// namesBefore finds the number of names and the names, which end at the markers,
// apart from padding. n may be too large: the bytes after the markers can look
// like another one.
func (t *kallsyms) namesBefore(markers, n, width int) bool {
	for count := n; count > n-2 && count > 0; count-- {
		// The names of the last group end at the markers.
		last := int(t.marker(markers, count-1, width))
		for at := (markers - last) &^ 3; at >= max(0, markers-last-130*group-2*maxAlign); at -= 4 {
			if num := int(t.u32(at)); num < minSymbols || num > maxSymbols || (num+group-1)/group != count {
				continue
			}
			for _, align := range []int{4, 8, 16, maxAlign} {
				if t.walk(at+align, int(t.u32(at)), markers, width) {
					t.numAt, t.align = at, max(align, t.long)
					return true
				}
			}
		}
	}
	return false
}

// walk walks all names and checks each 256th against its marker.
func (t *kallsyms) walk(names, num, markers, width int) bool {
	t.names, t.num, t.lengths = names, num, 0
	off := names
	for i := range num {
		if i%group == 0 && off-names != int(t.marker(markers, i/group, width)) {
			return false
		}
		name, next, ok := t.name(off, markers)
		if !ok {
			return false
		}
		for _, c := range name {
			t.lengths += len(t.tokens[c])
		}
		off = next
	}
	return markers-off < maxAlign && t.lengths <= maxText
}

// name returns the tokens of the name at an offset. Lengths of 128 and more take
// two bytes (since 6.1).
func (t *kallsyms) name(off, end int) (tokens []byte, next int, ok bool) {
	if off+2 > end {
		return nil, 0, false
	}
	n := int(t.b[off])
	off++
	if n&0x80 != 0 {
		n = n&0x7f | int(t.b[off])<<7
		off++
	}
	if n == 0 || off+n > end {
		return nil, 0, false
	}
	return t.b[off : off+n], off + n, true
}

// addresses decodes the addresses with the first layout in which they ascend, since
// the table is sorted.
func (t *kallsyms) addresses() ([]uint64, bool) {
	up := func(n int) int { return (n + t.align - 1) &^ (t.align - 1) }
	size := 4 * t.num
	behind := t.index + 2*256
	for _, o := range []struct{ offsets, base int }{
		{t.numAt - t.align - up(size), t.numAt - t.align},
		{behind, up(behind + size)},
	} {
		if addrs, ok := t.fromBase(o.offsets, o.base); ok {
			return addrs, true
		}
	}
	if addrs, ok := t.absolute(t.numAt - up(t.long*t.num)); ok {
		return addrs, true
	}
	return t.fromPlace(behind)
}

// number returns an unsigned long of the kernel's.
func (t *kallsyms) number(at int) uint64 {
	if t.long == 8 {
		return binary.LittleEndian.Uint64(t.b[at:])
	}
	return uint64(t.u32(at))
}

// kernelHalf reports whether an address is in the kernel's half of the address space.
func (t *kallsyms) kernelHalf(addr uint64) bool { return addr>>(8*t.long-1) != 0 }

// absolute reads addresses. Per-CPU symbols start at 0.
func (t *kallsyms) absolute(at int) ([]uint64, bool) {
	if at < 0 || at+t.long*t.num > len(t.b) || !t.kernelHalf(t.number(at+t.long*(t.num-1))) {
		return nil, false
	}
	return t.rise(func(i int) (uint64, bool) { return t.number(at + t.long*i), true })
}

// fromBase decodes offsets relative to a base. With per-CPU symbols that start at
// 0 (CONFIG_KALLSYMS_ABSOLUTE_PERCPU) a non-negative offset is the address itself,
// and a negative one counts up from the base: -1 is the base.
func (t *kallsyms) fromBase(offsets, base int) ([]uint64, bool) {
	if offsets < 0 || base < 0 || base+t.long > len(t.b) || offsets+4*t.num > len(t.b) {
		return nil, false
	}
	start := t.number(base)
	if start == 0 { // not relocated yet: use the first symbol, at the image's start
		start, _ = t.address(0)
	}
	if !t.kernelHalf(start) {
		return nil, false
	}
	negative := 0
	for i := range t.num {
		if int32(t.u32(offsets+4*i)) < 0 {
			negative++
		}
	}
	return t.rise(func(i int) (uint64, bool) {
		o := t.u32(offsets + 4*i)
		switch {
		case negative <= t.num/2:
			return start + uint64(o), true
		case int32(o) >= 0:
			return uint64(o), true
		}
		return start - 1 - uint64(int64(int32(o))), true
	})
}

// fromPlace decodes offsets relative to the address of each offset.
func (t *kallsyms) fromPlace(offsets int) ([]uint64, bool) {
	if offsets+4*t.num > len(t.b) {
		return nil, false
	}
	return t.rise(func(i int) (uint64, bool) {
		at := offsets + 4*i
		place, ok := t.address(at)
		return place + uint64(int64(int32(t.u32(at)))), ok
	})
}

// rise collects the addresses, and fails if they are not in ascending order.
func (t *kallsyms) rise(address func(i int) (uint64, bool)) ([]uint64, bool) {
	addrs := make([]uint64, t.num)
	for i := range addrs {
		a, ok := address(i)
		if !ok || i > 0 && a < addrs[i-1] {
			return nil, false
		}
		addrs[i] = a
	}
	// Identical addresses would be in ascending order, too.
	return addrs, addrs[len(addrs)-1]-addrs[0] > uint64(t.num)
}

// text formats the symbols. Bytes that are not valid in a symbol become question
// marks, so that each symbol stays on one line.
func (t *kallsyms) text(addrs []uint64) []byte {
	out := make([]byte, 0, t.lengths+t.num*(2*t.long+3))
	const digits = "0123456789abcdef"
	off := t.names
	for _, addr := range addrs {
		for shift := 8*t.long - 4; shift >= 0; shift -= 4 {
			out = append(out, digits[addr>>shift&15])
		}
		out = append(out, ' ')
		start := len(out)
		name, next, _ := t.name(off, len(t.b))
		for _, c := range name {
			out = append(out, t.tokens[c]...)
		}
		for i, c := range out[start:] {
			if c <= ' ' || c > '~' {
				out[start+i] = '?'
			}
		}
		// The first letter is the type.
		out = append(out, 0)
		copy(out[start+2:], out[start+1:])
		out[start+1] = ' '
		out = append(out, '\n')
		off = next
	}
	return out
}
