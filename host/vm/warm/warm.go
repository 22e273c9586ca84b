// Package warm manages warm-start templates: machines saved after boot, from which
// others start in a fraction of the boot time.
//
// A template is these files in one directory, where KEY is a hash of everything that
// determines the machine:
//
//	KEY.ram      its memory, sparse
//	KEY.state    the state of everything else
//	KEY.console  its console output during boot
//	KEY.json     its description (type Info); written last, which completes the template
//	KEY.anchor   where the kernel is in its memory, once that was asked for
//	KEY.hits     a byte per start; its modification time is that of the last one
//
// While a template is being created its files have no names, so that a killed process
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

	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// host classifies errors with the files of templates.
func host(err error) error { return outcome.Default(outcome.HostLacks, err) }

// DefaultLimit is the disk space that all templates together may use, in bytes.
const DefaultLimit = 4 << 30

// maxInfo and maxConsole bound a template's description and console, in bytes.
const (
	maxInfo    = 1 << 20
	maxConsole = 16 << 20
)

// grace protects a template that was just requested from being removed before QEMU
// has opened it.
const grace = time.Minute

// Store is a directory of templates. Its methods are safe for concurrent use, and
// several processes may share the directory.
type Store struct {
	Say func(line string) // when set, told of templates that are made again

	dir   string
	limit int64
}

// Open opens the store in dir. An empty dir means the user's cache; a limit of 0 means
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
	// Other users must not be able to read a guest's memory.
	if err := cachedir.Make(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open template store: %w", err)
	}
	return &Store{dir: dir, limit: limit}, nil
}

// Info describes a template.
type Info struct {
	Target      string    `json:"target"`
	Kernel      string    `json:"kernel"` // release
	CPUs        int       `json:"cpus"`
	MemoryMB    int       `json:"memory_mb"`
	Commands    bool      `json:"commands"` // includes u-root's commands
	Made        time.Time `json:"made"`
	BootSeconds float64   `json:"boot_seconds"` // duration of the boot before it was saved

	Files map[string]stored `json:"files"` // by kind
}

// Template is a saved machine to start from.
type Template struct {
	Info
	Key   string    `json:"key"`
	Disk  int64     `json:"disk"` // disk space of its files, in bytes
	Hits  int64     `json:"hits"` // starts from it
	Used  time.Time `json:"used"` // last start
	store *Store
}

// RAM returns the path of the memory.
func (t *Template) RAM() string { return t.store.file(t.Key, "ram") }

// State returns the path of the devices' state.
func (t *Template) State() string { return t.store.file(t.Key, "state") }

// Console returns the machine's console output during boot.
func (t *Template) Console() ([]byte, error) {
	return bounded.ReadFile(t.store.file(t.Key, "console"), maxConsole)
}

func (s *Store) file(key, kind string) string { return filepath.Join(s.dir, key+"."+kind) }

// Draft is a template that is being created.
type Draft struct {
	RAM     *os.File // empty, of the memory's size
	State   *os.File
	Console io.Writer
}

