// Package cachedir manages labctl's cache directory and the small JSON files in it
// that cache slow queries.
package cachedir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Env is the environment variable that overrides the default cache directory.
const Env = "LABCTL_CACHE"

// maxNote limits the size of a note, in bytes.
const maxNote = 1 << 20

// Dir returns the absolute path of the cache directory: $LABCTL_CACHE, or labctl in
// the user's cache directory. It may not exist yet.
func Dir() (string, error) {
	dir := os.Getenv(Env)
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", outcome.Hostf("find a cache directory: %w; set %s to a writable directory", err, Env)
		}
		dir = filepath.Join(base, "labctl")
	}
	dir, err := filepath.Abs(dir)
	return dir, outcome.As(outcome.HostLacks, err)
}

// Make creates a directory of the cache, with its parents.
func Make(dir string, perm fs.FileMode) error {
	if err := os.MkdirAll(dir, perm); err != nil {
		return outcome.Hostf("create a cache directory: %w; set %s to a writable directory", err, Env)
	}
	return nil
}

// Recall reads the note called name into v. It returns false if there is none or it
// is not as it was stored; v may have been modified then.
func Recall(name string, v any) bool {
	dir, err := Dir()
	if err != nil {
		return false
	}
	text, err := bounded.ReadFile(filepath.Join(dir, name), maxNote)
	return err == nil && UnmarshalSummed(text, v) == nil
}

// Remember stores v as the note called name, atomically. Of two concurrent writers
// the last one wins.
func Remember(name string, v any) error {
	dir, err := Dir()
	if err != nil {
		return err
	}
	if err := remember(dir, name, v); err != nil {
		return fmt.Errorf("store note %s: %w", name, err)
	}
	return nil
}

func remember(dir, name string, v any) error {
	text, err := MarshalSummed(v)
	if err != nil {
		return err
	}
	if err := Make(dir, 0o755); err != nil {
		return err
	}
	return scratch.Write(filepath.Join(dir, name), text, 0o600)
}
