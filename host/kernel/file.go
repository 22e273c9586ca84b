package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"labctl/host/arch"
	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// fileKernel returns the kernel in an image file. The analysis is cached by the
// image's sha256, so later uses only read and hash the file. The configuration
// is the one embedded in the image, else a file config or config-* next to it
// whose name matches.
func (c *Cache) fileKernel(path, arch string) (_ *Kernel, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", path, err)
	}
	if packages, err := packagesAt(abs); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", path, err)
	} else if packages != nil {
		k, err := c.packageKernel(abs, packages)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", path, err)
		}
		return k, isFor(k, path, arch)
	}
	if st, err := os.Stat(abs); err == nil && st.IsDir() {
		if abs, err = imageOfTree(abs, arch); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", path, err)
		}
	}
	if st, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("kernel %s: %w", path, err)
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("kernel %s: not a regular file", path)
	} else if st.Size() > image.MaxSize {
		return nil, fmt.Errorf("kernel %s: %d bytes; no kernel is larger than %d", path, st.Size(), int64(image.MaxSize))
	}
	sum, err := hashFile(abs)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", path, err)
	}
	dir := filepath.Join(c.fileDir(), sum.SHA256)
	k, err := load(dir)
	if err != nil {
		if k, err = c.importFile(abs, dir); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", path, err)
		}
	}
	k.Path, k.Files[imageFile], k.say = abs, sum, c.Say
	k.init()
	return k, isFor(k, path, arch)
}

func isFor(k *Kernel, path, arch string) error {
	if arch != "" && k.Arch != arch {
		return fmt.Errorf("kernel %s: the image is for %s, not %s", path, k.Arch, arch)
	}
	return nil
}

// ArchOf returns the architecture of a reference that has only one: that of a
// file, or the only one that a source serves or a kernel was built for. It
// returns "" if there are several.
func (c *Cache) ArchOf(ref Ref) (string, error) {
	archs := map[string]bool{}
	switch {
	case ref.Path != "":
		k, err := c.fileKernel(ref.Path, "")
		if err != nil {
			return "", err
		}
		archs[k.Arch] = true
	case ref.Suite != "" || ref.Module != "":
		for _, src := range pulled() {
			if src.ref() == ref.source().ref() {
				for a := range src.Arch {
					archs[a] = true
				}
			}
		}
	default:
		all, err := c.List()
		if err != nil {
			return "", err
		}
		for _, k := range all {
			if k.is(ref) {
				archs[k.Arch] = true
			}
		}
	}
	if len(archs) != 1 {
		return "", nil
	}
	for a := range archs {
		return a, nil
	}
	return "", nil
}

// importFile analyses an image into dir.
func (c *Cache) importFile(path, dir string) (*Kernel, error) {
	data, err := bounded.ReadFile(path, image.MaxSize)
	if err != nil {
		return nil, err
	}
	img, err := image.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := cachedir.Make(c.fileDir(), 0o755); err != nil {
		return nil, err
	}
	folder, err := scratch.MakeFolder(c.fileDir(), tmpPrefix("", img.Arch))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	tmp := folder.Path
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	k := &Kernel{Dir: tmp, Source: KindFile, Series: seriesOf(img.Release), Arch: img.Arch, Release: img.Release, Path: path, Pulled: time.Now().UTC()}
	if config := img.Config(); config != nil {
		if err := writeFile(filepath.Join(tmp, configFile), config); err != nil {
			return nil, err
		}
	}
	if err := k.extract(img); err != nil {
		return nil, err
	}
	if err := writeMeta(filepath.Join(tmp, metaFile), k); err != nil {
		return nil, err
	}
	return keepFile(folder, dir)
}

// keepFile gives a kernel of the user's, made in folder, its place in the cache.
func keepFile(folder *scratch.Folder, dir string) (*Kernel, error) {
	err := folder.Keep(dir)
	if errors.Is(err, os.ErrExist) {
		// Another process made the same first, or what is there is damaged.
		if k, err := load(dir); err == nil {
			return k, nil
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		err = folder.Keep(dir)
	}
	if err != nil {
		return nil, err
	}
	return load(dir)
}

// imageOfTree finds the image in a built kernel tree, or in the directory that
// make's O= named.
func imageOfTree(tree, goarch string) (string, error) {
	var found, names, archs []string
	for _, a := range arch.All {
		for _, p := range a.Build.Images {
			if isFile(filepath.Join(tree, p)) {
				if a.Name == goarch {
					return filepath.Join(tree, p), nil
				}
				found, archs = append(found, filepath.Join(tree, p)), append(archs, a.Name)
				break
			}
		}
		names = append(names, a.Build.Images[0])
	}
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("no built kernel in this directory (looked for %s): build the tree, or pass the path of the image", strings.Join(names, ", "))
	case goarch != "":
		return "", fmt.Errorf("the tree has an image for %s, not %s", strings.Join(archs, " and "), goarch)
	case len(found) > 1:
		return "", fmt.Errorf("the tree has images for %s: choose with --arch", strings.Join(archs, " and "))
	}
	return found[0], nil
}

// configBeside reads the configuration that distributions and `make` put next to
// an image: config-RELEASE, config with the image's suffix, or .config, which may
// also be at the top of the tree that the image was built in.
func configBeside(path, release string) ([]byte, error) {
	dir, base := filepath.Split(path)
	names := []string{"config-" + release}
	for _, prefix := range []string{"vmlinuz", "vmlinux", "Image", "bzImage", "zImage"} {
		if rest, ok := strings.CutPrefix(base, prefix); ok {
			names = append(names, "config"+rest)
		}
	}
	names = append(names, ".config")
	if up := filepath.Dir(filepath.Clean(dir)); filepath.Base(filepath.Clean(dir)) == "boot" && filepath.Base(filepath.Dir(up)) == "arch" {
		names = append(names, "../../../.config")
	}
	for _, name := range names {
		data, err := bounded.ReadFile(filepath.Join(dir, name), maxConfig)
		if err == nil && bytes.Contains(data, []byte("CONFIG_")) {
			return data, nil
		}
	}
	return nil, fmt.Errorf("no configuration in %s or next to it", path)
}
