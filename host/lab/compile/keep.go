package compile

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"labctl/host/cachedir"
	"labctl/host/image/program"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// Programs are kept by what they were made of in the directory "programs" of the
// cache. The least recently used ones go when they take more than keepBytes in
// all; who has one open keeps it.
const keepBytes = 512 << 20

// temps is how directories are called in which programs are built.
const temps = ".tmp-"

// tool says which compiler it is that a name stands for, without running it.
func tool(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err == nil {
		found, err = filepath.EvalSymlinks(found)
	}
	if err != nil && name == "go" {
		return "", outcome.Hostf("find the compiler: %w: install Go 1.26 or newer", err)
	}
	if err != nil {
		return "", outcome.Hostf("find the compiler: %w", err)
	}
	fi, err := os.Stat(found)
	if err != nil {
		return "", outcome.Hostf("find the compiler: %w", err)
	}
	return fmt.Sprintf("%s %d %d %s", found, fi.Size(), fi.ModTime().UnixNano(), os.Getenv("GOROOT")), nil
}

// key is a hash of all that makes a program.
func key(tool, arch, flags string, files []File) string {
	h := sha256.New()
	parts := []string{"program 1", tool, arch, flags}
	for _, f := range files {
		parts = append(parts, f.Name, string(f.Data))
	}
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func folder() (string, error) {
	dir, err := cachedir.Dir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "programs")
	return dir, cachedir.Make(dir, 0o755)
}

// kept takes the program as it was built before, if it was.
func (j *job) kept() bool {
	dir, err := folder()
	if err != nil {
		return false
	}
	name := filepath.Join(dir, j.key)
	return cachedir.Check(name, "") == nil && j.take(name) == nil
}

// take opens a program that was built.
func (j *job) take(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	if _, err := elf.NewFile(f); err != nil { // of another package go makes an archive
		f.Close()
		return &Error{j.Shown, "it is no program: want package main"}
	}
	j.out.file = f
	// Open, it needs no name any more.
	j.out.Program = &program.Program{Argv0: path.Join(guestDir, j.Name), File: fmt.Sprintf("/proc/self/fd/%d", f.Fd())}
	return nil
}

// keep takes a program that was just built, and keeps it for the next time.
func (j *job) keep(built string) error {
	if err := j.take(built); err != nil {
		return err
	}
	dir, err := folder()
	if err != nil {
		return err
	}
	if err := os.Rename(built, filepath.Join(dir, j.key)); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("keep %s: %w", j.Shown, err))
	}
	if err := cachedir.Seal(filepath.Join(dir, j.key), ""); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("keep %s: %w", j.Shown, err))
	}
	shrink(dir, keepBytes)
	return nil
}

// shrink removes the least recently used programs until the others take at most
// limit bytes. What cannot be removed now may be later.
func shrink(dir string, limit int64) {
	entries, _ := os.ReadDir(dir)
	type kept struct {
		name string
		size int64
		used time.Time
	}
	var all []kept
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !fi.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), cachedir.SealSuffix) {
			continue
		}
		k := kept{filepath.Join(dir, e.Name()), fi.Size(), fi.ModTime()}
		if seal, err := os.Stat(k.name + cachedir.SealSuffix); err == nil {
			k.used = seal.ModTime()
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int { return b.used.Compare(a.used) })
	for _, k := range all {
		if limit -= k.size; limit < 0 {
			os.Remove(k.name)
			os.Remove(k.name + cachedir.SealSuffix)
		}
	}
}

// inFolder has make build in dir, an empty directory; what is made beside it goes with
// it.
func inFolder(ctx context.Context, shown string, make func(ctx context.Context, dir string) error) error {
	cache, err := folder()
	if err != nil {
		return fmt.Errorf("build %s: %w", shown, err)
	}
	temp, err := scratch.MakeFolder(cache, temps)
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("build %s: %w", shown, err))
	}
	defer temp.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, &SlowError{shown, fmt.Sprintf("it takes more than %v", deadline)})
	defer cancel()
	for _, name := range []string{"source", "out"} {
		if err := os.Mkdir(filepath.Join(temp.Path, name), 0o755); err != nil {
			return outcome.Default(outcome.HostLacks, fmt.Errorf("build %s: %w", shown, err))
		}
	}
	return make(ctx, filepath.Join(temp.Path, "source"))
}
