// Package cachedir is labctl's cache directory and the small JSON files in it that
// remember what was slow to find out.
package cachedir

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Env names the cache directory where the user's own is not wanted.
const Env = "LABCTL_CACHE"

// maxNote bounds a note, in bytes.
const maxNote = 1 << 20

// Dir is the cache directory as an absolute path: $LABCTL_CACHE, or labctl in the
// user's cache directory. It may not be there yet.
func Dir() (string, error) {
	dir := os.Getenv(Env)
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", outcome.Hostf("find a cache directory: %w; set %s to a directory that can be written", err, Env)
		}
		dir = filepath.Join(base, "labctl")
	}
	dir, err := filepath.Abs(dir)
	return dir, outcome.As(outcome.HostLacks, err)
}

// Make makes a directory of the cache, with its parents.
func Make(dir string, perm fs.FileMode) error {
	if err := os.MkdirAll(dir, perm); err != nil {
		return outcome.Hostf("make a cache directory: %w; set %s to a directory that can be written", err, Env)
	}
	return nil
}

// Recall reads the note called name into v. It reports false when there is none
// or it is unreadable, which is as good as none; v may be changed then.
func Recall(name string, v any) bool {
	dir, err := Dir()
	if err != nil {
		return false
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNote))
	return err == nil && json.Unmarshal(text, v) == nil
}

// Remember keeps v as the note called name. Readers see the old one or the new
// one whole; of two writers at once the later wins.
func Remember(name string, v any) error {
	dir, err := Dir()
	if err != nil {
		return err
	}
	if err := remember(dir, name, v); err != nil {
		return fmt.Errorf("remember %s: %w", name, err)
	}
	return nil
}

func remember(dir, name string, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	if err := Make(dir, 0o755); err != nil {
		return err
	}
	return scratch.Write(filepath.Join(dir, name), append(text, '\n'), 0o600)
}
