// Package program turns a program named by the user into something that a guest can
// run, copies the files that it needs to the guest, and copies its outputs back.
package program

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"labctl/guest/wire"
	"labctl/host/cachedir"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/usage"
)

// progDir is the guest's directory for programs from this host.
const progDir = wire.ProgramDir

// Program is something to run in a guest.
type Program struct {
	// Argv0 is what the guest runs: a path in the guest, or a bare name that it
	// looks up.
	Argv0 string
	// File is the program's path on this host, "" for a command of the guest.
	File string
	// Test reports whether it is a Go test binary, judging by its name.
	Test bool
	// Script reports whether it is a shell script, to be run by the guest's shell.
	Script bool

	made *os.File // File, if it was built
}

// Find resolves name for a guest of a GOARCH:
//
//	ls             a command of the guest
//	./prog         a static ELF program
//	./x.sh         a shell script
//	./x.go         Go source, a directory with Go source, or a package path:
//	./cmd/x, .     built for the guest, without cgo
//	example.com/x
//
// The file of a Program that was built exists until Close.
func Find(ctx context.Context, name, arch string) (_ *Program, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	p, src, err := look(name, arch)
	if src != nil {
		return build(ctx, name, src.dir, src.pkg, arch)
	}
	return p, err
}

// Check returns the error of Find as far as it is known without building anything.
func Check(name, arch string) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	_, _, err = look(name, arch)
	return err
}

// source is a package as go build takes it: pkg in dir.
type source struct{ dir, pkg string }

// look finds a program, or the source that it is to be built from.
func look(name, arch string) (*Program, *source, error) {
	if name == "" {
		return nil, nil, errors.New("the program's name is empty")
	}
	if name == "." || name == ".." {
		name += "/" // directories, never commands
	}
	if !strings.Contains(name, "/") {
		return &Program{Argv0: name}, nil, nil
	}
	fi, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isPackagePath(name):
		return nil, &source{"", name}, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("%s: no such file or directory on this host (for a command of the guest use its bare name)", name)
	case err != nil:
		return nil, nil, err
	case fi.IsDir():
		return nil, &source{name, "."}, nil
	case !fi.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s: neither a file nor a directory", name)
	case strings.HasSuffix(name, ".go"):
		return nil, &source{filepath.Dir(name), filepath.Base(name)}, nil
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, nil, err
	}
	if ok, err := isScript(abs); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	} else if ok {
		p, err := FindScript(name)
		return p, nil, err
	}
	if err := checkFile(abs, name, arch); err != nil {
		return nil, nil, err
	}
	return &Program{Argv0: path.Join(progDir, filepath.Base(abs)), File: abs, Test: strings.HasSuffix(abs, ".test")}, nil, nil
}

// isPackagePath distinguishes "example.com/x" and "./..." from "./x" and "/bin/ls".
func isPackagePath(name string) bool {
	return strings.HasSuffix(name, "...") ||
		!path.IsAbs(name) && !strings.HasPrefix(name, "./") && !strings.HasPrefix(name, "../")
}

// build runs `go build` of pkg in dir; what is the name that the user typed. Errors
// include go's messages.
func build(ctx context.Context, what, dir, pkg, arch string) (*Program, error) {
	return goMake(ctx, what, dir, arch, "build", pkg)
}

// BuildTest builds the tests of a package for a GOARCH, without cgo, and returns the
// package's directory, in which they expect to run.
func BuildTest(ctx context.Context, pkg, arch string) (p *Program, dir string, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	list := goCommand(ctx, "", arch, "list", "-f", "{{.Dir}}", pkg)
	var out bytes.Buffer
	list.Stdout = &out
	if err := runGo(ctx, list, "go list "+pkg); err != nil {
		return nil, "", err
	}
	if p, err = goMake(ctx, pkg, "", arch, "test", "-c", pkg); err != nil {
		return nil, "", err
	}
	p.Test = true
	return p, strings.TrimSpace(out.String()), nil
}

// Tests returns the packages matching a pattern that have tests for a GOARCH.
func Tests(ctx context.Context, pattern, arch string) (_ []string, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	list := goCommand(ctx, "", arch, "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", pattern)
	var out bytes.Buffer
	list.Stdout = &out
	if err := runGo(ctx, list, "go list "+pattern); err != nil {
		return nil, err
	}
	return strings.Fields(out.String()), nil
}

// goMake builds one program for a GOARCH with go.
func goMake(ctx context.Context, what, dir, arch, verb string, args ...string) (_ *Program, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err) // errors with its own temporary files
	cache, err := cachedir.Dir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "build")
	if err := cachedir.Make(cache, 0o755); err != nil {
		return nil, err
	}
	folder, err := scratch.MakeFolder(cache, ".tmp-")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	out := filepath.Join(folder.Path, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return nil, err
	}
	cmd := goCommand(ctx, dir, arch, slices.Concat([]string{verb, "-o", out + "/"}, args)...)
	cmd.Env = append(cmd.Env, "GOTMPDIR="+folder.Path) // removed with the directory
	if err := runGo(ctx, cmd, fmt.Sprintf("go %s %s for %s", verb, what, arch)); err != nil {
		return nil, err
	}
	made, err := os.ReadDir(out)
	if err != nil {
		return nil, err
	}
	if len(made) != 1 {
		return nil, outcome.Inputf("go %s %s: builds %d programs, want one", verb, what, len(made))
	}
	file := filepath.Join(out, made[0].Name())
	if err := checkFile(file, what, arch); err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	// Once it is open it needs no name.
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	return &Program{
		Argv0: path.Join(progDir, made[0].Name()),
		File:  fmt.Sprintf("/proc/self/fd/%d", f.Fd()), made: f,
	}, nil
}

func goCommand(ctx context.Context, dir, arch string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	return cmd
}

// runGo runs a go command. Errors start with what and include go's messages.
func runGo(ctx context.Context, cmd *exec.Cmd, what string) error {
	// The parent-death signal is tied to this thread (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr = &said
	if cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	err := cmd.Run()
	usage.Add(ctx, cmd.ProcessState)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, exec.ErrNotFound) {
			return outcome.Hostf("%s: no go command in PATH: install Go 1.26 or newer, or use a program that is already built", what)
		}
		err = errors.New(cmp.Or(strings.TrimSpace(said.String()), err.Error()))
		return outcome.Default(outcome.BadInput, outcome.Said(fmt.Errorf("%s: %w", what, err)))
	}
	return nil
}

// below puts a program from this host below a directory of the guest.
func (p *Program) below(root string) {
	if p.File != "" && root != "" {
		p.Argv0 = path.Join("/", root, p.Argv0)
	}
}

// Close removes what Find has built.
func (p *Program) Close() error {
	if p.made == nil {
		return nil
	}
	return p.made.Close()
}
