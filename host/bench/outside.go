package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// outside measures what looking at a guest from outside costs the guest.
func (b *bench) outside() error {
	for _, goarch := range b.arches {
		r := row{what: goarch + ": 400 forks while ps reads ten times a second"}
		run, err := b.runtimeDir()
		if err == nil {
			err = b.watched(run, []string{"-q", "--arch", goarch, "--kernel", b.kernel}, goarch, r, b.lister)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runtimeDir is a directory for the sockets of machines, apart from the user's others,
// and the environment of a labctl that has it.
func (b *bench) runtimeDir() (env []string, err error) {
	dir, err := os.MkdirTemp(b.dir, "run-")
	return append(os.Environ(), "XDG_RUNTIME_DIR="+dir), err
}

// watched compares forks in a guest that watch looks at with forks when it is left alone:
// in the same guest, in turn, when all its code is translated. The guest is the one that
// labctl exec has with the flags.
func (b *bench) watched(env, flags []string, goarch string, r row, watch func(env []string) (stop func() error, err error)) error {
	prog, err := b.program("forks", forks, goarch)
	if err != nil {
		return err
	}
	const warm = 3 // rounds
	rounds := warm + 4*b.pairs
	cmd := exec.CommandContext(b.ctx, b.labctl, append(append([]string{"exec"}, flags...), "--", prog, strconv.Itoa(rounds))...)
	cmd.Env = env
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var took []float64
	stop := func() error { return nil }
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		m := tookLine.FindStringSubmatch(lines.Text())
		if m == nil {
			return fmt.Errorf("labctl exec: %s", lines.Text())
		}
		us, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		took = append(took, us/1e6)
		if err := stop(); err != nil {
			return err
		}
		stop = func() error { return nil }
		// Of each four the two in the middle are watched, so that a trend does not count.
		if n := len(took) - warm; n >= 0 && (n%4 == 1 || n%4 == 2) && len(took) < rounds {
			if stop, err = watch(env); err != nil {
				return err
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("labctl exec: %w", err)
	}
	r.baseline, r.bound, r.unit, r.digits = "400 forks", "1.02", "s", 3
	for t := took[warm:]; len(t) >= 4; t = t[4:] {
		alone, watched := (t[0]+t[3])/2, (t[1]+t[2])/2
		r.got, r.base, r.ratios = append(r.got, watched), append(r.base, alone), append(r.ratios, watched/alone)
	}
	b.table.add(r)
	return nil
}

// lister lists the tasks of the only machine ten times a second, until it is stopped.
func (b *bench) lister(env []string) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(b.ctx)
	cmd := exec.CommandContext(ctx, b.labctl, "ps", "-q", "--watch", "--every", "100ms")
	cmd.Env, cmd.Stdout = env, io.Discard
	var said limited
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return func() error {
		cancel()
		_ = cmd.Wait() // it was killed
		if len(said) > 0 {
			return fmt.Errorf("labctl ps: %s", said)
		}
		return nil
	}, nil
}

// limited keeps the start of what is written.
type limited []byte

func (l *limited) Write(p []byte) (int, error) {
	*l = append(*l, p[:min(len(p), 400-len(*l))]...)
	return len(p), nil
}
