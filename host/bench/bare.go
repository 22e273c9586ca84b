package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/u-root/u-root/pkg/cpio"

	"labctl/host/kernel"
	"labctl/host/targets"
	"labctl/host/vm/qemu"
)

// nothing is an init that does nothing.
const nothing = `package main

import "syscall"

func main() { syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF) }
`

// hello is a program that a guest runs.
const hello = `package main

import "os"

func main() { os.Stdout.WriteString("hello\n") }
`

// program builds a static Go program for arch and returns its path.
func (b *bench) program(name, source, arch string) (string, error) {
	dir := filepath.Join(b.dir, name+"-"+arch)
	out := filepath.Join(dir, name)
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for file, text := range map[string]string{"go.mod": "module " + name + "\n\ngo 1.21\n", "main.go": source} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(b.ctx, "go", "build", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=mod", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s for %s: %w\n%s", name, arch, err, text)
	}
	return out, nil
}

// maxTail is how much of a console goes into an error, in bytes.
const maxTail = 2000

// find returns the kernel of a reference, from the cache or pulled.
func (b *bench) find(ref, arch string) (*kernel.Kernel, error) {
	cache, err := kernel.Open("")
	if err != nil {
		return nil, err
	}
	r, err := kernel.ParseRef(ref)
	if err != nil {
		return nil, err
	}
	return cache.Get(b.ctx, r, arch, nil)
}

// bare returns a function that boots an image with QEMU alone, console and all,
// to the end of an init that powers off.
func (b *bench) bare(t targets.Target, image string) (func() error, error) {
	init, err := b.program("nothing", nothing, t.Arch)
	if err != nil {
		return nil, err
	}
	initrd := init + ".cpio"
	if err := archive(initrd, init); err != nil {
		return nil, fmt.Errorf("write the do-nothing archive: %w", err)
	}
	cmd, err := qemu.New(t.Binary, qemu.Defaults{}, qemu.Machine{Type: t.Machine},
		qemu.Accel{Name: "tcg", Thread: t.TCGThread}, qemu.CPU(t.CPU), qemu.Memory{MiB: t.MemoryMB}, qemu.SMP(t.CPUs),
		qemu.Serial{Name: "console"},
		qemu.Kernel{Image: image, Initrd: initrd, Append: append(slices.Clone(t.Console), "rdinit=/init", "panic=-1")})
	if err != nil {
		return nil, err
	}
	return func() error {
		p, err := qemu.Start(b.ctx, cmd)
		if err != nil {
			return err
		}
		console, _ := io.ReadAll(p.Conn("console"))
		if err := p.Wait(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, console[max(0, len(console)-maxTail):])
		}
		return nil
	}, nil
}

func archive(path, init string) error {
	bin, err := os.ReadFile(init)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	for _, r := range []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.StaticFile("init", string(bin), 0o755),
	} {
		if err := w.WriteRecord(r); err != nil {
			return err
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	return f.Close()
}
