package kernel

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"

	"labctl/host/bounded"
	"labctl/host/kernel/debian"
	"labctl/host/nearest"
	"labctl/host/outcome"
)

// maxModule limits the decompressed size of a module; Debian's largest is amdgpu,
// 25 MB.
const maxModule = 256 << 20

// Module is a kernel module, loadable or built in.
type Module struct {
	Name    string   // as shown by lsmod: virtio_pci
	BuiltIn bool     // built into the kernel; nothing to load
	File    string   // path below lib/modules/RELEASE, without the compression suffix
	Data    []byte   // the decompressed ELF object
	Needs   []string // modules that it depends on, the one to be loaded first last
}

// ErrNoModule is wrapped when a kernel has no module with a name, loadable or
// built in.
var ErrNoModule = outcome.New(outcome.BadInput, "no such module")

// Modules returns the named modules and their dependencies, in load order. Names
// may be written with dashes or underscores. A named module that is built in is
// returned with BuiltIn set and without data; built-in dependencies are left out.
// Dependencies are read from the modules (depends= and softdep= in .modinfo,
// scripts/mod/modpost.c), because packages contain no modules.dep.
func (k *Kernel) Modules(names ...string) (_ []Module, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if len(names) == 0 {
		return nil, nil
	}
	if _, ok := k.Files[modulesFile]; !ok {
		return nil, fmt.Errorf("modules %s of kernel %s: %w: the kernel comes without modules", strings.Join(names, ", "), k, ErrNoModule)
	}
	// A damaged archive may lack a module, or have another's data under its name.
	defer func() {
		if err != nil {
			err = cmp.Or(k.verifyFile(modulesFile, true), err)
		}
	}()
	zr, err := zip.OpenReader(k.file(modulesFile))
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", k, err)
	}
	defer zr.Close()
	zr.RegisterDecompressor(debian.ZipZstd, zstd.ZipDecompressor(zstd.WithDecoderConcurrency(1)))

	r := resolver{files: map[string]*zip.File{}, state: map[string]int{}, needs: map[string][]string{}}
	var builtin *zip.File
	for _, f := range zr.File {
		if f.Name == "modules.builtin" {
			builtin = f
		}
		if name, ok := moduleName(f.Name); ok && r.files[name] == nil {
			r.files[name] = f
		}
	}
	if r.builtin, err = builtinNames(builtin); err == nil {
		for _, n := range names {
			if err = r.add(fold(n), true); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", k, err)
	}
	return r.order, nil
}

// fold returns a module's name as the kernel writes it, with underscores.
func fold(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName returns the name of the module in a file, false for other files.
func moduleName(file string) (string, bool) {
	base, _, ok := strings.Cut(path.Base(file), ".ko")
	return fold(base), ok && base != ""
}

// builtinNames reads modules.builtin, which lists the path that each built-in
// module would have, one per line.
func builtinNames(f *zip.File) (map[string]bool, error) {
	names := map[string]bool{}
	if f == nil {
		return names, nil
	}
	data, err := readEntry(f)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			names[name] = true
		}
	}
	return names, nil
}

// resolver resolves dependencies depth first.
type resolver struct {
	files   map[string]*zip.File
	builtin map[string]bool
	state   map[string]int // 0, walking or inOrder
	order   []Module
	needs   map[string][]string // of modules in order
	aliases map[string]string   // of algorithms, the module with it; nil: not read yet
}

const (
	walking = 1 + iota // its dependencies are being added
	inOrder
)

func (r *resolver) add(name string, asked bool) error {
	switch r.state[name] {
	case walking:
		return fmt.Errorf("module %s depends on itself", name)
	case inOrder:
		return nil
	}
	f := r.files[name]
	if f == nil {
		if r.builtin[name] {
			if asked {
				r.state[name] = inOrder
				r.order = append(r.order, Module{Name: name, BuiltIn: true})
			}
			return nil
		}
		return fmt.Errorf("module %s: %w%s", name, ErrNoModule, nearest.Hint(name, keys(r.files, r.builtin)))
	}
	r.state[name] = walking
	data, err := readModule(f)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	info, err := readModinfo(data)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	deps := append(r.algorithms(info.pre), info.depends...)
	for _, d := range deps {
		if err := r.add(d, false); err != nil {
			return fmt.Errorf("module %s needs: %w", name, err)
		}
	}
	r.state[name] = inOrder
	for _, d := range deps {
		if r.files[d] == nil {
			continue // built in
		}
		// What d needs is loaded before it.
		r.needs[name] = appendNew(r.needs[name], append([]string{d}, r.needs[d]...))
	}
	base, _, _ := strings.Cut(path.Base(f.Name), ".ko")
	r.order = append(r.order, Module{Name: name, File: path.Join(path.Dir(f.Name), base+".ko"), Data: data, Needs: r.needs[name]})
	return nil
}

