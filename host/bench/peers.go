package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"labctl/host/targets"
)

// peer is another tool that boots a kernel to run one command.
type peer struct {
	name, binary string
	get          string // how to have it
	// args run `true` on a kernel, under emulation.
	args func(image, arch string) []string
}

var peersKnown = []peer{
	{
		name: "virtme-ng", binary: "vng", get: "apt-get install virtme-ng, or pipx install virtme-ng",
		args: func(image, arch string) []string {
			a := []string{"--run", image, "--disable-kvm", "--cpus", "2", "--memory", "512M"}
			if arch != targets.Host().Arch {
				a = append(a, "--arch", arch)
			}
			return append(a, "--exec", "true")
		},
	},
	{
		name: "vmtest", binary: "vmtest", get: "cargo install vmtest (github.com/danobi/vmtest)",
		args: func(image, _ string) []string { return []string{"--kernel", image, "true"} },
	},
}

// peers compares `labctl exec` with other tools, on the kernel of the host's
// architecture. What is not installed is named; nothing is installed here.
func (b *bench) peers() error {
	t := targets.Host()
	k, err := b.find(b.kernel, t.Arch)
	if err != nil {
		return err
	}
	prog, err := b.program("hello", hello, t.Arch)
	if err != nil {
		return err
	}
	line := []string{"exec", "-q", "--arch", t.Arch, "--kernel", b.kernel}
	warm := b.command(append(line[:len(line):len(line)], "--", prog)...)
	cold := b.command(append(line[:len(line):len(line)], "--cold", "--", prog)...)
	bare, err := b.bare(t, k.Image())
	if err != nil {
		return err
	}
	if err := b.compare("labctl exec hello, warm", "bare QEMU boot, init powers off", "", warm, bare); err != nil {
		return err
	}
	if err := b.compare("labctl exec hello, cold", "bare QEMU boot, init powers off", "", cold, bare); err != nil {
		return err
	}
	for _, p := range peersKnown {
		path, err := exec.LookPath(p.binary)
		if err != nil {
			b.table.note("%s: not on this machine (no %s on PATH); to have it: %s", p.name, p.binary, p.get)
			continue
		}
		args := p.args(k.Image(), t.Arch)
		run := func() error {
			cmd := exec.CommandContext(b.ctx, path, args...)
			cmd.Dir = b.dir
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s %s: %w\n%.2000s", filepath.Base(path), strings.Join(args, " "), err, out)
			}
			return nil
		}
		// A peer that cannot boot this kernel here is no end of the others.
		if err := b.compare(p.name+", true", "bare QEMU boot, init powers off", "", run, bare); err != nil {
			if b.ctx.Err() != nil {
				return err
			}
			b.table.note("%s: installed, but did not run: %s", p.name, strings.Join(strings.Fields(err.Error()), " "))
		}
	}
	return nil
}
