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
	"syscall"
	"time"

	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// pull downloads a source's kernel into the cache, unless an intact one that
// accept accepts is cached once the lock is held. verify is what an intact one passes.
func (c *Cache) pull(ctx context.Context, ref Ref, arch string, report func(Progress), verify func(*Kernel) error, accept func(*Kernel) bool) (*Kernel, error) {
	if report == nil {
		report = func(Progress) {}
	}
	src, err := sourceFor(ref, arch)
	if err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx, src, arch, report)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if err := c.clearStale(src, arch); err != nil {
		return nil, err
	}
	kernels, err := c.List()
	if err != nil {
		return nil, err
	}
	var damaged []*Kernel
	for _, k := range matching(kernels, ref, arch) {
		if err := verify(k); err != nil {
			report(Progress{Stage: debian.StageDamaged, Note: err.Error()})
			damaged = append(damaged, k)
		} else if accept(k) {
			return k, nil
		}
	}
	from := c.pullDebian
	switch src.Kind {
	case KindModule:
		from = c.pullModule
	case KindImage:
		from = c.pullImage
	}
	k, err := from(ctx, src, ref, arch, report, verify)
	if err != nil {
		// Problems with an archive are not the user's, unless the user named something
		// that it does not have.
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("pull kernel %s for %s: %w", ref, arch, outcome.Said(err)))
	}
	for _, old := range damaged { // no more than that was left of them
		if old.Dir == k.Dir {
			continue
		}
		if err := c.remove(old); err != nil {
			return nil, err
		}
	}
	k.say = c.Say
	report(Progress{Stage: debian.StageDone, Note: k.String()})
	return k, nil
}

// sourceFor returns the source of a reference after checking that it serves the
// architecture.
func sourceFor(ref Ref, arch string) (*Source, error) {
	if ref.Container != "" { // which architectures it has, its registry knows
		return ref.source(), nil
	}
	for _, src := range pulled() {
		if src.ref() != ref.source().ref() {
			continue
		}
		if _, ok := src.Arch[arch]; !ok {
			return nil, outcome.Inputf("kernel %s: not available for %s, only for %s", ref, arch, strings.Join(archNames(src.Arch), ", "))
		}
		return &src, nil
	}
	return nil, outcome.Inputf("kernel %s: no such source; known: %s", ref, strings.Join(knownRefs(), ", "))
}

// clearStale removes the leftovers of killed pulls and removals. The lock is held,
// so no such directory is in use.
func (c *Cache) clearStale(src *Source, arch string) error {
	stale, err := filepath.Glob(filepath.Join(c.sourceDir(src.Kind), tmpPrefix(src.key(), arch)+"*"))
	for _, dir := range stale {
		err = cmp.Or(err, os.RemoveAll(dir))
	}
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("remove unfinished pulls: %w", err))
	}
	return nil
}

func (c *Cache) pullDebian(ctx context.Context, src *Source, ref Ref, arch string, report func(Progress), verify func(*Kernel) error) (_ *Kernel, err error) {
	repo := c.repository(*src, arch, "")
	defer func() {
		// A partial download helps the next pull, unless it is what fills the disk.
		if errors.Is(outcome.Said(err), syscall.ENOSPC) {
			err = errors.Join(err, repo.Drop())
		}
	}()
	pkgs, err := c.resolve(ctx, repo, src, ref, arch, report)
	if err != nil {
		return nil, err
	}
	name := func() string {
		return filepath.Join(c.debianDir(), fmt.Sprintf("%s-%s-%s", src.key(), arch, strings.ReplaceAll(pkgs[0].Version, "/", "_")))
	}
	if k, err := load(name()); err == nil && samePackages(k.Packages, pkgs) && verify(k) == nil {
		return k, repo.Drop()
	}
	var size int64
	for _, p := range pkgs {
		size += p.Size
	}
	// The packages, and about one and a half times as much unpacked.
	if err := scratch.Room(c.debianDir(), 3*size); err != nil {
		return nil, err
	}
	debs, err := repo.Download(ctx, pkgs, report)
	if err != nil && ctx.Err() == nil && replaced(err) {
		// The index is older than the archive: a point release was published meanwhile.
		if pkgs, err = c.resolve(ctx, repo, src, ref, arch, report); err == nil {
			debs, err = repo.Download(ctx, pkgs, report)
		}
	}
	if err != nil {
		return nil, err
	}
	tmp, err := c.makeTemp(src, arch)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	tree, err := debian.Unpack(ctx, debs, pkgs, tmp, report)
	if err != nil {
		// The file does not match its checksum; do not resume from it.
		return nil, errors.Join(err, repo.Drop())
	}
	k := &Kernel{
		Dir: tmp, Source: KindDebian, Suite: src.Suite, Flavour: src.Flavour, Series: seriesOf(tree.Release), Arch: arch,
		Release: tree.Release, Version: pkgs[0].Version, Packages: pkgs,
	}
	if k, err = k.install(ctx, name(), report); err != nil {
		return nil, err
	}
	return k, repo.Drop()
}

