package cachedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Sound is what a thorough check of files has found.
type Sound struct {
	Files   int
	Bytes   int64
	Damaged []string // a line for each file that was not as it was stored, and was removed
}

// CheckSealed reads the sealed files of a directory, however they are stamped, and
// removes those that are not as they were stored, to be made again when they are
// needed. It leaves out directories below it.
func CheckSealed(dir string) (s Sound, err error) {
	seals, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	for _, e := range seals {
		name, ok := strings.CutSuffix(e.Name(), SealSuffix)
		if !ok {
			continue
		}
		path := filepath.Join(dir, name)
		fi, statErr := os.Stat(path)
		if statErr == nil {
			s.Files++
			s.Bytes += fi.Size()
		}
		why := sameAsSealed(path)
		if why == nil {
			continue
		}
		if statErr == nil {
			s.Damaged = append(s.Damaged, fmt.Sprintf("%s: %v", path, why))
		}
		err = errors.Join(err, os.RemoveAll(path), os.RemoveAll(path+SealSuffix))
	}
	return s, err
}

// sameAsSealed reads a file and compares it with its seal.
func sameAsSealed(path string) error {
	want, err := readSeal(path)
	if err != nil {
		return err
	}
	if got, err := sealOf(path); err != nil || got.SHA256 != want.SHA256 || got.Size != want.Size {
		return ErrChanged
	}
	return nil
}
