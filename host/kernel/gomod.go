package kernel

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"labctl/host/bounded"
	"labctl/host/kernel/debian"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/text"
)

// maxFiles and maxTree limit the number of files copied from a module, and their
// total bytes.
const (
	maxFiles = 20_000
	maxTree  = 2 << 30
)

// goModule is the go command's description of a module version.
type goModule struct {
	Path    string
	Version string
	Dir     string // from `go mod download`
	Sum     string // likewise
	Error   string // from `go mod download`
}

// askGo runs `go ARGS` in a temporary main module. Proxy, checksum database and
// module cache are the user's.
func askGo(ctx context.Context, args ...string) (*goModule, error) {
	dir, err := os.MkdirTemp("", "labctl-gomod-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module labctl.invalid/kernels\n"), 0o644); err != nil {
		return nil, err
	}
	// The parent-death signal is tied to the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GO111MODULE=on")
	// go starts child processes; kill the whole process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w: the go command, to fetch a Go module; install Go, or use an image file: --kernel ./bzImage", ErrHostLacks)
	}
	var m goModule
	bad := json.Unmarshal(stdout.Bytes(), &m)
	if err == nil && bad == nil && m.Error == "" {
		return &m, nil
	}
	said := strings.TrimPrefix(strings.TrimSpace(cmp.Or(m.Error, stderr.String())), "go: ")
	if said == "" {
		said = fmt.Sprint(cmp.Or(err, bad))
	}
	return nil, fmt.Errorf("go %s: %s", strings.Join(args[:2], " "), text.Line(strings.Join(strings.Fields(said), " "), 400))
}

// latestModule returns the latest version that the module proxy serves.
func latestModule(ctx context.Context, module string) (string, error) {
	m, err := askGo(ctx, "list", "-m", "-json", "--", module+"@latest")
	if err != nil {
		return "", err
	}
	return m.Version, nil
}

// pullModule fetches a module, verified by the go command, and copies the
// kernel's files from it into a kernel directory.
func (c *Cache) pullModule(ctx context.Context, src *Source, ref Ref, arch string, report func(Progress), verify func(*Kernel) error) (*Kernel, error) {
	report(Progress{Stage: debian.StageDownload})
	m, err := askGo(ctx, "mod", "download", "-json", "--", src.Module+"@"+cmp.Or(ref.Version, "latest"))
	if err != nil && ref.Version != "" {
		err = outcome.Default(outcome.BadInput, outcome.Said(err)) // the version may not exist
	}
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.moduleDir(), fmt.Sprintf("%s-%s-%s", src.key(), arch, m.Version))
	if k, err := load(dir); err == nil && k.Sum == m.Sum && verify(k) == nil {
		return k, nil
	}
	tmp, err := c.makeTemp(src, arch)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	k := &Kernel{Dir: tmp, Source: KindModule, Module: src.Module, Version: m.Version, Sum: m.Sum, Arch: arch}
	if err := k.takeModule(ctx, m.Dir, src.Arch[arch], report); err != nil {
		return nil, fmt.Errorf("module %s@%s: %w", src.Module, m.Version, err)
	}
	return k.install(ctx, dir, report)
}

// takeModule copies the files of a module's tree into the kernel's directory.
func (k *Kernel) takeModule(ctx context.Context, tree string, a SourceArch, report func(Progress)) error {
	report(Progress{Stage: debian.StageUnpack})
	root, err := os.OpenRoot(tree) // symlinks cannot escape it
	if err != nil {
		return err
	}
	defer root.Close()
	files := root.FS()
	data, err := readLimited(files, a.Image, image.MaxSize)
	if err != nil {
		return fmt.Errorf("image %s: %w", a.Image, err)
	}
	img, err := image.Parse(data)
	if err != nil {
		return fmt.Errorf("image %s: %w", a.Image, err)
	}
	k.Release, k.Series = img.Release, seriesOf(img.Release)
	if err := writeFile(filepath.Join(k.Dir, imageFile), data); err != nil {
		return err
	}
	if config := img.Config(); config != nil {
		if err := writeFile(filepath.Join(k.Dir, configFile), config); err != nil {
			return err
		}
	}
	if a.DTBs != "" {
		if err := k.takeDTBs(files, a.DTBs); err != nil {
			return fmt.Errorf("device trees in %s: %w", a.DTBs, err)
		}
	}
	if a.Modules != "" {
		// Modules of another release would not load.
		from := path.Join(a.Modules, img.Release)
		if _, err := fs.Stat(files, from); err == nil {
			if err := zipModules(ctx, filepath.Join(k.Dir, modulesFile), files, from); err != nil {
				return fmt.Errorf("modules in %s: %w", from, err)
			}
		}
	}
	return nil
}

func readLimited(files fs.FS, name string, limit int64) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded.ReadAll(f, limit)
}

// takeDTBs copies the device trees in a directory. It does not descend into
// subdirectories, which contain overlays.
func (k *Kernel) takeDTBs(files fs.FS, from string) error {
	names, err := fs.Glob(files, path.Join(from, "*.dtb"))
	if err != nil || len(names) == 0 {
		return err
	}
	if len(names) > maxFiles {
		return fmt.Errorf("%d files", len(names))
	}
	if err := os.MkdirAll(filepath.Join(k.Dir, dtbDir), 0o755); err != nil {
		return err
	}
	for _, name := range names {
		data, err := readLimited(files, name, 4<<20)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(k.Dir, dtbDir, path.Base(name)), data); err != nil {
			return err
		}
	}
	return nil
}

// zipModules packs a directory of modules into a modules.zip.
func zipModules(ctx context.Context, to string, files fs.FS, from string) (err error) {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zw := zip.NewWriter(f)
	n, size := 0, int64(0)
	err = fs.WalkDir(files, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if _, isModule := moduleName(name); !isModule && path.Base(name) != "modules.builtin" {
			return nil
		}
		data, err := readLimited(files, name, maxModule)
		if err != nil {
			return err
		}
		if n, size = n+1, size+int64(len(data)); n > maxFiles || size > maxTree {
			return fmt.Errorf("more than %d files or %d bytes", maxFiles, int64(maxTree))
		}
		w, err := zw.Create(strings.TrimPrefix(name, from+"/"))
		if err == nil {
			_, err = w.Write(data)
		}
		return errors.Join(err, ctx.Err())
	})
	return errors.Join(err, zw.Close())
}
