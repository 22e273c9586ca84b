package debian

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"labctl/host/outcome"
)

// Limits on the size of a package, in bytes. Debian's largest kernel package is
// 110 MB and unpacks to 320 MB.
const (
	maxDeb   = 2 << 30
	maxTotal = 8 << 30
	maxFile  = 512 << 20
	maxDebug = 2 << 30 // a vmlinux with DWARF
	maxFiles = 100_000
)

// Tree describes what Unpack extracted.
type Tree struct {
	Release string // `uname -r`: the name of the directory under lib/modules
	Modules int    // number of modules in modules.zip
	DTBs    int
}

// ErrNoImage means that the packages are not those of a kernel, or not all of them.
var ErrNoImage = outcome.New(outcome.HostLacks, "the packages contain no kernel image with its configuration")

// ZipZstd is the compression method of the zip entries that Unpack compresses
// (APPNOTE.TXT 4.4.5). Readers register zstd.ZipDecompressor for it.
const ZipZstd = zstd.ZipMethodWinZip

// Unpack reads each kernel package, Debian's or an RPM, whose files lie alike, in one pass and writes to dir: vmlinuz, config,
// dtb/ and modules.zip, whose names are relative to lib/modules/RELEASE. Modules
// that are compressed in the package are stored unchanged, others are compressed
// with zstd. The checksum of each package is verified; if the error is not nil, the
// contents of dir must not be used.
func Unpack(ctx context.Context, debs []string, pkgs []Package, dir string, report func(Progress)) (_ *Tree, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err)
	u := &unpacker{ctx: ctx, dir: dir, report: report, haveFile: map[string]bool{}}
	u.take = u.file
	for _, p := range pkgs {
		u.total += p.Size
	}
	return u.into(func() error {
		for i, deb := range debs {
			if err := u.deb(deb, pkgs[i]); err != nil {
				return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
			}
		}
		return nil
	})
}

// into writes what read hands to file.
func (u *unpacker) into(read func() error) (*Tree, error) {
	out, err := os.Create(filepath.Join(u.dir, "modules.zip"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	buf := bufio.NewWriterSize(out, 1<<20)
	u.zip = newZipper(buf)
	if err := read(); err != nil {
		u.zip.close()
		return nil, err
	}
	if err := u.zip.close(); err != nil {
		return nil, fmt.Errorf("write modules.zip: %w", err)
	}
	if err := errors.Join(buf.Flush(), out.Close()); err != nil {
		return nil, fmt.Errorf("write modules.zip: %w", err)
	}
	if !u.haveFile["vmlinuz"] || !u.haveFile["config"] || u.tree.Release == "" {
		return nil, ErrNoImage
	}
	return &u.tree, nil
}

// Extract returns a file of a package, by its name below the root and below /usr alike,
// after the checksum of the package was verified.
func Extract(ctx context.Context, deb string, pkg Package, name string, report func(Progress)) (data []byte, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err)
	u := &unpacker{ctx: ctx, report: report, total: pkg.Size}
	u.take = func(has string, size int64, r io.Reader) error {
		if strings.TrimPrefix(has, "usr/") != strings.TrimPrefix(name, "usr/") {
			return nil
		}
		data, err = readAll(r, size)
		return err
	}
	if err := u.deb(deb, pkg); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	if data == nil {
		return nil, fmt.Errorf("unpack %s: it has no %s", filepath.Base(deb), name)
	}
	return data, nil
}

// errEnough ends the reading of a package's files.
var errEnough = outcome.New(outcome.OK, "what was wanted is there")

// Copy writes the first regular file of a package that want accepts, by its name below
// the root, and returns that name. What lies behind it is not unpacked. The checksum of
// the package is verified; if the error is not nil, what was written must not be used.
func Copy(ctx context.Context, deb string, pkg Package, want func(name string) bool, to io.Writer, report func(Progress)) (name string, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err)
	u := &unpacker{ctx: ctx, report: report, total: pkg.Size, largest: maxDebug}
	u.take = func(has string, size int64, r io.Reader) error {
		if !want(has) {
			return nil
		}
		name = has
		if _, err := io.CopyBuffer(struct{ io.Writer }{to}, r, make([]byte, 1<<20)); err != nil {
			return err
		}
		return errEnough
	}
	if err := u.deb(deb, pkg); err != nil {
		return "", fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	if name == "" {
		return "", fmt.Errorf("unpack %s: what is wanted of it is not in it", filepath.Base(deb))
	}
	return name, nil
}

type unpacker struct {
	ctx         context.Context
	dir         string
	report      func(Progress)
	take        func(name string, size int64, r io.Reader) error // of each regular file, by its cleaned name
	zip         *zipper
	done, total int64 // bytes of packages read
	unpacked    int64
	largest     int64 // of a file; 0: maxFile
	files       int
	haveFile    map[string]bool
	tree        Tree
}

// deb unpacks one package, of either kind, and verifies its checksum.
func (u *unpacker) deb(name string, pkg Package) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	src := &source{u: u, r: f, sum: sha256.New()}
	r := bufio.NewReaderSize(src, 1<<20)
	form := u.ar
	if magic, err := r.Peek(len(rpmMagic)); err == nil && string(magic) == rpmMagic {
		form = u.rpm
	}
	if err := form(r); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if got := hex.EncodeToString(src.sum.Sum(nil)); got != pkg.SHA256 {
		return fmt.Errorf("sha256 is %s, the index has %s", got, pkg.SHA256)
	}
	return nil
}

