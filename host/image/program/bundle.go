package program

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

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
}

type entry struct {
	host, guest string
	info        fs.FileInfo // of the file that host refers to
	link        string      // target, if it is sent as a symbolic link
}

// Add adds a file, or a directory recursively, at an absolute path in the guest.
// Symbolic links inside a directory are kept if they point inside it; of those that
// point outside, links to files are sent as files, others are left out.
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
	return b.file(p.File, p.Argv0, executable{fi})
}

type executable struct{ fs.FileInfo }

func (e executable) Mode() fs.FileMode { return e.FileInfo.Mode() | 0o555 }

// AddFolder creates a directory in the guest if it does not exist.
func (b *Bundle) AddFolder(guest string) {
	b.entries = append(b.entries, entry{guest: guest})
}

// AddTestDir adds what a Go test may need from its package's directory, the working
// directory under `go test`: testdata, the files next to it, and directories that are
// not packages. More than max bytes are an error.
func (b *Bundle) AddTestDir(host, guest string, max int64) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	t := Bundle{}
	t.AddFolder(guest)
	err = t.tree(host, guest, func(rel string, d fs.DirEntry) bool {
		switch {
		case !d.IsDir() || rel == "." || rel == "testdata" || strings.HasPrefix(rel, "testdata/"):
			return true
		case strings.HasPrefix(d.Name(), "."), d.Name() == "node_modules", d.Name() == "vendor":
			return false
		}
		sources, _ := filepath.Glob(filepath.Join(host, scratch.EscapeGlob(rel), "*.go"))
		return len(sources) == 0
	})
	if err != nil {
		return err
	}
	// Follow a testdata that is a link to somewhere outside the directory.
	testdata := filepath.Join(host, "testdata")
	if link, err := os.Readlink(testdata); err == nil && (filepath.IsAbs(link) || !filepath.IsLocal(link)) {
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
			t := Bundle{}
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
	return filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		to := path.Join(guest, rel)
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

// dirInfo is the FileInfo of a directory, with size 0.
type dirInfo struct{ fs.FileInfo }

func (dirInfo) Size() int64 { return 0 }

// Write writes the bundle as a tar archive with names relative to the guest's root.
func (b *Bundle) Write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, e := range b.entries {
		if err := e.write(t); err != nil {
			return err
		}
	}
	return t.Close()
}

func (e entry) write(t *tar.Writer) error {
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

// Send sends the bundle to the guest and unpacks it there.
func (b *Bundle) Send(ctx context.Context, c *agent.Client) error {
	if len(b.entries) == 0 {
		return nil
	}
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(b.Write(pw)) }()
	_, err := c.Unpack(ctx, "/", pr)
	pr.Close() // unblocks a pending Write
	if err != nil {
		return fmt.Errorf("send %d files to the guest: %w", b.Files, err)
	}
	return nil
}
