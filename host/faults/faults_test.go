package faults

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"labctl/host/kernel"
)

// TestBuild builds modules from Debian's; that kernels take them, and are at fault
// then, is for the tests that run them.
func TestBuild(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		ref, err := kernel.ParseRef("6.12")
		if err != nil {
			t.Fatal(err)
		}
		k, err := cache.Get(t.Context(), ref, arch, nil)
		if err != nil {
			t.Fatal(err)
		}
		donors, err := k.Modules(Donor)
		if err != nil {
			t.Fatal(err)
		}
		donor := donors[len(donors)-1].Data
		for _, fault := range All {
			b, err := Build(donor, Donor, fault)
			if err != nil {
				t.Errorf("%s: Build(%s) = %v", arch, fault, err)
				continue
			}
			f, err := elf.NewFile(bytes.NewReader(b))
			if err != nil || f.Machine != machine || f.Type != elf.ET_REL {
				t.Fatalf("%s %s: the module is %+v, %v", arch, fault, f.FileHeader, err)
			}
			symbols, err := f.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"init_module", fault.Function()} {
				if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool {
					return s.Name == name && elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section == textIndex
				}) {
					t.Errorf("%s %s: no function %s in %v", arch, fault, name, symbols)
				}
			}
			this, err := f.Section(thisModule).Data()
			if err != nil || !bytes.Contains(this, []byte(Module+"\x00")) || bytes.Contains(this, []byte(Donor+"\x00")) {
				t.Errorf("%s %s: struct module does not have the module's name", arch, fault)
			}
			info, err := f.Section(".modinfo").Data()
			if err != nil || !bytes.Contains(info, []byte("name="+Module+"\x00")) || !bytes.Contains(info, []byte("vermagic=6.12.")) {
				t.Errorf("%s %s: .modinfo is %q", arch, fault, info)
			}
		}
		if _, err := Build(donor, Donor, "nothing"); err == nil || !strings.Contains(err.Error(), `"nothing" is not known`) {
			t.Errorf("Build(nothing) = %v", err)
		}
		if _, err := Build(donor, "loop", Warn); err == nil {
			t.Error("Build of a donor by another name is no error")
		}
	}
	if _, err := Build([]byte("not ELF"), Donor, Warn); err == nil {
		t.Error("Build of a donor that is no module is no error")
	}
}

// TestCode: relocations are in the code, at what they change.
func TestCode(t *testing.T) {
	for _, m := range machines {
		for _, fault := range append(slices.Clone(All), "") {
			c, ok := m.faults[fault]
			if fault == "" {
				c, ok = m.init("f"), true
			}
			raw, err := hex.DecodeString(c.hex)
			if !ok || err != nil || len(raw) == 0 {
				t.Errorf("%v %q: code %v, %v", m.arch, fault, raw, err)
			}
			for _, r := range c.relocs {
				if r.at+4 > uint64(len(raw)) {
					t.Errorf("%v %q: a relocation at %d of %d bytes", m.arch, fault, r.at, len(raw))
					continue
				}
				var want []byte
				switch m.arch {
				case elf.EM_X86_64:
					want = []byte{0, 0, 0, 0}
				case elf.EM_AARCH64:
					want = raw[r.at : r.at+4] // an adrp, add or bl: checked below
					if op := raw[r.at+3]; op != 0x94 && op&0x9f != 0x90 && op != 0x91 {
						t.Errorf("%v %q: at %d is % x", m.arch, fault, r.at, want)
					}
				case elf.EM_ARM:
					want = []byte{0xfe, 0xff, 0xff, 0xeb}
					if r.kind == uint32(elf.R_ARM_ABS32) {
						want = []byte{0, 0, 0, 0}
					}
				}
				if got := raw[r.at : r.at+4]; !bytes.Equal(got, want) {
					t.Errorf("%v %q: a relocation at %d, where % x is, want % x", m.arch, fault, r.at, got, want)
				}
			}
		}
	}
}

func TestWriteProgram(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	if err := WriteProgram(dir, map[string][]byte{"arm64": {0, '"', 0xff}}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"main.go": "func load() {", "go.mod": "module fault\n", "module_arm64.go": `module = []byte("\x00\"\xff")`} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s is %q, %v; want in it %q", name, b, err, want)
		}
	}
	if err := WriteProgram(filepath.Join(dir, "main.go"), nil); err == nil {
		t.Error("a directory that is a file is no error")
	}
}
