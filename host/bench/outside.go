package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// outside measures what looking at a guest from outside costs the guest.
func (b *bench) outside() error {
	for _, goarch := range b.arches {
		if err := b.watched(goarch); err != nil {
			return err
		}
	}
	return nil
}

// watched compares forks in a guest whose tasks are listed ten times a second with forks
// when it is left alone: in the same guest, in turn, when all its code is translated.
func (b *bench) watched(goarch string) error {
	prog, err := b.program("forks", forks, goarch)
	if err != nil {
		return err
	}
	// Other machines of this user's have their sockets elsewhere.
	run := filepath.Join(b.dir, "run-"+goarch)
	if err := os.Mkdir(run, 0o700); err != nil {
		return err
	}
	env := append(os.Environ(), "XDG_RUNTIME_DIR="+run)
	const warm = 3 // rounds
	rounds := warm + 4*b.pairs
	cmd := exec.CommandContext(b.ctx, b.labctl, "exec", "-q", "--arch", goarch, "--kernel", b.kernel, "--", prog, strconv.Itoa(rounds))
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
			if stop, err = b.reader(env); err != nil {
				return err
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("labctl exec: %w", err)
	}
	r := row{what: goarch + ": 400 forks while ps reads ten times a second", baseline: "400 forks", bound: "1.02", unit: "s", digits: 3}
	for t := took[warm:]; len(t) >= 4; t = t[4:] {
		alone, watched := (t[0]+t[3])/2, (t[1]+t[2])/2
		r.got, r.base, r.ratios = append(r.got, watched), append(r.base, alone), append(r.ratios, watched/alone)
	}
	b.table.add(r)
	return nil
}

// reader lists the tasks of the only machine ten times a second, until it is stopped.
func (b *bench) reader(env []string) (stop func() error, err error) {
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
