package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"
)

// soakLimit is when a start is given up as hung, should labctl's own deadlines
// not have ended it.
const soakLimit = 5 * time.Minute

// ends names labctl's exit statuses for the count.
var ends = map[int]string{
	0: "right", 1: "wrong answers", 2: "usage", 3: "lacking", 4: "crashes", 5: "deadlines",
}

// soak starts machines one after the other, each for one probe, and counts how
// they end. The record of one that did not end right is kept.
func (b *bench) soak(w io.Writer, n int, cold bool) error {
	how, flags := "warm", []string(nil)
	if cold {
		how, flags = "cold", []string{"--cold"}
	}
	bad := 0
	for _, arch := range b.arches {
		count := map[string]int{}
		var took sample
		for i := range n {
			if b.ctx.Err() != nil {
				break
			}
			kind, seconds, where := b.soakOne(arch, flags)
			count[kind]++
			took = append(took, seconds)
			if kind != ends[0] {
				bad++
				b.say("soak: %s %s %s, start %d: %s after %.1f s; %s", arch, b.kernel, how, i+1, kind, seconds, where)
			}
		}
		fmt.Fprintf(w, "%s %s %s: %d starts of %d", arch, b.kernel, how, len(took), n)
		kinds := make([]string, 0, len(count))
		for k := range count {
			kinds = append(kinds, k)
		}
		slices.Sort(kinds)
		for _, k := range kinds {
			fmt.Fprintf(w, ", %d %s", count[k], k)
		}
		fmt.Fprintf(w, "; each %s\n", took.text("s", 2))
	}
	if err := b.ctx.Err(); err != nil {
		return context.Cause(b.ctx)
	}
	if bad > 0 {
		return fmt.Errorf("soak: %d starts did not end right", bad)
	}
	return nil
}

func (b *bench) soakOne(arch string, flags []string) (kind string, seconds float64, where string) {
	dir, err := os.MkdirTemp("", "labctl-soak-")
	if err != nil {
		return "no folder", 0, err.Error()
	}
	ctx, cancel := context.WithTimeout(b.ctx, soakLimit)
	defer cancel()
	args := append([]string{"probe", "run", "fork", "-q", "--arch", arch, "--kernel", b.kernel, "--out", dir}, flags...)
	start := time.Now()
	out, err := exec.CommandContext(ctx, b.labctl, args...).CombinedOutput()
	seconds = time.Since(start).Seconds()
	var exit *exec.ExitError
	switch {
	case b.ctx.Err() != nil:
		kind = "interrupted"
	case ctx.Err() != nil:
		kind = "hangs"
	case err == nil:
		kind = ends[0]
	case errors.As(err, &exit) && ends[exit.ExitCode()] != "":
		kind = ends[exit.ExitCode()]
	default:
		kind = "other"
	}
	if kind == ends[0] {
		os.RemoveAll(dir)
		return kind, seconds, ""
	}
	_ = os.WriteFile(dir+"/labctl.txt", out, 0o644)
	return kind, seconds, dir
}
