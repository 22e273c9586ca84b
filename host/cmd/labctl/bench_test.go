package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/qemu"
	"labctl/host/target"
)

// BenchmarkProbeRun compares, in turn on the same machine, a bare QEMU boot of
// a kernel whose init does nothing but power off, with
// `labctl probe run fork` on the same kernel, from command line to exit. The
// figure to look at is ratio, labctl over bare: absolute seconds are the host's.
func BenchmarkProbeRun(b *testing.B) {
	for _, name := range []string{"arm64", "amd64"} {
		b.Run(name, func(b *testing.B) {
			t, err := machine.FindTarget(name, "")
			if err != nil {
				b.Fatal(err)
			}
			bare := bareBoot(b, t)
			labctl := func() {
				run1(b, "probe", "run", "-q", "fork", "--arch", name, "--kernel", "6.12", "--out", filepath.Join(b.TempDir(), "rec"))
			}
			labctl() // fills the caches
			bare()
			var bares, runs, ratios []float64
			// One operation is minutes long: the pairs are counted here, not by b.N.
			for range pairs {
				x, y := timed(bare), timed(labctl)
				bares, runs, ratios = append(bares, x), append(runs, y), append(ratios, y/x)
			}
			b.ReportMetric(median(bares), "bare-s")
			b.ReportMetric(median(runs), "labctl-s")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(0, "ns/op")
			fmt.Printf("%s: bare boot %.2f s, labctl probe run fork %.2f s, ratio %.2f (%.2f to %.2f, %d pairs)\n", name,
				median(bares), median(runs), median(ratios), slices.Min(ratios), slices.Max(ratios), len(ratios))
		})
	}
}

// pairs is how many times each of the two is run.
const pairs = 5

func timed(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

func run1(b *testing.B, args ...string) {
	cmd := exec.Command("labctl", args...)
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("labctl %v: %v", args, err)
	}
}

// nothing is an init that does nothing.
const nothing = `package main

import "syscall"

func main() { syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF) }
`

// bareBoot returns a function that boots the target's kernel with QEMU alone,
// console and all, to the end of a do-nothing init.
func bareBoot(b *testing.B, t target.Target) func() {
	dir := b.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			b.Fatal(err)
		}
		return path
	}
	write("go.mod", "module nothing\n\ngo 1.21\n")
	src := write("main.go", nothing)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", "init", src)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+t.Arch, "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build the do-nothing init: %v\n%s", err, out)
	}
	bin, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "nothing.cpio"))
	if err != nil {
		b.Fatal(err)
	}
	w := cpio.Newc.Writer(f)
	for _, r := range []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.StaticFile("init", string(bin), 0o755),
	} {
		if err := w.WriteRecord(r); err != nil {
			b.Fatal(err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	cache, err := kernel.Open("")
	if err != nil {
		b.Fatal(err)
	}
	ref, err := kernel.ParseRef("6.12")
	if err != nil {
		b.Fatal(err)
	}
	k, err := cache.Get(context.Background(), ref, t.Arch, nil)
	if err != nil {
		b.Fatal(err)
	}
	cmd, err := qemu.New(t.Binary, qemu.Defaults{}, qemu.Machine{Type: t.Machine},
		qemu.Accel{Name: "tcg", Thread: t.TCGThread}, qemu.CPU(t.CPU), qemu.Memory{MiB: t.MemoryMB}, qemu.SMP(t.CPUs),
		qemu.Serial{Name: "console"},
		qemu.Kernel{Image: k.Image(), Initrd: f.Name(), Append: append(slices.Clone(t.Console), "rdinit=/init", "panic=-1")})
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		p, err := qemu.Start(context.Background(), cmd)
		if err != nil {
			b.Fatal(err)
		}
		console, _ := io.ReadAll(p.Conn("console"))
		if err := p.Wait(); err != nil {
			b.Fatalf("%s: %v\n%s", cmd, err, console)
		}
	}
}
