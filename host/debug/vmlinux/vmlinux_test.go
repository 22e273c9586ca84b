package vmlinux

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"testing"

	"labctl/host/arch"
	"labctl/host/outside/fake"
	"labctl/host/outside/unwind"
)

// TestWrite: an independent reader finds in the file what the kernel has.
func TestWrite(t *testing.T) {
	f := fake.New(t)
	f.Load()
	g := f.Open()
	var b bytes.Buffer
	if err := Write(&b, g); err != nil {
		t.Fatal(err)
	}
	e, err := elf.NewFile(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if e.Machine != elf.EM_X86_64 || e.Class != elf.ELFCLASS64 || e.Type != elf.ET_EXEC {
		t.Errorf("header %+v", e.FileHeader)
	}
	symbols, err := e.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(symbols), g.Symbols().Len(); got != want {
		t.Errorf("%d symbols, want %d", got, want)
	}
	at := map[string]elf.Symbol{}
	for i, s := range symbols {
		at[s.Name] = s
		// The table's info is where the local ones end (the ELF specification).
		local := elf.ST_BIND(s.Info) == elf.STB_LOCAL
		if first := int(e.SectionByType(elf.SHT_SYMTAB).Info) - 1; local != (i < first) {
			t.Fatalf("symbol %d of %d, %s, is local: %t", i, first, s.Name, local)
		}
	}
	for name, want := range map[string]struct {
		typ     elf.SymType
		section string
	}{
		"kernel_clone": {elf.STT_FUNC, ".text"},
		"init_task":    {elf.STT_OBJECT, ".data"},
	} {
		s := at[name]
		if s.Value != f.Symbol(name) || elf.ST_TYPE(s.Info) != want.typ || int(s.Section) >= len(e.Sections) || e.Sections[s.Section].Name != want.section {
			t.Errorf("%s: %+v; want it at %#x", name, s, f.Symbol(name))
		}
	}
	btf, err := f.Kernel.BTF()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Section(".BTF").Data(); err != nil || !bytes.Equal(got, btf) {
		t.Errorf("section .BTF has %d bytes, %v; want the %d of the kernel's", len(got), err, len(btf))
	}
	frames, err := e.Section(".debug_frame").Data()
	if err != nil {
		t.Fatal(err)
	}
	entries := readFrames(t, frames)
	// kernel_clone: the return address is at the stack pointer where it starts, and a
	// word further for each register that it has pushed.
	clone := f.Symbol("kernel_clone")
	for off, want := range map[uint64]string{0: "r7+8, return at -8", 9: "r7+8, return at -8", 11: "r7+16, return at -8"} {
		if got := entries.at(clone + off); got != want {
			t.Errorf("kernel_clone+%d: %s, want %s", off, got, want)
		}
	}
}

// frame is one entry of call frame information: from start to end, with instructions.
type frame struct {
	start, end uint64
	code       []byte
}

type frameTable []frame

// readFrames reads a section .debug_frame as DWARF 5, 6.4.1 and 7.24, has it.
func readFrames(t *testing.T, b []byte) (all frameTable) {
	t.Helper()
	last := uint64(0)
	for n := 0; len(b) > 0; n++ {
		if len(b) < 8 {
			t.Fatalf("%d bytes are left", len(b))
		}
		size := binary.LittleEndian.Uint32(b)
		if int(size)+4 > len(b) || (size+4)%8 != 0 {
			t.Fatalf("entry %d of %d bytes; %d are left", n, size, len(b))
		}
		body := b[4 : 4+size]
		b = b[4+size:]
		id := binary.LittleEndian.Uint32(body)
		if n == 0 {
			if id != 0xffffffff || body[4] != 1 || body[6] != 1 || body[7] != 0x78 {
				t.Fatalf("the first entry is no CIE: % x", body)
			}
			continue
		}
		fde := frame{binary.LittleEndian.Uint64(body[4:]), 0, body[20:]}
		fde.end = fde.start + binary.LittleEndian.Uint64(body[12:])
		if id != 0 || fde.start < last || fde.end <= fde.start {
			t.Fatalf("entry %d: %#x to %#x after %#x, of CIE %d", n, fde.start, fde.end, last, id)
		}
		last = fde.end
		all = append(all, fde)
	}
	return all
}

// at carries the instructions out that are for an address.
func (all frameTable) at(pc uint64) string {
	for _, f := range all {
		if pc < f.start || pc >= f.end {
			continue
		}
		at, cfa, ret := f.start, "?", "?"
		for c := f.code; len(c) > 0; {
			op := c[0]
			c = c[1:]
			step := uint64(0)
			switch {
			case op&0xc0 == cfaAdvance:
				step = uint64(op & 0x3f)
			case op == cfaAdvance1:
				step, c = uint64(c[0]), c[1:]
			case op == cfaAdvance2:
				step, c = uint64(binary.LittleEndian.Uint16(c)), c[2:]
			case op == cfaAdvance4:
				step, c = uint64(binary.LittleEndian.Uint32(c)), c[4:]
			case op == cfaDefCFA:
				reg := c[0]
				off, n := binary.Uvarint(c[1:])
				cfa, c = fmt.Sprintf("r%d+%d", reg, off), c[1+n:]
			case op == cfaUndefined:
				cfa, ret, c = "unknown", "unknown", c[1:]
			case op == cfaSameValue:
				c = c[1:]
			case op&0xc0 == cfaOffset:
				off, n := binary.Uvarint(c)
				if op&0x3f == numbers["amd64"].ret {
					ret = fmt.Sprintf("return at -%d", 8*off)
				}
				c = c[n:]
			case op == 0: // padding
			default:
				return fmt.Sprintf("instruction %#x", op)
			}
			if at+step > pc {
				break
			}
			at += step
		}
		return cfa + ", " + ret
	}
	return "no entry"
}

// The rows of arm64: a frame record's return address may be signed.
func TestInstructions(t *testing.T) {
	for _, c := range []struct {
		arch string
		row  unwind.Row
		want string
	}{
		{"amd64", unwind.Row{Base: unwind.RegSP, Offset: 144, Return: -8, FP: -16}, "0c 07 90 01 90 01 86 02"},
		{"amd64", unwind.Row{Base: unwind.RegFP, Offset: 16, Return: -8}, "0c 06 10 90 01 08 06"},
		{"amd64", unwind.Row{End: true}, "07 10"},
		{"arm64", unwind.Row{Base: unwind.RegSP}, "0c 1f 00 08 1e 08 1d"},
		{"arm64", unwind.Row{Base: unwind.RegFP, Offset: 16, Return: -8, FP: -16}, "0c 1d 10 16 1e 0d 38 1c 06 0e 00 00 00 00 00 00 ff ff 21 9d 02"},
	} {
		if got := fmt.Sprintf("% x", instructions(c.row, numbers[c.arch], c.arch)); got != c.want {
			t.Errorf("%s %+v: %s, want %s", c.arch, c.row, got, c.want)
		}
	}
	for n, want := range map[uint64]string{0: "", 1: "41", 0x3f: "7f", 0x40: "02 40", 0xff: "02 ff", 0x100: "03 00 01", 0x10000: "04 00 00 01 00"} {
		if got := fmt.Sprintf("% x", advance(n)); got != want {
			t.Errorf("advance(%#x) = %s, want %s", n, got, want)
		}
	}
}

// A file for a 32-bit machine has the smaller structures.
func TestWrite32(t *testing.T) {
	row, _ := arch.Find("arm")
	var symtab bytes.Buffer
	put(&symtab, false, elf.Sym64{})
	put(&symtab, false, elf.Sym64{Name: 1, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Value: 0xc0108000, Shndx: 1})
	var b bytes.Buffer
	err := write(&b, row, false, []section{{},
		{name: ".text", typ: elf.SHT_NOBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, addr: 0xc0008000, size: 1 << 24},
		{name: ".symtab", typ: elf.SHT_SYMTAB, data: symtab.Bytes(), link: 3, info: 1, entry: elf.Sym32Size},
		{name: ".strtab", typ: elf.SHT_STRTAB, data: []byte("\x00kernel_clone\x00")}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := elf.NewFile(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := e.Symbols()
	if err != nil || len(symbols) != 1 || symbols[0].Name != "kernel_clone" || symbols[0].Value != 0xc0108000 || e.Machine != elf.EM_ARM {
		t.Errorf("%s: symbols %+v, %v", e.Machine, symbols, err)
	}
	if s := e.Section(".text"); s == nil || s.Addr != 0xc0008000 || s.Size != 1<<24 || s.Flags&elf.SHF_EXECINSTR == 0 {
		t.Errorf(".text: %+v", s)
	}
}