// algorithms are the modules with what a module wants before it, as far as that is an
// algorithm, such as crc32c of libcrc32c: it asks for one when it is inserted, and the
// guest has no module that was not brought. Of several that have one it is the portable.
// Others may be for a device that is not there.
func (r *resolver) algorithms(wanted []string) (names []string) {
	const where = "kernel/crypto/"
	for _, alias := range wanted {
		if f := r.files[fold(alias)]; f != nil {
			if strings.HasPrefix(f.Name, where) && r.state[fold(alias)] != walking {
				names = append(names, fold(alias))
			}
			continue
		}
		if r.aliases == nil {
			r.aliases = map[string]string{}
			for _, name := range slices.Sorted(maps.Keys(r.files)) {
				if !strings.HasPrefix(r.files[name].Name, where) {
					continue
				}
				data, err := readModule(r.files[name])
				if err != nil {
					continue // it is not one that was asked for
				}
				info, _ := readModinfo(data)
				for _, a := range info.aliases {
					if r.aliases[a] == "" || strings.HasSuffix(name, "_generic") {
						r.aliases[a] = name
					}
				}
			}
		}
		if name := r.aliases[alias]; name != "" && r.state[name] != walking {
			names = append(names, name)
		}
	}
	return names
}

// appendNew appends names to a list in which each is behind all that need it.
func appendNew(list, names []string) []string {
	for _, n := range names {
		if i := slices.Index(list, n); i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
		list = append(list, n)
	}
	return list
}

func keys(files map[string]*zip.File, builtin map[string]bool) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for n := range files {
			if !yield(n) {
				return
			}
		}
		for n := range builtin {
			if !yield(n) {
				return
			}
		}
	})
}

// readEntry reads a whole zip entry and verifies its checksum.
func readEntry(f *zip.File) ([]byte, error) {
	if f.UncompressedSize64 > maxModule {
		return nil, fmt.Errorf("%s: %d bytes is too large", f.Name, f.UncompressedSize64)
	}
	rc, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(io.LimitReader(rc, int64(f.UncompressedSize64)+1))
}

// readModule reads a module and decompresses it.
func readModule(f *zip.File) ([]byte, error) {
	data, err := readEntry(f)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	switch path.Ext(f.Name) {
	case ".ko":
		return data, nil
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(data), 64<<20)
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(data))
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = fmt.Errorf("%s: unknown compression", f.Name)
	}
	if err != nil {
		return nil, err
	}
	out, err := bounded.ReadAll(r, maxModule)
	var large *bounded.TooLargeError
	if errors.As(err, &large) {
		err = fmt.Errorf("%s: decompresses to %w", f.Name, err)
	}
	return out, err
}

// modinfo is what a module says of itself in its .modinfo section, a sequence of
// NUL-terminated key=value strings.
type modinfo struct {
	depends []string // names of modules
	pre     []string // what is loaded before it where there is such: a module, or an alias of some (softdep=)
	aliases []string
}

func readModinfo(module []byte) (info modinfo, err error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return info, fmt.Errorf("read ELF: %w", err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return info, errors.New("no .modinfo section: not a kernel module")
	}
	if s.Size > 1<<20 {
		return info, fmt.Errorf(".modinfo: %d bytes is too large", s.Size)
	}
	data, err := s.Data()
	if err != nil {
		return info, fmt.Errorf("read .modinfo: %w", err)
	}
	for _, kv := range strings.Split(string(data), "\x00") {
		key, value, _ := strings.Cut(kv, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d = fold(strings.TrimSpace(d)); d != "" {
					info.depends = append(info.depends, d)
				}
			}
		case "softdep": // "pre: a b post: c"
			pre := false
			for _, word := range strings.Fields(value) {
				if word == "pre:" || word == "post:" {
					pre = word == "pre:"
				} else if pre {
					info.pre = append(info.pre, word)
				}
			}
		case "alias":
			info.aliases = append(info.aliases, value)
		}
	}
	return info, nil
}
