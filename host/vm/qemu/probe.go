package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
	"labctl/host/outcome"
)

// Features are the version and abilities of a QEMU binary.
type Features struct {
	Path    string    `json:"path"`     // as found in PATH
	ModTime time.Time `json:"mod_time"` // of the binary
	Host    string    `json:"host"`     // kernel release, which decides about seccomp
	Version string    `json:"version"`  // "7.2.22"
	Sandbox bool      `json:"sandbox"`  // accepts the Sandbox device's option
	Window  bool      `json:"window"`   // has the Window device
}

// probed has Features by path, valid for as long as the binary and the host's kernel
// stay the same. The copy in the cache directory saves three starts of QEMU, a tenth
// of a second, in every run of labctl.
var probed struct {
	sync.Mutex
	byPath map[string]Features
}

const noteName = "qemu-features.json"

func (f Features) same(g Features) bool {
	return f.Path == g.Path && f.ModTime.Equal(g.ModTime) && f.Host == g.Host && f.Version != ""
}

// probeTimeout is ample for a program that prints some text and exits.
const probeTimeout = 20 * time.Second

// Inspect returns the features of binary. They are cached until the binary changes.
func Inspect(binary string) (Features, error) {
	path, err := find(binary)
	if err != nil {
		return Features{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return Features{}, outcome.Default(outcome.HostLacks, fmt.Errorf("probe %s: %w", binary, err))
	}
	probed.Lock()
	defer probed.Unlock()
	f := Features{Path: path, ModTime: st.ModTime(), Host: hostRelease()}
	if probed.byPath == nil {
		cachedir.Recall(noteName, &probed.byPath)
	}
	if known := probed.byPath[path]; known.same(f) {
		return known, nil
	}
	text, err := say(path, "--version")
	if err != nil {
		return Features{}, err
	}
	if f.Version, err = parseVersion(text); err != nil {
		return Features{}, fmt.Errorf("probe %s: %w", path, err)
	}
	// The help text lists -sandbox even in binaries built without seccomp. They
	// reject it at start, as does QEMU on a kernel without seccomp; -machine help
	// exits just after the filter is installed.
	_, err = say(path, "-sandbox", sandboxOn, "-machine", "help")
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		return Features{}, err
	}
	f.Sandbox = err == nil
	_, err = say(path, "-device", WindowDriver+",help")
	if err != nil && !errors.As(err, &exit) {
		return Features{}, err
	}
	f.Window = err == nil
	if probed.byPath == nil {
		probed.byPath = map[string]Features{}
	}
	probed.byPath[path] = f
	// Without the cache the next labctl inspects again; that is not an error.
	_ = cachedir.Remember(noteName, probed.byPath)
	return f, nil
}

func hostRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Version returns the binary's version: "7.2.22".
func Version(binary string) (string, error) {
	f, err := Inspect(binary)
	return f.Version, err
}

// say runs binary with options that make it print something and exit.
func say(binary string, options ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	p, err := Start(ctx, &Command{Binary: binary, Args: options})
	if err != nil {
		return "", err
	}
	if err := p.Wait(); ctx.Err() != nil {
		return "", outcome.Hostf("run %s %s: did not exit within %v", binary, options[0], probeTimeout)
	} else if err != nil {
		return "", fmt.Errorf("run %s %s: %w", binary, options[0], err)
	}
	return p.Stderr(), nil
}

// parseVersion parses "QEMU emulator version 7.2.22 (Debian …)".
func parseVersion(text string) (string, error) {
	line, _, _ := strings.Cut(text, "\n")
	_, rest, ok := strings.Cut(line, "version ")
	if v, _, _ := strings.Cut(strings.TrimSpace(rest), " "); ok && v != "" && v[0] >= '0' && v[0] <= '9' {
		return v, nil
	}
	return "", outcome.Hostf("version %.80q: want \"QEMU emulator version N…\"", line)
}
