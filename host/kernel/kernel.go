// Package kernel gets kernels, keeps them in a cache and answers questions about
// them without booting: configuration, modules, device trees, types.
//
// A cached kernel is a directory that never changes once it is in place,
// <cache>/kernels/debian/<suite>-<arch>-<package version> or
// <cache>/kernels/gomod/<module>-<arch>-<version> of a pulled one and
// <cache>/kernels/build/<name>-<arch> of one that was built here:
//
//	kernel.json  what it is and where it came from, with the sha256 of the files
//	vmlinuz      the image as packaged
//	config       its .config
//	btf          its raw BTF blob, when it has one
//	modules.zip  lib/modules/RELEASE; names relative to it
//	dtb/         device trees, by vendor directory as packaged
//	facts.json   derived from btf, see Facts; may be made again at any time
//	vmlinux      derived from vmlinuz, see Vmlinux; likewise
package kernel

import (
	"bufio"
	"bytes"
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
	"strings"
	"sync"
	"time"

	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Names within a cached kernel's directory.
const (
	metaFile    = "kernel.json"
	imageFile   = "vmlinuz"
	configFile  = "config"
	btfFile     = "btf"
	modulesFile = "modules.zip"
	dtbDir      = "dtb"
	factsFile   = "facts.json"
	elfFile     = "vmlinux"
)

// Kernel is one kernel at hand. Its exported fields are kernel.json.
type Kernel struct {
	Ref      Ref              `json:"-"`                 // the reference that always finds this very kernel
	Dir      string           `json:"-"`                 // where its files are
	Source   string           `json:"source"`            // KindDebian, KindModule, KindFile, KindBuild
	Suite    string           `json:"suite"`             // "trixie"; "" for what is not Debian's
	Flavour  string           `json:"flavour,omitempty"` // "cloud"
	Module   string           `json:"module,omitempty"`  // Go module's path
	Sum      string           `json:"sum,omitempty"`     // Go module's sum, as in go.sum: "h1:…"
	Series   string           `json:"series"`            // "6.12", from Release
	Arch     string           `json:"arch"`              // GOARCH
	Release  string           `json:"release"`           // uname -r
	Version  string           `json:"version"`           // of the package or module; "" for a file
	Path     string           `json:"path,omitempty"`    // the image, for a file
	Packages []debian.Package `json:"packages,omitempty"`
	Files    map[string]File  `json:"files"` // vmlinuz, config, btf, modules.zip; absent ones left out
	Pulled   time.Time        `json:"pulled"`
	Build    *Built           `json:"build,omitempty"` // of KindBuild

	config func() (map[string]string, error)
}

// File is what kernel.json records of a file.
type File struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// CorruptError says that a cached file is not what was pulled.
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

// load reads a kernel's directory. Only kernel.json is read.
func load(dir string) (*Kernel, error) {
	data, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return nil, err
	}
	k := &Kernel{Dir: dir}
	if err := json.Unmarshal(data, k); err != nil {
		return nil, &CorruptError{Kernel: filepath.Base(dir), File: filepath.Join(dir, metaFile), Why: err.Error()}
	}
	if _, ok := k.Files[imageFile]; !ok || k.Release == "" || k.Arch == "" {
		return nil, &CorruptError{Kernel: filepath.Base(dir), File: filepath.Join(dir, metaFile), Why: "lacks the image, release or arch"}
	}
	k.init()
	return k, nil
}

// init sets what is not in kernel.json.
func (k *Kernel) init() {
	k.Ref = Ref{Release: k.Release}
	switch {
	case k.Source == KindBuild:
		k.Ref = Ref{Build: strings.TrimSuffix(filepath.Base(k.Dir), "-"+k.Arch)}
	case k.Source == KindModule:
		k.Ref = Ref{Module: k.Module, Version: k.Version}
	case k.Path != "":
		k.Ref = Ref{Path: k.Path}
	}
	k.config = sync.OnceValues(k.readConfig)
}

