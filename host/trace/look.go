package trace

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/trace/plan"
	"labctl/host/vm"
)

// Files of tracefs, and the most that is read of them, in bytes. The first has
// a megabyte on today's kernels.
const (
	functionsFile = "available_filter_functions"
	eventsFile    = "available_events"
	helpFile      = "README"
	maxFile       = 16 << 20
)

// fprobeHelp is in the help of kernels that have fprobe events.
const fprobeHelp = "f[:["

// Look asks a guest what planning r has to know of its kernel.
func Look(ctx context.Context, v *vm.VM, k *kernel.Kernel, r plan.Request) (plan.Kernel, error) {
	t := plan.Kernel{Arch: v.Hello().Arch, Guesses: k.GuessesStacks(), FramePointers: k.WalksFrames()}
	var err error
	if t.Facts, err = k.Facts(ctx); err != nil {
		return t, err
	}
	symbols := sync.OnceValue(func() map[string]bool { return symbolsOf(ctx, k) })
	var functions, events []byte
	switch {
	case !r.NeedsFunctions():
	case v.Hello().Transport == "uart":
		// Too long for such a line. The image's symbols are a good guess, and
		// the guest says what it cannot trace of them.
		functions = joined(symbols())
	default:
		if functions, err = functionsOf(ctx, v, k); err != nil {
			return t, err
		}
	}
	if r.NeedsEvents() {
		if events, err = read(ctx, v, path.Join(v.Hello().Tracefs, eventsFile)); err != nil {
			return t, err
		}
	}
	if t.Names, err = plan.ReadNames(functions, events); err != nil {
		return t, outcome.Default(outcome.GuestCrashed, fmt.Errorf("guest: %w", err))
	}
	t.Symbol = func(name string) bool { return symbols()[name] }
	if len(r.Fprobes) > 0 {
		help, err := read(ctx, v, path.Join(v.Hello().Tracefs, helpFile))
		if err != nil {
			return t, err
		}
		t.NoFprobes = !bytes.Contains(help, []byte(fprobeHelp))
	}
	if probes := slices.Concat(r.Probes, r.Fprobes); len(probes) > 0 {
		known, err := k.Prototypes(ctx, plan.Symbols(probes)...)
		if err != nil {
			return t, err
		}
		t.Prototype = func(function string) []kernel.Param { return known[function] }
	}
	return t, nil
}

func read(ctx context.Context, v *vm.VM, path string) ([]byte, error) {
	var b bytes.Buffer
	if err := v.Agent().ReadFile(ctx, path, maxFile, &b); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b.Bytes(), nil
}

// functionsOf reads the kernel's list of functions, which takes a second, once:
// it is kept beside the image. Modules differ by the machine's link alone, and this is
// not called for a UART.
func functionsOf(ctx context.Context, v *vm.VM, k *kernel.Kernel) ([]byte, error) {
	return k.DerivedData("functions-1", func() ([]byte, error) { return read(ctx, v, path.Join(v.Hello().Tracefs, functionsFile)) })
}

// symbolsOf are the functions among the image's symbols; none when it has no
// table that can be read.
func symbolsOf(ctx context.Context, k *kernel.Kernel) map[string]bool {
	table, err := k.Kallsyms(ctx)
	if err != nil {
		return nil
	}
	out := make(map[string]bool, 1<<16)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) >= 3 && (f[1] == "T" || f[1] == "t" || f[1] == "W" || f[1] == "w") {
			out[f[2]] = true
		}
	}
	return out
}

func joined(set map[string]bool) []byte {
	var b bytes.Buffer
	for name := range set {
		b.WriteString(name + "\n")
	}
	return b.Bytes()
}
