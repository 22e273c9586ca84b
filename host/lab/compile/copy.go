package compile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"labctl/host/bounded"
	"labctl/host/lab"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Copy copies a directory of a lab with a Go program, and a go.mod with it, to one
// that is not there yet, and then comes whole or not at all, or that is empty.
func Copy(l *lab.Lab, from, dir string) error {
	old, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if what := bounded.CheckDir(dir); what != nil {
			return fmt.Errorf("%s: %w; give another", dir, what)
		}
		return outcome.Default(outcome.BadInput, err)
	}
	if len(old) > 0 {
		return outcome.Inputf("%s is there already and has files in it; give another directory", dir)
	}
	if err == nil { // somebody's shell may be in it
		return writeCopy(l, from, dir)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	temp, err := scratch.MakeFolder(parent, ".labctl-exercise-")
	if err != nil {
		return err
	}
	defer temp.Close()
	if err := errors.Join(writeCopy(l, from, temp.Path), os.Chmod(temp.Path, 0o755)); err != nil {
		return err
	}
	return temp.Keep(dir)
}

func writeCopy(l *lab.Lab, from, dir string) error {
	entries, err := fs.ReadDir(l.Dir, from)
	for _, e := range entries {
		if err != nil || !e.Type().IsRegular() {
			continue
		}
		var b []byte
		if b, err = l.ReadFile(path.Join(from, e.Name())); err == nil {
			err = scratch.Write(filepath.Join(dir, e.Name()), b, 0o644)
		}
	}
	if err == nil {
		err = scratch.Write(filepath.Join(dir, "go.mod"), []byte(GoMod), 0o644)
	}
	if err != nil {
		return fmt.Errorf("copy %s of lab %s: %w", from, l.ID, err)
	}
	return nil
}