// String is how messages call the kernel: "6.12.107+deb13-amd64 (debian:trixie)".
func (k *Kernel) String() string {
	switch k.Source {
	case KindDebian:
		return fmt.Sprintf("%s (%s)", k.Release, (&Source{Kind: KindDebian, Suite: k.Suite, Flavour: k.Flavour}).ref())
	case KindBuild, KindModule:
		return fmt.Sprintf("%s (%s)", k.Release, k.Ref)
	}
	return fmt.Sprintf("%s (%s)", k.Release, k.Path)
}

// Image is the path of the bootable image.
func (k *Kernel) Image() string {
	if k.Path != "" {
		return k.Path
	}
	return filepath.Join(k.Dir, imageFile)
}

// file is the path of one of the kernel's own files.
func (k *Kernel) file(name string) string {
	if name == imageFile {
		return k.Image()
	}
	return filepath.Join(k.Dir, name)
}

// Verify says whether the files are still what was pulled: the image and the
// configuration by their sha256, unless they are as they were when that was last
// found right, the others by their size, since modules.zip checks each module's
// sum when it is read and btf is checked before it is parsed. The error is a
// *CorruptError.
func (k *Kernel) Verify() error {
	for name := range k.Files {
		if err := k.verifyFile(name, name == imageFile || name == configFile); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kernel) verifyFile(name string, hash bool) error {
	want, ok := k.Files[name]
	corrupt := func(format string, args ...any) error {
		return &CorruptError{Kernel: k.name(), File: k.file(name), Why: fmt.Sprintf(format, args...)}
	}
	if !ok {
		return corrupt("not recorded in %s", metaFile)
	}
	f, err := os.Open(k.file(name))
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
	f, err := os.Open(name)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	return hashOf(f)
}

// Option looks up a configuration option without its CONFIG_ prefix: "y", "m"
// or a value without quotes; false when it is not set or there is no config.
func (k *Kernel) Option(name string) (string, bool) {
	cfg, err := k.config()
	if err != nil {
		return "", false
	}
	v, ok := cfg[name]
	return v, ok
}

// HasConfig says whether the kernel's configuration is known, so that Option's
// false can be told from "cannot say".
func (k *Kernel) HasConfig() bool {
	cfg, err := k.config()
	return err == nil && len(cfg) > 0
}

func (k *Kernel) readConfig() (map[string]string, error) {
	data, err := os.ReadFile(k.file(configFile))
	if errors.Is(err, fs.ErrNotExist) && k.Path != "" {
		data, err = configBeside(k.Path, k.Release)
	}
	if err != nil {
		return nil, err
	}
	return parseConfig(data), nil
}

// parseConfig reads a .config; lines of no set option are passed over.
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

// Vmlinux is the path of the image without compression: an ELF file on x86, the
// flat Image on arm64. It is unpacked on first use, which takes about a second
// for an xz image, and kept.
func (k *Kernel) Vmlinux(ctx context.Context) (string, error) {
	out := filepath.Join(k.Dir, elfFile)
	if isFile(out) {
		return out, nil
	}
	img, err := k.open()
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := writeFile(out, img.Kernel); err != nil {
		return "", outcome.Default(outcome.HostLacks, fmt.Errorf("unpack kernel %s: %w", k, err))
	}
	return out, nil
}

// PVH is the path of the kernel as an ELF file that QEMU starts directly, and
// false when it cannot be started so: the kernel was built without CONFIG_PVH,
// or its image cannot be unpacked.
func (k *Kernel) PVH(ctx context.Context) (string, bool) {
	path, err := k.Vmlinux(ctx)
	if err != nil {
		return "", false
	}
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	return path, image.HasPVH(f)
}

// IsELF says whether the image as it is given is an ELF file, a vmlinux.
func (k *Kernel) IsELF() bool {
	f, err := os.Open(k.Image())
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
	data, err := os.ReadFile(k.Image())
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k, err)
	}
	img, err := image.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k, err)
	}
	return img, nil
}

// writeFile writes a file whole or not at all, also with two writers.
func writeFile(name string, data []byte) error { return scratch.Write(name, data, 0o644) }

func writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(name, append(data, '\n'))
}
