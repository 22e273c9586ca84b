// Package vmlinux writes what other debuggers want of a running kernel: an ELF file with
// its symbols at the addresses where they run, its types (BTF), and how its frames are left
// (DWARF call frame information, made of what the kernel's own unwinder uses). It has no
// code: debuggers read that from the guest.
package vmlinux

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"slices"

	"labctl/host/arch"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/outside/kern"
	"labctl/host/outside/unwind"
)

// section is one section of the file.
type section struct {
	name  string
	typ   elf.SectionType
	flags elf.SectionFlag
	addr  uint64
	size  uint64 // of one without data
	data  []byte
	link  uint32
	info  uint32
	entry uint64
}

// Write writes the file.
func Write(w io.Writer, g *outside.Guest) error {
	row, ok := arch.Find(g.Image.Arch)
	if !ok {
		return outcome.Inputf("kernel %s: there is no vmlinux for %s", g.Image, g.Image.Arch)
	}
	l := g.Look()
	is64 := row.Class == elf.ELFCLASS64
	sections := []section{{}}
	ranges := [][3]string{{"_text", "_etext", ".text"}, {"_etext", "_end", ".data"}}
	for _, r := range ranges {
		lo, ok1 := g.Addr(r[0])
		hi, ok2 := g.Addr(r[1])
		if !ok1 {
			lo, ok1 = g.Addr("_stext")
		}
		if !ok1 || !ok2 || hi <= lo {
			continue // a kernel with symbols of functions only may lack the last
		}
		flags := elf.SHF_ALLOC
		if r[2] == ".text" {
			flags |= elf.SHF_EXECINSTR
		} else {
			flags |= elf.SHF_WRITE
		}
		sections = append(sections, section{name: r[2], typ: elf.SHT_NOBITS, flags: flags, addr: lo, size: hi - lo})
	}
	mods, _ := l.Modules() // without them their functions are addresses
	for _, m := range mods {
		for _, r := range m.Ranges {
			sections = append(sections, section{name: ".text." + m.Name, typ: elf.SHT_NOBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, addr: r.Start, size: r.Size})
		}
	}
	if len(sections) > 1000 {
		sections = sections[:1000]
	}
	btf, err := g.Image.BTF()
	if err != nil {
		return err
	}
	if len(btf) > 0 {
		sections = append(sections, section{name: ".BTF", typ: elf.SHT_PROGBITS, data: btf})
	}
	if frames := frames(l, g.Image.Arch); len(frames) > 0 {
		sections = append(sections, section{name: ".debug_frame", typ: elf.SHT_PROGBITS, data: frames})
	}
	symtab, strtab, locals := symbols(l, sections, is64)
	entry := uint64(elf.Sym32Size)
	if is64 {
		entry = elf.Sym64Size
	}
	sections = append(sections,
		section{name: ".symtab", typ: elf.SHT_SYMTAB, data: symtab, link: uint32(len(sections) + 1), info: locals, entry: entry},
		section{name: ".strtab", typ: elf.SHT_STRTAB, data: strtab})
	return write(w, row, is64, sections)
}

// symbols makes the symbol table: no symbol, then local ones, then the others.
func symbols(l *kern.Look, sections []section, is64 bool) (symtab, strtab []byte, locals uint32) {
	in := func(addr uint64) int {
		for i, s := range sections {
			if s.typ == elf.SHT_NOBITS && addr >= s.addr && addr < s.addr+s.size {
				return i
			}
		}
		return int(elf.SHN_ABS)
	}
	strtab = []byte{0}
	var local, global bytes.Buffer
	put(&local, is64, elf.Sym64{})
	for s := range l.AllSymbols() {
		if s.Name == "" || len(strtab)+len(s.Name) > 1<<30 {
			continue
		}
		e := elf.Sym64{Name: uint32(len(strtab)), Value: s.Addr, Shndx: uint16(in(s.Addr))}
		strtab = append(append(strtab, s.Name...), 0)
		typ := elf.STT_OBJECT
		switch s.Type {
		case 't', 'T', 'w', 'W':
			typ = elf.STT_FUNC
		case '?', 'a', 'A':
			typ = elf.STT_NOTYPE
		}
		if s.Type >= 'A' && s.Type <= 'Z' {
			e.Info = elf.ST_INFO(elf.STB_GLOBAL, typ)
			put(&global, is64, e)
		} else {
			e.Info = elf.ST_INFO(elf.STB_LOCAL, typ)
			put(&local, is64, e)
		}
	}
	size := elf.Sym32Size
	if is64 {
		size = elf.Sym64Size
	}
	return append(local.Bytes(), global.Bytes()...), strtab, uint32(local.Len() / size)
}

