package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
)

// Progress is one report of a pull; see the stages in package debian.
type Progress = debian.Progress

// ErrHostLacks is wrapped by errors that say that this host lacks something,
// such as apt, with the remedy.
var ErrHostLacks = debian.ErrHostLacks

// ErrNotCached is wrapped when a kernel is known but not at hand.
var ErrNotCached = errors.New("not cached")

// Cache is the kernels of one cache directory. Its methods may be called from
// several goroutines, and several processes may share the directory.
type Cache struct {
	dir string // <cache>
	// repository opens where a source's packages come from.
	repository func(src Source, arch string) repository
}

// repository is what a pull needs of a package archive. It is called only with
// the lock of its suite and architecture held.
type repository interface {
	// Resolve gives the packages that a meta package stands for today, the one
	// with the image first.
	Resolve(ctx context.Context, meta string, report func(Progress)) ([]debian.Package, error)
	// Download gives the files of the packages, in their order.
	Download(ctx context.Context, pkgs []debian.Package, report func(Progress)) ([]string, error)
	// Drop forgets what was fetched.
	Drop() error
}

// Row is one line of `labctl kernel ls`: a known series on one architecture.
type Row struct {
	Ref      Ref     `json:"-"`
	Name     string  `json:"name"` // what `--kernel` takes: "6.12"
	Source   string  `json:"source"`
	Suite    string  `json:"suite"`
	Series   string  `json:"series"`
	Arch     string  `json:"arch"`
	LongTerm bool    `json:"long_term"`
	Package  string  `json:"package"` // meta package
	Kernel   *Kernel `json:"kernel"`  // the newest that is cached; nil when none is
}

// Open makes the cache usable. An empty dir means the user's: LABCTL_CACHE, else
// labctl in os.UserCacheDir.
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
	for _, d := range []string{c.debianDir(), c.buildDir()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("open kernel cache: %w", err)
		}
	}
	c.repository = func(src Source, arch string) repository {
		return &debian.Root{
			Dir:       filepath.Join(c.dir, "apt", src.Suite+"-"+arch),
			Suite:     src.Suite,
			Component: src.Component,
			Arch:      src.Arch[arch].Debian,
		}
	}
	return c, nil
}

func (c *Cache) debianDir() string { return filepath.Join(c.dir, "kernels", "debian") }
func (c *Cache) fileDir() string   { return filepath.Join(c.dir, "kernels", "file") }
func (c *Cache) buildDir() string  { return filepath.Join(c.dir, "kernels", "build") }

// Sources lists what can be pulled, a row for each series and architecture,
// newest series last, and then what was built here. An empty arch means all.
func (c *Cache) Sources(arch string) ([]Row, error) {
	kernels, err := c.List()
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, src := range debianSources() {
		for _, a := range archNames(src.Arch) {
			if arch != "" && a != arch {
				continue
			}
			row := Row{
				Ref: Ref{Suite: src.Suite, Series: src.Series}, Name: src.Series,
				Source: src.Kind, Suite: src.Suite, Series: src.Series, Arch: a,
				LongTerm: src.LongTerm, Package: src.Arch[a].Package,
			}
			if match := matching(kernels, row.Ref, a); len(match) > 0 {
				row.Kernel = match[0]
			}
			rows = append(rows, row)
		}
	}
	for _, k := range kernels {
		if k.Source == KindBuild && (arch == "" || arch == k.Arch) {
			rows = append(rows, Row{Ref: k.Ref, Name: k.Ref.String(), Source: KindBuild, Series: k.Series, Arch: k.Arch, Kernel: k})
		}
	}
	return rows, nil
}

// List gives the cached kernels that came from packages or were built here, by
// series, architecture and age, newest first. A directory whose kernel.json is
// missing or damaged is not a kernel; the next pull replaces it.
func (c *Cache) List() ([]*Kernel, error) {
	var out []*Kernel
	for _, dir := range []string{c.debianDir(), c.buildDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("list cached kernels: %w", err)
		}
		for _, e := range entries {
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if k, err := load(filepath.Join(dir, e.Name())); err == nil {
				out = append(out, k)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *Kernel) int {
		return cmp.Or(compareSeries(a.Series, b.Series), cmp.Compare(a.Arch, b.Arch), b.Pulled.Compare(a.Pulled))
	})
	return out, nil
}

func compareSeries(a, b string) int {
	va, errA := parseSeries(a)
	vb, errB := parseSeries(b)
	if errA != nil || errB != nil {
		return cmp.Compare(a, b)
	}
	return slices.Compare(va[:], vb[:])
}

