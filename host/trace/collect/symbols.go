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
	out := bytes.Clone(table)
	for at := 0; at < len(out); {
		line := out[at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		at += len(line) + 1
		// In the lower half are no addresses of the kernel but offsets, which
		// do not move: the per-CPU area of amd64 begins at 0.
		const digits = 16
		if len(line) > digits && line[digits] == ' ' && line[0] >= '8' {
			add(line[:digits], slide)
		}
	}
	return out, true
}

// add adds to a number in hexadecimal digits. What is none is left as it is.
func add(digits []byte, n uint64) {
	var sum uint64
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return
		}
		sum = sum<<4 | uint64(c)
	}
	sum += n
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = "0123456789abcdef"[sum&15]
		sum >>= 4
	}
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
	if i < 1 || i > 16 {
		return 0, nil, false
	}
	addr, err := strconv.ParseUint(string(line[:i]), 16, 64)
	return addr, line[i:], err == nil
}
