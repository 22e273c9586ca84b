package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"labctl/host/arch"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Built is what kernel.json says of a kernel that was built here.
type Built struct {
	// Key is the sha256 of all that the kernel was made of: source, options,
	// compilers. A build with the same key would be the same kernel.
	Key       string      `json:"key"`
	Source    BuildSource `json:"source"`
	Profile   string      `json:"profile,omitempty"`
	Fragments []string    `json:"fragments"` // as asked for, in their order
	Compiler  string      `json:"compiler"`  // its own first line of --version
	Fixes     []string    `json:"fixes,omitempty"`
	Objects   int         `json:"objects"` // what make made; less than all where it went on from an earlier build
	Seconds   float64     `json:"seconds"`
}

// BuildSource is what a kernel was built from.
type BuildSource struct {
	Kind    string          `json:"kind"`              // "debian", "tarball" or "tree"
	Path    string          `json:"path,omitempty"`    // of a tarball or tree
	Package *debian.Package `json:"package,omitempty"` // of Debian
	Hash    string          `json:"hash"`              // sha256 of the package or tarball; of names, sizes and times of a tree
	Release string          `json:"release"`           // `make kernelversion`: "6.12.107"
}

// ValidBuildName says whether a build may be called so.
func ValidBuildName(name string) error {
	_, err := ParseRef(KindBuild + ":" + name)
	return err
}

// BuildDirs are the folders that builds work in: the sources that were unpacked
// and the objects of each build.
func (c *Cache) BuildDirs() (sources, objects string) {
	return filepath.Join(c.dir, "kernels", "src"), filepath.Join(c.dir, "kernels", "obj")
}

// SourcePackage is Debian's package of the source of a kernel, with the apt root
// to fetch it in. ref names a Debian source.
func (c *Cache) SourcePackage(ref Ref) (*debian.Root, string, error) {
	for _, src := range pulled() {
		if src.Kind != KindDebian || src.Suite != ref.Suite || src.Flavour != "" {
			continue
		}
		return &debian.Root{
			Dir:       filepath.Join(c.dir, "apt", "source-"+src.Suite),
			Suite:     src.Suite,
			Component: src.Component,
			Arch:      arch.All[0].Debian, // the package is for all; an index is for one
		}, "linux-source-" + src.Series, nil
	}
	return nil, "", outcome.Inputf("source of kernel %s: Debian has none", ref)
}

// FindBuild gives the kernel of a name when it was made of just this and is
// whole; nil when not.
func (c *Cache) FindBuild(name, arch, key string) *Kernel {
	k, err := load(filepath.Join(c.buildDir(), name+"-"+arch))
	if err != nil || k.Build == nil || k.Build.Key != key || k.Arch != arch || k.Verify() != nil {
		return nil
	}
	return k
}

// PutBuild puts a kernel into the cache in place of an older one of its name.
// fill writes vmlinuz, config and, where there are any, modules.zip and dtb/
// into a folder; what labctl reads out of an image is added.
func (c *Cache) PutBuild(ctx context.Context, name, arch string, built Built, fill func(dir string) error) (*Kernel, error) {
	folder, err := scratch.MakeFolder(c.buildDir(), ".new-"+name+"-"+arch+"-")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	if err := os.Chmod(folder.Path, 0o755); err != nil {
		return nil, err
	}
	if err := fill(folder.Path); err != nil {
		return nil, err
	}
	k := &Kernel{Dir: folder.Path, Source: KindBuild, Arch: arch, Build: &built, Pulled: time.Now().UTC()}
	k.init()
	img, err := k.open()
	if err != nil {
		return nil, err
	}
	k.Release, k.Series = img.Release, seriesOf(img.Release)
	if err := k.inspect(ctx); err != nil {
		return nil, err
	}
	if err := writeJSON(k.file(metaFile), k); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.buildDir(), name+"-"+arch)
	if err := os.RemoveAll(dir); err != nil { // an older one
		return nil, err
	}
	if err := folder.Keep(dir); err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("keep kernel %s: %w", name, err))
	}
	return load(dir)
}

// removeObjects removes what a build was made of, unless a build of the name is
// under way.
func (c *Cache) removeObjects(k *Kernel) error {
	_, objects := c.BuildDirs()
	dir := filepath.Join(objects, filepath.Base(k.Dir))
	if !isDir(dir) {
		return nil
	}
	lock, err := scratch.TryLock(dir + ".lock")
	if errors.Is(err, scratch.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+".log"), lock.Release())
}

func isDir(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.IsDir()
}

// ParseConfig reads a .config: option without CONFIG_ → value without quotes.
// Options that are not set are left out.
func ParseConfig(data []byte) map[string]string { return parseConfig(data) }
