// Package kernel fetches kernels, manages a cache of them and reads their
// configuration, modules, device trees and BTF without booting them.
//
// A cached kernel is a directory that never changes once it is in place:
// <cache>/kernels/debian/<suite>-<arch>-<package version> or
// <cache>/kernels/gomod/<module>-<arch>-<version> for a pulled kernel,
// <cache>/kernels/build/<name>-<arch> for one built by labctl. It contains:
//
//	kernel.json  what it is and where it came from, with the sha256 of the files
//	vmlinuz      the image as packaged
//	config       its .config
//	btf          its raw BTF blob, if it has one
//	modules.zip  lib/modules/RELEASE; names relative to it
//	dtb/         device trees, by vendor directory as packaged
//	dtb.json     their sha256
//	facts.json   derived from btf, see Facts; can be regenerated at any time
//	vmlinux      derived from vmlinuz, see Vmlinux; likewise
package kernel

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/arch"
	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// File names in a cached kernel's directory.
const (
	metaFile    = "kernel.json"
	imageFile   = "vmlinuz"
	configFile  = "config"
	btfFile     = "btf"
	modulesFile = "modules.zip"
	dtbDir      = "dtb"
	factsFile   = "facts-1.json" // derived; increment the number when its contents change
	elfFile     = "vmlinux"
)

// Sizes that these files do not reach, in bytes: some ten times what they are.
const (
	maxMeta   = 1 << 20
	maxConfig = 4 << 20
)

// Kernel is a cached kernel or one in a file. Its exported fields are the contents
// of kernel.json.
type Kernel struct {
	Ref     Ref    `json:"-"` // a reference that always finds exactly this kernel
	Dir     string `json:"-"` // directory of its files
	say     func(string)
	from    string // the package or directory of packages that the user named; "" for others
	Source  string `json:"source"`            // KindDebian, KindModule, KindImage, KindFile, KindBuild
	Suite   string `json:"suite"`             // "trixie"; "" if not from Debian
	Flavour string `json:"flavour,omitempty"` // "cloud"
	Module  string `json:"module,omitempty"`  // Go module's path
	Sum     string `json:"sum,omitempty"`     // Go module's sum, as in go.sum: "h1:…"
	// Container is the container image, by the name that the user gave; Sum is its digest then.
	Container string           `json:"container,omitempty"`
	Series    string           `json:"series"`         // "6.12", from Release
	Arch      string           `json:"arch"`           // GOARCH
	Release   string           `json:"release"`        // uname -r
	Version   string           `json:"version"`        // version of the package or module; "" for a file
	Path      string           `json:"path,omitempty"` // path of the image, for a file
	Packages  []debian.Package `json:"packages,omitempty"`
	Files     map[string]File  `json:"files"` // vmlinuz, config, btf, modules.zip, as far as present
	Pulled    time.Time        `json:"pulled"`
	Build     *Built           `json:"build,omitempty"` // for KindBuild

	debuginfo string // see SetDebuginfo
	config    func() (map[string]string, error)
}

// File is what kernel.json records of a file.
type File struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// CorruptError reports that a cached file no longer matches kernel.json.
type CorruptError struct {
	Kernel string // name of the kernel's directory
	File   string // path of the damaged file
	Why    string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("kernel %s is damaged: %s: %s", e.Kernel, e.File, e.Why)
}

// Outcome is BadInput.
func (e *CorruptError) Outcome() outcome.Kind { return outcome.BadInput }

// load loads a kernel from its directory. It reads kernel.json only.
func load(dir string) (*Kernel, error) {
	data, err := bounded.ReadFile(filepath.Join(dir, metaFile), maxMeta)
	if err != nil {
		return nil, err
	}
	k := &Kernel{Dir: dir}
	err = cachedir.UnmarshalSummed(data, k)
	if errors.Is(err, cachedir.ErrNoSeal) { // stored before it had a checksum
		err = json.Unmarshal(data, k)
	}
	if err != nil {
		return nil, &CorruptError{Kernel: filepath.Base(dir), File: filepath.Join(dir, metaFile), Why: err.Error()}
	}
	if _, ok := k.Files[imageFile]; !ok || k.Release == "" || k.Arch == "" {
		return nil, &CorruptError{Kernel: filepath.Base(dir), File: filepath.Join(dir, metaFile), Why: "has no image, release or arch"}
	}
	k.init()
	return k, nil
}

// init sets the fields that are not in kernel.json.
func (k *Kernel) init() {
	k.Ref = Ref{Release: k.Release}
	switch {
	case k.Source == KindBuild:
		k.Ref = Ref{Build: strings.TrimSuffix(filepath.Base(k.Dir), "-"+k.Arch)}
	case k.Source == KindModule:
		k.Ref = Ref{Module: k.Module, Version: k.Version}
	case k.Source == KindImage:
		k.Ref = Ref{Container: k.pinned()}
	case k.Path != "":
		k.Ref = Ref{Path: k.Path}
	case k.from != "":
		k.Ref = Ref{Path: k.from}
	}
	k.config = sync.OnceValues(k.readConfig)
}

