// Package compile makes a program for the guest from source that a lab or a learner
// has written. A learner's is Go, and is not trusted: it is copied, file by file,
// into a module of labctl's own that can import the standard library alone, and
// nothing of it runs on this host. A lab's own program may be C, see C.
package compile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"labctl/host/bounded"
	"labctl/host/image/program"
	"labctl/host/lab"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/usage"
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
	Where  string // the source's directory
	Output string // cleaned
}

func (e *Error) Error() string { return fmt.Sprintf("%s does not compile:\n%s", e.Where, e.Output) }

// Outcome is BadInput.
func (e *Error) Outcome() outcome.Kind { return outcome.BadInput }

// How is NoCompile.
func (e *Error) How() outcome.How { return outcome.NoCompile }

// SourceError is source that is not there, or that is too much.
type SourceError struct{ msg string }

func (e *SourceError) Error() string { return e.msg }

// Outcome is BadInput.
func (e *SourceError) Outcome() outcome.Kind { return outcome.BadInput }

// How is NoSource.
func (e *SourceError) How() outcome.How { return outcome.NoSource }

// SlowError is source that takes the compiler too long.
type SlowError struct{ where, msg string }

func (e *SlowError) Error() string { return "build " + e.where + ": " + e.msg }

// Outcome is Deadline.
func (e *SlowError) Outcome() outcome.Kind { return outcome.Deadline }

// How is TooSlow.
func (e *SlowError) How() outcome.How { return outcome.TooSlow }

// NoSource is a *SourceError.
func NoSource(format string, args ...any) error {
	return &SourceError{fmt.Sprintf(format, args...)}
}

// Source is a program to be built.
type Source struct {
	FS    fs.FS  // its source is at the top
	Shown string // what FS is called in messages
	Name  string // what the program is called in the guest; may be in a directory: "1/exercise"
}

// Built is a program for a guest, or why there is none.
type Built struct {
	*program.Program
	Err  error
	file *os.File
}

// Close gives the program up.
func (b *Built) Close() error {
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

// Go builds a program from Go source for a guest of a GOARCH.
func Go(ctx context.Context, src Source, arch string) Built {
	return Many(ctx, []Source{src}, arch)[0]
}

// Many builds programs as Go does, all that were not built before by one run of
// the compiler, which is much quicker than one by one.
func Many(ctx context.Context, all []Source, arch string) []Built {
	out := make([]Built, len(all))
	tool, err := tool("go")
	if err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	var todo []job
	for i, src := range all {
		files, err := read(src, golang)
		if err != nil {
			out[i].Err = err
			continue
		}
		j := job{src, files, key(tool, arch, strings.Join(goFlags, " "), files), &out[i]}
		if !j.kept() {
			todo = append(todo, j)
		}
	}
	if len(todo) > 1 && goBuild(ctx, todo, arch) == nil {
		return out
	}
	// Of several that fail together it is not known which one does.
	for i := range todo {
		if todo[i].out.Program == nil {
			todo[i].out.Err = goBuild(ctx, todo[i:i+1], arch)
		}
	}
	return out
}

// job is a program that is being built.
type job struct {
	Source
	files []File
	key   string
	out   *Built
}

var goFlags = []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w"}

// goBuild builds programs as packages of one module, or one as the module itself,
// so that messages name files as they are called.
func goBuild(ctx context.Context, jobs []job, arch string) error {
	return inFolder(ctx, jobs[0].Shown, func(ctx context.Context, dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(GoMod), 0o644); err != nil {
			return outcome.Default(outcome.HostLacks, err)
		}
		out := filepath.Join(filepath.Dir(dir), "out")
		argv := append([]string{"build"}, goFlags...)
		names := []string{"exercise"}
		if len(jobs) == 1 {
			if err := write(dir, jobs[0].files); err != nil {
				return err
			}
			argv = append(argv, "-o", filepath.Join(out, names[0]), ".")
		} else {
			names = nil
			for i, j := range jobs {
				names = append(names, fmt.Sprintf("p%d", i))
				if err := os.Mkdir(filepath.Join(dir, names[i]), 0o755); err != nil {
					return err
				}
				if err := write(filepath.Join(dir, names[i]), j.files); err != nil {
					return err
				}
			}
			argv = append(argv, "-o", out+"/", "./...")
		}
		cmd := exec.CommandContext(ctx, "go", argv...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOTMPDIR="+filepath.Dir(dir), "GOOS=linux", "GOARCH="+arch, "GOARM=7", "GOAMD64=v1", "CGO_ENABLED=0",
			"GO111MODULE=on", "GOFLAGS=", "GOWORK=off", "GOPROXY=off", "GOTOOLCHAIN=local", "GOEXPERIMENT=")
		if err := compile(ctx, cmd, jobs[0].Shown); err != nil {
			return err
		}
		for i, j := range jobs {
			// Of another package than main go makes nothing.
			if _, err := os.Stat(filepath.Join(out, names[i])); err != nil {
				return &Error{j.Shown, "it is no program: want package main"}
			}
			if err := j.keep(filepath.Join(out, names[i])); err != nil {
				return err
			}
		}
		return nil
	})
}

