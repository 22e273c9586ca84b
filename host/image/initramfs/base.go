package initramfs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"

	"labctl/host/scratch"
	"labctl/images"
)

// recipe is images/initramfs.yaml.
type recipe struct {
	Commands struct {
		Module string   `yaml:"module"`
		Names  []string `yaml:"names"`
	} `yaml:"commands"`
	Links   map[string]string `yaml:"links"`   // path in the guest → command
	Folders []string          `yaml:"folders"` // mode 0755
	Files   map[string]string `yaml:"files"`   // path in the guest → text, mode 0644
}

func parseRecipe(data []byte) (recipe, error) {
	var r recipe
	if err := yaml.UnmarshalWithOptions(data, &r, yaml.Strict()); err != nil {
		return r, fmt.Errorf("read images/initramfs.yaml: %w", err)
	}
	if r.Commands.Module == "" || len(r.Commands.Names) == 0 {
		return r, fmt.Errorf("read images/initramfs.yaml: commands: module and names must be given")
	}
	for path, name := range r.Links {
		if !slices.Contains(r.Commands.Names, name) {
			return r, fmt.Errorf("read images/initramfs.yaml: links: %s: no command %q in names", path, name)
		}
	}
	return r, nil
}

// base returns the archive with u-root's commands.
func (b *builder) base(ctx context.Context, arch string) (string, error) {
	r, err := parseRecipe(images.Initramfs)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(r) // comments and order of keys left out
	if err != nil {
		return "", err
	}
	k := newKey("base")
	k.add(arch, string(text), filepath.Base(b.tool.module))
	k.add(b.tool.id...)

	path := make(chan string, 1)
	// uimage takes no context. It is left to finish, under the lock, so that
	// its work is not lost and nobody starts the same beside it.
	err = await(ctx, func() error {
		p, _, err := b.cache.get(ctx, k.name("base", arch), func(w io.Writer) error {
			b.say(fmt.Sprintf("building u-root's commands for %s; kept for the next time", arch))
			return b.buildBase(ctx, w, r, arch)
		})
		path <- p
		return err
	})
	if err != nil {
		return "", err
	}
	return <-path, nil
}

func (b *builder) buildBase(ctx context.Context, w io.Writer, r recipe, arch string) error {
	folder, err := scratch.MakeFolder(b.cache.dir, tempPrefix)
	if err != nil {
		return err
	}
	defer folder.Close()

	temp := folder.Path
	// Its go.mod and go.sum have all commands resolve to labctl's versions.
	module := filepath.Join(temp, "module")
	if err := os.CopyFS(module, os.DirFS(b.tool.module)); err != nil {
		return err
	}
	var packages []string
	for _, name := range r.Commands.Names {
		packages = append(packages, r.Commands.Module+"/"+name)
	}
	var records []cpio.Record
	for _, name := range r.Folders {
		records = append(records, cpio.Directory(name, 0o755))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		records = append(records, cpio.StaticFile(name, r.Files[name], 0o644))
	}
	skeleton, err := cpio.ArchiveFromRecords(records)
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
		uimage.WithBusyboxCommands(packages...),
		uimage.WithBusyboxBuildOpts(&golang.BuildOpts{
			// gobusybox passes -a. Without it, and with the usual compiler
			// flags, what is compiled here also serves labinit and labprobe.
			EnableInlining: true,
			ExtraArgs:      []string{"-a=false", "-buildvcs=false"},
		}),
		uimage.WithBaseArchive(skeleton),
		uimage.WithSkipLDD(),
		uimage.WithTempDir(work),
		uimage.WithCPIOOutput(out),
	}
	for path, name := range r.Links {
		mods = append(mods, uimage.WithSymlink(path, name))
	}
	if err := uimage.Create(nil, mods...); err != nil {
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
