// Package labprobe makes the kernel do one thing and reports what it saw.
//
// Synopsis:
//
//	labprobe NAME [JSON]
//	labprobe ps [OPTIONS]
//
// Description:
//
//	NAME is a probe, JSON its parameters as one object. The result is one JSON
//	document on standard output (wire.ProbeResult). Exit status: 0 done, 1 the
//	probe could not do it, catalogue.BadUsage (2) usage, parameters among it. Without
//	arguments it lists the probes.
//
//	ps lists tasks, with procps' options; it is also the guest's command ps.
package labprobe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"labctl/guest/catalogue"
	"labctl/guest/probe"
	_ "labctl/guest/probe/arguments"
	_ "labctl/guest/probe/clone"
	_ "labctl/guest/probe/combinations"
	_ "labctl/guest/probe/cputime"
	_ "labctl/guest/probe/ending"
	_ "labctl/guest/probe/endsignal"
	_ "labctl/guest/probe/exec"
	_ "labctl/guest/probe/iouring"
	_ "labctl/guest/probe/kthread"
	_ "labctl/guest/probe/memory"
	_ "labctl/guest/probe/namespaces"
	_ "labctl/guest/probe/pids"
	_ "labctl/guest/probe/pingpong"
	"labctl/guest/probe/ps"
	_ "labctl/guest/probe/share"
	_ "labctl/guest/probe/suspend"
	_ "labctl/guest/probe/tasks"
	_ "labctl/guest/probe/variables"
	_ "labctl/guest/probe/visible"
)

// Main is the program labprobe with its arguments; it gives the exit status. The
// caller has locked the goroutine to the process's first thread, so that the task
// that a trace shows as the creator has the pid that the probe reports.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
		fmt.Fprint(stdout, usage())
		return 0
	}
	name, args := args[0], args[1:]
	if name == "ps" {
		return text(stdout, stderr, args)
	}
	p, ok := probe.Lookup(name)
	if !ok {
		fmt.Fprintf(stderr, "labprobe: no probe %q: labprobe alone lists them\n", name)
		return catalogue.BadUsage
	}
	var params json.RawMessage
	switch len(args) {
	case 0:
	case 1:
		params = json.RawMessage(args[0])
	default:
		fmt.Fprintf(stderr, "labprobe: %s: %d arguments: give the parameters as one JSON object\n", name, len(args))
		return catalogue.BadUsage
	}
	res, err := p.Run(ctx, params)
	if err == nil {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(res)
	}
	if err != nil {
		fail(stderr, name, err)
		var bad *probe.ParamError
		if errors.As(err, &bad) {
			return catalogue.BadUsage
		}
		return 1
	}
	return 0
}

// text prints a listing of tasks.
func text(stdout, stderr io.Writer, args []string) int {
	l, err := ps.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "ps: %v; usage: %s\n", err, ps.Synopsis)
		return catalogue.BadUsage
	}
	width := 0
	if f, ok := stdout.(*os.File); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil {
			width = cols
		}
	}
	if err := l.Print(stdout, width, ps.Live()); err != nil {
		fail(stderr, "ps", err)
		return 1
	}
	return 0
}

// fail prints err on one line.
func fail(stderr io.Writer, name string, err error) {
	fmt.Fprintf(stderr, "labprobe: %s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
}

func usage() string {
	var b strings.Builder
	b.WriteString("usage: labprobe NAME [JSON]\n       labprobe " + ps.Synopsis + "\n\nprobes, with their default parameters:\n")
	for _, info := range catalogue.Probes() {
		if _, ok := probe.Lookup(info.Name); ok {
			fmt.Fprintf(&b, "  %-8s %s\n           %s\n", info.Name, info.Summary, info.Params)
		}
	}
	return b.String()
}
