// Package warm keeps templates: machines that were saved when they had come up,
// from which others start in a fraction of a boot's time.
//
// A template is four files in one folder, KEY being a hash of all that went into
// the machine:
//
//	KEY.ram      its memory, sparse
//	KEY.state    the state of everything else
//	KEY.console  what its console said while it came up
//	KEY.json     what it is (type Info); written last, so it makes the template
//	KEY.hits     a byte for each start; its time is that of the last one
//
// While a template is made its files have no names, so that a maker that dies
// leaves nothing behind but KEY.lock, an empty file.
package warm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// host classifies what goes wrong with the files of templates.
func host(err error) error { return outcome.Default(outcome.HostLacks, err) }

// DefaultLimit is how many bytes of disk the templates may take in all.
const DefaultLimit = 4 << 30

// grace keeps a template that was just asked for from being removed before QEMU
// has opened it.
const grace = time.Minute

// Store is a folder of templates. Its methods may be called from several
// goroutines, and several processes may share the folder.
type Store struct {
	dir   string
	limit int64
}

// Open makes the store usable. An empty dir is the user's; a limit of 0 is
// DefaultLimit.
func Open(dir string, limit int64) (*Store, error) {
	if dir == "" {
		base, err := cachedir.Dir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(base, "templates")
	}
	if limit == 0 {
		limit = DefaultLimit
	}
	// The memory of a guest is nobody else's to read.
	if err := cachedir.Make(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open template store: %w", err)
	}
	return &Store{dir, limit}, nil
}

// Info says what a template is.
type Info struct {
	Target      string    `json:"target"`
	Kernel      string    `json:"kernel"` // release
	CPUs        int       `json:"cpus"`
	MemoryMB    int       `json:"memory_mb"`
	Commands    bool      `json:"commands"` // u-root's are in it
	Made        time.Time `json:"made"`
	BootSeconds float64   `json:"boot_seconds"` // of the boot that made it
}

// Template is one machine to start from.
type Template struct {
	Info
	Key   string    `json:"key"`
	Disk  int64     `json:"disk"` // bytes that its files take
	Hits  int64     `json:"hits"` // starts from it
	Used  time.Time `json:"used"` // last start
	store *Store
}

// RAM is the path of the memory.
func (t *Template) RAM() string { return t.store.file(t.Key, "ram") }

// State is the path of the devices' state.
func (t *Template) State() string { return t.store.file(t.Key, "state") }

// Console reads what the machine's console said while it came up.
func (t *Template) Console() ([]byte, error) { return os.ReadFile(t.store.file(t.Key, "console")) }

func (s *Store) file(key, kind string) string { return filepath.Join(s.dir, key+"."+kind) }

// Draft is a template that is being made.
type Draft struct {
	RAM     *os.File // as long as the memory, and empty
	State   *os.File
	Console io.Writer
}

// Get returns the template of that key. When there is none make fills a draft of
// memoryMB and says what it is. Of several callers at once, in any process, one
// makes it and the others wait.
func (s *Store) Get(ctx context.Context, key string, memoryMB int, make func(*Draft) (Info, error)) (*Template, error) {
	if t, err := s.use(key); err == nil {
		return t, nil
	}
	lock, err := scratch.TakeLock(ctx, s.file(key, "lock"))
	if err != nil {
		return nil, fmt.Errorf("wait for the template: %w", err)
	}
	defer lock.Release()
	if t, err := s.use(key); err == nil {
		return t, nil
	}
	s.remove(key) // what a template that is not whole has left
	if err := s.make(key, memoryMB, make); err != nil {
		return nil, err
	}
	t, err := s.use(key)
	if err != nil {
		return nil, host(fmt.Errorf("open the template: %w", err))
	}
	s.shrink(s.limit, key)
	return t, nil
}