// String returns the kernel's name in messages: "6.12.107+deb13-amd64
// (debian:trixie)".
func (k *Kernel) String() string {
	switch k.Source {
	case KindDebian:
		return fmt.Sprintf("%s (%s)", k.Release, (&Source{Kind: KindDebian, Suite: k.Suite, Flavour: k.Flavour}).ref())
	case KindBuild, KindModule, KindImage:
		return fmt.Sprintf("%s (%s)", k.Release, k.Ref)
	}
	return fmt.Sprintf("%s (%s)", k.Release, cmp.Or(k.Path, k.from))
}

// Image returns the path of the bootable image.
func (k *Kernel) Image() string {
	if k.Path != "" {
		return k.Path
	}
	return filepath.Join(k.Dir, imageFile)
}

// file returns the path of a file in the kernel's directory.
func (k *Kernel) file(name string) string {
	if name == imageFile {
		return k.Image()
	}
	return filepath.Join(k.Dir, name)
}

// Verify checks that the files are still as they were stored. It checks the image
// and the configuration by sha256, unless their stamps show that they have not
// changed since the last check, and the other files by size, since each module's
// checksum is verified when it is read from modules.zip, and btf before it is
// parsed. The error is a *CorruptError.
func (k *Kernel) Verify() error {
	for name := range k.Files {
		if err := k.verifyFile(name, name == imageFile || name == configFile); err != nil {
			return err
		}
	}
	return nil
}

// VerifyAll reads all files, whatever their stamps say, and checks them by sha256, device
// trees too. The error is a *CorruptError.
func (k *Kernel) VerifyAll() error {
	if err := os.RemoveAll(filepath.Join(k.Dir, stampsFile)); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) {
		return err
	}
	for name := range k.Files {
		if err := k.verifyFile(name, true); err != nil {
			return err
		}
	}
	sums, err := k.dtbSums()
	for name := range sums {
		if err == nil {
			err = k.verifyDTB(filepath.Join(k.Dir, dtbDir, filepath.FromSlash(name)))
		}
	}
	return err
}

func (k *Kernel) verifyFile(name string, hash bool) error {
	want, ok := k.Files[name]
	corrupt := func(format string, args ...any) error {
		return &CorruptError{Kernel: k.name(), File: k.file(name), Why: fmt.Sprintf(format, args...)}
	}
	if !ok {
		return corrupt("not recorded in %s", metaFile)
	}
	f, err := bounded.Open(k.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return corrupt("missing")
	}
	if err != nil {
		return corrupt("%v", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return corrupt("%v", err)
	}
	if st.Size() != want.Size {
		return corrupt("%d bytes, want %d", st.Size(), want.Size)
	}
	if !hash || k.known(name, st, want.SHA256) {
		return nil
	}
	got, err := hashOf(f)
	if err != nil {
		return corrupt("%v", err)
	}
	if got.SHA256 != want.SHA256 {
		return corrupt("sha256 %.12s…, want %.12s…", got.SHA256, want.SHA256)
	}
	k.remember(name, st, want.SHA256)
	return nil
}

func (k *Kernel) name() string {
	if k.Path != "" {
		return k.Path
	}
	return filepath.Base(k.Dir)
}

func hashOf(r io.Reader) (File, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 1<<20))
	return File{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}, err
}

func hashFile(name string) (File, error) {
	f, err := bounded.Open(name)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	return hashOf(f)
}

// Option returns the value of a configuration option, named without its CONFIG_
// prefix: "y", "m" or a value without quotes. It returns false if the option is
// not set or there is no config.
func (k *Kernel) Option(name string) (string, bool) {
	cfg, err := k.config()
	if err != nil {
		return "", false
	}
	return Value(cfg, name)
}

// Value returns the value of an option, named as today, in a configuration of any age.
func Value(cfg map[string]string, name string) (string, bool) {
	v, ok := cfg[name]
	if old := formerly[name]; !ok && old != "" {
		v, ok = cfg[old]
	}
	return v, ok
}

// GuessesStacks reports whether the kernel was built without the means to unwind its
// stacks: it then takes what looks like a return address for one.
func (k *Kernel) GuessesStacks() bool {
	row, _ := arch.Find(k.Arch)
	return len(row.Unwinders) > 0 && k.HasConfig() && !slices.ContainsFunc(row.Unwinders, func(option string) bool {
		v, _ := k.Option(option)
		return v == "y"
	})
}

// WalksFrames reports whether the kernel unwinds its stacks by frame pointers. At a
// function's first instruction the register has the caller's, and the trace lacks the
// direct caller.
func (k *Kernel) WalksFrames() bool {
	frames, _ := k.Option("FRAME_POINTER")
	orc, _ := k.Option("UNWINDER_ORC")
	return frames == "y" && orc != "y"
}

