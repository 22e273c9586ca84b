package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"labctl/host/kernel/internal/synth"
)

// order is the layout of a kernel's tables; see Kallsyms.
type order int

const (
	offsetsFirst   order = iota // from 4.6 to 6.3
	absolute                    // to 4.5
	absolutePercpu              // the same, amd64 with per-CPU symbols from 0
	offsetsLast                 // from 6.4
	placeRelative               // 7.x
	unrelocated                 // arm64 before its base is put in
)

// tables returns a kernel with symbols in that layout, and their text form. width is
// the size of a marker, long that of the kernel's unsigned long, align the alignment
// of each table.
func tables(o order, n, width, long, align int) (kernel []byte, text string) {
	le := binary.LittleEndian
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 4096+rnd.IntN(4)*8)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	pad := func() {
		for len(b)%align != 0 {
			b = append(b, 0)
		}
	}
	pad()
	base := uint64(0xffffffff81000000)
	if long == 4 {
		base = 0xc0008000
	}
	if o == placeRelative || o == unrelocated {
		base = flatBase
	}
	type symbol struct {
		addr uint64
		name string
	}
	var syms []symbol
	for i := range n {
		s := symbol{base + uint64(i)*32, fmt.Sprintf("t f_%d", i*7919)}
		if i%50 == 1 {
			s.addr -= 32 // an alias
		}
		if i%100 == 0 {
			s.name += strings.Repeat("_long", 30) // a length of two bytes
		}
		if o == absolutePercpu && i < 300 {
			s = symbol{uint64(i) * 8, fmt.Sprintf("A percpu_%d", i)}
		}
		shown := s.name[2:]
		if i == 500 {
			s.name, shown = "t !~\x01", "!~x?z?"
		}
		syms = append(syms, s)
		text += fmt.Sprintf("%0*x %c %s\n", 2*long, s.addr, s.name[0], shown)
	}
	offset := func(i int) uint32 {
		a := syms[i].addr
		switch {
		case o == placeRelative:
			return uint32(a - (flatBase + uint64(len(b))))
		case o == absolutePercpu && a < base:
			return uint32(a)
		case o == absolutePercpu:
			return uint32(base - 1 - a)
		}
		return uint32(a - base)
	}
	offsets := func() {
		for i := range syms {
			switch {
			case o != absolute:
				b = le.AppendUint32(b, offset(i))
			case long == 4:
				b = le.AppendUint32(b, uint32(syms[i].addr))
			default:
				b = le.AppendUint64(b, syms[i].addr)
			}
		}
		pad()
		switch {
		case o == unrelocated:
			b = le.AppendUint64(b, 0)
		case o == placeRelative || o == absolute:
		case long == 4:
			b = le.AppendUint32(b, uint32(base))
		default:
			b = le.AppendUint64(b, base)
		}
	}
	first := o == offsetsFirst || o == absolute || o == absolutePercpu || o == unrelocated
	if first {
		offsets()
		pad()
	}
	b = le.AppendUint32(b, uint32(n))
	pad()
	var markers []int
	names := len(b)
	for i, s := range syms {
		if i%group == 0 {
			markers = append(markers, len(b)-names)
		}
		packed := s.name[:1] + s.name[2:] // the tokens below are letters
		if l := len(packed); l < 0x80 {
			b = append(b, byte(l))
		} else {
			b = append(b, byte(l)|0x80, byte(l>>7))
		}
		b = append(b, packed...)
	}
	pad()
	for _, m := range markers {
		if width == 4 {
			b = le.AppendUint32(b, uint32(m))
		} else {
			b = le.AppendUint64(b, uint64(m))
		}
	}
	pad()
	table := len(b)
	var index []int
	for i := range 256 {
		index = append(index, len(b)-table)
		if i > ' ' && i < 0x7f {
			b = append(b, byte(i), 0)
		} else if i == 1 {
			b = append(b, 'x', ' ', 'z', 0x7f, 0)
		} else {
			b = append(b, 'x', 'y', 'z', 0)
		}
	}
	pad()
	for _, i := range index {
		b = le.AppendUint16(b, uint16(i))
	}
	if !first {
		offsets()
	}
	return append(b, make([]byte, 64)...), text
}

