package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// soakLimit is when a start is given up as hung, should labctl's own deadlines
// not have ended it.
const soakLimit = 5 * time.Minute

// right is a start that gave the right answers.
const right = "right"

// ends names labctl's exit statuses for the count.
var ends = map[int]string{
	0: right, 1: "wrong answers", 2: "usage", 3: "lacking", 4: "crashes", 5: "deadlines",
}

// soakPlan is how many machines are started, and how.
type soakPlan struct {
	starts int    // of each architecture
	batch  int    // of them in one go; 0 is all
	state  string // the file that remembers those of earlier goes; empty for none
	cold   bool
}

// start is one machine that was started.
type start struct {
	what    string // "arm64 6.12 cold"
	labctl  string // version
	end     string // a word of ends, or "hangs", "other"
	seconds float64
}

// soak starts machines one after the other, each for one probe, and counts how
// they end. The record of one that did not end right is kept.
func (b *bench) soak(w io.Writer, p soakPlan) error {
	how, flags := "warm", []string(nil)
	if p.cold {
		how, flags = "cold", []string{"--cold"}
	}
	before, err := readStarts(p.state)
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(b.ctx, b.labctl, "--version").Output()
	if err != nil {
		return fmt.Errorf("ask for the version of %s: %w", b.labctl, err)
	}
	bad, left := 0, 0
	for _, arch := range b.arches {
		what := strings.Join([]string{arch, b.kernel, how}, " ")
		done := slices.DeleteFunc(slices.Clone(before), func(s start) bool { return s.what != what })
		for now := 0; len(done) < p.starts && (p.batch == 0 || now < p.batch); now++ {
			s, where := b.soakOne(arch, flags)
			if b.ctx.Err() != nil {
				break
			}
			s.what, s.labctl = what, strings.Join(strings.Fields(string(version)), " ")
			done = append(done, s)
			if s.end != right {
				b.say("soak: %s, start %d: %s after %.1f s; %s", what, len(done), s.end, s.seconds, where)
			}
			if err := s.remember(p.state); err != nil {
				return err
			}
		}
		done = done[:min(len(done), p.starts)]
		fmt.Fprintln(w, soakLine(what, done, p.starts))
		left += p.starts - len(done)
		for _, s := range done {
			if s.end != right {
				bad++
			}
		}
	}
	switch {
	case b.ctx.Err() != nil:
		return context.Cause(b.ctx)
	case bad > 0:
		return fmt.Errorf("soak: %d starts did not end right", bad)
	case left > 0 && p.state != "":
		fmt.Fprintf(w, "%d starts are left; the same command goes on with them\n", left)
	}
	return nil
}

// soakLine says how starts ended.
func soakLine(what string, done []start, of int) string {
	ends, versions := map[string]int{}, map[string]int{}
	var took sample
	for _, s := range done {
		ends[s.end]++
		versions[s.labctl]++
		took = append(took, s.seconds)
	}
	line := fmt.Sprintf("%s: %d of %d starts right", what, ends[right], len(done))
	delete(ends, right)
	line += counts(ends)
	if len(done) < of {
		line += fmt.Sprintf("; %d are to come", of-len(done))
	}
	if len(done) > 0 {
		line += fmt.Sprintf("; each %s", took.text("s", 2))
	}
	if len(versions) > 1 {
		line += "; by several versions" + counts(versions)
	}
	return line
}

func counts(of map[string]int) (text string) {
	keys := make([]string, 0, len(of))
	for k := range of {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		text += fmt.Sprintf(", %d %s", of[k], k)
	}
	return text
}

// readStarts reads the file of earlier goes. One that is not there has none.
func readStarts(name string) (all []start, err error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		field := strings.Split(lines.Text(), "\t")
		if len(field) != 4 {
			return nil, fmt.Errorf("%s, line %d: %d fields, want 4; remove the file to begin anew", name, n, len(field))
		}
		seconds, err := strconv.ParseFloat(field[3], 64)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w; remove the file to begin anew", name, n, err)
		}
		all = append(all, start{field[0], field[1], field[2], seconds})
	}
	return all, lines.Err()
}

// remember adds the start to the file.
func (s start) remember(name string) error {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\t%s\t%s\t%.3f\n", s.what, s.labctl, s.end, s.seconds)
	return errors.Join(err, f.Close())
}

func (b *bench) soakOne(arch string, flags []string) (s start, where string) {
	dir, err := os.MkdirTemp("", "labctl-soak-")
	if err != nil {
		return start{end: "other"}, err.Error()
	}
	ctx, cancel := context.WithTimeout(b.ctx, soakLimit)
	defer cancel()
	args := append([]string{"probe", "run", "fork", "-q", "--arch", arch, "--kernel", b.kernel, "--out", dir}, flags...)
	began := time.Now()
	out, err := exec.CommandContext(ctx, b.labctl, args...).CombinedOutput()
	s = start{end: "other", seconds: time.Since(began).Seconds()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		s.end = "hangs"
	case err == nil:
		s.end = right
	case errors.As(err, &exit) && ends[exit.ExitCode()] != "":
		s.end = ends[exit.ExitCode()]
	}
	if s.end == right || b.ctx.Err() != nil {
		os.RemoveAll(dir)
		return s, ""
	}
	_ = os.WriteFile(dir+"/labctl.txt", out, 0o644)
	return s, dir
}
