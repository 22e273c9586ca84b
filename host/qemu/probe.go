package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Features is what a QEMU binary says of itself.
type Features struct {
	Path    string    // as found in PATH
	ModTime time.Time // of the binary
	Version string    // "7.2.22"
	Sandbox bool      // takes the Sandbox device's option
}

// probed caches Features by path for as long as the binary stays the same.
var probed struct {
	sync.Mutex
	byPath map[string]Features
}

// probeTimeout is ample for a program that prints a text and leaves.
const probeTimeout = 20 * time.Second

// Probe asks binary what it is. The answer is cached until the binary changes.
func Probe(binary string) (Features, error) {
	path, err := find(binary)
	if err != nil {
		return Features{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return Features{}, fmt.Errorf("probe %s: %w", binary, err)
	}
	probed.Lock()
	defer probed.Unlock()
	if f, ok := probed.byPath[path]; ok && f.ModTime.Equal(st.ModTime()) {
		return f, nil
	}
	text, err := say(path, "--version")
	if err != nil {
		return Features{}, err
	}
	f := Features{Path: path, ModTime: st.ModTime()}
	if f.Version, err = parseVersion(text); err != nil {
		return Features{}, fmt.Errorf("probe %s: %w", path, err)
	}
	// The help text lists -sandbox also in binaries built without seccomp.
	// They refuse it when started, as does QEMU on a kernel without seccomp;
	// -machine help leaves just after the filter is in place.
	_, err = say(path, "-sandbox", sandboxOn, "-machine", "help")
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		return Features{}, err
	}
	f.Sandbox = err == nil
	if probed.byPath == nil {
		probed.byPath = map[string]Features{}
	}
	probed.byPath[path] = f
	return f, nil
}

// Version is the binary's version: "7.2.22".
func Version(binary string) (string, error) {
	f, err := Probe(binary)
	return f.Version, err
}

// say runs binary with options that make it print and leave.
func say(binary string, options ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	p, err := Start(ctx, &Command{Binary: binary, Args: options})
	if err != nil {
		return "", err
	}
	if err := p.Wait(); ctx.Err() != nil {
		return "", fmt.Errorf("ask %s %s: no end within %v", binary, options[0], probeTimeout)
	} else if err != nil {
		return "", fmt.Errorf("ask %s %s: %w", binary, options[0], err)
	}
	return p.Stderr(), nil
}

// parseVersion reads "QEMU emulator version 7.2.22 (Debian …)".
func parseVersion(text string) (string, error) {
	line, _, _ := strings.Cut(text, "\n")
	_, rest, ok := strings.Cut(line, "version ")
	if v, _, _ := strings.Cut(strings.TrimSpace(rest), " "); ok && v != "" && v[0] >= '0' && v[0] <= '9' {
		return v, nil
	}
	return "", fmt.Errorf("version %.80q: want \"QEMU emulator version N…\"", line)
}
