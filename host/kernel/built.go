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

// Built is the part of kernel.json that describes a kernel built by labctl.
type Built struct {
	// Key is the sha256 of the build's inputs: source, options, compilers. Two
	// builds with the same key result in the same kernel.
	Key       string      `json:"key"`
	Source    BuildSource `json:"source"`
	Profile   string      `json:"profile,omitempty"`
	Fragments []string    `json:"fragments"` // as requested, in order
	Compiler  string      `json:"compiler"`  // first line of its --version
	Fixes     []string    `json:"fixes,omitempty"`
	Objects   int         `json:"objects"` // built by this make; an incremental build has fewer than a full one
	Seconds   float64     `json:"seconds"`
}

// BuildSource is the source that a kernel was built from.
type BuildSource struct {
	Kind    string          `json:"kind"`              // "debian", "tarball" or "tree"
	Path    string          `json:"path,omitempty"`    // for a tarball or tree
	Package *debian.Package `json:"package,omitempty"` // for a Debian source
	Signer  string          `json:"signer,omitempty"`  // of a signed tarball: user ID and fingerprint of the key
	Hash    string          `json:"hash"`              // sha256 of the package or tarball; for a tree, of its file names, sizes and times
	Release string          `json:"release"`           // `make kernelversion`: "6.12.107"
}

// ValidBuildName reports whether name is allowed as the name of a build.
func ValidBuildName(name string) error {
	_, err := ParseRef(KindBuild + ":" + name)
	return err
}

// BuildDirs returns the directories used by builds: one for unpacked sources,
// one for the objects of each build.
func (c *Cache) BuildDirs() (sources, objects string) {
	return filepath.Join(c.dir, "kernels", "src"), filepath.Join(c.dir, "kernels", "obj")
}

// SourcePackage returns the name of Debian's source package for a kernel and the
// apt root to fetch it with. ref names a Debian source.
func (c *Cache) SourcePackage(ref Ref) (*debian.Root, string, error) {
	for _, src := range pulled() {
		if src.Kind != KindDebian || src.Suite != ref.Suite || src.Flavour != "" {
			continue
		}
		return &debian.Root{
			Dir:       filepath.Join(c.dir, "apt", "source-"+src.Suite),
			Suite:     src.Suite,
			Component: src.Component,
			Arch:      arch.All[0].Debian, // the package is for all architectures, but an index is for one
		}, "linux-source-" + src.Series, nil
	}
	return nil, "", outcome.Inputf("source of kernel %s: Debian has no source package for it", ref)
}

// FindBuild returns the named build if its key is key and its files are intact,
// else nil.
func (c *Cache) FindBuild(name, arch, key string) *Kernel {
	k, err := load(filepath.Join(c.buildDir(), name+"-"+arch))
	if err != nil || k.Build == nil || k.Build.Key != key || k.Arch != arch || k.Verify() != nil {
		return nil
	}
	return k
}

// PutBuild stores a kernel in the cache, replacing an older build of the same
// name. fill writes vmlinuz, config and, if the build has them, modules.zip,
// dtb/ and btf into dir; PutBuild adds what labctl extracts from the image.
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
	if err := writeMeta(k.file(metaFile), k); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.buildDir(), name+"-"+arch)
	if err := replace(folder.Path, dir); err != nil { // there may be an older one
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("store kernel %s: %w", name, err))
	}
	return load(dir)
}

// removeObjects removes a build's objects, unless a build of that name is
// running.
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

// ParseConfig parses a .config into a map of option, without CONFIG_, to value,
// without quotes. Options that are not set are left out.
func ParseConfig(data []byte) map[string]string { return parseConfig(data) }
