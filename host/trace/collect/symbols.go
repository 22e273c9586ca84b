package collect

import (
	"bytes"
	"strconv"
)

// moved is the symbols of a kernel's image at the addresses that they have in the
// guest, which may have put the kernel elsewhere (KASLR). table is those of the
// image; anchor is a line of the guest's /proc/kallsyms, by which the two are
// held together. It is false when they cannot be.
func moved(table, anchor []byte) ([]byte, bool) {
	slide, ok := slide(table, anchor)
	if !ok || slide == 0 {
		return table, ok
	}
	out := make([]byte, 0, len(table))
	for line := range bytes.Lines(table) {
		addr, rest, ok := address(line)
		if !ok {
			continue
		}
		// In the lower half are no addresses of the kernel but offsets, which
		// do not move: the per-CPU area of amd64 begins at 0.
		if addr>>63 == 1 {
			addr += slide
		}
		const digits = "0123456789abcdef"
		for shift := 60; shift >= 0; shift -= 4 {
			out = append(out, digits[addr>>shift&15])
		}
		out = append(out, rest...)
	}
	return out, true
}

// slide is how far the guest's kernel is from where its image was linked to.
func slide(table, anchor []byte) (uint64, bool) {
	addr, rest, ok := address(anchor)
	if !ok {
		return 0, false
	}
	// rest is " T _text\n" on both sides. Two static functions can have one
	// name; the guest's is its first symbol, and so is the table's.
	i := bytes.Index(table, rest)
	if i < 0 {
		return 0, false
	}
	start := bytes.LastIndexByte(table[:i], '\n') + 1
	linked, _, ok := address(table[start : i+len(rest)])
	return addr - linked, ok
}

// address cuts the number off a line: "ffffffff81000000 T _text\n".
func address(line []byte) (addr uint64, rest []byte, ok bool) {
	i := bytes.IndexByte(line, ' ')
	if i < 1 {
		return 0, nil, false
	}
	addr, err := strconv.ParseUint(string(line[:i]), 16, 64)
	return addr, line[i:], err == nil
}
