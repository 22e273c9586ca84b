// Package build makes a program for the guest from source that a lab or a learner
// has written. A learner's is Go, and is not trusted: it is copied, file by file,
// into a module of labctl's own that can import the standard library alone, and
// nothing of it runs on this host. A lab's own program may be C, see C.
package build

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"labctl/host/program"
	"labctl/host/text"
)

// GoMod is the go.mod of an exercise.
const GoMod = "module exercise\n\ngo 1.24\n"

// Bounds on a program's source and its build.
const (
	maxFiles = 100
	maxBytes = 2 << 20
	deadline = 5 * time.Minute
)

// guestDir is where programs are put in the guest.
const guestDir = "/run/labctl"

// Error is source that does not compile: the compiler's own words, with the
// files as the learner knows them.
type Error struct {
	Where  string // the source's folder
	Output string // cleaned
}

func (e *Error) Error() string { return fmt.Sprintf("%s does not compile:\n%s", e.Where, e.Output) }

// SourceError is source that is not there, or that is too much.
type SourceError struct{ msg string }

func (e *SourceError) Error() string { return e.msg }

func sourceError(format string, args ...any) error {
	return &SourceError{fmt.Sprintf(format, args...)}
}

// Go builds the Go source at the top of src for a guest of a GOARCH; shown is
// what src is called in messages, name what the program is called in the guest.
// The program is on disk until remove is called.
func Go(ctx context.Context, src fs.FS, shown, name, arch string) (_ *program.Program, remove func(), err error) {
	return inTemp(ctx, shown, name, func(ctx context.Context, dir, out string) error {
		if _, err := copySource(src, shown, dir, golang); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(GoMod), 0o644); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "GOARM=7", "GOAMD64=v1", "CGO_ENABLED=0",
			"GO111MODULE=on", "GOFLAGS=", "GOWORK=off", "GOPROXY=off", "GOTOOLCHAIN=local", "GOEXPERIMENT=")
		if err := compile(ctx, cmd, shown); err != nil {
			return err
		}
		f, err := elf.Open(out)
		if err != nil { // of another package go makes an archive
			return &Error{shown, "it is no program: want package main"}
		}
		return f.Close()
	})
}

// inTemp has make build a program from dir into out, both in a temporary folder
// that goes with remove.
func inTemp(ctx context.Context, shown, name string, make func(ctx context.Context, dir, out string) error) (_ *program.Program, remove func(), err error) {
	temp, err := os.MkdirTemp("", "labctl-lab-")
	if err != nil {
		return nil, nil, fmt.Errorf("build %s: %w", shown, err)
	}
	drop := func() { os.RemoveAll(temp) }
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("build %s: it takes more than %v", shown, deadline))
	defer cancel()
	out := filepath.Join(temp, "out", name)
	if err := make(ctx, filepath.Join(temp, "source"), out); err != nil {
		drop()
		return nil, nil, err
	}
	return &program.Program{Argv0: path.Join(guestDir, name), File: out}, drop, nil
}

// compile runs a compiler; shown is what its folder is called in messages.
func compile(ctx context.Context, cmd *exec.Cmd, shown string) error {
	cmd.WaitDelay = time.Second
	said := head{max: 64 << 10}
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit):
		return &Error{shown, readable(strings.ReplaceAll(said.String(), cmd.Dir, shown), shown)}
	}
	return fmt.Errorf("build %s: %w", shown, err)
}

// language is which files of a folder are source.
type language struct{ name, ext string }

var golang, c = language{"Go", ".go"}, language{"C", ".c"}

// copySource copies the source that is no test and gives the files' names.
func copySource(src fs.FS, shown, dir string, l language) (names []string, err error) {
	entries, err := fs.ReadDir(src, ".")
	if err != nil {
		return nil, sourceError("read %s: %v", shown, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	left := int64(maxBytes)
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != l.ext || strings.HasSuffix(name, "_test.go") || !e.Type().IsRegular() {
			continue
		}
		if names = append(names, name); len(names) > maxFiles {
			return nil, sourceError("read %s: more than %d %s files", shown, maxFiles, l.name)
		}
		f, err := src.Open(name)
		if err != nil {
			return nil, sourceError("read %s: %v", shown, err)
		}
		data, err := io.ReadAll(io.LimitReader(f, left+1))
		f.Close()
		if err != nil {
			return nil, sourceError("read %s: %v", path.Join(shown, name), err)
		}
		if left -= int64(len(data)); left < 0 {
			return nil, sourceError("read %s: more than %d MB of %s source", shown, maxBytes>>20, l.name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	if len(names) == 0 {
		return nil, sourceError("%s: there is no %s source in it", shown, l.name)
	}
	return names, nil
}

var place = regexp.MustCompile(`(?m)^(\s*)(?:vet: )?(?:\./)?([^\s:/]+\.(?:go|c):\d+)`)

// readable names files by the learner's folder and drops the line that only
// repeats the module's name.
func readable(out, shown string) string {
	lines := strings.Split(strings.TrimSpace(text.Clean(out)), "\n")
	if len(lines) > 1 && strings.HasPrefix(lines[0], "# ") {
		lines = lines[1:]
	}
	return place.ReplaceAllString(strings.Join(lines, "\n"), "${1}"+strings.ReplaceAll(shown, "$", "$$")+"/${2}")
}

// head keeps the first max bytes.
type head struct {
	bytes.Buffer
	max int
}

func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), max(0, h.max-h.Len()))])
	return len(p), nil
}
