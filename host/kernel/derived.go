package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
)

// Derived returns a file of the kernel's directory that is made from its image when it
// is first needed: its path, and its contents if they were made now. A file that is
// not as it was written is made again, and Say is told. If the cache cannot be written
// the path is empty.
func (k *Kernel) Derived(name string, make func() ([]byte, error)) (path string, made []byte, err error) {
	path = filepath.Join(k.Dir, name)
	image := k.Files[imageFile].SHA256
	switch err := cachedir.Check(path, image); {
	case err == nil:
		return path, nil, nil
	case errors.Is(err, cachedir.ErrChanged) && k.say != nil:
		k.say(fmt.Sprintf("kernel %s: %s: %v: made again", k, name, err))
	}
	if made, err = make(); err != nil {
		return "", nil, err
	}
	// In this order: a file without its seal is made again.
	err = errors.Join(os.RemoveAll(path+cachedir.SealSuffix), writeFile(path, made))
	if err == nil {
		err = cachedir.Seal(path, image)
	}
	switch {
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return "", made, nil
	case err != nil:
		return "", nil, outcome.Default(outcome.HostLacks, fmt.Errorf("%s of kernel %s: %w", name, k, err))
	}
	return path, made, nil
}

// DerivedData is Derived for contents.
func (k *Kernel) DerivedData(name string, make func() ([]byte, error)) ([]byte, error) {
	path, data, err := k.Derived(name, make)
	if err != nil || data != nil {
		return data, err
	}
	if data, err = bounded.ReadFile(path, image.MaxSize); err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("%s of kernel %s: %w", name, k, err))
	}
	return data, nil
}
