package program

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"

	"labctl/host/arch"
	"labctl/host/bounded"
	"labctl/host/text"
)

// Arch returns the GOARCH of an ELF file, "" if it is not one.
func Arch(name string) string {
	r, err := bounded.Open(name)
	if err != nil {
		return ""
	}
	defer r.Close()
	f, err := elf.NewFile(r)
	if err != nil {
		return ""
	}
	return arch.OfELF(f.Machine, f.Class)
}

func checkFile(file, name, goarch string) error {
	f, err := bounded.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := checkELF(f, goarch); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// checkELF returns why a guest of this GOARCH, which has no shared libraries, cannot
// run a file.
func checkELF(r io.ReaderAt, goarch string) error {
	f, err := elf.NewFile(r)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not an ELF program (want one, or a Go package)")
	}
	if err != nil {
		return err
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return fmt.Errorf("an ELF file of type %s, not a program", f.Type)
	}
	if has := arch.OfELF(f.Machine, f.Class); has != goarch {
		if has == "" {
			return fmt.Errorf("a program for %s, but the guest is %s; build it with GOARCH=%s", f.Machine, goarch, goarch)
		}
		return fmt.Errorf("a program for %s, but the guest is %s; build it with GOARCH=%s, or use --arch %s", has, goarch, goarch, has)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			path, _ := io.ReadAll(io.LimitReader(p.Open(), 200))
			return fmt.Errorf("a dynamically linked program, but the guest has no %s; build it with %s", text.Line(string(trimNUL(path)), 100), howStatic(r))
		}
	}
	return nil
}

// howStatic says how a program that was linked dynamically is linked statically. Go's race
// detector needs cgo.
func howStatic(r io.ReaderAt) string {
	info, err := buildinfo.Read(r)
	if err != nil {
		return "CGO_ENABLED=0 or -static"
	}
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return "-race -ldflags='-linkmode external -extldflags -static'"
		}
	}
	return "CGO_ENABLED=0, or -ldflags='-linkmode external -extldflags -static'"
}

func trimNUL(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
