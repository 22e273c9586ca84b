package kernel

import (
	"bufio"
	"bytes"
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

	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/kernel/ctype"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/text"
)

// SetDebuginfo makes KnownTypes take the kernel's types from a vmlinux with BTF or DWARF: for a
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

func (k *Kernel) checkDebuginfo(path string) error {
	if st, err := os.Stat(path); err != nil {
		return err
	} else if !st.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	return k.checkBuild(path, false)
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
		blob, err = keptPahole(ctx, k.debuginfo)
	}
	if err != nil {
		return nil, fmt.Errorf("types of %s: %w", k.debuginfo, err)
	}
	return ctype.Read(blob)
}

// keptPahole is pahole for a file of the user's: what it made is kept in the cache.
func keptPahole(ctx context.Context, file string) ([]byte, error) {
	dir, err := debuginfoDir()
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%d\n", file, st.Size(), st.ModTime().UnixNano()))
	kept := filepath.Join(dir, hex.EncodeToString(sum[:12])+".btf")
	if cachedir.Check(kept, file) == nil {
		return os.ReadFile(kept)
	}
	blob, err := pahole(ctx, file)
	if err == nil && writeFile(kept, blob) == nil {
		_ = cachedir.Seal(kept, file) // made again the next time
	}
	return blob, err
}

func debuginfoDir() (string, error) {
	base, err := cachedir.Dir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "debuginfo")
	return dir, cachedir.Make(dir, 0o755)
}

// pahole returns the BTF of a file with DWARF.
func pahole(ctx context.Context, file string) ([]byte, error) {
	if err := needPahole(); err != nil {
		return nil, err
	}
	dir, err := debuginfoDir()
	if err != nil {
		return nil, err
	}
	folder, err := scratch.MakeFolder(dir, ".new-")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	made := filepath.Join(folder.Path, "btf")
	out, err := exec.CommandContext(ctx, "pahole", "--btf_encode_detached="+made, file).CombinedOutput()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, outcome.Hostf("pahole: %w: %s", err, text.Line(strings.Join(strings.Fields(string(out)), " "), 300))
	}
	blob, err := bounded.ReadFile(made, image.MaxSize)
	if err != nil {
		return nil, outcome.Hostf("pahole made no BTF: %w", err)
	}
	if len(blob) == 0 {
		return nil, outcome.Hostf("pahole made no BTF: an empty file")
	}
	return blob, nil
}