// resolve returns the packages of the suite's current kernel.
func (c *Cache) resolve(ctx context.Context, repo repository, src *Source, ref Ref, arch string, report func(Progress)) ([]debian.Package, error) {
	pkgs, err := repo.Resolve(ctx, src.Arch[arch].Package, report)
	if err != nil {
		return nil, err
	}
	// A suite moves on to newer series. Report that before the download rather than
	// return another series than the one requested.
	if got := seriesOf(pkgs[0].Version); ref.Series != "" && got != ref.Series {
		return nil, outcome.Inputf("%s now serves %s (%s), not series %s; use %s for the current one", src.Suite, got, pkgs[0].Version, ref.Series, src.ref())
	}
	return pkgs, nil
}

// makeTemp creates a directory for an incomplete kernel. The lock is held.
func (c *Cache) makeTemp(src *Source, arch string) (string, error) {
	tmp, err := os.MkdirTemp(c.sourceDir(src.Kind), tmpPrefix(src.key(), arch))
	if err != nil {
		return "", err
	}
	return tmp, os.Chmod(tmp, 0o755)
}

// install inspects a kernel's image and moves its directory to its final path.
func (k *Kernel) install(ctx context.Context, dir string, report func(Progress)) (*Kernel, error) {
	report(Progress{Stage: debian.StageInspect})
	k.Pulled = time.Now().UTC()
	if err := k.inspect(ctx); err != nil {
		return nil, err
	}
	if err := writeMeta(filepath.Join(k.Dir, metaFile), k); err != nil {
		return nil, err
	}
	// There may be a damaged one, or one of older packages of the same version.
	if err := replace(k.Dir, dir); err != nil {
		return nil, err
	}
	return load(dir)
}

// replaced reports whether a download failed because the archive has replaced the
// file.
func replaced(err error) bool {
	var changed *debian.ChangedError
	return errors.As(err, &changed) || strings.Contains(err.Error(), " 404 ")
}

func samePackages(a, b []debian.Package) bool { return slices.Equal(a, b) }

// inspect reads the image in the kernel's directory: it checks that it is a
// kernel of the right architecture, extracts the BTF, derives the facts and
// records the files' checksums.
func (k *Kernel) inspect(ctx context.Context) error {
	k.init()
	img, err := k.open()
	if err != nil {
		return err
	}
	if img.Arch != k.Arch {
		return fmt.Errorf("the image is for %s, not %s", img.Arch, k.Arch)
	}
	if err := k.sumDTBs(); err != nil {
		return err
	}
	if err := k.extract(img); err != nil {
		return err
	}
	_, err = k.Facts(ctx)
	return err
}

// extract writes the files extracted from the image and records all checksums.
func (k *Kernel) extract(img *image.Image) error {
	if btf := img.BTF(); btf != nil {
		if err := writeFile(k.file(btfFile), btf); err != nil {
			return err
		}
	}
	k.Files = map[string]File{}
	for _, name := range []string{imageFile, configFile, btfFile, modulesFile, dtbSums} {
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