// source hashes, counts and reports the bytes read from a package.
type source struct {
	u   *unpacker
	r   io.Reader
	sum hash.Hash
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.u.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	s.u.done += int64(n)
	s.u.report(Progress{Stage: StageUnpack, Done: s.u.done, Total: s.u.total})
	return n, err
}

// ar finds data.tar in a package (deb(5)).
func (u *unpacker) ar(r *bufio.Reader) error {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return errors.New("not a Debian package: no ar header")
	}
	for range maxMembers {
		name, size, err := arMember(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read ar: %w", err)
		}
		compression, ok := strings.CutPrefix(name, "data.tar")
		if !ok {
			if _, err := io.CopyN(io.Discard, r, size+size&1); err != nil {
				return fmt.Errorf("read ar: member %q of %d bytes: %w", name, size, io.ErrUnexpectedEOF)
			}
			continue
		}
		data, err := decompressor(compression, io.LimitReader(r, size))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		defer data.Close()
		if err := u.tar(data); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		return nil
	}
	return errors.New("not a Debian package: no data.tar")
}

const (
	arMagic    = "!<arch>\n"
	maxMembers = 16 // a package has three
)

// arMember reads the header before a member of an ar archive and returns the
// member's name and size in bytes. A byte of padding follows a member of odd size.
// The error is io.EOF where the archive ends.
//
//	name/16 time/12 owner/6 group/6 mode/8 size/10 "`\n"
//
// all of it text, padded with spaces. deb(5) has no long names, so a "/" ends a
// name, as GNU ar writes it.
func arMember(r io.Reader) (name string, size int64, err error) {
	var h [60]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return "", 0, err
	}
	name = strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	size, err = strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
	if err != nil || size < 0 || size > maxDeb || string(h[58:]) != "`\n" {
		return "", 0, fmt.Errorf("invalid ar header %q", h)
	}
	return name, size, nil
}

func decompressor(suffix string, r io.Reader) (io.ReadCloser, error) {
	switch suffix {
	case "":
		return io.NopCloser(r), nil
	case ".gz":
		return gzip.NewReader(r)
	case ".bz2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	case ".xz":
		z, err := xz.NewReader(r, 128<<20) // dpkg-deb -z9 asks for 64 MiB
		return io.NopCloser(z), err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("unknown compression %q", suffix)
}

func (u *unpacker) tar(r io.Reader) error {
	return u.entries(r, func(h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil // none of the wanted files is a link
		}
		return u.take(path.Clean("/" + h.Name)[1:], h.Size, r)
	})
}