// formerly maps options to what they were called, or part of, in older trees. A tree
// with both never has the second without the first.
var formerly = map[string]string{
	"KCMP":          "CHECKPOINT_RESTORE", // to 5.11, bfe3911a9107
	"KPROBE_EVENTS": "KPROBE_EVENT",       // to 4.11, 6b0b7551428e
	"UNWINDER_ORC":  "ORC_UNWINDER",       // to 4.14, 11af847446ed
	"UPROBE_EVENTS": "UPROBE_EVENT",       // the same
}

// HasConfig reports whether the kernel's configuration is known; if it is not,
// false from Option means unknown.
func (k *Kernel) HasConfig() bool {
	cfg, err := k.config()
	return err == nil && len(cfg) > 0
}

func (k *Kernel) readConfig() (map[string]string, error) {
	data, err := k.ConfigText()
	if err != nil {
		return nil, err
	}
	return parseConfig(data), nil
}

// ConfigText returns the kernel's .config. The error is fs.ErrNotExist if it is not
// known.
func (k *Kernel) ConfigText() ([]byte, error) {
	data, err := bounded.ReadFile(k.file(configFile), maxConfig)
	if errors.Is(err, fs.ErrNotExist) && k.Path != "" {
		data, err = configBeside(k.Path, k.Release)
	}
	return data, err
}

// parseConfig parses a .config; lines that do not set an option are skipped.
func parseConfig(data []byte) map[string]string {
	cfg := map[string]string{}
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		rest, ok := strings.CutPrefix(sc.Text(), "CONFIG_")
		if !ok {
			continue
		}
		name, val, ok := strings.Cut(rest, "=")
		if !ok || val == "n" {
			continue
		}
		if len(val) >= 2 && val[0] == '"' && val[len(val)-1] == '"' {
			val = val[1 : len(val)-1]
		}
		cfg[name] = val
	}
	return cfg
}

// Vmlinux returns the path of the decompressed image: an ELF file on x86, the
// flat Image on arm64. It is decompressed on first use, which takes about a second
// for an xz image, and cached.
func (k *Kernel) Vmlinux(ctx context.Context) (string, error) {
	path, _, err := k.Derived(elfFile, func() ([]byte, error) {
		img, err := k.open()
		if err != nil {
			return nil, err
		}
		return img.Kernel, ctx.Err()
	})
	if err == nil && path == "" {
		err = outcome.Hostf("unpack kernel %s: %s cannot be written", k, k.Dir)
	}
	return path, err
}

// PVH returns the path of the kernel as an ELF file that QEMU can boot directly.
// It returns false if the kernel was built without CONFIG_PVH or its image cannot
// be decompressed.
func (k *Kernel) PVH(ctx context.Context) (string, bool) {
	path, err := k.Vmlinux(ctx)
	if err != nil {
		return "", false
	}
	f, err := bounded.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	return path, image.HasPVH(f)
}

// bootFile is derived: what QEMU boots of an image that is compressed or wrapped.
const bootFile = "boot-1"

// Boot returns the path of what QEMU boots: the image, or what was in it.
func (k *Kernel) Boot(ctx context.Context) (string, error) {
	head, err := headOf(k.Image())
	if err != nil {
		return "", outcome.Default(outcome.HostLacks, fmt.Errorf("kernel %s: %w", k, err))
	}
	if !image.Wrapped(head) {
		return k.Image(), nil
	}
	path, _, err := k.Derived(bootFile, func() ([]byte, error) {
		img, err := k.open()
		if err != nil {
			return nil, err
		}
		return img.Boot, ctx.Err()
	})
	if err == nil && path == "" {
		err = outcome.Hostf("unpack kernel %s: %s cannot be written", k, k.Dir)
	}
	return path, err
}

// headOf returns the first bytes of a file.
func headOf(name string) ([]byte, error) {
	f, err := bounded.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], err
}

// IsELF reports whether the image is an ELF file, a vmlinux.
func (k *Kernel) IsELF() bool {
	f, err := bounded.Open(k.Image())
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == elf.ELFMAG
}

func (k *Kernel) open() (_ *image.Image, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	data, err := bounded.ReadFile(k.Image(), image.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k, err)
	}
	img, err := image.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k, err)
	}
	return img, nil
}

// writeFile writes a file atomically, also with concurrent writers.
func writeFile(name string, data []byte) error { return scratch.Write(name, data, 0o644) }

// writeMeta writes a kernel.json.
func writeMeta(name string, k *Kernel) error {
	text, err := cachedir.MarshalSummed(k)
	if err != nil {
		return err
	}
	return writeFile(name, text)
}

func writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(name, append(data, '\n'))
}
