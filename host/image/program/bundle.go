package program

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/sys/unix"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/vm/agent"
)

// MaxTestFiles limits the files that a test gets from its package's directory, in
// bytes. They are in the guest's memory.
const MaxTestFiles = 64 << 20

// Bundle is a list of files on this host and their paths in a guest. They are read when
// they are sent.
type Bundle struct {
	entries []entry
	Files   int
	Bytes   int64
	// Left are symbolic links to directories that the guest does not get.
	Left []string

	within string // directories that links lead to are taken if they are in here; "" for none

	// keep has the guest keep programs, so that it has them the next time.
	keep bool
}

type entry struct {
	host, guest string
	info        fs.FileInfo // of the file that host refers to
	link        string      // target, if it is sent as a symbolic link
	program     bool
	key         string // of a program that the guest is to keep, see wire.KeepRecord
}

// Add adds a file, or a directory recursively, at an absolute path in the guest.
// Symbolic links inside a directory are kept if they point inside it; of those that
// point outside, links to files are sent as files, links to directories are left out
// and named in Left.
func (b *Bundle) Add(host, guest string) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	fi, err := os.Stat(host)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return b.tree(host, guest, func(string, fs.DirEntry) bool { return true })
	}
	return b.file(host, guest, fi)
}

// AddProgram is like Add, for a file that the guest must be able to execute.
func (b *Bundle) AddProgram(p *Program) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	fi, err := os.Stat(p.File)
	if err != nil {
		return err
	}
	if err := b.file(p.File, p.Argv0, executable{fi}); err != nil {
		return err
	}
	b.entries[len(b.entries)-1].program = true
	return nil
}

type executable struct{ fs.FileInfo }

func (e executable) Mode() fs.FileMode { return e.FileInfo.Mode() | 0o555 }

// AddFolder creates a directory in the guest if it does not exist.
func (b *Bundle) AddFolder(guest string) {
	b.entries = append(b.entries, entry{guest: guest})
}

// AddTestDir adds what a Go test may need from its package's directory, the working
// directory under `go test`: testdata, the files next to it, directories that are not
// packages, and the names of those that are. Links to directories in root, that of the
// module, are followed. More than max bytes are an error.
func (b *Bundle) AddTestDir(root, host, guest string, max int64) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	t := Bundle{within: root}
	t.AddFolder(guest)
	err = t.tree(host, guest, func(rel string, d fs.DirEntry) bool {
		switch {
		case !d.IsDir() || rel == "." || rel == "testdata" || strings.HasPrefix(rel, "testdata/"):
			return true
		case strings.HasPrefix(d.Name(), "."), d.Name() == "node_modules", d.Name() == "vendor":
			return false
		}
		sources, _ := filepath.Glob(filepath.Join(host, scratch.EscapeGlob(rel), "*.go"))
		if len(sources) > 0 {
			t.AddFolder(path.Join(guest, rel))
		}
		return len(sources) == 0
	})
	if err != nil {
		return err
	}
	// Follow a testdata that is a link to somewhere outside the module, too.
	testdata := filepath.Join(host, "testdata")
	if i := slices.Index(t.Left, testdata); i >= 0 {
		t.Left = slices.Delete(t.Left, i, i+1)
		if err := t.Add(testdata, path.Join(guest, "testdata")); err != nil {
			return err
		}
	}
	if t.Bytes > max {
		large := t.entries[0]
		for _, e := range t.entries {
			if e.size() > large.size() {
				large = e
			}
		}
		return fmt.Errorf("the files of %s are %d MB in total, and the limit for a test is %d MB (%s has %d MB); use --dir to send none of them, and --file for those that it needs",
			host, t.Bytes>>20, max>>20, large.host, large.size()>>20)
	}
	b.addAll(t)
	return nil
}

// AddAbove adds what tests of a package may share with others of its module: testdata
// and go.mod of the directories from root, which becomes guest, down to but not
// including dir. What would exceed max bytes is left out.
func (b *Bundle) AddAbove(root, dir, guest string, max int64) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	for at := dir; at != root; {
		at = filepath.Dir(at)
		rel, err := filepath.Rel(root, at)
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("%s is not below %s", dir, root)
		}
		for _, name := range []string{"testdata", "go.mod"} {
			t := Bundle{within: root}
			err := t.Add(filepath.Join(at, name), path.Join(guest, rel, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err == nil && t.Bytes <= max {
				max -= t.Bytes
				b.addAll(t)
			}
		}
	}
	return nil
}

