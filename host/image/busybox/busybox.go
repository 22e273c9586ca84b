// Package busybox gets the commands that a guest has besides u-root's: Debian's
// busybox-static of the guest's architecture, by the same verified road as kernels.
package busybox

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/text"
)

// Source is where busybox comes from.
type Source struct {
	Suite     string `yaml:"suite"`
	Component string `yaml:"component"`
	Package   string `yaml:"package"`
	File      string `yaml:"file"` // of the program in the package
}

// Busybox is a program in the cache.
type Busybox struct {
	Path string
	debian.Package
}

const (
	// again is how long a host that could not get busybox is not asked again: without
	// a mirror it takes long to find out.
	again = 24 * time.Hour
	// patience is how long a mirror may take.
	patience = 2 * time.Minute
	// maxWhy is how much is said of why there is none, in bytes.
	maxWhy = 300
	// maxProgram is ample: Debian's has 2 MB.
	maxProgram = 16 << 20
)

// Store is the directory where busybox is cached, one for each architecture.
type Store struct {
	dir  string
	root func(Source, arch.Arch) repository
}

// repository is a package archive, see debian.Root.
type repository interface {
	Lookup(ctx context.Context, name, version string, report func(debian.Progress)) (debian.Package, error)
	Download(ctx context.Context, pkgs []debian.Package, report func(debian.Progress)) ([]string, error)
	Drop() error
}

// Open opens the store of the user's cache directory.
func Open() (*Store, error) {
	dir, err := cachedir.Dir()
	if err != nil {
		return nil, err
	}
	return &Store{dir: filepath.Join(dir, "busybox"), root: func(s Source, a arch.Arch) repository {
		return &debian.Root{Dir: filepath.Join(dir, "apt", s.Package+"-"+a.Name), Suite: s.Suite, Component: s.Component, Arch: a.Debian}
	}}, nil
}

// refusal is what is remembered of an attempt that failed.
type refusal struct {
	When   time.Time `json:"when"`
	Mirror string    `json:"mirror"` // as the user gave it
	Why    string    `json:"why"`
}

// RefusedError reports that busybox cannot be had, now or at an attempt of late.
type RefusedError struct {
	Arch string
	Err  error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("no busybox for %s: %s", e.Arch, text.Line(e.Err.Error(), maxWhy))
}

func (e *RefusedError) Unwrap() error { return e.Err }

// Outcome is HostLacks.
func (e *RefusedError) Outcome() outcome.Kind { return outcome.HostLacks }

// Get returns busybox for a GOARCH from the cache, or downloads it. The error is a
// *RefusedError if the host has no way to it; it is not tried again for a day then,
// unless LABCTL_DEBIAN_MIRROR changes.
func (s *Store) Get(ctx context.Context, from Source, goarch string, report func(debian.Progress)) (*Busybox, error) {
	a, ok := arch.Find(goarch)
	if !ok {
		return nil, outcome.Inputf("busybox: architecture %q is not one of %v", goarch, arch.Names())
	}
	if b := s.cached(from, a); b != nil {
		return b, nil
	}
	if err := s.refused(a); err != nil {
		return nil, err
	}
	if err := cachedir.Make(s.dir, 0o755); err != nil {
		return nil, &RefusedError{a.Name, err}
	}
	lock, err := scratch.TakeLock(ctx, filepath.Join(s.dir, a.Name+".lock"))
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, &RefusedError{a.Name, err}
	}
	defer lock.Release()
	if b := s.cached(from, a); b != nil { // another process has got it meanwhile
		return b, nil
	}
	if err := s.refused(a); err != nil {
		return nil, err
	}
	b, err := s.pull(ctx, from, a, report)
	if err != nil && ctx.Err() == nil {
		note, _ := json.Marshal(refusal{time.Now(), mirror(), text.Line(outcome.Said(err).Error(), maxWhy)})
		err = &RefusedError{a.Name, err}
		if werr := scratch.Write(s.refusal(a), note, 0o644); werr != nil {
			return nil, errors.Join(err, werr)
		}
	}
	return b, err
}

func mirror() string { return os.Getenv("LABCTL_DEBIAN_MIRROR") }

func (s *Store) note(a arch.Arch) string    { return filepath.Join(s.dir, a.Name+".json") }
func (s *Store) refusal(a arch.Arch) string { return filepath.Join(s.dir, a.Name+".refused.json") }
func (s *Store) program(a arch.Arch, p debian.Package) string {
	return filepath.Join(s.dir, a.Name+"-"+p.SHA256[:16])
}

