package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"labctl/guest/wire"
)

// kept are programs that were sent once, by what is in them. A machine that many
// commands use gets a program again by a link: the same pages, so that what QEMU has
// translated of them is still good, and nothing travels. The zero kept keeps nothing.
type kept struct {
	dir string // below the root of every archive

	mu    sync.Mutex
	files map[string]keptFile
	bytes int64
}

// keptFile is one of them, as it was stored.
type keptFile struct {
	size    int64
	changed time.Time
	used    time.Time
}

// maxKept bounds them, in bytes: they are in the guest's memory.
const maxKept = 96 << 20

// goodKey is the form of wire.KeepRecord: the checksum, and the mode in octal.
var goodKey = regexp.MustCompile(`^[0-9a-f]{64}-[0-7]{3,4}$`)

func (k *kept) path(key string) string { return filepath.Join(k.dir, key) }

// within is path's name below the directory dir.
func within(dir, path string) (string, error) {
	rel, err := filepath.Rel(dir, path)
	if err == nil && !filepath.IsLocal(rel) {
		err = fmt.Errorf("%s is not below %s", path, dir)
	}
	return rel, err
}

// keep notes a file that was just unpacked.
func (k *kept) keep(root *os.Root, dir, name, key string) error {
	if k.dir == "" {
		return nil
	}
	if !goodKey.MatchString(key) {
		return fmt.Errorf("key %.80q of a file to keep", key)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.check(key); ok {
		return nil
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	fi, err := root.Lstat(name)
	if err != nil {
		return err
	}
	k.makeRoom(fi.Size())
	if k.bytes+fi.Size() > maxKept {
		return nil
	}
	to, err := within(dir, k.path(key))
	if err != nil {
		return nil // on another file system, for all that is known
	}
	if err := root.Link(name, to); err != nil {
		return err
	}
	if k.files == nil {
		k.files = map[string]keptFile{}
	}
	k.files[key] = keptFile{size: fi.Size(), changed: fi.ModTime(), used: time.Now()}
	k.bytes += fi.Size()
	return nil
}

// link makes name another name of a kept file; false if there is none, or it was
// written to since.
func (k *kept) link(root *os.Root, dir, name, key string) (bool, error) {
	if k.dir == "" {
		return false, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.check(key)
	if !ok {
		return false, nil
	}
	from, err := within(dir, k.path(key))
	if err != nil {
		return false, nil
	}
	if err := root.Link(from, name); err != nil {
		return false, err
	}
	f.used = time.Now()
	k.files[key] = f
	return true, nil
}

// check finds a kept file and drops one that is not as it was.
func (k *kept) check(key string) (keptFile, bool) {
	f, ok := k.files[key]
	if !ok {
		return f, false
	}
	fi, err := os.Lstat(k.path(key))
	if err == nil && fi.Mode().IsRegular() && fi.Size() == f.size && fi.ModTime().Equal(f.changed) {
		return f, true
	}
	k.drop(key)
	return f, false
}

func (k *kept) drop(key string) {
	os.Remove(k.path(key))
	k.bytes -= k.files[key].size
	delete(k.files, key)
}

// makeRoom drops what was not used for longest.
func (k *kept) makeRoom(size int64) {
	for k.bytes+size > maxKept && len(k.files) > 0 {
		oldest := ""
		for key, f := range k.files {
			if oldest == "" || f.used.Before(k.files[oldest].used) {
				oldest = key
			}
		}
		k.drop(oldest)
	}
}

// remove removes a workspace with all that is in it.
func remove(p wire.RemoveParams) error {
	if path.Clean(p.Dir) != p.Dir || path.Dir(p.Dir) != wire.WorkspaceDir || strings.HasPrefix(path.Base(p.Dir), ".") {
		return fmt.Errorf("remove %.200q: not a directory directly below %s", p.Dir, wire.WorkspaceDir)
	}
	err := os.RemoveAll(p.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}
