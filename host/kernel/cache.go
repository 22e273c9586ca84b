package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
)

// Progress is a progress report of a pull; package debian defines the stages.
type Progress = debian.Progress

// ErrHostLacks is wrapped by errors about something missing on this host, such
// as apt. The message includes the remedy.
var ErrHostLacks = debian.ErrHostLacks

// ErrNotCached is wrapped when a kernel is known but not in the cache.
var ErrNotCached = outcome.New(outcome.BadInput, "not cached")

// Cache manages the kernels of one cache directory. Its methods are safe for
// concurrent use, and several processes may share the directory.
type Cache struct {
	// Say, when set, is notified of files that were damaged and are made again.
	Say func(line string)

	dir  string   // <cache>
	told sync.Map // lines of Say that are said once
	// repository opens the archive that a source's packages come from; part names a
	// directory for its files other than that of a pull.
	repository func(src Source, arch, part string) repository
}

// repository is a package archive, as far as a pull needs it. Its methods are
// called only with the lock of its suite and architecture held.
type repository interface {
	// Resolve returns the packages that a meta package currently depends on, the
	// one with the image first.
	Resolve(ctx context.Context, meta string, report func(Progress)) ([]debian.Package, error)
	// Lookup returns one package at one version, or a *debian.MissingError.
	Lookup(ctx context.Context, name, version string, report func(Progress)) (debian.Package, error)
	// Download returns the files of the packages, in the order of pkgs.
	Download(ctx context.Context, pkgs []debian.Package, report func(Progress)) ([]string, error)
	// Drop discards what was downloaded.
	Drop() error
}

// Row is one line of `labctl kernel ls`: a known series for one architecture.
type Row struct {
	Ref      Ref     `json:"-"`
	Name     string  `json:"name"` // as accepted by `--kernel`: "6.12"
	Source   string  `json:"source"`
	From     string  `json:"from"` // the source's name: "debian:trixie"
	Suite    string  `json:"suite"`
	Series   string  `json:"series"`
	Arch     string  `json:"arch"`
	LongTerm bool    `json:"long_term"`
	Package  string  `json:"package"` // meta package, or Go module
	Kernel   *Kernel `json:"kernel"`  // newest cached one; nil if there is none
	// Debug is the size of its vmlinux with DWARF in bytes, 0 if that was not pulled.
	Debug int64 `json:"debug,omitempty"`
}

// Open opens the cache in dir. An empty dir means the user's cache:
// LABCTL_CACHE, else labctl in os.UserCacheDir.
func Open(dir string) (*Cache, error) {
	var err error
	if dir == "" {
		dir, err = cachedir.Dir()
	} else {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open kernel cache: %w", err)
	}
	c := &Cache{dir: dir}
	if _, err := loadSources(); err != nil {
		return nil, err
	}
	for _, d := range c.pulledDirs() {
		if err := cachedir.Make(d, 0o755); err != nil {
			return nil, fmt.Errorf("open kernel cache: %w", err)
		}
	}
	c.repository = func(src Source, arch, part string) repository {
		return &debian.Root{
			Dir:       filepath.Join(c.dir, "apt", src.key()+"-"+arch+part),
			Suite:     src.Suite,
			Component: src.Component,
			Arch:      src.Arch[arch].Debian,
		}
	}
	return c, nil
}

func (c *Cache) debianDir() string { return filepath.Join(c.dir, "kernels", "debian") }
func (c *Cache) fileDir() string   { return filepath.Join(c.dir, "kernels", "file") }
func (c *Cache) moduleDir() string { return filepath.Join(c.dir, "kernels", "gomod") }
func (c *Cache) imageDir() string  { return filepath.Join(c.dir, "kernels", KindImage) }
func (c *Cache) buildDir() string  { return filepath.Join(c.dir, "kernels", "build") }

// pulledDirs returns the directories of kernels that are found by name.
func (c *Cache) pulledDirs() []string {
	return []string{c.debianDir(), c.moduleDir(), c.imageDir(), c.buildDir()}
}

// sourceDir returns the directory of the kernels from a kind of source.
func (c *Cache) sourceDir(kind string) string {
	switch kind {
	case KindModule:
		return c.moduleDir()
	case KindImage:
		return c.imageDir()
	}
	return c.debianDir()
}

