package initramfs

import (
	"fmt"
	"strconv"
)

// entry is one record of a newc archive.
type entry struct {
	name         string
	mode         uint64
	mtime        uint64
	inode        uint64
	major, minor uint64 // of a device node
	data         []byte
}

// readNewc reads archives one after the other as init/initramfs.c does: each
// header at a multiple of four, zero bytes between archives skipped. It shares
// no code with the writer under test.
func readNewc(b []byte) (archives [][]entry, err error) {
	var current []entry
	for off := 0; off < len(b); {
		if b[off] == 0 && len(current) == 0 {
			off++
			continue
		}
		if off%4 != 0 {
			return nil, fmt.Errorf("header at %d, not a multiple of 4", off)
		}
		if len(b)-off < 110 || string(b[off:off+6]) != "070701" {
			return nil, fmt.Errorf("no newc header at %d", off)
		}
		var f [13]uint64
		for i := range f {
			at := off + 6 + 8*i
			if f[i], err = strconv.ParseUint(string(b[at:at+8]), 16, 32); err != nil {
				return nil, fmt.Errorf("header at %d: %w", off, err)
			}
		}
		align := func(n int) int { return (n + 3) &^ 3 }
		size, nameLen := int(f[6]), int(f[11])
		data := align(off + 110 + nameLen)
		if nameLen == 0 || data+size > len(b) {
			return nil, fmt.Errorf("record at %d runs past the end", off)
		}
		e := entry{
			name: string(b[off+110 : off+110+nameLen-1]),
			mode: f[1], mtime: f[5], inode: f[0], major: f[9], minor: f[10],
			data: b[data : data+size],
		}
		off = align(data + size)
		if e.name == "TRAILER!!!" {
			archives, current = append(archives, current), nil
			continue
		}
		current = append(current, e)
	}
	if current != nil {
		return nil, fmt.Errorf("no trailer after %q", current[len(current)-1].name)
	}
	return archives, nil
}
