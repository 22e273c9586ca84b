package initramfs

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"labctl/host/bounded"
	"labctl/host/cachedir"
)

// goEnv has the `go env` variables that are used.
type goEnv struct{ GOVERSION, GOROOT, GOWORK, GOAMD64, GOARM64 string }

// askGo runs `go env` in the module's directory. Since that takes 20 ms, the result is
// cached, keyed by the go command's file, its configuration files and the environment
// variables that it reads.
func askGo(ctx context.Context, c cache, path, module string) (goEnv, error) {
	k := newKey("goenv")
	k.add(path, module)
	settings := os.Getenv("GOENV")
	if settings == "" {
		if dir, err := os.UserConfigDir(); err == nil {
			settings = filepath.Join(dir, "go", "env")
		}
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return goEnv{}, &MissingGoError{Reason: path, Err: err}
	}
	for _, name := range []string{real, filepath.Join(filepath.Dir(real), "..", "go.env"), settings} {
		k.add(name, identity(name))
	}
	for _, name := range goVars {
		v, set := os.LookupEnv(name)
		k.add(name, strconv.FormatBool(set), v)
	}
	file := filepath.Join(c.dir, "goenv-"+k.sum()+".json")
	var env goEnv
	// A script may select another toolchain the next time.
	keep := isELF(real)
	if data, err := sealed(file); keep && err == nil && json.Unmarshal(data, &env) == nil && env.GOVERSION != "" && isDir(env.GOROOT) {
		return env, nil
	}
	cmd := exec.CommandContext(ctx, path, "env", "-json", "GOVERSION", "GOROOT", "GOWORK", "GOAMD64", "GOARM64")
	cmd.Dir = module
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			return goEnv{}, ctx.Err()
		}
		var stderr string
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			stderr = string(exit.Stderr)
		}
		return goEnv{}, &MissingGoError{Reason: path + " env: " + firstLine(stderr, err), Err: err}
	}
	env = goEnv{}
	if err := json.Unmarshal(out, &env); err != nil {
		return goEnv{}, &MissingGoError{Reason: path + " env does not print JSON", Err: err}
	}
	if !keep {
		return env, nil
	}
	// A cache that cannot be written costs time on the next call, no more.
	_ = c.write(file, func(w io.Writer) error {
		_, err := w.Write(out)
		return err
	})
	return env, nil
}

// sealed reads a file of the cache that is as it was written.
func sealed(file string) ([]byte, error) {
	if err := cachedir.Check(file, ""); err != nil {
		return nil, err
	}
	return bounded.ReadFile(file, maxGoEnv)
}

// maxGoEnv bounds what go env prints, in bytes.
const maxGoEnv = 1 << 20

// goVars are the environment variables that the result depends on.
var goVars = []string{
	"GO111MODULE", "GOAMD64", "GOARM64", "GOENV", "GOFLAGS", "GOMODCACHE", "GOPATH",
	"GOROOT", "GOTOOLCHAIN", "GOWORK", "HOME", "XDG_CONFIG_HOME",
}

func isELF(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, len(elf.ELFMAG))
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == elf.ELFMAG
}

// identity distinguishes a file from later ones with the same name.
func identity(name string) string {
	st, err := os.Stat(name)
	if err != nil {
		return "none"
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return st.ModTime().String()
	}
	return fmt.Sprintf("%d %d %d %d %d", s.Dev, s.Ino, s.Size, s.Mtim.Nano(), s.Ctim.Nano())
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
