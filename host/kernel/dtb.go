package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"labctl/host/bounded"
	"labctl/host/nearest"
	"labctl/host/outcome"
)

// DTB returns the path of a device tree by its packaged name, with or without
// the vendor directory and the suffix: "bcm2837-rpi-3-b",
// "broadcom/bcm2837-rpi-3-b.dtb". A kernel whose device trees are in a single
// directory has no vendor directories. For a kernel in a file, DTB searches next
// to it, where `make dtbs` and `make dtbs_install` put them.
func (k *Kernel) DTB(name string) (_ string, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	want := strings.TrimSuffix(name, ".dtb") + ".dtb"
	if !fs.ValidPath(want) {
		return "", fmt.Errorf("device tree %q of kernel %s: want a name such as broadcom/bcm2837-rpi-3-b.dtb", name, k)
	}
	for _, dir := range k.dtbDirs() {
		for _, at := range []string{want, path.Base(want)} {
			if p := filepath.Join(dir, filepath.FromSlash(at)); isFile(p) {
				return p, k.verifyDTB(p)
			}
		}
	}
	found, known := "", []string(nil)
	err = filepath.WalkDir(filepath.Join(k.Dir, dtbDir), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if d.Name() == path.Base(want) && !strings.Contains(want, "/") {
			found = p
			return fs.SkipAll
		}
		known = append(known, strings.TrimSuffix(d.Name(), ".dtb"))
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("device tree %s of kernel %s: %w", name, k, err)
	}
	if found != "" {
		return found, k.verifyDTB(found)
	}
	if len(known) == 0 {
		return "", fmt.Errorf("device tree %s: kernel %s has no device trees", name, k)
	}
	return "", fmt.Errorf("device tree %s: kernel %s has none with that name%s", name, k, nearest.Hint(path.Base(strings.TrimSuffix(want, ".dtb")), known))
}

// dtbSums has the sha256 of each device tree by its path below dtb/: there are a
// thousand of them.
const dtbSums = "dtb.json"

// sumDTBs writes dtbSums, if there are device trees.
func (k *Kernel) sumDTBs() error {
	sums := map[string]File{}
	root := filepath.Join(k.Dir, dtbDir)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err == nil {
			sums[filepath.ToSlash(name)], err = hashFile(p)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(sums) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("device trees of kernel %s: %w", k, err)
	}
	return writeJSON(k.file(dtbSums), sums)
}

// dtbSums reads dtbSums. It is empty for a kernel of a file, and for one that was stored
// before there were such sums.
func (k *Kernel) dtbSums() (map[string]File, error) {
	sums := map[string]File{}
	if _, ok := k.Files[dtbSums]; !ok {
		return sums, nil
	}
	if err := k.verifyFile(dtbSums, true); err != nil {
		return nil, err
	}
	data, err := bounded.ReadFile(k.file(dtbSums), maxMeta)
	if err == nil {
		err = json.Unmarshal(data, &sums)
	}
	return sums, err
}

// verifyDTB checks a device tree of the kernel's directory. The error is a *CorruptError.
func (k *Kernel) verifyDTB(path string) error {
	name, err := filepath.Rel(filepath.Join(k.Dir, dtbDir), path)
	if err != nil || !filepath.IsLocal(name) {
		return nil // beside an image of the user's
	}
	sums, err := k.dtbSums()
	if err != nil || len(sums) == 0 {
		return err
	}
	want, got := sums[filepath.ToSlash(name)], File{}
	if got, err = hashFile(path); err == nil && got != want {
		err = fmt.Errorf("sha256 %.12s…, want %.12s…", got.SHA256, want.SHA256)
	}
	if err != nil {
		return &CorruptError{Kernel: k.name(), File: path, Why: err.Error()}
	}
	return nil
}

// dtbDirs returns the directories to search for a kernel's device trees.
func (k *Kernel) dtbDirs() []string {
	if k.Path == "" {
		return []string{filepath.Join(k.Dir, dtbDir)}
	}
	beside := filepath.Dir(k.Path)
	return []string{filepath.Join(beside, "dts"), filepath.Join(beside, "dtbs", k.Release), filepath.Join(beside, "dtbs"), beside}
}

// LentDTB returns a device tree from another cached kernel, the newest that has
// it. A device tree describes the hardware, so it fits any kernel of about the
// same age.
func (c *Cache) LentDTB(k *Kernel, name string) (path string, from *Kernel, err error) {
	all, err := c.List()
	if err != nil {
		return "", nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if other := all[i]; other.Arch == k.Arch && other.Dir != k.Dir {
			if path, err := other.DTB(name); err == nil {
				return path, other, nil
			}
		}
	}
	return "", nil, outcome.Inputf("device tree %s: no other cached kernel has it", name)
}

func isFile(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular()
}
