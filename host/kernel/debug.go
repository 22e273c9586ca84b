package kernel

import (
	"bufio"
	"cmp"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// What a kernel's directory holds of its debug package; both are sealed. Increment the
// number when the derived file's contents change.
const (
	debugFile    = "vmlinux.debug" // the vmlinux with DWARF
	debugBTFFile = "btf-debug-1"   // its types, derived
	buildIDsFile = "build-ids-1"   // derived from the image
)

// DebugFile returns the path of the vmlinux with DWARF that PullDebug has put beside a
// kernel, and its size in bytes; "" if there is none.
func (k *Kernel) DebugFile() (path string, size int64) {
	path = filepath.Join(k.Dir, debugFile)
	if cachedir.Check(path, k.ImageSHA256()) != nil {
		return "", 0
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", 0
	}
	return path, st.Size()
}

// debugBTF returns the types of the kernel's debug package; nil if there is none. pahole
// makes them of DWARF once, when begin is called.
func (k *Kernel) debugBTF(ctx context.Context, begin func()) ([]byte, error) {
	path, _ := k.DebugFile()
	if path == "" {
		return nil, nil
	}
	return k.DerivedData(debugBTFFile, func() ([]byte, error) {
		begin()
		return pahole(ctx, path)
	})
}

// DebugCommand is the command that pulls a kernel's debug package; "" for a kernel of
// which labctl pulls none.
func (k *Kernel) DebugCommand() string {
	if k.Source != KindDebian {
		return ""
	}
	return fmt.Sprintf("labctl kernel pull %s --arch %s --debug", k.Release, k.Arch)
}

// TypesHint says how to get the types of a kernel that was built without.
func (k *Kernel) TypesHint() string {
	const own = "--debuginfo FILE takes them from its vmlinux with DWARF"
	if pull := k.DebugCommand(); pull != "" {
		return pull + " gets them, or " + own
	}
	return own
}

// PullDebug downloads the debug package of a cached kernel of Debian's, and keeps its
// vmlinux with DWARF beside the kernel, whose types are known from then on; see
// DebugFile. It does nothing if it is there. The package must be of the kernel's own
// version, and its vmlinux of the same build, by its build-id. What was downloaded when
// the context ends serves the next call.
func (c *Cache) PullDebug(ctx context.Context, k *Kernel, report func(Progress)) (err error) {
	if report == nil {
		report = func(Progress) {}
	}
	if k.Source != KindDebian || len(k.Packages) == 0 {
		return outcome.Inputf("kernel %s: only Debian's kernels have debug packages that labctl pulls; for others --debuginfo FILE of labctl struct and the like names a vmlinux with DWARF", k)
	}
	src, err := sourceFor(k.origin(), k.Arch)
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx, src, k.Arch, report)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.clearStale(src, k.Arch); err != nil {
		return err
	}
	fail := func(err error) error {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("pull the debug package of kernel %s for %s: %w", k, k.Arch, outcome.Said(err)))
	}
	_, own := k.Files[btfFile]
	if path, _ := k.DebugFile(); path == "" {
		if !own { // before hundreds of megabytes that would be of no use
			if err := needPahole(); err != nil {
				return err
			}
		}
		if err := c.pullDebug(ctx, src, k, report); err != nil {
			return fail(err)
		}
	}
	if !own {
		if _, err := k.debugBTF(ctx, func() { report(Progress{Stage: debian.StageTypes}) }); err != nil {
			return fail(err)
		}
	}
	report(Progress{Stage: debian.StageDone, Note: "debug package of " + k.String()})
	return nil
}

// pullDebug puts the vmlinux of the debug package in its place. The lock is held.
func (c *Cache) pullDebug(ctx context.Context, src *Source, k *Kernel, report func(Progress)) (err error) {
	repo := c.repository(*src, k.Arch, "-debug") // not that of a pull, which removes it at its end
	defer func() {
		if errors.Is(outcome.Said(err), syscall.ENOSPC) {
			err = errors.Join(err, repo.Drop())
		}
	}()
	pkg, err := repo.Lookup(ctx, k.Packages[0].Name+"-dbg", k.Packages[0].Version, report)
	var missing *debian.MissingError
	if errors.As(err, &missing) {
		return errors.Join(fmt.Errorf("%w; where the archive has a newer kernel, labctl kernel pull %s --arch %s --debug gets that with its debug package", err, src.ref(), k.Arch), repo.Drop())
	}
	if err != nil {
		return err
	}
	// The package, and a vmlinux, which is smaller than a package with all modules.
	if err := scratch.Room(c.debianDir(), 2*pkg.Size); err != nil {
		return err
	}
	debs, err := repo.Download(ctx, []debian.Package{pkg}, func(p Progress) {
		p.Note = fmt.Sprintf("%s, %d MB", pkg.Name, (pkg.Size+1<<19)>>20)
		report(p)
	})
	if err != nil {
		return err
	}
	tmp, err := c.makeTemp(src, k.Arch)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	path := filepath.Join(tmp, debugFile)
	if err := unpackDebug(ctx, debs[0], pkg, k.Release, path, report); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errors.Join(err, repo.Drop()) // it is not what the index says; do not resume from it
	}
	report(Progress{Stage: debian.StageInspect, Note: "and the vmlinux: their build-ids"})
	if err := k.checkBuild(path, true); err != nil {
		return errors.Join(fmt.Errorf("the vmlinux in %s: %w", pkg.Name, err), repo.Drop())
	}
	final := filepath.Join(k.Dir, debugFile)
	// In this order: a file without its seal does not count.
	if err := errors.Join(os.RemoveAll(final+cachedir.SealSuffix), os.Rename(path, final)); err != nil {
		return err
	}
	if err := cachedir.Seal(final, k.ImageSHA256()); err != nil {
		return err
	}
	return repo.Drop()
}

