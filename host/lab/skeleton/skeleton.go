// Package skeleton writes new labs: one that works and waits to be changed, or a copy
// of another.
package skeleton

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"labctl/host/bounded"
	"labctl/host/lab"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// maxFile bounds a file of a lab that is copied, in bytes.
const maxFile = 16 << 20

//go:embed all:new
var files embed.FS

var form = regexp.MustCompile(`^[A-Z][0-9]{1,2}$`)

// Options are a new lab.
type Options struct {
	ID       string
	Dir      string   // labs are directories of it
	From     *lab.Lab // copied; nil: the lab that works
	Withhold bool     // of the copy: no solution and no wrong programs
}

// Write writes a lab and returns its directory, which comes whole or not at all.
func Write(o Options) (dir string, err error) {
	if !form.MatchString(o.ID) {
		return "", outcome.Inputf("%q is no id of a lab; write it as W1: a capital letter and one or two digits", o.ID)
	}
	src, err := fs.Sub(files, "new")
	if err != nil {
		return "", err
	}
	old, rest := "W1", "new"
	if o.From != nil {
		src, old = o.From.Dir, o.From.ID
		_, rest, _ = strings.Cut(filepath.Base(filepath.Dir(o.From.File)), "-")
	}
	taken, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(o.Dir), o.ID+"-*"))
	if err != nil || len(taken) > 0 {
		return "", outcome.Inputf("%s is there already; take another id", strings.Join(taken, ", "))
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return "", outcome.Default(outcome.BadInput, fmt.Errorf("write lab: %w", err))
	}
	temp, err := scratch.MakeFolder(o.Dir, ".labctl-new-")
	if err != nil {
		return "", outcome.Default(outcome.BadInput, fmt.Errorf("write lab: %w", err))
	}
	defer temp.Close()
	err = fs.WalkDir(src, ".", func(name string, e fs.DirEntry, err error) error {
		to := filepath.Join(temp.Path, filepath.FromSlash(name))
		switch {
		case err != nil:
			return err
		case o.Withhold && (name == lab.Solution || name == lab.Wrong):
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(to, 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		data, err := bounded.ReadFileFS(src, name, maxFile)
		if err != nil {
			return err
		}
		if name == lab.Config {
			data = adapt(data, old, o)
		}
		return os.WriteFile(to, data, 0o644)
	})
	dir = filepath.Join(o.Dir, o.ID+"-"+rest)
	if err == nil {
		err = os.Chmod(temp.Path, 0o755)
	}
	if err == nil {
		err = temp.Keep(dir)
	}
	if err != nil {
		return "", outcome.Default(outcome.HostLacks, fmt.Errorf("write lab: %w", err))
	}
	return dir, nil
}

// adapt gives a lab.yaml its id, and says that the solution is withheld.
func adapt(data []byte, old string, o Options) []byte {
	data = bytes.Replace(data, []byte("id: "+old+"\n"), []byte("id: "+o.ID+"\n"), 1)
	if o.Withhold {
		data = bytes.Replace(data, []byte("\nexercise:\n"), []byte("\nexercise:\n  withheld: true\n"), 1)
	}
	return data
}