// Get returns the template with that key. If there is none, make fills a draft with
// memoryMB of memory and returns its description. Of several concurrent callers, in
// any process, one creates the template and the others wait.
func (s *Store) Get(ctx context.Context, key string, memoryMB int, make func(*Draft) (Info, error)) (*Template, error) {
	if t, err := s.use(key); err == nil {
		return t, nil
	}
	lock, err := scratch.TakeLock(ctx, s.file(key, "lock"))
	if err != nil {
		return nil, fmt.Errorf("wait for the template: %w", err)
	}
	defer lock.Release()
	t, err := s.use(key)
	if err == nil {
		return t, nil
	}
	if errors.Is(err, cachedir.ErrChanged) && s.Say != nil {
		s.Say(err.Error() + "; made again")
	}
	s.remove(key) // leftovers of an incomplete template
	if err := s.make(key, memoryMB, make); err != nil {
		return nil, err
	}
	if t, err = s.use(key); err != nil {
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
	if t.Files == nil {
		return nil, fmt.Errorf("template %s is of another labctl", key)
	}
	if err := s.check(t); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.file(key, "hits"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return t, nil // another user's, or an image's: a hit all the same
	}
	if err != nil {
		return nil, err
	}
	_, err = f.Write([]byte{'.'})
	return t, errors.Join(err, f.Close())
}

// open reads a template's description. All its files must exist.
func (s *Store) open(key string) (*Template, error) {
	text, err := bounded.ReadFile(s.file(key, "json"), maxInfo)
	if err != nil {
		return nil, err
	}
	t := &Template{Key: key, store: s}
	err = cachedir.UnmarshalSummed(text, &t.Info)
	if errors.Is(err, cachedir.ErrNoSeal) { // an older labctl's, to which it may be of use
		err = json.Unmarshal(text, &t.Info)
	}
	if err != nil {
		return nil, fmt.Errorf("template %s: its description: %w", key, err)
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
	// The memory is sparse, and written by mapping it.
	if err := scratch.Room(s.dir, int64(memoryMB)<<20); err != nil {
		return fmt.Errorf("create a template: %w", err)
	}
	var d Draft
	var files [3]*os.File
	for i := range files {
		if files[i], err = nameless(s.dir); err != nil {
			return host(fmt.Errorf("create a template: %w", err))
		}
		defer files[i].Close()
	}
	d.RAM, d.State, d.Console = files[0], files[1], files[2]
	if err := d.RAM.Truncate(int64(memoryMB) << 20); err != nil {
		return host(fmt.Errorf("create a template: %w", err))
	}
	info, err := fill(&d)
	if err != nil {
		return err
	}
	info.Made = time.Now().UTC()
	for i, kind := range []string{"ram", "state", "console"} {
		if err := link(files[i], s.file(key, kind)); err != nil {
			s.remove(key)
			return host(fmt.Errorf("store the template: %w", err))
		}
	}
	info.Files = map[string]stored{}
	for i, kind := range []string{"ram", "state", "console"} {
		if info.Files[kind], err = storedAs(files[i]); err != nil {
			s.remove(key)
			return host(fmt.Errorf("store the template: %w", err))
		}
	}
	if err := s.writeInfo(key, info); err != nil {
		s.remove(key)
		return host(fmt.Errorf("store the template: %w", err))
	}
	return nil
}

func (s *Store) writeInfo(key string, info Info) error {
	text, err := cachedir.MarshalSummed(info)
	if err != nil {
		return err
	}
	return scratch.Write(s.file(key, "json"), text, 0o600)
}

// check holds a template's files against what was stored. Where they were touched or
// copied, and are the same, that is noted for the next time, if it can be.
func (s *Store) check(t *Template) error {
	moved := false
	for _, kind := range []string{"ram", "state", "console"} {
		ok, now, err := t.Files[kind].same(s.file(t.Key, kind))
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("template %s: its %s: %w", t.Key, kind, cachedir.ErrChanged)
		}
		if now != nil {
			t.Files[kind], moved = *now, true
		}
	}
	if moved {
		_ = s.writeInfo(t.Key, t.Info) // of another user, or read-only: each start reads it again
	}
	return nil
}

// nameless opens an unnamed file in dir, which is deleted with its last descriptor.
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "create an unnamed file in", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir, "(nameless)")), nil
}

// link gives an open file a path, an unnamed one its first (open(2), O_TMPFILE).
func link(f *os.File, path string) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &fs.PathError{Op: "name", Path: path, Err: err}
	}
	return nil
}

// kinds are the suffixes of a template's files. The first one makes it complete.
var kinds = []string{"json", "hits", "ram", "state", "console", "anchor"}

// remove removes a template. Machines that run from it are not affected.
func (s *Store) remove(key string) error {
	var errs []error
	for _, kind := range kinds {
		if err := os.Remove(s.file(key, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Drop removes the template. Machines that run from it are not affected.
func (t *Template) Drop() error { return t.store.remove(t.Key) }

// List returns the templates, most recently used first.
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

// GC removes the least recently used templates until the others use at most limit
// bytes, and the leftovers of killed processes. It returns the removed templates.
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

// sweep removes files that belong to no template, unless a template with their key is
// being created.
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

// Anchor returns what KeepAnchor kept of a template.
func (s *Store) Anchor(key string) ([]byte, error) { return os.ReadFile(s.file(key, "anchor")) }

// KeepAnchor keeps, with a template, where its kernel is in memory, which is the same in
// all machines that start from it. Whoever uses it checks it.
func (s *Store) KeepAnchor(key string, data []byte) error {
	if _, err := s.open(key); err != nil {
		return err // it was removed
	}
	return scratch.Write(s.file(key, "anchor"), data, 0o600)
}
