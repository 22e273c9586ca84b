package compile

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Single returns a file as the only one of a file system, at its top. It may be a
// symbolic link, as what a user names may be.
func Single(path string) fs.FS { return single(path) }

type single string

func (s single) Open(name string) (fs.File, error) {
	if name != filepath.Base(string(s)) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return os.Open(string(s))
}

func (s single) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	fi, err := os.Stat(string(s))
	if err != nil {
		return nil, err
	}
	return []fs.DirEntry{named{fs.FileInfoToDirEntry(fi), filepath.Base(string(s))}}, nil
}

// named is an entry with the name of the link to it.
type named struct {
	fs.DirEntry
	name string
}

func (n named) Name() string { return n.name }