// use opens a template and counts a hit.
func (s *Store) use(key string) (*Template, error) {
	t, err := s.open(key)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.file(key, "hits"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write([]byte{'.'})
	return t, errors.Join(err, f.Close())
}

// open reads what a template is. All its files must be there.
func (s *Store) open(key string) (*Template, error) {
	text, err := os.ReadFile(s.file(key, "json"))
	if err != nil {
		return nil, err
	}
	t := &Template{Key: key, store: s}
	if err := json.Unmarshal(text, &t.Info); err != nil {
		return nil, err
	}
	for _, kind := range []string{"ram", "state", "console"} {
		st, err := os.Stat(s.file(key, kind))
		if err != nil {
			return nil, err
		}
		t.Disk += st.Sys().(*syscall.Stat_t).Blocks * 512
	}
	t.Used = t.Made
	if st, err := os.Stat(s.file(key, "hits")); err == nil {
		t.Hits, t.Used = st.Size(), st.ModTime()
	}
	return t, nil
}

func (s *Store) make(key string, memoryMB int, fill func(*Draft) (Info, error)) (err error) {
	var d Draft
	var files [3]*os.File
	for i := range files {
		if files[i], err = nameless(s.dir); err != nil {
			return host(fmt.Errorf("make a template: %w", err))
		}
		defer files[i].Close()
	}
	d.RAM, d.State, d.Console = files[0], files[1], files[2]
	if err := d.RAM.Truncate(int64(memoryMB) << 20); err != nil {
		return host(fmt.Errorf("make a template: %w", err))
	}
	info, err := fill(&d)
	if err != nil {
		return err
	}
	info.Made = time.Now().UTC()
	for i, kind := range []string{"ram", "state", "console"} {
		if err := name(files[i], s.file(key, kind)); err != nil {
			s.remove(key)
			return host(fmt.Errorf("keep the template: %w", err))
		}
	}
	text, err := json.MarshalIndent(info, "", "\t")
	if err != nil {
		return err
	}
	f, err := nameless(s.dir)
	if err != nil {
		return host(fmt.Errorf("keep the template: %w", err))
	}
	defer f.Close()
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = name(f, s.file(key, "json"))
	}
	if err != nil {
		s.remove(key)
		return host(fmt.Errorf("keep the template: %w", err))
	}
	return nil
}

// nameless opens a file in dir that goes with its last descriptor.
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "make a file without a name in", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir, "(nameless)")), nil
}

// name gives a nameless file its name (open(2), O_TMPFILE).
func name(f *os.File, path string) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &fs.PathError{Op: "name", Path: path, Err: err}
	}
	return nil
}

// kinds are a template's files, the one that makes it first.
var kinds = []string{"json", "hits", "ram", "state", "console"}

// remove takes a template away. Machines that run from it keep it until they end.
func (s *Store) remove(key string) error {
	var errs []error
	for _, kind := range kinds {
		if err := os.Remove(s.file(key, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Drop removes the template. Machines that run from it keep it until they end.
func (t *Template) Drop() error { return t.store.remove(t.Key) }

// List gives the templates, the last used first.
func (s *Store) List() ([]*Template, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, host(fmt.Errorf("list templates: %w", err))
	}
	var all []*Template
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		if t, err := s.open(key); err == nil {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *Template) int {
		return cmp.Or(b.Used.Compare(a.Used), strings.Compare(a.Key, b.Key))
	})
	return all, nil
}

// GC removes the least recently used templates until the others take at most
// limit bytes, and whatever makers that died have left. It returns the templates
// that went.
func (s *Store) GC(limit int64) ([]*Template, error) {
	s.sweep()
	return s.shrink(limit, "")
}

func (s *Store) shrink(limit int64, keep string) ([]*Template, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var gone []*Template
	var sum int64
	for _, t := range all {
		sum += t.Disk
		if sum <= limit || t.Key == keep || limit > 0 && time.Since(t.Used) < grace {
			continue
		}
		if err := s.remove(t.Key); err != nil {
			return gone, host(fmt.Errorf("remove template %s: %w", t.Key, err))
		}
		sum -= t.Disk
		gone = append(gone, t)
	}
	return gone, nil
}

// sweep removes files that belong to no template, of keys that nobody is making.
func (s *Store) sweep() {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		key, kind, _ := strings.Cut(e.Name(), ".")
		if _, err := s.open(key); err == nil && kind != "lock" {
			continue
		}
		lock, err := scratch.TryLock(s.file(key, "lock"))
		if err != nil {
			continue
		}
		if _, err := s.open(key); err != nil {
			s.remove(key)
		}
		lock.Release()
	}
}
