package recording

import (
	"bytes"
	"strconv"
)

// symbols puts a kernel's symbols together. table is those of its image, at the
// addresses they were linked to; guest is lines of the guest's /proc/kallsyms: an
// anchor, by which the table is moved to where the kernel was put (KASLR), and
// the symbols of modules. Without a table guest has them all.
func symbols(table, guest []byte) []byte {
	if table == nil {
		return guest
	}
	out := make([]byte, 0, len(table)+len(guest))
	slide, modules := anchor(table, guest)
	for line := range bytes.Lines(table) {
		addr, rest, ok := address(line)
		if !ok {
			continue
		}
		// In the lower half are no addresses of the kernel but offsets and
		// sizes, which do not move: the per-CPU area of amd64 begins at 0.
		if addr>>63 == 1 {
			addr += slide
		}
		const digits = "0123456789abcdef"
		for shift := 60; shift >= 0; shift -= 4 {
			out = append(out, digits[addr>>shift&15])
		}
		out = append(out, rest...)
	}
	return append(out, modules...)
}

// anchor finds how far the guest's kernel is from where its image was linked to,
// by the first of the guest's lines that the table has too, and gives the lines of
// modules, which end in their names in brackets. Without an anchor the kernel is
// taken to be where it was linked to.
func anchor(table, guest []byte) (slide uint64, modules []byte) {
	found := false
	for line := range bytes.Lines(guest) {
		addr, rest, ok := address(line)
		if !ok {
			continue
		}
		if bytes.HasSuffix(bytes.TrimRight(line, "\n"), []byte("]")) {
			modules = append(modules, line...)
			continue
		}
		if found {
			continue
		}
		// rest is " T _text\n" on both sides.
		if i := bytes.Index(table, rest); i >= 0 {
			start := bytes.LastIndexByte(table[:i], '\n') + 1
			if linked, same, ok := address(table[start : i+len(rest)]); ok && bytes.Equal(same, rest) {
				slide, found = addr-linked, true
			}
		}
	}
	return slide, modules
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
