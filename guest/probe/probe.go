// Package probe is the registry of what labprobe can do. Each topic is a package
// of its own that registers its probes when it is imported.
package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"labctl/guest/catalogue"
	"labctl/guest/probe/procfs"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

// Probe makes the kernel do one thing and reports what it saw. Its summary and
// default parameters are in catalogue.Probes, where the host reads them too.
type Probe struct {
	Name string
	// Run may be given no parameters. It leaves no task behind, whatever it returns.
	Run func(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error)
}

var registered = map[string]Probe{}

// Register adds p. It panics when p is not in catalogue.Probes, or there twice: the
// host would not know it.
func Register(p Probe) {
	_, known := catalogue.Find(p.Name)
	if _, twice := registered[p.Name]; twice || !known {
		panic(fmt.Sprintf("probe %q: registered twice, or missing in catalogue.Probes", p.Name))
	}
	registered[p.Name] = p
}

// Lookup finds a probe by name.
func Lookup(name string) (Probe, bool) {
	p, ok := registered[name]
	return p, ok
}

// ParamError is parameters that ask for what a probe does not do.
type ParamError struct{ msg string }

func (e *ParamError) Error() string { return e.msg }

// Paramf makes a *ParamError.
func Paramf(format string, args ...any) error {
	return &ParamError{"parameters: " + fmt.Sprintf(format, args...)}
}

// Params decodes raw into the defaults that into holds. A parameter that the
// probe does not have is a *ParamError.
func Params(raw json.RawMessage, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	if err := wire.Strict(raw, into); err != nil {
		return &ParamError{fmt.Sprintf("parameters %s: %v", raw, err)}
	}
	return nil
}

// Self is the calling thread. The caller has locked it (runtime.LockOSThread).
func Self() wire.Task {
	pid := unix.Getpid()
	t := wire.Task{Role: "self", PID: pid, TID: unix.Gettid(), TGID: pid, PPID: unix.Getppid()}
	if stat, err := procfs.ReadStat(fmt.Sprintf("/proc/self/task/%d/stat", t.TID)); err == nil {
		t.Comm = stat.Comm
	}
	return t
}
