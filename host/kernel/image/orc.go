package image

import (
	"bytes"
	"debug/elf"
)

// ORC returns the number of entries in the ORC unwind table of an x86 kernel
// (Documentation/arch/x86/orc-unwinder.rst), 0 if there is none. The section
// .orc_unwind_ip has four bytes per entry.
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
	// The section header is not trusted beyond the end of the file.
	table, err := slice(data, int64(s.Offset), int64(s.Size))
	if err != nil {
		return 0
	}
	return len(table) / 4
}
