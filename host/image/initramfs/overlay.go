package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"labctl/host/bounded"

	"github.com/u-root/u-root/pkg/cpio"
)

const (
	modulesDir  = "labctl/modules.d"
	modulesList = "labctl/modules" // paths of modules in load order, one per line

	// maxPath is PATH_MAX without its zero byte; the kernel silently skips longer
	// names (init/initramfs.c, do_header).
	maxPath = 4096 - 1
	// maxFile keeps a mistake (a disk image, say) from filling the guest's memory.
	maxFile = 1 << 30
)

// overlay returns the archive with what is specific to this boot.
func overlay(modules []Module, files []File) ([]byte, error) {
	var buf bytes.Buffer
	a := newArchive(&buf)
	for _, dir := range []string{"dev", "proc", "run", "sys", "tmp", "labctl", modulesDir} {
		mode := uint64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		if err := a.add(dir, cpio.S_IFDIR|mode, nil); err != nil {
			return nil, err
		}
	}
	// PID 1's standard streams, for a kernel without DEVTMPFS_MOUNT.
	a.device("dev/console", 0o600, 5, 1)
	a.device("dev/null", 0o666, 1, 3)
	// The kernel runs /init by default.
	if err := a.add("init", cpio.S_IFLNK|0o777, []byte("labctl/labinit")); err != nil {
		return nil, err
	}
	if err := addModules(a, modules); err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := addFile(a, f); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	if err := a.close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

var moduleName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func addModules(a *archive, modules []Module) error {
	var list strings.Builder
	for _, m := range modules {
		if !moduleName.MatchString(m.Name) {
			return fmt.Errorf("module %q: invalid name (want letters, digits, _ and -)", m.Name)
		}
		data, err := content(m.Data, m.Src)
		if err != nil {
			return fmt.Errorf("module %s: %w", m.Name, err)
		}
		if !bytes.HasPrefix(data, []byte("\x7fELF")) {
			return fmt.Errorf("module %s: not an ELF file: decompress it first", m.Name)
		}
		name := modulesDir + "/" + m.Name + ".ko"
		if err := a.add(name, cpio.S_IFREG|0o644, data); err != nil {
			return fmt.Errorf("module %s: %w", m.Name, err)
		}
		fmt.Fprintf(&list, "/%s\n", name)
	}
	return a.add(modulesList, cpio.S_IFREG|0o644, []byte(list.String()))
}

func addFile(a *archive, f File) error {
	name := strings.TrimPrefix(f.Path, "/")
	perm := uint64(f.Mode.Perm())
	for bit, unix := range map[fs.FileMode]uint64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if f.Mode&bit != 0 {
			perm |= unix
		}
	}
	switch f.Mode.Type() {
	case fs.ModeDir:
		if f.Data != nil || f.Src != "" {
			return errors.New("a directory cannot have contents")
		}
		return a.add(name, cpio.S_IFDIR|perm, nil)
	case fs.ModeSymlink:
		if len(f.Data) == 0 || f.Src != "" {
			return errors.New("a symbolic link needs its target in Data")
		}
		return a.add(name, cpio.S_IFLNK|0o777, f.Data)
	case 0:
		data, err := content(f.Data, f.Src)
		if err != nil {
			return err
		}
		return a.add(name, cpio.S_IFREG|perm, data)
	}
	return fmt.Errorf("mode %v: want a file, a directory or a symbolic link", f.Mode)
}

func content(data []byte, src string) ([]byte, error) {
	if src == "" {
		return data, nil
	}
	if data != nil {
		return nil, errors.New("both Data and Src are set: want one of them")
	}
	return bounded.ReadFile(src, maxFile)
}

// archive writes a reproducible newc archive: no times, owner 0, sequential inode
// numbers.
type archive struct {
	w     cpio.RecordWriter
	seen  map[string]uint64 // path → mode
	inode uint64
	err   error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: cpio.Newc.Writer(w), seen: map[string]uint64{".": cpio.S_IFDIR}}
}

// add writes a record, after records for missing parent directories. An existing
// directory may be added again only as a directory; its first mode is kept.
func (a *archive) add(name string, mode uint64, data []byte) error {
	if !fs.ValidPath(name) || name == "." || name == cpio.Trailer || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%q is not a path below the root", name)
	}
	if len(name) > maxPath {
		return fmt.Errorf("path has %d bytes: the limit is %d", len(name), maxPath)
	}
	isDir := mode&cpio.S_IFMT == cpio.S_IFDIR
	if had, ok := a.seen[name]; ok {
		if isDir && had&cpio.S_IFMT == cpio.S_IFDIR {
			return nil
		}
		return fmt.Errorf("/%s: duplicate path", name)
	}
	if parent := path.Dir(name); a.seen[parent]&cpio.S_IFMT != cpio.S_IFDIR {
		if err := a.add(parent, cpio.S_IFDIR|0o755, nil); err != nil {
			return err
		}
	}
	a.seen[name] = mode
	a.write(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: mode, NLink: 1}))
	return a.err
}

func (a *archive) device(name string, perm, major, minor uint64) {
	r := cpio.CharDev(name, perm, major, minor)
	r.NLink = 1
	a.seen[name] = r.Mode
	a.write(r)
}

func (a *archive) write(r cpio.Record) {
	if a.err != nil {
		return
	}
	a.inode++
	r.Ino = a.inode
	a.err = a.w.WriteRecord(r)
}

func (a *archive) close() error {
	if a.err != nil {
		return a.err
	}
	return cpio.WriteTrailer(a.w)
}