// ModuleRoot returns the root directory of the Go module that contains dir, or dir if
// there is none.
func ModuleRoot(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if fi, err := os.Stat(filepath.Join(at, "go.mod")); err == nil && fi.Mode().IsRegular() {
			return at
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// testRoot returns the directory that becomes WorkDir for the tests of a package: its
// module's, and for the standard library, whose tests look further, that of the Go
// installation.
func testRoot(dir string) (root string, isStd bool) {
	root = ModuleRoot(dir)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err == nil && modfile.ModulePath(mod) == "std" && filepath.Base(root) == "src" {
		return filepath.Dir(root), true
	}
	return root, false
}

// zones are the time zones in a Go installation.
const zones = "lib/time/zoneinfo.zip"

// AddOutputs adds the directories in which the guest will write outs, and the fuzz
// inputs that exist on this host, as for a test that runs here. A corpus of more than
// max bytes is left out: a test does not need it.
func (b *Bundle) AddOutputs(outs []Output, max int64) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	for _, o := range outs {
		switch {
		case o.Flag == fuzzFlag: // it is in the package's directory; Go's fuzzing creates it
		case o.Corpus:
			b.AddFolder(o.Guest)
			corpus := Bundle{}
			err := corpus.tree(o.Host, o.Guest, func(rel string, d fs.DirEntry) bool {
				return d.IsDir() && !strings.Contains(rel, "/") || isCorpusFile(rel)
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err == nil && corpus.Bytes <= max {
				b.addAll(corpus)
			}
		case o.Folder:
			b.AddFolder(o.Guest)
		default:
			b.AddFolder(path.Dir(o.Guest))
		}
	}
	return nil
}

func (b *Bundle) addAll(t Bundle) {
	b.entries = append(b.entries, t.entries...)
	b.Files += t.Files
	b.Bytes += t.Bytes
	b.Left = append(b.Left, t.Left...)
}

func (e entry) size() int64 {
	if e.info == nil {
		return 0
	}
	return e.info.Size()
}

func (b *Bundle) file(host, guest string, fi fs.FileInfo) error {
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s: neither a file nor a directory", host)
	}
	if err := unix.Access(host, unix.R_OK); err != nil { // rather now than in the middle of a run
		return fmt.Errorf("%s: %w", host, err)
	}
	b.entries = append(b.entries, entry{host: host, guest: guest, info: fi})
	b.Files++
	b.Bytes += fi.Size()
	return nil
}

// tree adds the files below host for which wanted returns true.
func (b *Bundle) tree(host, guest string, wanted func(rel string, d fs.DirEntry) bool) error {
	// Walk the target of a link to a directory.
	host, err := filepath.EvalSymlinks(host)
	if err != nil {
		return err
	}
	return b.walk(host, guest, nil, wanted)
}

const (
	maxLinks = 8      // directories that links lead to, one in the other
	maxFiles = 50_000 // and directories of a bundle
)

// walk is tree for a directory without links in its path. through are the directories
// that the links lead to which it was reached by.
func (b *Bundle) walk(host, guest string, through []string, wanted func(rel string, d fs.DirEntry) bool) error {
	return filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		to := path.Join(guest, rel)
		if len(b.entries) > maxFiles {
			return fmt.Errorf("%s: more than %d files and directories", host, maxFiles)
		}
		switch {
		case !wanted(rel, d):
			if d.IsDir() {
				return filepath.SkipDir
			}
		case d.IsDir():
			fi, err := d.Info()
			if err != nil {
				return err
			}
			b.entries = append(b.entries, entry{host: p, guest: to, info: dirInfo{fi}})
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(p)
			if err != nil {
				return err
			}
			if !filepath.IsAbs(link) && filepath.IsLocal(filepath.Join(filepath.Dir(rel), link)) {
				b.entries = append(b.entries, entry{host: p, guest: to, link: link})
			} else if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() {
				return b.file(p, to, fi)
			} else if err == nil && fi.IsDir() {
				return b.follow(p, to, append(through, host))
			}
		case d.Type().IsRegular():
			fi, err := d.Info()
			if err != nil {
				return err
			}
			return b.file(p, to, fi)
		}
		return nil // leave out sockets, pipes and devices
	})
}

