package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"labctl/host/cachedir"
	"labctl/host/outcome"
)

// Thorough is what CheckAll has found.
type Thorough struct {
	cachedir.Sound
	Mended []string // a line for each kernel that was pulled again
	Lost   []error  // kernels that are damaged and could not be mended, with the remedy
}

// CheckAll reads every file of every cached kernel. Damaged ones that were pulled are
// pulled again, derived files removed, to be made again when they are needed.
func (c *Cache) CheckAll(ctx context.Context, report func(k string, p Progress)) (t Thorough, err error) {
	for _, parent := range append(c.pulledDirs(), c.fileDir()) {
		entries, err := os.ReadDir(parent)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return t, outcome.Default(outcome.HostLacks, fmt.Errorf("check cached kernels: %w", err))
		}
		for _, e := range entries {
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if err := ctx.Err(); err != nil {
				return t, context.Cause(ctx)
			}
			dir := filepath.Join(parent, e.Name())
			derived, err := cachedir.CheckSealed(dir)
			if err != nil {
				return t, outcome.Default(outcome.HostLacks, fmt.Errorf("check cached kernels: %w", err))
			}
			t.Files, t.Bytes, t.Damaged = t.Files+derived.Files, t.Bytes+derived.Bytes, append(t.Damaged, derived.Damaged...)
			c.checkKernel(ctx, dir, &t, report)
		}
	}
	return t, nil
}

// checkKernel checks one kernel's directory.
func (c *Cache) checkKernel(ctx context.Context, dir string, t *Thorough, report func(string, Progress)) {
	name := filepath.Base(dir)
	k, err := load(dir)
	if err == nil {
		if k.Path != "" {
			delete(k.Files, imageFile) // it is the user's
		}
		for _, f := range k.Files {
			t.Files++
			t.Bytes += f.Size
		}
		err = k.VerifyAll()
	}
	if err == nil {
		return
	}
	if filepath.Dir(dir) == c.fileDir() {
		t.Damaged = append(t.Damaged, err.Error())
		if err := os.RemoveAll(dir); err != nil {
			t.Lost = append(t.Lost, err)
		}
		return
	}
	fresh, mendErr := c.remake(ctx, k, dir, func(p Progress) { report(name, p) })
	switch {
	case mendErr != nil && ctx.Err() == nil:
		t.Lost = append(t.Lost, fmt.Errorf("%w; %w", err, mendErr))
	case mendErr == nil:
		t.Mended = append(t.Mended, fmt.Sprintf("%v: pulled again: %s", err, fresh))
	}
}

// remake pulls a damaged kernel again. k is nil if its description is what is damaged:
// then its directory's name tells where it came from.
func (c *Cache) remake(ctx context.Context, k *Kernel, dir string, report func(Progress)) (*Kernel, error) {
	if filepath.Dir(dir) == c.buildDir() {
		return nil, outcome.Inputf("labctl kernel build makes it again")
	}
	if k != nil {
		return c.Repair(ctx, k, report)
	}
	for _, src := range pulled() {
		for a := range src.Arch {
			if c.sourceDir(src.Kind) != filepath.Dir(dir) || !strings.HasPrefix(filepath.Base(dir), src.key()+"-"+a+"-") {
				continue
			}
			ref := Ref{Suite: src.Suite, Flavour: src.Flavour, Module: src.Module}
			k, err := c.Pull(ctx, ref, a, report)
			if err == nil && k.Dir != dir {
				err = os.RemoveAll(dir)
			}
			return k, err
		}
	}
	return nil, outcome.Inputf("remove %s", dir)
}
