package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"labctl/host/kernel/image"
	"labctl/host/scratch"
)

// fileKernel makes a kernel of an image file. What labctl finds in the image is
// kept under the image's sha256, so the second use reads and hashes the file
// only. The configuration is the one embedded in the image, else a file config
// or config-* beside it that belongs to it by name.
func (c *Cache) fileKernel(path, arch string) (*Kernel, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", path, err)
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
	k.Path, k.Files[imageFile] = abs, sum
	k.init()
	if arch != "" && k.Arch != arch {
		return nil, fmt.Errorf("kernel %s: the image is for %s, not %s", path, k.Arch, arch)
	}
	return k, nil
}

// importFile analyses an image into dir.
func (c *Cache) importFile(path, dir string) (*Kernel, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	img, err := image.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.fileDir(), 0o755); err != nil {
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
	if err := writeJSON(filepath.Join(tmp, metaFile), k); err != nil {
		return nil, err
	}
	err = folder.Keep(dir)
	if errors.Is(err, os.ErrExist) {
		// Another process put the same analysis there first, or it is damaged.
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

// configBeside reads the configuration that distributions and `make` put beside
// an image: config-RELEASE, config with the image's own suffix, or .config.
func configBeside(path, release string) ([]byte, error) {
	dir, base := filepath.Split(path)
	names := []string{"config-" + release}
	for _, prefix := range []string{"vmlinuz", "vmlinux", "Image", "bzImage", "zImage"} {
		if rest, ok := strings.CutPrefix(base, prefix); ok {
			names = append(names, "config"+rest)
		}
	}
	for _, name := range append(names, ".config") {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && bytes.Contains(data, []byte("CONFIG_")) {
			return data, nil
		}
	}
	return nil, fmt.Errorf("no configuration in or beside %s", path)
}
