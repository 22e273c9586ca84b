package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// spared are functions that no program reaches and that stay, with the reason: a
// package, with all in it that tests reach, or a package and a function.
var spared = map[string]string{
	"labctl/host/lab Parse":                 "tests of other packages make labs of a text by it, as Read does of a directory",
	"labctl/host/faults":                    "kernel modules with faults, for tests",
	"labctl/host/golden":                    "golden files, for tests",
	"labctl/host/outside/fake":              "a guest that never ran, for tests",
	"labctl/host/kernel/internal/synth":     "kernels and packages that tests make",
	"labctl/host/trace/internal/kerneltext": "the kernel's own print of a trace, which tests hold ours against",
	"labctl/host/trace/internal/sample":     "recordings of real kernels, for tests",

	// The programs of a lab, which trust each other, are graded in one machine by
	// its test, in a fraction of the time.
	"labctl/host/lab/grade Several":     "the test of all labs' programs",
	"labctl/host/lab/grade Grade.judge": "of Several",
	"labctl/host/lab/runner Programs":   "of Several",

	"labctl/labs/P2-hidden-tid/exercise listed": "for the learner to call",
	"labctl/labs/S2-futex/exercise futex":       "likewise",
	"labctl/labs/S2-futex/exercise sleeps":      "likewise",
	"labctl/labs/M12-numa-nodes/exercise write": "likewise",
}

// arches are the platforms that guests have: code may be alive on one of them
// alone.
var arches = []string{"amd64", "arm64", "arm"}

// unreached is what cmd/deadcode reports of a package.
type unreached struct {
	Path  string
	Funcs []struct {
		Name     string
		Position struct {
			File      string
			Line, Col int
		}
	}
}

// deadcode prints the functions that no program of the module reaches, on each
// architecture, and those that not even a test does. What is spared is left out,
// and an entry that spares nothing is printed too.
func deadcode(ctx context.Context, fs *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "deadcode-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// go tool would build it for the architecture that it is to look at.
	tool := filepath.Join(dir, "deadcode")
	if err := capture(ctx, stderr, io.Discard, nil, "go", "build", "-o", tool, "golang.org/x/tools/cmd/deadcode"); err != nil {
		return fmt.Errorf("build deadcode: %w", err)
	}
	look := func(arch string, flags ...string) (found []unreached, err error) {
		var out bytes.Buffer
		argv := slices.Concat([]string{tool, "-json"}, flags, packages(fs))
		if err := capture(ctx, stderr, &out, []string{"GOARCH=" + arch, "CGO_ENABLED=0"}, argv...); err != nil {
			return nil, fmt.Errorf("deadcode for %s: %w", arch, err)
		}
		if err := json.Unmarshal(out.Bytes(), &found); err != nil {
			return nil, fmt.Errorf("deadcode for %s: %w", arch, err)
		}
		return found, nil
	}
	var programs []unreached
	for _, arch := range arches {
		found, err := look(arch)
		if err != nil {
			return err
		}
		programs = append(programs, found...)
	}
	tests, err := look("", "-test")
	if err != nil {
		return err
	}
	lines := judge(programs, tests, spared)
	for _, line := range lines {
		fmt.Fprintln(stdout, line)
	}
	if len(lines) > 0 {
		return errors.New("dead code: remove it, or say in host/tests/deadcode.go why it stays")
	}
	return nil
}

// judge returns a line for each function that is not spared, and for each entry of
// spared that spares none.
func judge(programs, tests []unreached, spared map[string]string) (lines []string) {
	used := map[string]bool{}
	dead := map[string]string{} // where a function is, and its name → what does not reach it
	note := func(found []unreached, by string, packages bool) {
		for _, p := range found {
			for _, f := range p.Funcs {
				if name := p.Path + " " + f.Name; spared[name] != "" {
					used[name] = true
				} else if packages && spared[p.Path] != "" {
					used[p.Path] = true
				} else {
					dead[fmt.Sprintf("%s:%d: %s", f.Position.File, f.Position.Line, f.Name)] = by
				}
			}
		}
	}
	note(programs, "program", true)
	note(tests, "program and no test", false)
	for f, by := range dead {
		lines = append(lines, f+" is reached by no "+by)
	}
	for name := range spared {
		if !used[name] {
			lines = append(lines, "host/tests/deadcode.go: "+name+" need not be spared")
		}
	}
	slices.Sort(lines)
	return lines
}

// capture runs a command with more variables in its environment and waits for its
// end.
func capture(ctx context.Context, stderr, stdout io.Writer, env []string, argv ...string) error {
	cmd := command(ctx, argv...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd.Run()
}