// cached returns what is in the cache and as it was stored, else nil.
func (s *Store) cached(from Source, a arch.Arch) *Busybox {
	note, err := os.ReadFile(s.note(a))
	if err != nil {
		return nil
	}
	var p debian.Package
	if json.Unmarshal(note, &p) != nil || p.Name != from.Package || len(p.SHA256) != 64 {
		return nil
	}
	path := s.program(a, p)
	if cachedir.Check(path, p.SHA256) != nil {
		return nil
	}
	return &Busybox{Path: path, Package: p}
}

// refused returns the error of an attempt that is not to be repeated yet.
func (s *Store) refused(a arch.Arch) error {
	note, err := os.ReadFile(s.refusal(a))
	if err != nil {
		return nil
	}
	var r refusal
	if json.Unmarshal(note, &r) != nil || r.Mirror != mirror() || time.Since(r.When) > again || time.Since(r.When) < 0 {
		return nil
	}
	return &RefusedError{a.Name, fmt.Errorf("tried at %s: %s", r.When.Format("15:04"), r.Why)}
}

func (s *Store) pull(ctx context.Context, from Source, a arch.Arch, report func(debian.Progress)) (*Busybox, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	root := s.root(from, a)
	pkg, err := root.Lookup(ctx, from.Package, "", report)
	if err != nil {
		return nil, errors.Join(err, root.Drop())
	}
	files, err := root.Download(ctx, []debian.Package{pkg}, report)
	if err != nil {
		return nil, errors.Join(err, root.Drop())
	}
	data, err := debian.Extract(ctx, files[0], pkg, from.File, report)
	if err == nil {
		err = check(data, a)
	}
	if err := errors.Join(err, root.Drop()); err != nil {
		return nil, err
	}
	path := s.program(a, pkg)
	if err := scratch.Write(path, data, 0o755); err != nil {
		return nil, err
	}
	if err := cachedir.Seal(path, pkg.SHA256); err != nil {
		return nil, err
	}
	note, err := json.MarshalIndent(pkg, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := scratch.Write(s.note(a), append(note, '\n'), 0o644); err != nil {
		return nil, err
	}
	if err := os.Remove(s.refusal(a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	report(debian.Progress{Stage: debian.StageDone, Note: pkg.Version})
	return &Busybox{Path: path, Package: pkg}, nil
}

// check refuses what a guest without shared libraries could not run.
func check(data []byte, a arch.Arch) error {
	if len(data) > maxProgram {
		return fmt.Errorf("the program has %d bytes: too large for a guest", len(data))
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("read the program: %w", err)
	}
	if got := arch.OfELF(f.Machine, f.Class); got != a.Name {
		return fmt.Errorf("the program is for %s, not %s", f.Machine, a.Name)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("the program is linked dynamically")
		}
	}
	_, err = Applets(data)
	return err
}

// appletName is what a command of busybox may be called: a path's last element.
var appletName = regexp.MustCompile(`^[a-z0-9[][a-zA-Z0-9._+-]{0,30}$|^\[\[$`)

// maxApplets is far more than busybox has.
const maxApplets = 1000

// Applets returns the names of the commands in a busybox program: its table of them,
// sorted, each ended by a zero byte, and an empty one after the last
// (applets/applet_tables.c, applet_names[]). The program itself, which would print
// them, may be for another architecture than this one.
func Applets(program []byte) ([]string, error) {
	const first = "[\x00[[\x00"
	for at := 0; ; at++ {
		i := bytes.Index(program[at:], []byte(first))
		if i < 0 {
			return nil, errors.New("not busybox: it has no table of commands")
		}
		at += i
		if names := table(program[at:]); len(names) > 2 {
			return names, nil
		}
	}
}

// table reads a table of names; it is nil if there is none at the beginning of data.
func table(data []byte) (names []string) {
	for len(names) < maxApplets {
		name, _, ok := bytes.Cut(data[:min(len(data), 64)], []byte{0})
		switch {
		case !ok:
			return nil
		case len(name) == 0:
			return names
		case !appletName.Match(name) || len(names) > 0 && names[len(names)-1] >= string(name):
			return nil
		}
		names, data = append(names, string(name)), data[len(name)+1:]
	}
	return nil
}
