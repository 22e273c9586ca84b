package program

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"labctl/guest/wire"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/text"
	"labctl/host/vm/agent"
)

// Limits on files from a guest.
const (
	MaxFetch   = 1 << 30 // bytes
	maxEntries = 100_000
)

// Fetch copies the outputs that exist from the guest. left says what was left out, ""
// for nothing.
func Fetch(ctx context.Context, c *agent.Client, outputs []Output) (left string, err error) {
	if len(outputs) == 0 {
		return "", nil
	}
	p := wire.PackParams{Dir: "/", Max: MaxFetch}
	for _, o := range outputs {
		p.Paths = append(p.Paths, o.name())
	}
	pr, pw := io.Pipe()
	received := make(chan error, 1)
	go func() {
		err := receive(pr, outputs, MaxFetch)
		pr.CloseWithError(err)
		received <- err
	}()
	packed, err := c.Pack(ctx, p, pw)
	pw.CloseWithError(err)
	rerr := <-received
	if err == nil {
		err = rerr
	}
	if err != nil {
		return "", fmt.Errorf("copy files from the guest: %w", err)
	}
	return leftOut(packed), nil
}

// leftOut says what the guest did not pack.
func leftOut(p wire.Packed) string {
	if p.Left <= 0 {
		return ""
	}
	names := strings.Join(p.LeftOut, ", ")
	if p.Left > len(p.LeftOut) {
		names += ", …"
	}
	return text.Line(fmt.Sprintf("--get leaves out %d links, devices, pipes or sockets: %s", p.Left, names), 500)
}

// name returns the output's name in an archive.
func (o Output) name() string { return strings.TrimPrefix(path.Clean(o.Guest), "/") }

// receive writes the files in an archive that outputs name. The archive comes from the
// guest, so every entry is checked against that list: any other name, a link, a device,
// a directory instead of a file, and more than max bytes are errors. A file gets its
// name only when it is complete.
func receive(r io.Reader, outputs []Output, max int64) (err error) {
	defer outcome.OrElse(outcome.GuestCrashed, &err) // the archive is invalid
	got, left := make([]bool, len(outputs)), max
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if n == maxEntries {
			return outcome.Inputf("more than %d files", maxEntries)
		}
		i, rest, ok := match(h, outputs)
		if !ok {
			return fmt.Errorf("the guest sent %.200q (type %q), which was not requested", h.Name, h.Typeflag)
		}
		got[i] = true
		if h.Size > left {
			return outcome.Inputf("more than %d bytes in total", max)
		}
		left -= h.Size
		if err := outputs[i].take(h, rest, t); err != nil {
			// Names below a directory come from the guest.
			kind := outcome.Of(outcome.Default(outcome.BadInput, err))
			return outcome.Errorf(kind, "%s %s: %s", outputs[i].Flag, outputs[i].Guest, text.Line(err.Error(), 300))
		}
	}
	for i, o := range outputs {
		if o.Must && !got[i] {
			return outcome.Inputf("%s %s: no such file in the guest", o.Flag, o.Guest)
		}
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// match returns the output that an entry belongs to, and its path below that; "." is
// the output itself. An exact match takes precedence over a parent directory.
func match(h *tar.Header, outputs []Output) (i int, rest string, ok bool) {
	folder := h.Typeflag == tar.TypeDir
	if !folder && h.Typeflag != tar.TypeReg || h.Size < 0 {
		return 0, "", false
	}
	name := h.Name
	if folder {
		name = strings.TrimSuffix(name, "/")
	}
	for i, o := range outputs {
		if name == o.name() && (folder && o.Folder || !folder && o.File) {
			return i, ".", true
		}
	}
	best := -1
	for i, o := range outputs {
		below, in := strings.CutPrefix(name, o.name()+"/")
		if !in || !o.Folder || path.Clean(below) != below || !filepath.IsLocal(below) {
			continue
		}
		if best < 0 || len(o.name()) > len(outputs[best].name()) {
			best, rest = i, below
		}
	}
	return best, rest, best >= 0
}

// take writes one entry.
func (o Output) take(h *tar.Header, rest string, content io.Reader) error {
	mode := h.FileInfo().Mode().Perm() &^ umask()
	dir, name := o.Host, printable(rest)
	if o.Corpus {
		if !isCorpusFile(rest) {
			return nil // a directory, or an input with a custom name, which came from this host
		}
		mode = 0o644
	}
	switch {
	case rest == "." && h.Typeflag == tar.TypeDir:
		return os.MkdirAll(o.Host, mode|0o700)
	case rest == ".":
		dir, name = filepath.Split(o.Host)
	default:
		// The guest may not send an entry for the directory itself.
		if err := os.MkdirAll(o.Host, 0o755); err != nil {
			return err
		}
	}
	// The user's directory; symlinks below it must not lead outside.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, mode|0o700)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	fi, err := root.Lstat(name)
	switch {
	case err == nil && o.Corpus:
		return nil
	case err == nil && fi.IsDir():
		return fmt.Errorf("%s is a directory", filepath.Join(dir, name))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	in, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	f, err := scratch.CreateIn(in)
	if err != nil {
		in.Close()
		return err
	}
	if err := copySparse(f.File, content, h.Size); err != nil {
		f.Close()
		return err
	}
	return f.Keep(path.Base(name), mode|0o600)
}

// printable replaces what a terminal would act on in a path of the guest's.
func printable(path string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, path)
}

// umask is this process's: a file that is linked into place is not created with it.
var umask = sync.OnceValue(func() fs.FileMode {
	status, err := os.ReadFile("/proc/self/status") // the system call would change it
	if err == nil {
		for line := range strings.Lines(string(status)) {
			var mask fs.FileMode
			if n, _ := fmt.Sscanf(line, "Umask: %o", &mask); n == 1 {
				return mask
			}
		}
	}
	return 0o022
})

// copySparse copies size bytes and leaves holes where there are only zeros.
func copySparse(f *os.File, r io.Reader, size int64) error {
	const page = 64 << 10
	buf, zeros := make([]byte, page), make([]byte, page)
	for off := int64(0); off < size; {
		n, err := io.ReadFull(r, buf[:min(page, size-off)])
		if err != nil {
			return err
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
	}
	return f.Truncate(size)
}