// Sources lists the kernels that can be pulled, one row per series and
// architecture, newest series last, followed by the kernels built by labctl, and by those
// of container images. An
// empty arch means all.
func (c *Cache) Sources(arch string) ([]Row, error) {
	kernels, err := c.List()
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, src := range pulled() {
		for _, a := range archNames(src.Arch) {
			if arch != "" && a != arch {
				continue
			}
			row := Row{
				Ref:  Ref{Suite: src.Suite, Flavour: src.Flavour, Series: src.Series, Module: src.Module},
				Name: src.name(), Source: src.Kind, From: src.ref(), Suite: src.Suite, Series: src.Series, Arch: a,
				LongTerm: src.LongTerm, Package: cmp.Or(src.Module, src.Arch[a].Package),
			}
			if match := matching(kernels, row.Ref, a); len(match) > 0 {
				row.Kernel = match[0]
				_, row.Debug = row.Kernel.DebugFile()
			}
			rows = append(rows, row)
		}
	}
	for _, k := range kernels {
		if (k.Source == KindBuild || k.Source == KindImage) && (arch == "" || arch == k.Arch) {
			rows = append(rows, Row{Ref: k.Ref, Name: k.Ref.String(), Source: k.Source, From: k.Source, Series: k.Series, Arch: k.Arch, Kernel: k})
		}
	}
	return rows, nil
}

// List returns the cached kernels that were pulled or built by labctl, sorted by
// series, architecture and age, newest first. A directory whose kernel.json is
// missing or damaged is skipped, and Say told; the next pull replaces it.
func (c *Cache) List() ([]*Kernel, error) {
	var out []*Kernel
	for _, dir := range c.pulledDirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("list cached kernels: %w", err))
		}
		for _, e := range entries {
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			k, err := load(filepath.Join(dir, e.Name()))
			switch {
			case err == nil:
				k.say = c.Say
				out = append(out, k)
			case !errors.Is(err, fs.ErrNotExist):
				c.skipped(err)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *Kernel) int {
		return cmp.Or(compareSeries(a.Series, b.Series), cmp.Compare(a.Arch, b.Arch), b.Pulled.Compare(a.Pulled))
	})
	return out, nil
}

// skipped tells, once, of a kernel that is not listed.
func (c *Cache) skipped(err error) {
	if _, told := c.told.LoadOrStore(err.Error(), true); !told && c.Say != nil {
		c.Say(err.Error() + ": not used; labctl doctor --deep repairs it")
	}
}

func compareSeries(a, b string) int {
	va, errA := parseSeries(a)
	vb, errB := parseSeries(b)
	if errA != nil || errB != nil {
		return cmp.Compare(a, b)
	}
	return slices.Compare(va[:], vb[:])
}

// matching returns the kernels that ref names, most recently pulled first.
func matching(kernels []*Kernel, ref Ref, arch string) []*Kernel {
	var out []*Kernel
	for _, k := range kernels {
		if k.Arch == arch && k.is(ref) {
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b *Kernel) int { return b.Pulled.Compare(a.Pulled) })
	return out
}

// is reports whether ref names the kernel.
func (k *Kernel) is(ref Ref) bool {
	switch {
	case ref.Release != "":
		return k.Release == ref.Release
	case ref.Build != "":
		return k.Ref.Build == ref.Build
	case ref.Container != "":
		return k.Source == KindImage && (k.Container == ref.Container || k.pinned() == ref.Container)
	case ref.Module != "":
		return k.Module == ref.Module && (ref.Version == "" || k.Version == ref.Version)
	}
	return k.Source == KindDebian && k.Suite == ref.Suite && k.Flavour == ref.Flavour && (ref.Series == "" || k.Series == ref.Series)
}

// Find returns the kernel that ref names, from the cache or from a file. The
// error wraps ErrNotCached if it is not cached. Find does not read the image of
// a cached kernel; see Verify.
func (c *Cache) Find(ref Ref, arch string) (*Kernel, error) {
	if ref.Path != "" {
		return c.fileKernel(ref.Path, arch)
	}
	kernels, err := c.List()
	if err != nil {
		return nil, err
	}
	if match := matching(kernels, ref, arch); len(match) > 0 {
		return match[0], nil
	}
	if ref.Release != "" {
		var have []string
		for _, k := range kernels {
			if k.Arch == arch {
				have = append(have, k.Release)
			}
		}
		if len(have) == 0 {
			have = []string{"none"}
		}
		return nil, fmt.Errorf("kernel %s for %s: %w; cached for %s: %s; a release cannot be pulled by name, pull its series",
			ref, arch, ErrNotCached, arch, strings.Join(have, ", "))
	}
	if ref.Build != "" {
		return nil, fmt.Errorf("kernel %s for %s: %w; build it with labctl kernel build, or see labctl kernel ls", ref, arch, ErrNotCached)
	}
	return nil, fmt.Errorf("kernel %s for %s: %w; run: labctl kernel pull %s --arch %s", ref, arch, ErrNotCached, ref, arch)
}

// Get returns the kernel that ref names, verified, and pulls it if it is not
// cached. A damaged kernel is reported as StageDamaged and pulled again; it is
// replaced when the new one is complete.
func (c *Cache) Get(ctx context.Context, ref Ref, arch string, report func(Progress)) (*Kernel, error) {
	k, err := c.Find(ref, arch)
	if err == nil {
		err = k.Verify()
	}
	return c.mend(ctx, k, err, ref, arch, report, (*Kernel).Verify)
}

