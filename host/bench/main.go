// Command bench measures labctl on this machine: every figure beside a baseline
// that was measured in the same run, in turn with it. Seconds belong to the host
// and to who else uses it; ratios are what can be compared.
//
//	bench [-rows start,warm,…] [-pairs N] [-out FILE]   the table
//	bench -peers                                        other tools, where installed
//	bench -rows qemu -qemu DIR,…                        other QEMUs, in directories
//	bench -soak N [-arch A] [-kernel K] [-cold]         N starts in a row, counted,
//	      [-state FILE [-batch M]]                      M in one go
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"labctl/host/nearest"
)

// bench is what all measurements share.
type bench struct {
	ctx    context.Context
	labctl string // path of the program that is measured
	kernel string // what --kernel is given
	arches []string
	pairs  int
	dir    string // scratch
	table  *table
	say    func(format string, args ...any)
	others []string // directories with other QEMUs
	fresh  int      // counts the directories handed out
}

// rows are the parts of the table in order.
var rows = []struct {
	name, what string
	run        func(*bench) error
}{
	{"start", "a probe, cold, against a bare boot of QEMU", (*bench).start},
	{"warm", "a probe and a program, warm against cold; 20 warm starts in a row", (*bench).warm},
	{"pvh", "amd64 kernels as vmlinux by PVH, against bzImage", (*bench).pvh},
	{"memory", "20 warm machines at once, against one cold one; labctl itself", (*bench).memory},
	{"channel", "100 MB to and from the guest, against a socket pair", (*bench).channel},
	{"trace", "a recorded program; decoding, against trace-cmd report", (*bench).trace},
	{"outside", "forks in a guest whose tasks are listed from outside, against forks", (*bench).outside},
	{"page", "forks in a guest that a page of labctl serve shows, against forks; the page's first stacks, against 1 s", (*bench).page},
	{"debug", "a breakpoint's hit to the printed stack, against 0.15 s", (*bench).debug},
	{"qemu", "other QEMUs, of -qemu, against the one that is installed", (*bench).qemus},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	labctl := fs.String("labctl", "bin/labctl", "the `program` to measure")
	kernel := fs.String("kernel", "6.12", "the kernel to measure on")
	arch := fs.String("arch", "arm64,amd64", "architectures")
	pairs := fs.Int("pairs", 5, "how many times each pair is measured")
	only := fs.String("rows", strings.Join(names, ","), "parts of the table")
	out := fs.String("out", "", "a `file` that gets the table too")
	others := fs.String("qemu", "", "`directories` of other QEMUs to measure, with qemu-system-x86_64 and qemu-system-aarch64")
	peers := fs.Bool("peers", false, "measure other tools instead, where they are installed")
	soak := fs.Int("soak", 0, "start this many machines in a row and count what goes wrong")
	cold := fs.Bool("cold", false, "with -soak: boot from the kernel on")
	batch := fs.Int("batch", 0, "with -soak: start at most this many of each architecture now")
	state := fs.String("state", "", "with -soak: a `file` that remembers what was started, to go on with")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || *pairs < 1 {
		return fmt.Errorf("arguments %q, -pairs %d: want flags alone, and at least 1 pair", fs.Args(), *pairs)
	}
	path, err := exec.LookPath(*labctl)
	if err != nil {
		return fmt.Errorf("find the program to measure (make build makes it): %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "labctl-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{
		ctx: ctx, labctl: path, kernel: *kernel, arches: strings.Split(*arch, ","), pairs: *pairs, dir: dir, table: &table{},
		say: func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) },
	}
	if *others != "" {
		b.others = strings.Split(*others, ",")
	}
	switch {
	case *soak > 0:
		return b.soak(stdout, soakPlan{starts: *soak, batch: *batch, state: *state, cold: *cold})
	case *peers:
		err = b.peers()
	default:
		err = b.rows(strings.Split(*only, ","), names)
	}
	// What was measured before an error is still worth reading.
	page := head(b) + b.table.String()
	fmt.Fprint(stdout, page)
	if *out != "" && err == nil {
		err = os.WriteFile(*out, []byte(page), 0o644)
	}
	return err
}

func (b *bench) rows(want, known []string) error {
	for _, w := range want {
		if !contains(known, w) {
			return nearest.Unknown("-rows", w, known)
		}
	}
	for _, r := range rows {
		if !contains(want, r.name) {
			continue
		}
		b.say("bench: %s", r.what)
		if err := r.run(b); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// directory is a name for a run record that nobody has used.
func (b *bench) folder() string {
	b.fresh++
	return filepath.Join(b.dir, fmt.Sprintf("record-%d", b.fresh))
}

// command returns a function that runs labctl from command line to exit.
func (b *bench) command(args ...string) func() error {
	return func() error { return b.labctlRun(args...) }
}

func (b *bench) labctlRun(args ...string) error { return b.labctlIn(nil, args...) }

// down ends a machine that up keeps, after Ctrl-C, too.
func (b *bench) down(name string) error {
	cp := *b
	cp.ctx = context.WithoutCancel(b.ctx)
	return cp.labctlRun("down", "-q", name)
}

// labctlIn runs it with an environment, nil for this program's own.
func (b *bench) labctlIn(env []string, args ...string) error {
	cmd := exec.CommandContext(b.ctx, b.labctl, args...)
	cmd.Env = env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("labctl %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return nil
}

// probe is `labctl probe run fork` with a record of its own each time.
func (b *bench) probe(arch string, more ...string) func() error {
	return func() error {
		return b.labctlRun(append([]string{"probe", "run", "fork", "-q", "--arch", arch, "--kernel", b.kernel, "--out", b.folder()}, more...)...)
	}
}