func TestKallsyms(t *testing.T) {
	for _, tt := range []struct {
		name  string
		order order
		n     int
		width int
		arch  string
		align int
	}{
		{"offsets first", offsetsFirst, 3000, 4, "arm64", 8},
		{"offsets first, 32 bits", offsetsFirst, 3001, 4, "arm", 4},
		{"offsets last, 32 bits", offsetsLast, 3001, 4, "386", 4},
		{"markers of eight bytes", offsetsFirst, 3000, 8, "arm64", 8},
		{"per-CPU symbols from 0", absolutePercpu, 3000, 4, "amd64", 8},
		{"offsets last", offsetsLast, 3000, 4, "amd64", 8},
		{"place-relative", placeRelative, 3000, 4, "arm64", 8},
		{"without its base", unrelocated, 3000, 4, "arm64", 8},
		{"whole groups", offsetsLast, 2048, 4, "arm64", 8},
		{"offsets first, arm to 4.19", offsetsFirst, 3001, 4, "arm", 16},
		{"offsets first, arm64 to 4.19", offsetsFirst, 3001, 8, "arm64", 256},
		{"absolute", absolute, 3000, 8, "amd64", 8},
		{"absolute, arm", absolute, 3001, 4, "arm", 16},
		{"absolute, arm64", absolute, 3001, 8, "arm64", 256},
		{"as few as can be", offsetsLast, minSymbols, 4, "arm64", 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			long := map[string]int{"arm": 4, "386": 4, "arm64": 8, "amd64": 8}[tt.arch]
			kernel, want := tables(tt.order, tt.n, tt.width, long, tt.align)
			img := &Image{Arch: tt.arch, Kernel: kernel}
			if tt.arch == "amd64" {
				img.Kernel = synth.ELF(synth.Exec, synth.X86_64, synth.Section{Name: ".rodata", Data: kernel})
			}
			got, err := img.Kallsyms()
			if err != nil {
				t.Fatal(err)
			}
			// The tables may end the file, but no name or offset may be missing.
			if img.Arch != "amd64" {
				whole := len(kernel) - 64
				if again, err := (&Image{Arch: tt.arch, Kernel: kernel[:whole]}).Kallsyms(); err != nil || !bytes.Equal(again, got) {
					t.Errorf("with nothing behind the tables: %d bytes, %v; want %d", len(again), err, len(got))
				}
				if tt.order == offsetsLast {
					whole -= long // the base
				}
				if cut, err := (&Image{Arch: tt.arch, Kernel: kernel[:whole-1]}).Kallsyms(); !errors.Is(err, ErrNoKallsyms) {
					t.Errorf("without its last byte: %d bytes, %v; want ErrNoKallsyms", len(cut), err)
				}
			}
			if string(got) != want {
				a, b := strings.Split(string(got), "\n"), strings.Split(want, "\n")
				for i := range min(len(a), len(b)) {
					if a[i] != b[i] {
						t.Fatalf("%d lines, want %d; line %d is %q, want %q", len(a), len(b), i, a[i], b[i])
					}
				}
				t.Errorf("%d lines, want %d", len(a), len(b))
			}
		})
	}
	few, _ := tables(offsetsLast, minSymbols-1, 4, 8, 8)
	for name, kernel := range map[string][]byte{
		"too few": few,
		"nothing": nil, "zeros": make([]byte, 1<<16), "ELF that is none": append([]byte("\x7fELF"), make([]byte, 100)...),
	} {
		if got, err := (&Image{Arch: "amd64", Kernel: kernel}).Kallsyms(); !errors.Is(err, ErrNoKallsyms) {
			t.Errorf("%s: %d bytes, %v; want ErrNoKallsyms", name, len(got), err)
		}
	}
}

func TestELFAddress(t *testing.T) {
	prog := func(typ elf.ProgType, off, size, addr uint64) *elf.Prog {
		return &elf.Prog{ProgHeader: elf.ProgHeader{Type: typ, Off: off, Filesz: size, Vaddr: addr}}
	}
	f := &elf.File{Progs: []*elf.Prog{prog(elf.PT_NOTE, 0, 0x1000, 0x5000), prog(elf.PT_LOAD, 0x100, 0x10, 0x8000), prog(elf.PT_LOAD, 0x200, 0x10, 0x9000)}}
	for off, want := range map[uint64]uint64{0xff: 0, 0x100: 0x8000, 0x10f: 0x800f, 0x110: 0, 0x1ff: 0, 0x208: 0x9008, 0x210: 0} {
		if got, ok := elfAddress(f, off); got != want || ok != (want != 0) {
			t.Errorf("elfAddress(%#x) = %#x, %t; want %#x", off, got, ok, want)
		}
	}
}

// A damaged table results in an error or in well-formed lines.
func FuzzKallsyms(f *testing.F) {
	for _, o := range []order{offsetsFirst, absolute, absolutePercpu, offsetsLast, placeRelative} {
		kernel, _ := tables(o, 1100, 4, 8, 8)
		f.Add(kernel, uint32(5000), byte(7))
	}
	f.Fuzz(func(t *testing.T, kernel []byte, at uint32, v byte) {
		if len(kernel) > 0 {
			kernel = bytes.Clone(kernel)
			kernel[int(at)%len(kernel)] = v
		}
		text, err := (&Image{Arch: "arm64", Kernel: kernel}).Kallsyms()
		if err != nil {
			return
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) != 3 && len(f) != 2 || len(f[0]) != 16 || !strings.HasSuffix(line, "\n") {
				t.Fatalf("line %q", line)
			}
		}
	})
}
