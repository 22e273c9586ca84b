package kbuild

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"labctl/host/bounded"
	"labctl/host/kernel"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Source is the source of a kernel, as named by `--source`.
type Source struct {
	Debian kernel.Ref // a Debian series or suite; zero for another source
	Path   string     // a tree or a tarball
	// Signed says of a tarball that it must be signed, by a key of Keyring, or of KeyringFile
	// if that is empty.
	Signed  bool
	Keyring string
}

// ParseSource parses the argument of `--source`: debian:6.12, debian:trixie, a
// directory or a tarball, or tar: and a tarball with its signature beside it.
func ParseSource(s string) (_ Source, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if file, ok := strings.CutPrefix(s, kindSigned); ok {
		src, err := ParseSource(file)
		if err == nil && !tarball.MatchString(src.Path) {
			err = fmt.Errorf("source %s: want a tarball (.tar, .tar.xz, .tar.gz, .tar.bz2, .tar.zst)", s)
		}
		if err != nil {
			return Source{}, err
		}
		src.Signed = true
		return src, nil
	}
	name, isDebian := strings.CutPrefix(s, kernel.KindDebian+":")
	if !isDebian {
		st, err := os.Stat(s)
		switch {
		case err == nil && st.IsDir():
		case err == nil && st.Mode().IsRegular() && tarball.MatchString(s):
		case err == nil:
			return Source{}, fmt.Errorf("source %s: want the directory of a kernel tree, or a tarball (.tar, .tar.xz, .tar.gz, .tar.bz2, .tar.zst)", s)
		default:
			hint := ""
			if ref, bad := kernel.ParseRef(s); bad == nil && ref.Suite != "" {
				hint = fmt.Sprintf("; for Debian's source use --source debian:%s", s)
			}
			return Source{}, fmt.Errorf("source: %w%s", err, hint)
		}
		abs, err := filepath.Abs(s)
		return Source{Path: abs}, err
	}
	for _, try := range []string{name, s} {
		if ref, err := kernel.ParseRef(try); err == nil && ref.Suite != "" && ref.Flavour == "" {
			return Source{Debian: ref}, nil
		}
	}
	_, err = kernel.ParseRef(s)
	if err == nil {
		err = fmt.Errorf("kernel %q has no source package", s)
	}
	return Source{}, fmt.Errorf("source %s: %w", s, err)
}

var tarball = regexp.MustCompile(`\.(tar|tar\.(xz|gz|bz2|zst)|tgz|txz)$`)

// tree is an unpacked kernel source.
type tree struct {
	dir    string
	source kernel.BuildSource
}

// open returns the tree of a source, and unpacks it if necessary. If fresh is set,
// it checks Debian for a newer package even if one is unpacked already.
func (b *Builder) open(ctx context.Context, s Source, fresh bool) (*tree, error) {
	t := &tree{dir: s.Path}
	var err error
	switch {
	case s.Debian != (kernel.Ref{}):
		t, err = b.debian(ctx, s.Debian, fresh)
		err = outcome.Default(outcome.HostLacks, err)
	case tarball.MatchString(s.Path):
		by := ""
		if s.Signed {
			b.Say("checking the signature of " + filepath.Base(s.Path))
			by, err = signedBy(s.Path, s.Keyring)
		}
		if err == nil {
			t, err = b.tarball(ctx, s.Path)
		}
		if err == nil {
			t.source.Signer = by
		}
	default:
		t.source = kernel.BuildSource{Kind: "tree", Path: s.Path}
		if err = checkTree(s.Path); err == nil {
			t.source.Hash, err = hashTree(ctx, s.Path)
		}
	}
	if err == nil {
		t.source.Release, err = releaseOf(t.dir)
	}
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	return t, nil
}

// checkTree checks that a directory is a kernel tree that can be built out of tree.
func checkTree(dir string) error {
	for _, name := range []string{"Makefile", "Kconfig", "scripts/kconfig/merge_config.sh", "init/main.c"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || !st.Mode().IsRegular() {
			return fmt.Errorf("source %s: not a kernel tree: no file %s", dir, name)
		}
	}
	// The top-level Makefile rejects such a tree too, but later.
	for _, name := range []string{".config", "include/config"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("source %s: the tree was configured in place (%s exists); clean it first: make -C %s mrproper", dir, name, dir)
		}
	}
	return nil
}

var makefileVar = regexp.MustCompile(`(?m)^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=[ \t]*([^\n]*)$`)