// entries hands on the entries of a tar archive.
func (u *unpacker) entries(r io.Reader, take func(h *tar.Header, r io.Reader) error) error {
	tr := tar.NewReader(bufio.NewReaderSize(r, 256<<10))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if err := u.one(h.Name, h.Size); err != nil {
				return err
			}
		}
		if err := take(h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// one counts a file.
func (u *unpacker) one(name string, size int64) error {
	u.files++
	u.unpacked += size
	if size < 0 || size > cmp.Or(u.largest, maxFile) || u.files > maxFiles || u.unpacked > maxTotal {
		return fmt.Errorf("%s: the package is too large", name)
	}
	return nil
}

// file stores one file of the package by its cleaned name:
//
//	boot/vmlinuz-R, [usr/]lib/modules/R/vmlinuz   vmlinuz
//	boot/config-R, [usr/]lib/modules/R/config     config
//	usr/lib/linux-image-R/**.dtb                  dtb/
//	[usr/]lib/modules/R/dtb/**.dtb                dtb/
//	[usr/]lib/modules/R/**.ko*, modules.*         modules.zip
func (u *unpacker) file(name string, size int64, r io.Reader) error {
	name = strings.TrimPrefix(name, "usr/")
	if rest, ok := strings.CutPrefix(name, "boot/"); ok {
		for _, kind := range []string{"vmlinuz", "config"} {
			if release, ok := strings.CutPrefix(rest, kind+"-"); ok {
				return u.keep(release, kind, r)
			}
		}
		return nil
	}
	if rest, ok := strings.CutPrefix(name, "lib/linux-image-"); ok {
		release, rest, _ := strings.Cut(rest, "/")
		return u.dtb(release, rest, r)
	}
	rest, ok := strings.CutPrefix(name, "lib/modules/")
	if !ok {
		return nil
	}
	release, rest, ok := strings.Cut(rest, "/")
	switch {
	case !ok:
		return nil
	case rest == "vmlinuz" || rest == "config":
		return u.keep(release, rest, r)
	case strings.HasPrefix(rest, "dtb/"):
		return u.dtb(release, strings.TrimPrefix(rest, "dtb/"), r)
	case strings.HasPrefix(rest, "modules.") && !strings.Contains(rest, "/"), isModule(rest):
		if err := u.release(release); err != nil {
			return err
		}
		if u.haveFile[rest] {
			return errors.New("is in the packages more than once")
		}
		u.haveFile[rest] = true
		if isModule(rest) {
			u.tree.Modules++
		}
		data, err := readAll(r, size)
		if err != nil {
			return err
		}
		return u.zip.add(rest, data)
	}
	return nil
}

func isModule(name string) bool {
	base := path.Base(name)
	for _, suffix := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if strings.HasSuffix(base, suffix) {
			return true
		}
	}
	return false
}

// readAll reads size bytes. A tar header may claim more than there is, so the
// buffer grows as data arrives.
func readAll(r io.Reader, size int64) ([]byte, error) {
	buf := bytes.NewBuffer(make([]byte, 0, min(size, 16<<20)+bytes.MinRead))
	n, err := io.Copy(buf, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return buf.Bytes(), err
}

// release checks that all files belong to one kernel.
func (u *unpacker) release(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\") {
		return fmt.Errorf("invalid release %q", name)
	}
	if u.tree.Release != "" && u.tree.Release != name {
		return fmt.Errorf("belongs to %s, the rest to %s", name, u.tree.Release)
	}
	u.tree.Release = name
	return nil
}

func (u *unpacker) keep(release, as string, r io.Reader) error {
	if err := u.release(release); err != nil {
		return err
	}
	return u.write(as, r)
}

func (u *unpacker) dtb(release, rest string, r io.Reader) error {
	if !strings.HasSuffix(rest, ".dtb") {
		return nil
	}
	if err := u.release(release); err != nil {
		return err
	}
	u.tree.DTBs++
	return u.write("dtb/"+rest, r)
}

// write creates a file below dir; name is clean and relative.
func (u *unpacker) write(name string, r io.Reader) error {
	if u.haveFile[name] {
		return errors.New("is in the packages more than once")
	}
	u.haveFile[name] = true
	dst := filepath.Join(u.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// zipper writes modules.zip concurrently with the decompression, which takes
// longer.
type zipper struct {
	files chan zipFile
	done  chan struct{}
	err   error // set before done is closed
	zw    *zip.Writer
}

type zipFile struct {
	name string
	data []byte
}

func newZipper(w io.Writer) *zipper {
	z := &zipper{files: make(chan zipFile, 16), done: make(chan struct{}), zw: zip.NewWriter(w)}
	z.zw.RegisterCompressor(ZipZstd, zstd.ZipCompressor(zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)))
	go z.run()
	return z
}

func (z *zipper) run() {
	defer close(z.done)
	for f := range z.files {
		if z.err != nil {
			continue
		}
		h := &zip.FileHeader{Name: f.name, Method: ZipZstd}
		if isModule(f.name) && !strings.HasSuffix(f.name, ".ko") {
			h.Method = zip.Store
		}
		w, err := z.zw.CreateHeader(h)
		if err == nil {
			_, err = w.Write(f.data)
		}
		z.err = err
	}
	if err := z.zw.Close(); z.err == nil {
		z.err = err
	}
}

// add queues a file; errors are reported by close at the latest.
func (z *zipper) add(name string, data []byte) error {
	z.files <- zipFile{name, data}
	return nil
}

func (z *zipper) close() error {
	close(z.files)
	<-z.done
	return z.err
}
