package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"labctl/host/program"
)

// cross are the C compilers of distributions for another architecture, by GOARCH.
var cross = map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc", "arm": "arm-linux-gnueabihf-gcc"}

// CompilerError is a host that cannot make static C programs for an architecture.
type CompilerError struct {
	Arch     string // GOARCH
	Compiler string // what was looked for
}

func (e *CompilerError) Error() string {
	return fmt.Sprintf("no C compiler for %s: install %s and a static C library", e.Arch, e.Compiler)
}

// Step builds a program of a lab's step: Go, or C where the folder has no Go.
func Step(ctx context.Context, src fs.FS, shown, name, arch string) (_ *program.Program, remove func(), err error) {
	if found, err := fs.Glob(src, "*"+golang.ext); err == nil && len(found) == 0 {
		if found, err := fs.Glob(src, "*"+c.ext); err == nil && len(found) > 0 {
			return C(ctx, src, shown, name, arch)
		}
	}
	return Go(ctx, src, shown, name, arch)
}

// C builds a static program of a lab's own C source as Go does of Go source, by a
// compiler of the host. Where there is none for the architecture, or none with a
// static library, the error is a *CompilerError.
//
// A compiler reads what C source tells it to include: this is for labs, not for
// what learners hand in.
func C(ctx context.Context, src fs.FS, shown, name, arch string) (_ *program.Program, remove func(), err error) {
	lacking := &CompilerError{arch, cross[arch]}
	if arch == runtime.GOARCH {
		lacking.Compiler = "cc"
	}
	compiler, err := exec.LookPath(lacking.Compiler)
	if err != nil {
		return nil, nil, lacking
	}
	return inTemp(ctx, shown, name, func(ctx context.Context, dir, out string) error {
		names, err := copySource(src, shown, dir, c)
		if err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Dir(out), 0o755); err != nil {
			return err
		}
		link := func(files ...string) error {
			argv := []string{"-static", "-O1", "-Wall", "-pthread", "-o", out}
			for _, f := range files {
				argv = append(argv, "./"+f) // no name is an option
			}
			cmd := exec.CommandContext(ctx, compiler, argv...)
			cmd.Dir = dir
			return compile(ctx, cmd, shown)
		}
		err = link(names...)
		var bad *Error
		if !errors.As(err, &bad) {
			return err
		}
		// Is it the source, or can the compiler link nothing?
		const empty = "labctl-empty.c"
		if err := os.WriteFile(filepath.Join(dir, empty), []byte("int main(void) { return 0; }\n"), 0o644); err != nil {
			return err
		}
		if errors.As(link(empty), &bad) {
			return lacking
		}
		return err
	})
}
