package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"labctl/host/bounded"
)

// goTool is the Go toolchain that builds for the guest: the one in PATH, or the one
// that it switches to for labctl's go.mod.
type goTool struct {
	module string   // a directory with labctl's go.mod and go.sum, named by their hash
	root   string   // GOROOT
	id     []string // what identifies it in a key
}

// findGo finds the toolchain and queries its environment.
func findGo(ctx context.Context, c cache, source fs.FS) (*goTool, error) {
	module, err := moduleDir(c, source)
	if err != nil {
		return nil, err
	}
	path, err := exec.LookPath("go")
	if err != nil {
		return nil, &MissingGoError{Reason: "none in PATH", Err: err}
	}
	env, err := askGo(ctx, c, path, module)
	if err != nil {
		return nil, err
	}
	if env.GOWORK != "" && env.GOWORK != "off" {
		return nil, fmt.Errorf("%s would change the versions that the guest is built from: set GOWORK=off", env.GOWORK)
	}
	return &goTool{
		module: module,
		root:   env.GOROOT,
		id:     []string{env.GOVERSION, env.GOAMD64, env.GOARM64},
	}, nil
}

// moduleDir writes go.mod and go.sum to a directory named by their hash.
func moduleDir(c cache, source fs.FS) (string, error) {
	k := newKey("module")
	names := []string{"go.mod", "go.sum"}
	for _, name := range names {
		data, err := fs.ReadFile(source, name)
		if err != nil {
			return "", err
		}
		k.add(name, string(data))
	}
	dir := filepath.Join(c.dir, "module-"+k.sum())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		data, err := fs.ReadFile(source, name)
		if err != nil {
			return "", err
		}
		if old, err := bounded.ReadFile(path, int64(len(data))); err == nil && bytes.Equal(old, data) {
			continue
		}
		err = c.write(path, func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return dir, nil
}

// run runs the go command in dir for Linux on arch and returns its standard output.
// Its temporary files are next to dir. Settings that would affect the result are fixed.
func (t *goTool) run(ctx context.Context, dir, arch string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(t.root, "bin", "go"), args...)
	cmd.Dir = dir
	// The parent-death signal is tied to this thread (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GOTMPDIR="+filepath.Dir(dir),
		"GOOS=linux", "GOARCH="+arch, "GOARM=7", "GOAMD64=v1", "CGO_ENABLED=0",
		"GO111MODULE=on", "GOFLAGS=-mod=readonly", "GOWORK=off", "GOTOOLCHAIN=local")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, lastLines(stderr.String(), 30))
	}
	return out, nil
}

func firstLine(s string, err error) string {
	if line, _, _ := strings.Cut(strings.TrimSpace(s), "\n"); line != "" {
		return line
	}
	return err.Error()
}

// lastLines returns the last n lines of a failed tool's output.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// await runs f to its end, but stops waiting for it when ctx ends.
func await(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.Join(errCancelled, ctx.Err())
	}
}
