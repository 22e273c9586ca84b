package program

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"labctl/host/text"
)

// kind is what an ELF header says of an architecture.
type kind struct {
	machine elf.Machine
	class   elf.Class // x32 programs have amd64's machine
}

// kinds has a row for each GOARCH that a Linux host may build for.
var kinds = []struct {
	arch string
	kind kind
}{
	{"amd64", kind{elf.EM_X86_64, elf.ELFCLASS64}},
	{"arm64", kind{elf.EM_AARCH64, elf.ELFCLASS64}},
	{"arm", kind{elf.EM_ARM, elf.ELFCLASS32}},
	{"386", kind{elf.EM_386, elf.ELFCLASS32}},
	{"riscv64", kind{elf.EM_RISCV, elf.ELFCLASS64}},
	{"ppc64le", kind{elf.EM_PPC64, elf.ELFCLASS64}},
	{"s390x", kind{elf.EM_S390, elf.ELFCLASS64}},
	{"loong64", kind{elf.EM_LOONGARCH, elf.ELFCLASS64}},
}

// Arch is the GOARCH of an ELF file, empty when name is none.
func Arch(name string) string {
	f, err := elf.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	return archOf(f)
}

func archOf(f *elf.File) string {
	for _, k := range kinds {
		if (k.kind == kind{f.Machine, f.Class}) {
			return k.arch
		}
	}
	return ""
}

func checkFile(file, name, arch string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := checkELF(f, arch); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// checkELF says why a guest of this GOARCH, which has no shared libraries, cannot
// run a file.
func checkELF(r io.ReaderAt, arch string) error {
	f, err := elf.NewFile(r)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("no ELF program; give one, or a Go package")
	}
	if err != nil {
		return err
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return fmt.Errorf("an ELF file of type %s, no program", f.Type)
	}
	if has := archOf(f); has != arch {
		if has == "" {
			return fmt.Errorf("a program for %s, and the guest is %s; build it with GOARCH=%s", f.Machine, arch, arch)
		}
		return fmt.Errorf("a program for %s, and the guest is %s; build it with GOARCH=%s, or give --arch %s", has, arch, arch, has)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			path, _ := io.ReadAll(io.LimitReader(p.Open(), 200))
			return fmt.Errorf("a dynamic program, and the guest has no %s; build it with CGO_ENABLED=0 or -static", text.Line(string(trimNUL(path)), 100))
		}
	}
	return nil
}

func trimNUL(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