// compile runs a compiler; shown is what its directory is called in messages.
func compile(ctx context.Context, cmd *exec.Cmd, shown string) error {
	cmd.WaitDelay = time.Second
	// It ends with labctl, which is with this thread (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said := bounded.Head{Max: 64 << 10}
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Start()
	if err == nil {
		if err := limits.set(cmd.Process.Pid); err != nil {
			cmd.Process.Kill()
			cmd.Wait()
			return outcome.Default(outcome.HostLacks, fmt.Errorf("build %s: limit the compiler: %w", shown, err))
		}
		err = cmd.Wait()
	}
	usage.Add(ctx, cmd.ProcessState)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit) && strings.Contains(said.String(), "signal: killed") && exit.UserTime()+exit.SystemTime() > limits.cpu*9/10:
		return &SlowError{shown, fmt.Sprintf("the compiler takes more than %v", limits.cpu)}
	case errors.As(err, &exit):
		return &Error{shown, readable(strings.ReplaceAll(said.String(), cmd.Dir, shown), shown)}
	}
	return outcome.Default(outcome.HostLacks, fmt.Errorf("build %s: %w", shown, err))
}

// language is which files of a directory are source.
type language struct{ name, ext string }

var golang, c = language{"Go", ".go"}, language{"C", ".c"}

// File is one file of a program's source.
type File struct {
	Name string
	Data []byte
}

// Files returns the source of a Go program, in the order of names. The error is a
// *SourceError.
func Files(src Source) ([]File, error) { return read(src, golang) }

// Skeleton returns the source of a lab's skeleton.
func Skeleton(l *lab.Lab) ([]File, error) {
	src, err := fs.Sub(l.Dir, lab.Exercise)
	if err != nil {
		return nil, err
	}
	return Files(Source{FS: src, Shown: path.Join(path.Dir(l.File), lab.Exercise)})
}

// Hash identifies a program's source.
func Hash(files []File) string { return key("", "", "", files) }

// read reads the source that is no test, in the order of names.
func read(src Source, l language) (files []File, err error) {
	entries, err := fs.ReadDir(src.FS, ".")
	if err != nil {
		return nil, NoSource("read %s: %v", src.Shown, err)
	}
	left := int64(maxBytes)
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != l.ext || strings.HasSuffix(name, "_test.go") || !e.Type().IsRegular() {
			continue
		}
		if len(files) == maxFiles {
			return nil, NoSource("read %s: more than %d %s files", src.Shown, maxFiles, l.name)
		}
		f, err := src.FS.Open(name)
		if err != nil {
			return nil, NoSource("read %s: %v", src.Shown, err)
		}
		data, err := io.ReadAll(io.LimitReader(f, left+1))
		f.Close()
		if err != nil {
			return nil, NoSource("read %s: %v", path.Join(src.Shown, name), err)
		}
		if left -= int64(len(data)); left < 0 {
			return nil, NoSource("read %s: more than %d MB of %s source", src.Shown, maxBytes>>20, l.name)
		}
		files = append(files, File{name, data})
	}
	if len(files) == 0 {
		return nil, NoSource("%s: there is no %s source in it", src.Shown, l.name)
	}
	return files, nil
}

func write(dir string, files []File) error {
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

var place = regexp.MustCompile(`(?m)^(\s*)(?:vet: )?(?:\./)?([^\s:/]+\.(?:go|c):\d+)`)

// readable names files by the learner's directory and drops the line that only
// repeats the module's name.
func readable(out, shown string) string {
	lines := strings.Split(strings.TrimSpace(text.Clean(out)), "\n")
	if len(lines) > 1 && strings.HasPrefix(lines[0], "# ") {
		lines = lines[1:]
	}
	return place.ReplaceAllString(strings.Join(lines, "\n"), "${1}"+strings.ReplaceAll(shown, "$", "$$")+"/${2}")
}
