package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"labctl/host/outcome"
)

// sumSuffix makes the name of the file that says what a derived file must be.
const sumSuffix = ".sum"

// derivedSum is a derived file as it was written, and the image that it was made from.
type derivedSum struct {
	Image string `json:"image_sha256"`
	File
}

// Derived returns a file of the kernel's directory that is made from its image when it
// is first needed: its path, and its contents if they were made now. A file that is
// not as it was written is made again, and Say is told. If the cache cannot be written
// the path is empty.
func (k *Kernel) Derived(name string, make func() ([]byte, error)) (path string, made []byte, err error) {
	path = filepath.Join(k.Dir, name)
	switch good, err := k.derivedIsGood(name, path); {
	case good:
		return path, nil, nil
	case err != nil && k.say != nil:
		k.say(fmt.Sprintf("kernel %s: %s %v: made again", k, name, err))
	}
	if made, err = make(); err != nil {
		return "", nil, err
	}
	sum, err := hashBytes(made)
	if err == nil {
		// In this order: a file without its sum is made again.
		err = errors.Join(os.RemoveAll(path+sumSuffix), writeFile(path, made))
	}
	if err == nil {
		err = writeJSON(path+sumSuffix, derivedSum{k.Files[imageFile].SHA256, sum})
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
	if data, err = os.ReadFile(path); err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("%s of kernel %s: %w", name, k, err))
	}
	return data, nil
}

// derivedIsGood reports whether a derived file is as it was written. The error is why
// one that was there is not.
func (k *Kernel) derivedIsGood(name, path string) (bool, error) {
	data, err := os.ReadFile(path + sumSuffix)
	if err != nil {
		return false, nil
	}
	var want derivedSum
	if json.Unmarshal(data, &want) != nil || want.Image != k.Files[imageFile].SHA256 {
		return false, nil // of another image, or half of one
	}
	f, err := os.Open(path)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return false, err
	case st.Size() != want.Size:
		return false, fmt.Errorf("has %d bytes, want %d", st.Size(), want.Size)
	case k.known(name, st, want.SHA256):
		return true, nil
	}
	got, err := hashOf(f)
	switch {
	case err != nil:
		return false, err
	case got.SHA256 != want.SHA256:
		return false, errors.New("has changed")
	}
	k.remember(name, st, want.SHA256)
	return true, nil
}
