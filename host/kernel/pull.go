package kernel

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
)

// pull brings a Debian kernel into the cache, unless a sound one that accept
// takes is there once the lock is held.
func (c *Cache) pull(ctx context.Context, ref Ref, arch string, report func(Progress), accept func(*Kernel) bool) (*Kernel, error) {
	if report == nil {
		report = func(Progress) {}
	}
	src, err := sourceFor(ref, arch)
	if err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx, src.Suite, arch, report)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if err := c.clearStale(src.Suite, arch); err != nil {
		return nil, err
	}
	kernels, err := c.List()
	if err != nil {
		return nil, err
	}
	for _, k := range matching(kernels, ref, arch) {
		if err := k.Verify(); err != nil {
			report(Progress{Stage: debian.StageDamaged, Note: err.Error()})
			if err := c.Remove(k); err != nil {
				return nil, err
			}
		} else if accept(k) {
			return k, nil
		}
	}
	k, err := c.pullLocked(ctx, src, ref, arch, report)
	if err != nil {
		return nil, fmt.Errorf("pull kernel %s for %s: %w", ref, arch, err)
	}
	report(Progress{Stage: debian.StageDone, Note: k.String()})
	return k, nil
}

// sourceFor finds the Debian source of a reference and checks that it serves
// the architecture.
func sourceFor(ref Ref, arch string) (Source, error) {
	for _, src := range debianSources() {
		if src.Suite != ref.Suite {
			continue
		}
		if _, ok := src.Arch[arch]; !ok {
			return Source{}, fmt.Errorf("kernel %s: no packages for %s; there are for %s", ref, arch, strings.Join(archNames(src.Arch), ", "))
		}
		return src, nil
	}
	return Source{}, fmt.Errorf("kernel %s: no such source; known: %s", ref, strings.Join(knownRefs(), ", "))
}

// clearStale removes what killed pulls and removals left. The lock is held, so
// nobody is at work in such a directory.
func (c *Cache) clearStale(suite, arch string) error {
	stale, err := filepath.Glob(filepath.Join(c.debianDir(), tmpPrefix(suite, arch)+"*"))
	for _, dir := range stale {
		err = cmp.Or(err, os.RemoveAll(dir))
	}
	if err != nil {
		return fmt.Errorf("clear unfinished pulls: %w", err)
	}
	return nil
}

func (c *Cache) pullLocked(ctx context.Context, src Source, ref Ref, arch string, report func(Progress)) (*Kernel, error) {
	repo := c.repository(src, arch)
	pkgs, err := repo.Resolve(ctx, src.Arch[arch].Package, report)
	if err != nil {
		return nil, err
	}
	version := pkgs[0].Version
	// A suite moves on. Better to say so before the download than to hand out
	// another series under the name of the one that was asked for.
	if got := seriesOf(version); ref.Series != "" && got != ref.Series {
		return nil, fmt.Errorf("%s now serves %s (%s), not series %s; use debian:%s for what it serves", src.Suite, got, version, ref.Series, src.Suite)
	}
	dir := filepath.Join(c.debianDir(), fmt.Sprintf("%s-%s-%s", src.Suite, arch, strings.ReplaceAll(version, "/", "_")))
	if k, err := load(dir); err == nil && samePackages(k.Packages, pkgs) && k.Verify() == nil {
		return k, repo.Drop()
	}
	debs, err := repo.Download(ctx, pkgs, report)
	if err != nil {
		return nil, err
	}

	tmp, err := os.MkdirTemp(c.debianDir(), tmpPrefix(src.Suite, arch))
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	tree, err := debian.Unpack(ctx, debs, pkgs, tmp, report)
	if err != nil {
		// The file cannot be what its sum promised; do not resume from it.
		return nil, errors.Join(err, repo.Drop())
	}
	k := &Kernel{
		Dir: tmp, Source: KindDebian, Suite: src.Suite, Series: seriesOf(tree.Release), Arch: arch,
		Release: tree.Release, Version: version, Packages: pkgs, Pulled: time.Now().UTC(),
	}
	report(Progress{Stage: debian.StageInspect})
	if err := k.inspect(ctx); err != nil {
		return nil, err
	}
	if err := writeJSON(filepath.Join(tmp, metaFile), k); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil { // a damaged one, or older packages of the same version
		return nil, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	if err := repo.Drop(); err != nil {
		return nil, err
	}
	return load(dir)
}

func samePackages(a, b []debian.Package) bool { return slices.Equal(a, b) }

// inspect reads the image in the kernel's directory: it checks that it is a
// kernel of the right architecture, extracts the BTF, derives the facts and
// records the files' sums.
func (k *Kernel) inspect(ctx context.Context) error {
	k.init()
	img, err := k.open()
	if err != nil {
		return err
	}
	if img.Arch != k.Arch {
		return fmt.Errorf("the image in the package is for %s", img.Arch)
	}
	if err := k.extract(img); err != nil {
		return err
	}
	_, err = k.Facts(ctx)
	return err
}

// extract writes the files that are found in the image and records all sums.
func (k *Kernel) extract(img *image.Image) error {
	if btf := img.BTF(); btf != nil {
		if err := writeFile(k.file(btfFile), btf); err != nil {
			return err
		}
	}
	k.Files = map[string]File{}
	for _, name := range []string{imageFile, configFile, btfFile, modulesFile} {
		f, err := hashFile(k.file(name))
		if errors.Is(err, os.ErrNotExist) && name != imageFile {
			continue
		}
		if err != nil {
			return err
		}
		k.Files[name] = f
	}
	return nil
}

func randomName() string { return rand.Text() }
