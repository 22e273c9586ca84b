package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"labctl/host/targets"
	"labctl/host/vm/qemu"
)

// qemuForks is how many rounds of 400 forks are made, to compare how fast QEMUs emulate.
const qemuForks = "5"

// qemus compares the QEMUs in the directories of -qemu with the one on PATH: how fast each
// boots, restores and emulates.
func (b *bench) qemus() error {
	for _, dir := range b.others {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		env := append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		for _, arch := range b.arches {
			if err := b.qemu(arch, dir, env); err != nil {
				return fmt.Errorf("the QEMU in %s: %w", dir, err)
			}
		}
	}
	return nil
}

func (b *bench) qemu(arch, dir string, env []string) error {
	t, ok := targets.Find(arch)
	if !ok {
		return fmt.Errorf("-arch: %q is not known", arch)
	}
	here, err := qemu.Version(t.Binary)
	if err != nil {
		return err
	}
	there, err := qemu.Version(filepath.Join(dir, t.Binary))
	if err != nil {
		return err
	}
	hello, err := b.program("hello", hello, arch)
	if err != nil {
		return err
	}
	forks, err := b.program("forks", forks, arch)
	if err != nil {
		return err
	}
	// both runs one command line with each of the two.
	both := func(what string, line func(up string) []string) error {
		run := func(env []string, up string) func() error {
			return func() error { return b.labctlIn(env, line(up)...) }
		}
		return b.compare(fmt.Sprintf("%s, QEMU %s: %s", arch, there, what), "QEMU "+here, "", run(env, upName(arch, there)), run(nil, upName(arch, here)))
	}
	where := []string{"-q", "--arch", arch, "--kernel", b.kernel}
	if err := both("probe run fork --cold", func(string) []string {
		return append([]string{"probe", "run", "fork", "--cold", "--out", b.folder()}, where...)
	}); err != nil {
		return err
	}
	if err := both("exec a static hello, warm", func(string) []string {
		return append(append([]string{"exec"}, where...), "--", hello)
	}); err != nil {
		return err
	}
	for version, env := range map[string][]string{here: nil, there: env} {
		name := upName(arch, version)
		if err := b.labctlIn(env, append([]string{"up", name, "--detach"}, where...)...); err != nil {
			return err
		}
		defer b.down(name)
	}
	return errors.Join(
		both("exec --in of it, not the first time", func(up string) []string {
			return []string{"exec", "-q", "--in", up, "--", hello}
		}),
		both("exec --in of "+qemuForks+" × 400 forks, not the first time", func(up string) []string {
			return []string{"exec", "-q", "--in", up, "--", forks, qemuForks}
		}))
}

// upName is of the machine that a QEMU keeps.
func upName(arch, version string) string {
	return fmt.Sprintf("bench-%s-%s-%d", arch, strings.ReplaceAll(version, ".", "-"), os.Getpid())
}