// unpackDebug writes the vmlinux of a debug package. Debian has it in
// /usr/lib/debug/boot, and links to it elsewhere.
func unpackDebug(ctx context.Context, deb string, pkg debian.Package, release, path string, report func(Progress)) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = debian.Copy(ctx, deb, pkg, func(name string) bool {
		name = strings.TrimPrefix(name, "usr/")
		return name == "lib/debug/boot/vmlinux-"+release || name == "lib/debug/lib/modules/"+release+"/vmlinux"
	}, w, report)
	if err == nil {
		err = w.Flush() // after an error it has the same
	}
	return errors.Join(err, f.Close())
}

// needPahole returns an error if the tool that reads DWARF is not there.
func needPahole() error {
	if _, err := exec.LookPath("pahole"); err != nil {
		return outcome.Hostf("pahole, which makes types of DWARF, is not installed: apt-get install pahole")
	}
	return nil
}

// checkBuild returns an error unless a file is a vmlinux of this kernel, with DWARF or
// BTF: by its build-id, or, if either has none, by the release in its banner. strict
// wants the build-id.
func (k *Kernel) checkBuild(path string, strict bool) error {
	f, err := elf.Open(path)
	if err != nil {
		return errors.New("not an ELF file; want a vmlinux with BTF or DWARF")
	}
	defer f.Close()
	if got := arch.OfELF(f.Machine, f.Class); got != k.Arch {
		return fmt.Errorf("it is for %s, not for %s", cmp.Or(got, f.Machine.String()), k.Arch)
	}
	if f.Section(".BTF") == nil && f.Section(".debug_info") == nil && f.Section(".zdebug_info") == nil {
		return errors.New("it has neither BTF nor DWARF")
	}
	own, err := k.buildIDs()
	if err != nil {
		return err
	}
	if got := buildIDOf(f); got != "" && len(own) > 0 {
		for _, id := range own {
			if id == got {
				return nil
			}
		}
		return fmt.Errorf("it is of another build than kernel %s: its build-id is %s, the image's is %s", k.Release, got, strings.Join(own, " or "))
	}
	switch {
	case strict:
		return fmt.Errorf("whether it is of kernel %s is not known: one of them has no build-id", k.Release)
	case !hasBanner(f, k.Release):
		return fmt.Errorf("it is not of kernel %s", k.Release)
	}
	return nil
}

// buildIDs returns the build-ids in the kernel's image, in hex: its own, and those of its
// vDSOs.
func (k *Kernel) buildIDs() (ids []string, err error) {
	data, err := k.DerivedData(buildIDsFile, func() ([]byte, error) {
		img, err := k.open()
		if err != nil {
			return nil, err
		}
		ids := []string{}
		for _, id := range image.BuildIDs(img.Kernel) {
			ids = append(ids, fmt.Sprintf("%x", id))
		}
		return json.Marshal(ids)
	})
	if err == nil {
		err = json.Unmarshal(data, &ids)
	}
	if err != nil {
		return nil, fmt.Errorf("build-ids of kernel %s: %w", k, err)
	}
	return ids, nil
}

// maxNotes bounds a section of notes, in bytes.
const maxNotes = 1 << 20

// buildIDOf returns the build-id of an ELF file in hex; "" if it has none.
func buildIDOf(f *elf.File) string {
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOTE || s.Size > maxNotes {
			continue
		}
		data, err := s.Data()
		if err != nil {
			continue
		}
		if ids := image.BuildIDs(data); len(ids) > 0 {
			return fmt.Sprintf("%x", ids[0])
		}
	}
	return ""
}
