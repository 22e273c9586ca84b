package compile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"labctl/host/arch"
	"labctl/host/outcome"
)

// CompilerError is a host that cannot make static C programs for an architecture.
type CompilerError struct {
	Arch     string // GOARCH
	Compiler string // what was looked for
}

func (e *CompilerError) Error() string {
	return fmt.Sprintf("no C compiler for %s: install %s and a static C library", e.Arch, e.Compiler)
}

// Outcome is HostLacks.
func (e *CompilerError) Outcome() outcome.Kind { return outcome.HostLacks }

// Step builds a program of a lab's step: Go, or C where the directory has no Go.
func Step(ctx context.Context, src Source, goarch string) Built {
	if found, err := fs.Glob(src.FS, "*"+golang.ext); err == nil && len(found) == 0 {
		if found, err := fs.Glob(src.FS, "*"+c.ext); err == nil && len(found) > 0 {
			return C(ctx, src, goarch)
		}
	}
	return Go(ctx, src, goarch)
}

var cFlags = []string{"-static", "-O1", "-Wall", "-pthread"}

// C builds a static program of a lab's own C source as Go does of Go source, by a
// compiler of the host. Where there is none for the architecture, or none with a
// static library, the error is a *CompilerError.
//
// A compiler reads what C source tells it to include: this is for labs, not for
// what learners hand in.
func C(ctx context.Context, src Source, goarch string) (b Built) {
	lacking := &CompilerError{goarch, "cc"}
	if goarch != runtime.GOARCH {
		a, ok := arch.Find(goarch)
		if !ok {
			return Built{Err: &CompilerError{goarch, "a cross compiler"}}
		}
		lacking.Compiler = a.CrossCompile() + "gcc"
	}
	tool, err := tool(lacking.Compiler)
	if err != nil {
		return Built{Err: lacking}
	}
	files, err := read(src, c)
	if err != nil {
		return Built{Err: err}
	}
	j := job{src, files, key(tool, goarch, strings.Join(cFlags, " "), files), &b}
	if !j.kept() {
		b.Err = cBuild(ctx, &j, lacking)
	}
	return b
}

func cBuild(ctx context.Context, j *job, lacking *CompilerError) error {
	return inFolder(ctx, j.Shown, func(ctx context.Context, dir string) error {
		if err := write(dir, j.files); err != nil {
			return err
		}
		out := filepath.Join(filepath.Dir(dir), "out", "program")
		link := func(files ...File) error {
			argv := slices.Concat(cFlags, []string{"-o", out})
			for _, f := range files {
				argv = append(argv, "./"+f.Name) // no name is an option
			}
			cmd := exec.CommandContext(ctx, lacking.Compiler, argv...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(dir)) // what it leaves behind goes with the directory
			return compile(ctx, cmd, j.Shown)
		}
		err := link(j.files...)
		if err == nil {
			return j.keep(out)
		}
		var bad *Error
		if !errors.As(err, &bad) {
			return err
		}
		// Is it the source, or can the compiler link nothing?
		empty := File{"labctl-empty.c", []byte("int main(void) { return 0; }\n")}
		if err := write(dir, []File{empty}); err != nil {
			return err
		}
		if errors.As(link(empty), &bad) {
			return lacking
		}
		return err
	})
}