// follow adds the directory that a link leads to, unless it is outside of where links
// are followed, or one that the link is in.
func (b *Bundle) follow(link, guest string, through []string) error {
	real, err := filepath.EvalSymlinks(link)
	if err != nil {
		return err
	}
	within := b.within
	if within != "" {
		if within, err = filepath.EvalSymlinks(within); err != nil {
			return err
		}
	}
	through = append(through, filepath.Dir(link))
	around := slices.ContainsFunc(through, func(dir string) bool { return isBelow(dir, real) })
	if within == "" || !isBelow(real, within) || around || len(through) > 2*maxLinks {
		b.Left = append(b.Left, link)
		return nil
	}
	return b.walk(real, guest, through, func(string, fs.DirEntry) bool { return true })
}

// isBelow reports whether a path is dir or in it.
func isBelow(name, dir string) bool {
	rel, err := filepath.Rel(dir, name)
	return err == nil && filepath.IsLocal(rel)
}

// dirInfo is the FileInfo of a directory, with size 0.
type dirInfo struct{ fs.FileInfo }

func (dirInfo) Size() int64 { return 0 }

// writeArchive writes entries as a tar archive with names relative to the guest's root. With
// kept, programs that the guest keeps are links to what it has.
func writeArchive(w io.Writer, entries []entry, kept bool) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		if err := e.write(t, kept); err != nil {
			return err
		}
	}
	return t.Close()
}

func (e entry) write(t *tar.Writer, kept bool) error {
	h := &tar.Header{Name: strings.TrimPrefix(path.Clean(e.guest), "/")}
	if h.Name == "" { // the root itself
		return nil
	}
	switch {
	case e.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		return t.WriteHeader(h)
	case e.info == nil || e.info.IsDir():
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o755
		if e.info != nil {
			h.Mode = int64(e.info.Mode().Perm())
		}
		return t.WriteHeader(h)
	}
	if e.key != "" {
		if kept {
			h.Typeflag, h.Linkname = tar.TypeLink, wire.KeepPrefix+e.key
			return t.WriteHeader(h)
		}
		h.PAXRecords = map[string]string{wire.KeepRecord: e.key}
	}
	f, err := bounded.Open(e.host)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Typeflag, h.Size, h.Mode = tar.TypeReg, e.info.Size(), int64(e.info.Mode().Perm())
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(t, f, h.Size); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file shrank while being read")
		}
		return fmt.Errorf("%s: %w", e.host, err)
	}
	return nil
}

// Archive writes the bundle as Send sends it.
func (b *Bundle) Archive(w io.Writer) error { return writeArchive(w, b.entries, false) }

// Send sends the bundle to the guest and unpacks it there.
func (b *Bundle) Send(ctx context.Context, c *agent.Client) error {
	if len(b.entries) == 0 {
		return nil
	}
	if b.keep {
		if err := b.keys(); err != nil {
			return err
		}
	}
	missing, err := send(ctx, c, b.entries, b.keep)
	if err == nil && len(missing) > 0 {
		_, err = send(ctx, c, slices.DeleteFunc(slices.Clone(b.entries), func(e entry) bool { return !slices.Contains(missing, e.key) }), false)
	}
	if err != nil {
		return fmt.Errorf("send %d files to the guest: %w", b.Files, err)
	}
	return nil
}

// send sends entries, and returns the keys of those that the guest should have kept and
// has not.
func send(ctx context.Context, c *agent.Client, entries []entry, kept bool) (missing []string, err error) {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(writeArchive(pw, entries, kept)) }()
	done, err := c.Unpack(ctx, "/", pr)
	pr.Close() // unblocks a pending write
	return done.Missing, err
}

// keys finds the keys of programs.
func (b *Bundle) keys() error {
	for i := range b.entries {
		e := &b.entries[i]
		if !e.program {
			continue
		}
		f, err := bounded.Open(e.host)
		if err != nil {
			return outcome.Default(outcome.BadInput, err)
		}
		sum := sha256.New()
		_, err = io.CopyN(sum, f, e.info.Size())
		f.Close()
		if err != nil {
			return outcome.Default(outcome.BadInput, fmt.Errorf("%s: %w", e.host, err))
		}
		e.key = fmt.Sprintf("%x-%03o", sum.Sum(nil), e.info.Mode().Perm())
	}
	return nil
}