// Repair is Get for a kernel of which a file that Verify does not read was found to be
// damaged: it reads all of them.
func (c *Cache) Repair(ctx context.Context, k *Kernel, report func(Progress)) (*Kernel, error) {
	return c.mend(ctx, k, k.VerifyAll(), k.origin(), k.Arch, report, (*Kernel).VerifyAll)
}

// origin is the reference that a kernel is pulled by.
func (k *Kernel) origin() Ref {
	switch k.Source {
	case KindDebian:
		return Ref{Suite: k.Suite, Flavour: k.Flavour}
	case KindModule:
		return Ref{Module: k.Module, Version: k.Version}
	case KindImage:
		return Ref{Container: k.Container}
	}
	return k.Ref
}

// mend pulls a kernel again that is damaged or not cached, judging by err. verify is what
// an intact one passes.
func (c *Cache) mend(ctx context.Context, k *Kernel, err error, ref Ref, arch string, report func(Progress), verify func(*Kernel) error) (*Kernel, error) {
	var damaged *CorruptError
	switch {
	case err == nil:
		return k, nil
	case errors.As(err, &damaged) && k != nil && k.Source == KindImage:
		ref = k.origin()
	case errors.As(err, &damaged) && k != nil && k.Source == KindModule:
		ref = k.Ref
	case errors.As(err, &damaged) && k != nil && k.Source == KindDebian:
		if ref.Release != "" {
			ref = Ref{Suite: k.Suite, Flavour: k.Flavour, Release: k.Release}
		}
	case errors.Is(err, ErrNotCached) && ref.remote():
	case errors.As(err, &damaged) && k != nil && k.Source == KindBuild:
		return nil, fmt.Errorf("%w; labctl kernel build makes it again", err)
	default:
		return nil, err
	}
	return c.pull(ctx, ref, arch, report, verify, func(*Kernel) bool { return true })
}

// Pull downloads a source's current kernel into the cache, even if an older one
// is cached. If another process completed the same pull while this one waited
// for the lock, its result is used. A kernel without a source, such as a file,
// must exist already.
func (c *Cache) Pull(ctx context.Context, ref Ref, arch string, report func(Progress)) (*Kernel, error) {
	if !ref.remote() {
		return c.Get(ctx, ref, arch, report)
	}
	began := time.Now()
	return c.pull(ctx, ref, arch, report, (*Kernel).Verify, func(k *Kernel) bool { return k.Pulled.After(began) })
}

// Remove removes a kernel from the cache. Removing a kernel that is already gone
// is not an error. For a file kernel only the data that labctl derived from it is
// removed; for a built kernel its objects are removed too.
func (c *Cache) Remove(k *Kernel) error {
	err := c.remove(k)
	if err == nil {
		c.forget(k.Arch)
	}
	return err
}

func (c *Cache) remove(k *Kernel) error {
	if !slices.Contains(append(c.pulledDirs(), c.fileDir()), filepath.Dir(k.Dir)) {
		return outcome.Inputf("remove kernel %s: %s is not in the cache", k, k.Dir)
	}
	// The rename makes the removal atomic; a killed removal leaves a temporary
	// directory, which the next pull deletes.
	tmp := filepath.Join(filepath.Dir(k.Dir), tmpPrefix(k.key(), k.Arch)+"rm-"+randomName())
	if err := os.Rename(k.Dir, tmp); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return outcome.Default(outcome.HostLacks, fmt.Errorf("remove kernel %s: %w", k, err))
	}
	err := os.RemoveAll(tmp)
	if k.Source == KindBuild {
		err = errors.Join(err, c.removeObjects(k))
	}
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("remove kernel %s: %w", k, err))
	}
	return nil
}

// key returns the key of the kernel's source.
func (k *Kernel) key() string {
	return (&Source{Kind: k.Source, Suite: k.Suite, Flavour: k.Flavour, Module: k.Module, Container: k.Container}).key()
}

// lock acquires the lock of a source and architecture. If it has to wait, it
// reports so once.
func (c *Cache) lock(ctx context.Context, src *Source, arch string, report func(Progress)) (unlock func(), err error) {
	l := flock.New(filepath.Join(c.sourceDir(src.Kind), ".lock-"+src.key()+"-"+arch))
	ok, err := l.TryLock()
	if err == nil && !ok {
		report(Progress{Stage: debian.StageWait, Note: fmt.Sprintf("another labctl is pulling %s for %s", src.ref(), arch)})
		_, err = l.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("lock kernel %s for %s: %w", src.ref(), arch, err))
	}
	return func() { l.Close() }, nil
}

func tmpPrefix(key, arch string) string { return ".tmp-" + key + "-" + arch + "-" }
