package image

import (
	"bytes"
	"debug/elf"
)

// ORC is the number of entries in the table by which x86 kernels unwind their
// stacks (Documentation/arch/x86/orc-unwinder.rst), 0 where there is none: the
// section .orc_unwind_ip has four bytes for each.
func (img *Image) ORC() int {
	data, ok := img.VmlinuxELF()
	if !ok {
		return 0
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return 0
	}
	s := f.Section(".orc_unwind_ip")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return 0
	}
	// What the header says is believed as far as the file goes.
	table, err := slice(data, int64(s.Offset), int64(s.Size))
	if err != nil {
		return 0
	}
	return len(table) / 4
}
