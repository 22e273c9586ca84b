package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// packageNames are how the packages of a kernel are called, whose files labctl uses:
// those of Debian, Ubuntu and its mainline builds, and of Fedora and its kin.
var packageNames = []string{"linux-image-", "linux-modules-", "kernel-core-", "kernel-modules-", "kernel-rt-core-", "kernel-rt-modules-", "kernel-default-", "kernel-6", "kernel-5", "kernel-4"}

// notKernels are parts of the names of packages beside them.
var notKernels = []string{"-dbg", "-debug", "-devel", "-headers", "-extmod"}

// maxPackages bounds the packages of one kernel.
const maxPackages = 16

// packagesAt are the packages at a path: the file itself, or those of a kernel in a
// directory. None is no error: the path is of something else.
func packagesAt(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil // said by who looks for an image there
	}
	if info.Mode().IsRegular() {
		if !isPackage(path) {
			return nil, nil
		}
		return []string{path}, nil
	}
	if !info.IsDir() {
		return nil, nil
	}
	var found, others []string
	for _, ext := range []string{".deb", ".rpm"} {
		names, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(path), "*"+ext))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			base := filepath.Base(name)
			prefix := func(p string) bool { return strings.HasPrefix(base, p) }
			part := func(p string) bool { return strings.Contains(base, p) }
			if slices.ContainsFunc(packageNames, prefix) && !slices.ContainsFunc(notKernels, part) && isPackage(name) {
				found = append(found, name)
			} else {
				others = append(others, base)
			}
		}
	}
	switch {
	case len(found) > maxPackages:
		return nil, fmt.Errorf("%d packages of kernels: a kernel has %d at most; give the directory of one kernel", len(found), maxPackages)
	case len(found) == 0 && len(others) > 0:
		return nil, fmt.Errorf("no package of a kernel among %s (looked for names such as linux-image-… and kernel-core-…)", strings.Join(others[:min(len(others), 3)], ", "))
	}
	return found, nil
}

// isPackage tells a package by its first bytes.
func isPackage(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return false
	}
	head := make([]byte, 8)
	_, err = io.ReadFull(f, head)
	return err == nil && debian.IsPackage(head)
}

// packageKernel returns the kernel in packages of the user's, which are unpacked once:
// what came out is kept by their checksums. origin is what the user named.
func (c *Cache) packageKernel(origin string, files []string) (*Kernel, error) {
	var pkgs []debian.Package
	all := sha256.New()
	for _, f := range files {
		sum, err := hashFile(f)
		if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, debian.Package{Name: filepath.Base(f), SHA256: sum.SHA256, Size: sum.Size})
		fmt.Fprintln(all, sum.SHA256)
	}
	dir := filepath.Join(c.fileDir(), "packages-"+hex.EncodeToString(all.Sum(nil)))
	k, err := load(dir)
	if err != nil {
		if k, err = c.unpackKernel(dir, files, pkgs); err != nil {
			return nil, err
		}
	}
	k.from, k.say = origin, c.Say
	k.init()
	return k, nil
}

func (c *Cache) unpackKernel(dir string, files []string, pkgs []debian.Package) (*Kernel, error) {
	var size int64
	for _, p := range pkgs {
		size += p.Size
	}
	if err := cachedir.Make(c.fileDir(), 0o755); err != nil {
		return nil, err
	}
	if err := scratch.Room(c.fileDir(), 3*size); err != nil {
		return nil, err
	}
	folder, err := scratch.MakeFolder(c.fileDir(), tmpPrefix("", "packages"))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	if err := os.Chmod(folder.Path, 0o755); err != nil {
		return nil, err
	}
	if c.Say != nil {
		c.Say(fmt.Sprintf("unpacking a kernel of %d MB of packages, once", size>>20))
	}
	tree, err := debian.Unpack(context.Background(), files, pkgs, folder.Path, func(Progress) {})
	if errors.Is(err, debian.ErrNoImage) {
		return nil, outcome.Errorf(outcome.BadInput, "%w: give the directory that has all of its packages (Ubuntu's configuration and modules are in linux-modules-…, Fedora's in kernel-core-… and kernel-modules-…)", err)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	if err != nil { // of an archive's packages it would be the archive's fault
		return nil, outcome.Errorf(outcome.BadInput, "%w", err)
	}
	k := &Kernel{Dir: folder.Path, Source: KindFile, Series: seriesOf(tree.Release), Release: tree.Release, Packages: pkgs, Pulled: time.Now().UTC()}
	img, err := k.open()
	if err != nil {
		return nil, err
	}
	k.Arch = img.Arch
	k.init()
	if err := errors.Join(k.sumDTBs(), k.extract(img)); err != nil {
		return nil, err
	}
	if err := writeMeta(filepath.Join(folder.Path, metaFile), k); err != nil {
		return nil, err
	}
	return keepFile(folder, dir)
}