// releaseOf reads the version from the top-level Makefile: "6.12.107". It is used
// in messages and names only.
func releaseOf(dir string) (string, error) {
	f, err := bounded.Open(filepath.Join(dir, "Makefile"))
	if err != nil {
		return "", fmt.Errorf("read the tree's version: %w", err)
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return "", fmt.Errorf("read the tree's version: %w", err)
	}
	v := map[string]string{}
	for _, m := range makefileVar.FindAllStringSubmatch(string(head), -1) {
		v[m[1]] = strings.TrimSpace(m[2])
	}
	release := v["VERSION"] + "." + v["PATCHLEVEL"]
	if s := v["SUBLEVEL"]; s != "" {
		release += "." + s
	}
	release += v["EXTRAVERSION"]
	if !releasePattern.MatchString(release) {
		return "", fmt.Errorf("source %s: no kernel version in its Makefile", dir)
	}
	return release, nil
}

var releasePattern = regexp.MustCompile(`^[0-9]+\.[0-9]+[A-Za-z0-9.+_-]{0,40}$`)

// hashTree hashes the state of a tree: the names, sizes and times of its files.
// Reading their contents would take longer than make needs to find that nothing has
// changed.
func hashTree(ctx context.Context, dir string) (string, error) {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 64<<10)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return ctx.Err()
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // such as an editor's temporary file
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		fmt.Fprintf(w, "%s\x00%d %d %v\n", rel, info.Size(), info.ModTime().UnixNano(), info.Mode())
		return err
	})
	if err != nil {
		return "", fmt.Errorf("walk %s: %w", dir, err)
	}
	w.Flush()
	return hex.EncodeToString(h.Sum(nil)), nil
}

// tarball unpacks a tarball into a directory that is named by its hash.
func (b *Builder) tarball(ctx context.Context, path string) (*tree, error) {
	sum, err := hashFile(path)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", path, err)
	}
	t := &tree{dir: filepath.Join(b.sources, "tar-"+sum[:24]), source: kernel.BuildSource{Kind: "tarball", Path: path, Hash: sum}}
	return t, b.unpacked(ctx, t.dir, func(tmp string) error { return b.untar(ctx, path, tmp) })
}

// maxTarball is three times what the sources of Linux 6.12 take without compression,
// in bytes.
const maxTarball = 4 << 30

