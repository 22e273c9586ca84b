// Package build makes a program for the guest from Go source that a lab or a
// learner has written. The source is not trusted: it is copied, file by file,
// into a module of labctl's own that can import the standard library alone, and
// nothing of it runs on this host.
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
	temp, err := os.MkdirTemp("", "labctl-lab-")
	if err != nil {
		return nil, nil, fmt.Errorf("build %s: %w", shown, err)
	}
	drop := func() { os.RemoveAll(temp) }
	defer func() {
		if err != nil {
			drop()
		}
	}()
	dir := filepath.Join(temp, "source")
	if err := copySource(src, shown, dir); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("build %s: it takes more than %v", shown, deadline))
	defer cancel()
	out := filepath.Join(temp, "out", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "GOARM=7", "GOAMD64=v1", "CGO_ENABLED=0",
		"GO111MODULE=on", "GOFLAGS=", "GOWORK=off", "GOPROXY=off", "GOTOOLCHAIN=local", "GOEXPERIMENT=")
	said := head{max: 64 << 10}
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case errors.As(err, &exit):
			return nil, nil, &Error{shown, readable(strings.ReplaceAll(said.String(), dir, shown), shown)}
		}
		return nil, nil, fmt.Errorf("build %s: %w", shown, err)
	}
	if f, err := elf.Open(out); err != nil { // of another package go makes an archive
		return nil, nil, &Error{shown, "it is no program: want package main"}
	} else {
		f.Close()
	}
	return &program.Program{Argv0: path.Join(guestDir, name), File: out}, drop, nil
}

// copySource copies the .go files that are no tests, and gives them a go.mod.
func copySource(src fs.FS, shown, dir string) error {
	entries, err := fs.ReadDir(src, ".")
	if err != nil {
		return sourceError("read %s: %v", shown, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	files, left := 0, int64(maxBytes)
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || !e.Type().IsRegular() {
			continue
		}
		if files++; files > maxFiles {
			return sourceError("read %s: more than %d Go files", shown, maxFiles)
		}
		f, err := src.Open(name)
		if err != nil {
			return sourceError("read %s: %v", shown, err)
		}
		data, err := io.ReadAll(io.LimitReader(f, left+1))
		f.Close()
		if err != nil {
			return sourceError("read %s: %v", path.Join(shown, name), err)
		}
		if left -= int64(len(data)); left < 0 {
			return sourceError("read %s: more than %d MB of Go source", shown, maxBytes>>20)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	if files == 0 {
		return sourceError("%s: there is no Go source in it", shown)
	}
	return os.WriteFile(filepath.Join(dir, "go.mod"), []byte(GoMod), 0o644)
}

var place = regexp.MustCompile(`(?m)^(\s*)(?:vet: )?(?:\./)?([^\s:/]+\.go:\d+)`)

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
