// Package program goes from what a user types to something that a guest can
// run, brings the files that it needs, and takes back those that it was told to
// write.
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
	"strings"
	"syscall"

	"labctl/host/cachedir"
	"labctl/host/scratch"
	"labctl/host/usage"
)

// progDir is the guest's folder for programs from this host.
const progDir = "/run/labctl"

// Program is something to run in a guest.
type Program struct {
	// Argv0 is what the guest is to run: a path there, or a bare name that it
	// looks up.
	Argv0 string
	// File is the program on this host, empty for a command of the guest.
	File string
	// Test says that it is a Go test binary, by its name.
	Test bool
	// Script says that it is a shell script, for the guest's shell to run.
	Script bool

	made *os.File // File, when it was built
}

// Find resolves name for a guest of a GOARCH:
//
//	ls             a command of the guest
//	./prog         a static ELF program
//	./x.sh         a shell script
//	./x.go         Go source, a folder with Go source, or a package's path:
//	./cmd/x, .     built for the guest, without cgo
//	example.com/x
//
// The file of a Program that was built is there until Close.
func Find(ctx context.Context, name, arch string) (*Program, error) {
	if name == "" {
		return nil, errors.New("the program's name is empty")
	}
	if name == "." || name == ".." {
		name += "/" // folders, and no command is called so
	}
	if !strings.Contains(name, "/") {
		return &Program{Argv0: name}, nil
	}
	fi, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isPackagePath(name):
		return build(ctx, name, "", name, arch)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no such file or folder on this host (a command of the guest is given by its bare name)", name)
	case err != nil:
		return nil, err
	case fi.IsDir():
		return build(ctx, name, name, ".", arch)
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s: neither a file nor a folder", name)
	case strings.HasSuffix(name, ".go"):
		return build(ctx, name, filepath.Dir(name), filepath.Base(name), arch)
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	if ok, err := isScript(abs); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	} else if ok {
		return FindScript(name)
	}
	if err := checkFile(abs, name, arch); err != nil {
		return nil, err
	}
	return &Program{Argv0: path.Join(progDir, filepath.Base(abs)), File: abs, Test: strings.HasSuffix(abs, ".test")}, nil
}

// isPackagePath tells "example.com/x" and "./..." from "./x" and "/bin/ls".
func isPackagePath(name string) bool {
	return strings.HasSuffix(name, "...") ||
		!path.IsAbs(name) && !strings.HasPrefix(name, "./") && !strings.HasPrefix(name, "../")
}

// build runs `go build` of pkg in dir; what names both as the user did. What it
// says on errors is passed on.
func build(ctx context.Context, what, dir, pkg, arch string) (*Program, error) {
	cache, err := cachedir.Dir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "build")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	folder, err := scratch.MakeFolder(cache, ".tmp-")
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	out := filepath.Join(folder.Path, "out")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out+"/", pkg)
	cmd.Dir = dir
	// It ends with labctl, which is with this thread (prctl(2), PR_SET_PDEATHSIG),
	// and its temporary files with the folder.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GOTMPDIR="+folder.Path, "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	usage.Add(ctx, cmd.ProcessState)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("go build %s for %s: %w", what, arch, errors.New(cmp.Or(strings.TrimSpace(said.String()), err.Error())))
	}
	made, err := os.ReadDir(out)
	if err != nil {
		return nil, err
	}
	if len(made) != 1 {
		return nil, fmt.Errorf("go build %s: it makes %d programs, want one", what, len(made))
	}
	file := filepath.Join(out, made[0].Name())
	if err := checkFile(file, what, arch); err != nil {
		return nil, err
	}
	// Open, it needs no name any more.
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	return &Program{
		Argv0: path.Join(progDir, made[0].Name()),
		File:  fmt.Sprintf("/proc/self/fd/%d", f.Fd()), made: f,
	}, nil
}

// Close gives up what Find has built.
func (p *Program) Close() error {
	if p.made == nil {
		return nil
	}
	return p.made.Close()
}