func hashFile(path string) (string, error) {
	f, err := bounded.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxTarball {
		return "", &bounded.TooLargeError{Max: maxTarball}
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// debian returns the tree of Debian's source package: the newest unpacked one, or,
// if there is none or fresh is set, the suite's current one.
func (b *Builder) debian(ctx context.Context, ref kernel.Ref, fresh bool) (*tree, error) {
	root, name, err := b.cache.SourcePackage(ref)
	if err != nil {
		return nil, err
	}
	if !fresh {
		if t := newestDebian(b.sources, name); t != nil {
			return t, nil
		}
	}
	lock, err := b.lock(ctx, filepath.Join(b.sources, ".lock-"+name), "another labctl is fetching "+name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if !fresh { // it may have been unpacked meanwhile
		if t := newestDebian(b.sources, name); t != nil {
			return t, nil
		}
	}
	pull := func(p debian.Progress) { b.Pull(name, p) }
	pkg, err := root.Lookup(ctx, name, "", pull)
	if err != nil {
		return nil, err
	}
	t := debianTree(b.sources, pkg)
	if checkTree(t.dir) == nil {
		pull(debian.Progress{Stage: debian.StageDone, Note: pkg.Version})
		return t, root.Drop()
	}
	files, err := root.Download(ctx, []debian.Package{pkg}, pull)
	if err != nil {
		return nil, err
	}
	pull(debian.Progress{Stage: debian.StageDone, Note: pkg.Version})
	err = b.unpacked(ctx, t.dir, func(tmp string) error {
		if err := b.undeb(ctx, files[0], tmp); err != nil {
			return err
		}
		return scratch.Write(filepath.Join(tmp, debianNote), fmt.Appendf(nil, "%s %d\n", pkg.SHA256, pkg.Size), 0o644)
	})
	if err != nil {
		return nil, err
	}
	return t, root.Drop()
}

// debianNote is a file that labctl writes into an unpacked tree, with the checksum
// and size of the package.
const debianNote = ".labctl-package"

func debianTree(sources string, pkg debian.Package) *tree {
	dir := filepath.Join(sources, pkg.Name+"_"+strings.ReplaceAll(pkg.Version, ":", "%3a"))
	return &tree{dir: dir, source: kernel.BuildSource{Kind: "debian", Package: &pkg, Hash: pkg.SHA256}}
}

// newestDebian returns the most recently unpacked tree of a package, or nil.
func newestDebian(sources, name string) *tree {
	var best *tree
	var when time.Time
	notes, _ := filepath.Glob(filepath.Join(sources, name+"_*", debianNote))
	for _, note := range notes {
		st, err := os.Stat(note)
		if err != nil || checkTree(filepath.Dir(note)) != nil || best != nil && !st.ModTime().After(when) {
			continue
		}
		data, err := os.ReadFile(note)
		pkg := debian.Package{Name: name}
		if n, _ := fmt.Sscan(string(data), &pkg.SHA256, &pkg.Size); err != nil || n != 2 {
			continue
		}
		_, version, _ := strings.Cut(filepath.Base(filepath.Dir(note)), "_")
		pkg.Version = strings.ReplaceAll(version, "%3a", ":")
		best, when = debianTree(sources, pkg), st.ModTime()
	}
	return best
}

// unpacked creates dir with fill, atomically, unless dir exists already.
func (b *Builder) unpacked(ctx context.Context, dir string, fill func(tmp string) error) error {
	if checkTree(dir) == nil {
		return nil
	}
	lock, err := b.lock(ctx, dir+".lock", "another labctl is unpacking the source")
	if err != nil {
		return err
	}
	defer lock.Release()
	if checkTree(dir) == nil {
		return nil
	}
	folder, err := scratch.MakeFolder(b.sources, ".new-"+filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := os.Chmod(folder.Path, 0o755); err != nil {
		return err
	}
	b.Say("unpacking the source, 1 to 2 GB, which is kept in " + b.sources)
	if err := fill(folder.Path); err != nil {
		return fmt.Errorf("unpack the source: %w", err)
	}
	if err := checkTree(folder.Path); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), folder.Path, filepath.Base(dir)))
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return folder.Keep(dir)
}

// untar unpacks a tarball whose files are all in one directory.
func (b *Builder) untar(ctx context.Context, path, dir string) error {
	return pipe(ctx, exec.Command("tar", "-x", "--strip-components=1", "--no-same-owner", "-C", dir, "-f", path))
}

// undeb unpacks the tarball in Debian's package, usr/src/linux-source-*.tar.xz.
func (b *Builder) undeb(ctx context.Context, deb, dir string) error {
	inner, err := os.CreateTemp(b.sources, ".new-*.tar.xz")
	if err != nil {
		return err
	}
	defer os.Remove(inner.Name())
	defer inner.Close()
	take := exec.Command("tar", "-x", "-O", "--wildcards", "./usr/src/linux-source-*.tar.*")
	take.Stdout = inner
	if err := pipe(ctx, exec.Command("dpkg-deb", "--fsys-tarfile", deb), take); err != nil {
		return err
	}
	return b.untar(ctx, inner.Name(), dir)
}

// pipe runs commands as a pipeline, in process groups that are killed when the
// context ends.
func pipe(ctx context.Context, cmds ...*exec.Cmd) error {
	// The parent-death signal is tied to the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	errs := make([]error, len(cmds))
	words := make([]*bytes.Buffer, len(cmds))
	var between []*os.File
	closeAll := func() {
		for _, f := range between {
			f.Close()
		}
		between = nil
	}
	defer closeAll()
	for i, c := range cmds {
		words[i] = &bytes.Buffer{}
		c.Stderr, c.Env = words[i], append(os.Environ(), "LC_ALL=C")
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		if i > 0 {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			between = append(between, r, w)
			cmds[i-1].Stdout, c.Stdin = w, r
		}
	}
	started := 0
	var err error
	for _, c := range cmds {
		if err = c.Start(); err != nil {
			break
		}
		started++
	}
	closeAll()
	stop := context.AfterFunc(ctx, func() {
		for _, c := range cmds[:started] {
			syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		}
	})
	defer stop()
	for i, c := range cmds[:started] {
		errs[i] = c.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	for i := range slices.Backward(cmds) {
		if errs[i] == nil {
			continue
		}
		text := words[i].String()
		if errors.Is(outcome.Said(errors.New(text)), syscall.ENOSPC) {
			return fmt.Errorf("%s: %w", cmds[i].Args[0], syscall.ENOSPC)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
		return fmt.Errorf("%s: %w: %s", cmds[i].Args[0], errs[i], first)
	}
	return nil
}