func put(b *bytes.Buffer, is64 bool, e elf.Sym64) {
	if is64 {
		binary.Write(b, binary.LittleEndian, e)
		return
	}
	binary.Write(b, binary.LittleEndian, elf.Sym32{Name: e.Name, Value: uint32(e.Value), Size: uint32(e.Size), Info: e.Info, Other: e.Other, Shndx: e.Shndx})
}

// write writes header, data and section headers.
func write(w io.Writer, row arch.Arch, is64 bool, sections []section) error {
	names := []byte{0}
	index := make([]uint32, len(sections)+1)
	sections = append(sections, section{name: ".shstrtab", typ: elf.SHT_STRTAB})
	for i, s := range sections {
		if s.name != "" {
			index[i] = uint32(len(names))
			names = append(append(names, s.name...), 0)
		}
	}
	sections[len(sections)-1].data = names
	head := uint64(52)
	if is64 {
		head = 64
	}
	at := head
	offsets := make([]uint64, len(sections))
	for i, s := range sections {
		at = (at + 15) &^ 15
		offsets[i] = at
		at += uint64(len(s.data))
	}
	shoff := (at + 15) &^ 15
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(row.Class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	var b bytes.Buffer
	n, last := uint16(len(sections)), uint16(len(sections)-1)
	le := binary.LittleEndian
	if is64 {
		binary.Write(&b, le, elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(row.Machine), Version: 1, Shoff: shoff, Ehsize: 64, Shentsize: 64, Shnum: n, Shstrndx: last})
	} else {
		binary.Write(&b, le, elf.Header32{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(row.Machine), Version: 1, Shoff: uint32(shoff), Ehsize: 52, Shentsize: 40, Shnum: n, Shstrndx: last})
	}
	for i, s := range sections {
		b.Write(make([]byte, int(offsets[i])-b.Len()))
		b.Write(s.data)
	}
	b.Write(make([]byte, int(shoff)-b.Len()))
	for i, s := range sections {
		size, align := max(s.size, uint64(len(s.data))), uint64(16)
		if i == 0 {
			align = 0
		}
		if is64 {
			binary.Write(&b, le, elf.Section64{Name: index[i], Type: uint32(s.typ), Flags: uint64(s.flags), Addr: s.addr, Off: offsets[i] * min(1, uint64(i)), Size: size, Link: s.link, Info: s.info, Addralign: align, Entsize: s.entry})
		} else {
			binary.Write(&b, le, elf.Section32{Name: index[i], Type: uint32(s.typ), Flags: uint32(s.flags), Addr: uint32(s.addr), Off: uint32(offsets[i]) * uint32(min(1, i)), Size: uint32(size), Link: s.link, Info: s.info, Addralign: uint32(align), Entsize: uint32(s.entry)})
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// DWARF's numbers of registers, and of call frame instructions and operations (DWARF 5,
// 6.4.2 and 2.5; the ABIs of x86-64 and AArch64).
type registers struct{ sp, fp, ret byte }

var numbers = map[string]registers{
	"amd64": {sp: 7, fp: 6, ret: 16},
	"arm64": {sp: 31, fp: 29, ret: 30},
}

const (
	cfaAdvance1      = 0x02
	cfaAdvance2      = 0x03
	cfaAdvance4      = 0x04
	cfaUndefined     = 0x07
	cfaSameValue     = 0x08
	cfaDefCFA        = 0x0c
	cfaValExpression = 0x16
	cfaOffset        = 0x80 // and the register
	cfaAdvance       = 0x40 // and the distance
	opDeref          = 0x06
	opConst8u        = 0x0e
	opMinus          = 0x1c
	opOr             = 0x21
	opLit8           = 0x38
)

// rowsPerEntry is how many rows share an entry (FDE): a debugger goes through those before
// the one that it wants.
const rowsPerEntry = 64

// frames makes a section .debug_frame.
func frames(l *kern.Look, arch string) []byte {
	regs, ok := numbers[arch]
	if !ok {
		return nil
	}
	rows := slices.Collect(unwind.Rows(l))
	rows = slices.DeleteFunc(rows, func(r unwind.Row) bool { return r.Addr == 0 })
	slices.SortStableFunc(rows, func(a, b unwind.Row) int {
		switch {
		case a.Addr < b.Addr:
			return -1
		case a.Addr > b.Addr:
			return 1
		}
		return 0
	})
	if len(rows) == 0 {
		return nil
	}
	var out []byte
	entry := func(body []byte) {
		for (len(body)+4)%8 != 0 {
			body = append(body, 0) // DW_CFA_nop
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(body)))
		out = append(out, body...)
	}
	// The one CIE: version 1, no augmentation, factors 1 and -8.
	entry([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0x78, regs.ret, cfaDefCFA, regs.sp, 0})
	for len(rows) > 1 {
		n := min(len(rows)-1, rowsPerEntry)
		body := binary.LittleEndian.AppendUint32(nil, 0) // the CIE's offset
		body = binary.LittleEndian.AppendUint64(body, rows[0].Addr)
		body = binary.LittleEndian.AppendUint64(body, rows[n].Addr-rows[0].Addr)
		at := rows[0].Addr
		for _, r := range rows[:n] {
			body = append(body, advance(r.Addr-at)...)
			body = append(body, instructions(r, regs, arch)...)
			at = r.Addr
		}
		entry(body)
		rows = rows[n:]
	}
	return out
}

func advance(n uint64) []byte {
	switch {
	case n == 0:
		return nil
	case n < 0x40:
		return []byte{cfaAdvance | byte(n)}
	case n < 0x100:
		return []byte{cfaAdvance1, byte(n)}
	case n < 0x10000:
		return binary.LittleEndian.AppendUint16([]byte{cfaAdvance2}, uint16(n))
	}
	return binary.LittleEndian.AppendUint32([]byte{cfaAdvance4}, uint32(n))
}

// instructions say a row. They do not rest on the row before.
func instructions(r unwind.Row, regs registers, arch string) []byte {
	if r.End {
		return []byte{cfaUndefined, regs.ret}
	}
	base := regs.sp
	if r.Base == unwind.RegFP {
		base = regs.fp
	}
	out := append([]byte{cfaDefCFA, base}, uleb(uint64(max(r.Offset, 0)))...)
	switch {
	case r.Return == 0:
		out = append(out, cfaSameValue, regs.ret)
	case arch == "arm64":
		// It may be signed (pointer authentication): the upper bits of the kernel's
		// addresses are set. The operand is the caller's stack pointer.
		expr := append([]byte{opLit8, opMinus, opDeref, opConst8u}, binary.LittleEndian.AppendUint64(nil, 0xffff<<48)...)
		expr = append(expr, opOr)
		out = append(append(out, cfaValExpression, regs.ret, byte(len(expr))), expr...)
	default:
		out = append(append(out, cfaOffset|regs.ret), uleb(uint64(-r.Return/8))...)
	}
	if r.FP < 0 {
		return append(append(out, cfaOffset|regs.fp), uleb(uint64(-r.FP/8))...)
	}
	return append(out, cfaSameValue, regs.fp)
}

func uleb(n uint64) (out []byte) {
	for {
		b := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}
