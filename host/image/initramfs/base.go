package initramfs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"golang.org/x/mod/modfile"

	"labctl/host/image/busybox"
	"labctl/host/scratch"
	"labctl/images"
)

// recipe is images/initramfs.yaml with the commands of images/uroot.mod.
type recipe struct {
	Commands []string          `yaml:"-"`        // import paths
	Links    map[string]string `yaml:"links"`    // path in the guest → command
	Folders  []string          `yaml:"folders"`  // mode 0755
	Public   []string          `yaml:"public"`   // directories, mode 01777
	Symlinks map[string]string `yaml:"symlinks"` // path in the guest → target
	Files    map[string]string `yaml:"files"`    // path in the guest → contents, mode 0644
	Busybox  busyboxRecipe     `yaml:"busybox"`
}

// busyboxRecipe is where busybox comes from, and its commands that are left out, with
// the reason.
type busyboxRecipe struct {
	busybox.Source `yaml:",inline"`
	Without        map[string]string `yaml:"without"`
}

func parseRecipe(data, mod []byte) (recipe, error) {
	var r recipe
	if err := yaml.UnmarshalWithOptions(data, &r, yaml.Strict()); err != nil {
		return r, fmt.Errorf("read images/initramfs.yaml: %w", err)
	}
	f, err := modfile.Parse("images/uroot.mod", mod, nil)
	if err != nil {
		return r, fmt.Errorf("read images/uroot.mod: %w", err)
	}
	if len(f.Tool) == 0 {
		return r, fmt.Errorf("read images/uroot.mod: no tool directives, which list the commands")
	}
	for _, tool := range f.Tool {
		r.Commands = append(r.Commands, tool.Path)
	}
	for file, name := range r.Links {
		if !slices.ContainsFunc(r.Commands, func(c string) bool { return path.Base(c) == name }) {
			return r, fmt.Errorf("read images/initramfs.yaml: links: %s: no command %q in uroot.mod", file, name)
		}
	}
	return r, nil
}

// base returns the archive with u-root's commands.
func (b *builder) base(ctx context.Context, r recipe, arch string) (string, error) {
	mod, err := fs.ReadFile(b.source, "go.mod")
	if err != nil {
		return "", err
	}
	versions, err := builders(mod)
	if err != nil {
		return "", err
	}
	k := newKey("base")
	k.add(arch, string(images.URootMod), string(images.URootSum))
	for _, name := range slices.Sorted(maps.Keys(r.Links)) {
		k.add(name, r.Links[name])
	}
	k.add(b.tool.id...)
	k.add(versions...)

	file := make(chan string, 1)
	// uimage accepts no context. Let it finish, with the lock held, so that its
	// result is not lost and nobody starts the same build concurrently.
	err = await(ctx, func() error {
		p, _, err := b.cache.get(ctx, k.name("base", arch), func(w io.Writer) error {
			b.say(fmt.Sprintf("building u-root's commands for %s; the result is cached", arch))
			return b.buildBase(ctx, w, r, arch)
		})
		file <- p
		return err
	})
	if err != nil {
		return "", err
	}
	return <-file, nil
}

// builders returns the versions of gobusybox and mkuimage, which determine the base
// as much as the commands' versions do. mod is labctl's go.mod.
func builders(mod []byte) (versions []string, err error) {
	f, err := modfile.ParseLax("go.mod", mod, nil)
	if err != nil {
		return nil, fmt.Errorf("read go.mod: %w", err)
	}
	for _, r := range f.Require {
		if strings.HasPrefix(r.Mod.Path, "github.com/u-root/") {
			versions = append(versions, r.Mod.String())
		}
	}
	return versions, nil
}

// goTemp is held while GOTMPDIR is set in this process's environment.
var goTemp sync.Mutex

// below calls f with the temporary files of go commands in dir, where those of a process that
// was killed are found. uimage takes their environment from this process's.
func below(dir string, f func() error) error {
	const name = "GOTMPDIR"
	goTemp.Lock()
	defer goTemp.Unlock()
	old, set := os.LookupEnv(name)
	if err := os.Setenv(name, dir); err != nil {
		return err
	}
	defer func() {
		if set {
			os.Setenv(name, old)
		} else {
			os.Unsetenv(name)
		}
	}()
	return f()
}

func (b *builder) buildBase(ctx context.Context, w io.Writer, r recipe, arch string) error {
	folder, err := scratch.MakeFolder(b.cache.dir, tempPrefix)
	if err != nil {
		return err
	}
	defer folder.Close()

	temp := folder.Path
	module := filepath.Join(temp, "module")
	if err := os.Mkdir(module, 0o755); err != nil {
		return err
	}
	for name, data := range map[string][]byte{"go.mod": images.URootMod, "go.sum": images.URootSum} {
		if err := os.WriteFile(filepath.Join(module, name), data, 0o644); err != nil {
			return err
		}
	}
	empty, err := cpio.ArchiveFromRecords(nil)
	if err != nil {
		return err
	}
	out := filepath.Join(temp, "base.cpio")
	work := filepath.Join(temp, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	mods := []uimage.Modifier{
		uimage.WithEnv(
			golang.WithGOROOT(b.tool.root),
			golang.WithGOOS("linux"),
			golang.WithGOARCH(arch),
			golang.DisableCGO(),
			golang.WithGO111MODULE("on"),
			golang.WithMod(golang.ModReadonly),
			golang.WithWorkingDir(module),
		),
		uimage.WithBusyboxCommands(r.Commands...),
		uimage.WithBusyboxBuildOpts(&golang.BuildOpts{
			// Otherwise gobusybox passes -a. With the usual compiler flags,
			// packages compiled here are also used for labinit and labprobe.
			EnableInlining: true,
			ExtraArgs:      []string{"-a=false", "-buildvcs=false"},
		}),
		uimage.WithBaseArchive(empty),
		uimage.WithSkipLDD(),
		uimage.WithTempDir(work),
		uimage.WithCPIOOutput(out),
	}
	for file, name := range r.Links {
		mods = append(mods, uimage.WithSymlink(file, name))
	}
	if err := below(work, func() error { return uimage.Create(nil, mods...) }); err != nil {
		return err
	}
	archive, err := os.Open(out)
	if err != nil {
		return err
	}
	defer archive.Close()
	_, err = io.Copy(w, archive)
	return err
}
