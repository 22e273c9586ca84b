package initramfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
	"labctl/host/scratch"
)

const (
	cacheLimit = 1 << 30 // bytes
	// cacheGrace is how long a file is kept whatever the cache's size, so that QEMU
	// finds its image.
	cacheGrace = 10 * time.Minute
	// tempPrefix is the prefix of temporary build directories.
	tempPrefix = ".tmp-"
)

// DefaultDir returns the directory where archives are cached: initramfs in
// $LABCTL_CACHE, or in labctl in the user's cache directory.
func DefaultDir() (string, error) {
	dir, err := cachedir.Dir()
	return filepath.Join(dir, "initramfs"), err
}

// cache is a directory of files whose names include a hash of all their inputs. Beside
// each is its seal (see cachedir.Seal), whose modification time is that of its last use.
type cache struct {
	dir   string
	limit int64 // total bytes; beyond it the oldest files are removed
	grace time.Duration
}

// get returns the file called name, and writes it with fill if it does not exist. Of
// several concurrent callers, in any process, one fills and the others wait.
func (c cache) get(ctx context.Context, name string, fill func(io.Writer) error) (path string, hit bool, err error) {
	path = filepath.Join(c.dir, name)
	if ok, err := c.touch(ctx, path); ok || err != nil {
		return path, ok, err
	}
	// One lock for each kind and architecture, not for each file: lock files
	// can't be removed safely, so there should be few.
	kind := name[:strings.LastIndexByte(name, '-')]
	unlock, err := c.lock(ctx, kind+".lock", false)
	if err != nil {
		return "", false, err
	}
	defer unlock()
	if ok, err := c.touch(ctx, path); ok || err != nil {
		return path, ok, err
	}
	if err := c.write(path, fill); err != nil {
		return "", false, err
	}
	return path, false, c.prune(ctx)
}

// write creates path atomically.
func (c cache) write(path string, fill func(io.Writer) error) error {
	f, err := scratch.Create(filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Keep(filepath.Base(path), 0o644); err != nil {
		return err
	}
	return cachedir.Seal(path, "")
}

// touch reports whether path exists, as it was written, and marks it as used. It takes the prune lock, so
// that a file it has found is not removed at the same time. In a cache of another user's
// that has no lock for everybody cacheGrace has to do.
func (c cache) touch(ctx context.Context, path string) (bool, error) {
	switch unlock, err := c.lock(ctx, "prune.lock", true); {
	case err == nil:
		defer unlock()
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS):
		return false, err
	}
	return cachedir.Check(path, "") == nil, nil
}

// cached is a file of the cache.
type cached struct {
	name string
	size int64
	used time.Time
}

// prune removes the least recently used files until the rest fit.
func (c cache) prune(ctx context.Context) error {
	unlock, err := c.lock(ctx, "prune.lock", false)
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var (
		files []cached
		total int64
	)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // such as a build directory that was just removed
		}
		if filepath.Ext(e.Name()) == ".cpio" {
			used := info.ModTime()
			if seal, err := os.Stat(filepath.Join(c.dir, e.Name()+cachedir.SealSuffix)); err == nil {
				used = seal.ModTime()
			}
			files = append(files, cached{e.Name(), info.Size(), used})
			total += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b cached) int { return a.used.Compare(b.used) })
	for _, f := range files {
		if total <= c.limit || time.Since(f.used) < c.grace {
			break
		}
		path := filepath.Join(c.dir, f.name)
		if err := errors.Join(os.Remove(path), os.RemoveAll(path+cachedir.SealSuffix)); err != nil {
			return err
		}
		total -= f.size
	}
	return nil
}

func (c cache) lock(ctx context.Context, name string, shared bool) (unlock func(), err error) {
	l := flock.New(filepath.Join(c.dir, name))
	try := l.TryLockContext
	if shared {
		try = l.TryRLockContext
	}
	if _, err := try(ctx, 20*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.Path(), err)
	}
	return func() { l.Close() }, nil
}

// key hashes the inputs of a file. Each item is preceded by its length, so that
// different lists of items never result in the same bytes.
type key struct{ h hash.Hash }

func newKey(kind string) key {
	k := key{sha256.New()}
	k.add(format, kind)
	return k
}

func (k key) add(items ...string) {
	for _, s := range items {
		io.WriteString(k.h, strconv.Itoa(len(s))+":")
		io.WriteString(k.h, s)
	}
}

func (k key) sum() string { return hex.EncodeToString(k.h.Sum(nil))[:24] }

func (k key) name(kind, arch string) string {
	return kind + "-" + arch + "-" + k.sum() + ".cpio"
}
