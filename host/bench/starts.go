package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"labctl/host/targets"
)

// bareBound is what a probe may take over a bare boot on arm64.
const bareBound = "1.35"

// start compares a whole cold run of labctl with the least that a boot can be.
func (b *bench) start() error {
	for _, arch := range b.arches {
		t, ok := targets.Find(arch)
		if !ok {
			return fmt.Errorf("-arch: %q is not known", arch)
		}
		k, err := b.find(b.kernel, arch)
		if err != nil {
			return err
		}
		bare, err := b.bare(t, k.Image())
		if err != nil {
			return err
		}
		bound := ""
		if arch == "arm64" {
			bound = bareBound
		}
		if err := b.compare(arch+": probe run fork --cold", "bare QEMU boot, init powers off", bound, b.probe(arch, "--cold"), bare); err != nil {
			return err
		}
	}
	return nil
}

// inARow is how many warm starts stand against one cold one.
const inARow = 20

// warm compares starts from a template with boots.
func (b *bench) warm() error {
	for _, arch := range b.arches {
		warm, cold := b.probe(arch), b.probe(arch, "--cold")
		if err := b.compare(arch+": probe run fork, warm", "the same, cold", "", warm, cold); err != nil {
			return err
		}
		prog, err := b.program("hello", hello, arch)
		if err != nil {
			return err
		}
		line := []string{"exec", "-q", "--arch", arch, "--kernel", b.kernel}
		run := b.command(append(line[:len(line):len(line)], "--", prog)...)
		slow := b.command(append(line[:len(line):len(line)], "--cold", "--", prog)...)
		if err := b.compare(arch+": exec a static hello, warm", "the same, cold", "", run, slow); err != nil {
			return err
		}
		if err := b.row20(arch, run, slow); err != nil {
			return err
		}
		if err := b.hot(arch, prog, run); err != nil {
			return err
		}
	}
	return nil
}

// hotBound is what a program in a machine that has run it before may take over one that
// has its machine started for it.
const hotBound = "0.25"

// hot compares a program in a machine that is up with one in a warm machine of its own.
func (b *bench) hot(arch, prog string, warm func() error) error {
	name := fmt.Sprintf("bench-%s-%d", arch, os.Getpid())
	if err := b.labctlRun("up", name, "-q", "--detach", "--arch", arch, "--kernel", b.kernel); err != nil {
		return err
	}
	hot := b.command("exec", "-q", "--in", name, "--", prog)
	err := hot() // the first one brings it there
	if err == nil {
		err = b.compare(arch+": exec --in of a static hello, not the first time", "the same in a warm machine of its own", hotBound, hot, warm)
	}
	return errors.Join(err, b.down(name))
}

// row20 times warm starts one after the other between two cold ones.
func (b *bench) row20(arch string, run, cold func() error) error {
	r := row{what: fmt.Sprintf("%s: %d warm execs in a row, all together", arch, inARow), baseline: "one cold exec", unit: "s", digits: 2}
	clock := func(f func() error) (float64, error) {
		start := time.Now()
		err := f()
		return time.Since(start).Seconds(), err
	}
	var each sample
	for i := range inARow + 2 {
		f := run
		if i == 0 || i == inARow+1 {
			f = cold
		}
		took, err := clock(f)
		if err != nil {
			return err
		}
		if i == 0 || i == inARow+1 {
			r.base = append(r.base, took)
		} else {
			each = append(each, took)
		}
	}
	sum := 0.0
	for _, s := range each {
		sum += s
	}
	r.got = sample{sum}
	b.table.add(r)
	b.table.note("%s: each of the %d warm execs took %s", arch, inARow, each.text("s", 2))
	b.say("  %s: %d warm execs, each %s", arch, inARow, each.text("s", 2))
	return nil
}

// pvh compares the two ways into an x86 kernel, for each one that has both.
func (b *bench) pvh() error {
	if !contains(b.arches, "amd64") {
		return nil
	}
	t, _ := targets.Find("amd64")
	for _, ref := range pvhKernels {
		k, err := b.find(ref, t.Arch)
		if err != nil {
			return err
		}
		path, ok := k.PVH(b.ctx)
		if !ok {
			b.table.note("amd64: kernel %s has no PVH note", ref)
			continue
		}
		elf, err := b.bare(t, path)
		if err != nil {
			return err
		}
		bz, err := b.bare(t, k.Image())
		if err != nil {
			return err
		}
		if err := b.compare("amd64: "+ref+" bare, vmlinux by PVH", "the same, bzImage", "", elf, bz); err != nil {
			return err
		}
	}
	return nil
}

// pvhKernels are of different age and options.
var pvhKernels = []string{"5.10", "6.1", "6.12", "7.2"}