// matching picks the kernels that a reference names, newest pull first.
func matching(kernels []*Kernel, ref Ref, arch string) []*Kernel {
	var out []*Kernel
	for _, k := range kernels {
		switch {
		case k.Arch != arch,
			ref.Build != k.Ref.Build && ref.Release == "",
			ref.Suite != "" && k.Suite != ref.Suite,
			ref.Series != "" && k.Series != ref.Series,
			ref.Release != "" && k.Release != ref.Release:
		default:
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b *Kernel) int { return b.Pulled.Compare(a.Pulled) })
	return out
}

// Find gives the kernel that is at hand: a cached one, or a file. The error
// wraps ErrNotCached when there is none. It does not read the image of a cached
// kernel; see Verify.
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
		return nil, fmt.Errorf("kernel %s for %s: %w; cached for %s: %s; a release that is not cached cannot be pulled by its name, pull its series",
			ref, arch, ErrNotCached, arch, strings.Join(have, ", "))
	}
	if ref.Build != "" {
		return nil, fmt.Errorf("kernel %s for %s: %w; make it with labctl kernel build, or see labctl kernel ls", ref, arch, ErrNotCached)
	}
	return nil, fmt.Errorf("kernel %s for %s: %w; run: labctl kernel pull %s --arch %s", ref, arch, ErrNotCached, ref, arch)
}

// Get gives the kernel at hand, verified, or pulls it. A damaged kernel is
// reported as StageDamaged, removed and pulled again.
func (c *Cache) Get(ctx context.Context, ref Ref, arch string, report func(Progress)) (*Kernel, error) {
	k, err := c.Find(ref, arch)
	if err == nil {
		err = k.Verify()
	}
	var damaged *CorruptError
	switch {
	case err == nil:
		return k, nil
	case errors.As(err, &damaged) && k != nil && k.Source == KindDebian:
		if ref.Release != "" {
			ref = Ref{Suite: k.Suite, Release: k.Release}
		}
	case errors.Is(err, ErrNotCached) && ref.Suite != "":
	default:
		return nil, err
	}
	return c.pull(ctx, ref, arch, report, func(*Kernel) bool { return true })
}

// Pull brings the suite's present kernel into the cache, also when an older one
// is there. A pull that another process finished while this one waited for it
// counts.
func (c *Cache) Pull(ctx context.Context, ref Ref, arch string, report func(Progress)) (*Kernel, error) {
	if ref.Suite == "" {
		return nil, fmt.Errorf("pull kernel %s: not a source; name a series or a suite: %s", ref, strings.Join(knownRefs(), ", "))
	}
	began := time.Now()
	return c.pull(ctx, ref, arch, report, func(k *Kernel) bool { return k.Pulled.After(began) })
}

// Default is the kernel for an architecture when none is named: the newest
// long-term series that is cached, else the fallback of kernels.yaml.
func (c *Cache) Default(arch string) Ref {
	best := ""
	rows, _ := c.Sources(arch) // unreadable means nothing cached
	for _, r := range rows {
		if r.Kernel != nil && r.LongTerm && (best == "" || compareSeries(r.Series, best) > 0) {
			best = r.Series
		}
	}
	ref, err := ParseRef(cmp.Or(best, sources().Fallback))
	if err != nil {
		panic(err) // kernels.yaml is checked when it is read
	}
	return ref
}

// Remove takes a kernel out of the cache. Removing one that is gone is no error.
// Of a file kernel only what labctl derived from it goes.
func (c *Cache) Remove(k *Kernel) error {
	if !slices.Contains([]string{c.debianDir(), c.fileDir(), c.buildDir()}, filepath.Dir(k.Dir)) {
		return fmt.Errorf("remove kernel %s: %s is not in the cache", k, k.Dir)
	}
	// The rename makes it vanish at once; a killed removal leaves a temporary
	// directory, which the next pull clears away.
	tmp := filepath.Join(filepath.Dir(k.Dir), tmpPrefix(k.Suite, k.Arch)+"rm-"+randomName())
	if err := os.Rename(k.Dir, tmp); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("remove kernel %s: %w", k, err)
	}
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("remove kernel %s: %w", k, err)
	}
	return nil
}

// lock takes the lock of a suite and architecture. It says once that it waits.
func (c *Cache) lock(ctx context.Context, suite, arch string, report func(Progress)) (unlock func(), err error) {
	l := flock.New(filepath.Join(c.debianDir(), ".lock-"+suite+"-"+arch))
	ok, err := l.TryLock()
	if err == nil && !ok {
		report(Progress{Stage: debian.StageWait, Note: fmt.Sprintf("another labctl pulls %s for %s", suite, arch)})
		_, err = l.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("lock kernel %s for %s: %w", suite, arch, err)
	}
	return func() { l.Close() }, nil
}

func tmpPrefix(suite, arch string) string { return ".tmp-" + suite + "-" + arch + "-" }
