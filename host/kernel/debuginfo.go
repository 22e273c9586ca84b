package kernel

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel/ctype"
	"labctl/host/outcome"
)

// SetDebuginfo makes Types take the kernel's types from a vmlinux with BTF or DWARF: for a
// kernel that was built without BTF. It must be of this kernel.
func (k *Kernel) SetDebuginfo(path string) error {
	abs, err := filepath.Abs(path)
	if err == nil {
		err = k.checkDebuginfo(abs)
	}
	if err != nil {
		return outcome.Default(outcome.BadInput, fmt.Errorf("--debuginfo %s: %w", path, err))
	}
	k.debuginfo = abs
	return nil
}

// Debuginfo returns what SetDebuginfo was given, "" if nothing.
func (k *Kernel) Debuginfo() string { return k.debuginfo }

func (k *Kernel) checkDebuginfo(path string) error {
	if st, err := os.Stat(path); err != nil {
		return err
	} else if !st.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	f, err := elf.Open(path)
	if err != nil {
		return errors.New("not an ELF file; want a vmlinux with BTF or DWARF")
	}
	defer f.Close()
	if got := arch.OfELF(f.Machine, f.Class); got != k.Arch {
		return fmt.Errorf("it is for %s, not for %s", cmp.Or(got, f.Machine.String()), k.Arch)
	}
	if f.Section(".BTF") == nil && f.Section(".debug_info") == nil {
		return errors.New("it has neither BTF nor DWARF")
	}
	if !hasBanner(f, k.Release) {
		return fmt.Errorf("it is not of kernel %s", k.Release)
	}
	return nil
}

// hasBanner reports whether a kernel is of a release.
func hasBanner(f *elf.File, release string) bool {
	want := []byte("Linux version " + release + " ")
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_EXECINSTR != 0 {
			continue
		}
		r := bufio.NewReaderSize(s.Open(), 1<<20)
		for rest := []byte(nil); ; {
			buf := make([]byte, 1<<20)
			n, err := io.ReadFull(r, buf)
			block := append(rest, buf[:n]...)
			if bytes.Contains(block, want) {
				return true
			}
			if err != nil {
				break
			}
			rest = block[len(block)-len(want):]
		}
	}
	return false
}

// debuginfoTypes reads the types of a vmlinux. pahole makes BTF of DWARF, which takes some
// seconds and is kept.
func (k *Kernel) debuginfoTypes(ctx context.Context) (*btf.Spec, error) {
	f, err := elf.Open(k.debuginfo)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var blob []byte
	if s := f.Section(".BTF"); s != nil {
		blob, err = s.Data()
	} else {
		blob, err = pahole(ctx, k.debuginfo)
	}
	if err != nil {
		return nil, fmt.Errorf("types of %s: %w", k.debuginfo, err)
	}
	return ctype.Read(blob)
}

// pahole returns the BTF of a file with DWARF.
func pahole(ctx context.Context, file string) ([]byte, error) {
	base, err := cachedir.Dir()
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%d\n", file, st.Size(), st.ModTime().UnixNano()))
	dir := filepath.Join(base, "debuginfo")
	if err := cachedir.Make(dir, 0o755); err != nil {
		return nil, err
	}
	kept := filepath.Join(dir, hex.EncodeToString(sum[:12])+".btf")
	if cachedir.Check(kept, file) == nil {
		return os.ReadFile(kept)
	}
	tool, err := exec.LookPath("pahole")
	if err != nil {
		return nil, outcome.Hostf("it has DWARF, of which pahole makes BTF: apt-get install pahole")
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return nil, err
	}
	tmp.Close()
	defer os.Remove(tmp.Name())
	out, err := exec.CommandContext(ctx, tool, "--btf_encode_detached="+tmp.Name(), file).CombinedOutput()
	if err != nil {
		return nil, outcome.Hostf("pahole: %w: %s", err, strings.Join(strings.Fields(string(out)), " "))
	}
	blob, err := os.ReadFile(tmp.Name())
	if err != nil || len(blob) == 0 {
		return nil, outcome.Hostf("pahole made no BTF: %w", errors.Join(err, errors.New("an empty file")))
	}
	if writeFile(kept, blob) == nil {
		_ = cachedir.Seal(kept, file) // made again the next time
	}
	return blob, nil
}
