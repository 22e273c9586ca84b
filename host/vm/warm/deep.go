package warm

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"labctl/host/cachedir"
)

// CheckAll reads every template, however its files are stamped, and removes those that
// are not as they were stored: they are made again when they are needed.
func (s *Store) CheckAll() (found cachedir.Sound, err error) {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), ".json")
		if _, err := s.open(key); ok && errors.Is(err, cachedir.ErrChanged) {
			found.Damaged = append(found.Damaged, err.Error())
		}
	}
	s.sweep()
	all, err := s.List()
	if err != nil {
		return found, err
	}
	for _, t := range all {
		for kind, f := range t.Files {
			found.Files++
			found.Bytes += f.Size
			if why := f.intact(s.file(t.Key, kind)); why != nil {
				found.Damaged = append(found.Damaged, fmt.Sprintf("template %s: its %s: %v", t.Key, kind, why))
				if err := t.Drop(); err != nil {
					return found, host(err)
				}
				break
			}
		}
	}
	return found, nil
}

// intact reads a file and compares it with what was stored.
func (s stored) intact(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if sum, err := sparseSum(f); err != nil || sum != s.SHA256 {
		return cachedir.ErrChanged
	}
	return nil
}
