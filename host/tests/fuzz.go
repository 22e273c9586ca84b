package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// minimise is how often an input is run to make it smaller. Go's default is a
// minute for each input that reaches something new: on two CPUs both do nothing
// else, and the rate stays at 0/s.
const minimise = "10x"

// target is one fuzz test.
type target struct{ pkg, name string }

// result is what became of a target's run.
type result struct {
	execs   int
	seconds int
	moved   bool // a rate above 0/s was reported
}

func (r result) rate() int { return r.execs / max(r.seconds, 1) }

func fuzz(ctx context.Context, fs *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	each := fs.Duration("time", 10*time.Second, "how long each target runs")
	only := fs.String("run", "", "a `regexp` that targets must match")
	if err := fs.Parse(args); err != nil {
		return err
	}
	like, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	all, err := targets(ctx, stderr, packages(fs))
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(t target) bool { return !like.MatchString(t.name) })
	if len(all) == 0 {
		return fmt.Errorf("no fuzz target in %q matches %q", packages(fs), *only)
	}
	var bad []string
	for _, t := range all {
		r, out, err := t.run(ctx, *each)
		if err == nil && !r.moved { // the inputs that are kept may take all of the time, on a busy host
			r, out, err = t.run(ctx, 4**each)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			fmt.Fprintf(stdout, "   failed  %s %s: %v\n%s", t.pkg, t.name, err, out)
			bad = append(bad, t.name)
		case !r.moved:
			fmt.Fprintf(stdout, "      0/s  %s %s: no input was run but those that are kept\n", t.pkg, t.name)
			bad = append(bad, t.name)
		default:
			fmt.Fprintf(stdout, "%7d/s  %s %s\n", r.rate(), t.pkg, t.name)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d of %d fuzz targets failed, or did not run: %s", len(bad), len(all), strings.Join(bad, ", "))
	}
	return nil
}

// run fuzzes one target. out is what go test has printed.
func (t target) run(ctx context.Context, each time.Duration) (r result, out []byte, err error) {
	cmd := goCommand(ctx, "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", minimise, t.pkg)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err = cmd.Run(); timeUp.Match(b.Bytes()) {
		err = nil
	}
	return read(b.String()), b.Bytes(), err
}

// timeUp is how a run may end that has found nothing: up to Go 1.26 the end of
// the time can be taken for an error (https://go.dev/issue/75804). What a target
// itself reports stands indented further, below a failing input.
var timeUp = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([0-9.]+s\)\n    context deadline exceeded\nFAIL$`)

// progress is Go's report every three seconds, and at the end:
//
//	fuzz: elapsed: 3s, execs: 325017 (108336/sec), new interesting: 11 (total: 202)
var progress = regexp.MustCompile(`^fuzz: elapsed: ([0-9hms]+), execs: (\d+) \((\d+)/sec\)`)

func read(out string) (r result) {
	for line := range strings.Lines(out) {
		m := progress.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		elapsed, _ := time.ParseDuration(m[1])
		r.seconds = int(elapsed.Seconds())
		r.execs, _ = strconv.Atoi(m[2])
		r.moved = r.moved || strings.Trim(m[3], "0") != ""
	}
	return r
}

// targets finds the fuzz tests of packages in their sources.
func targets(ctx context.Context, stderr io.Writer, packages []string) (all []target, err error) {
	type files struct {
		ImportPath, Dir           string
		TestGoFiles, XTestGoFiles []string
	}
	pkgs, err := list[files](ctx, stderr, append([]string{"-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, packages...)...)
	if err != nil {
		return nil, err
	}
	for _, p := range pkgs {
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, fmt.Errorf("look for fuzz tests: %w", err)
			}
			for _, d := range f.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
					all = append(all, target{p.ImportPath, f.Name.Name})
				}
			}
		}
	}
	return all, nil
}
