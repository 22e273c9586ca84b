package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	profile "golang.org/x/tools/cover"
)

// starter is the package by which QEMU is started: the tests of whatever needs it
// may start machines.
const starter = "labctl/host/vm/qemu"

// pkg is a package as go list -test describes it. Of a package with tests there
// is another, its test program, called like it with ".test" behind.
type pkg struct {
	ImportPath string
	Deps       []string
}

// covered is how much of a package its own tests cover.
type covered struct {
	pkg          string
	all, reached int // statements
}

func (c covered) percent() float64 {
	if c.all == 0 {
		return 100
	}
	return 100 * float64(c.reached) / float64(c.all)
}

func cover(ctx context.Context, fs *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	all := fs.Bool("all", false, "also run tests that start machines")
	out := fs.String("profile", "", "a `file` that gets the profile, for go tool cover -html")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pkgs, err := list[pkg](ctx, stderr, append([]string{"-test", "-json=ImportPath,Deps"}, packages(fs)...)...)
	if err != nil {
		return err
	}
	run, left := choose(pkgs, *all)
	if len(run) == 0 {
		return fmt.Errorf("of %q all start machines: run them with -all", packages(fs))
	}
	if *out == "" {
		dir, err := os.MkdirTemp("", "labctl-cover-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*out = filepath.Join(dir, "cover.out")
	}
	cmd := goCommand(ctx, append([]string{"test", "-timeout", "40m", "-coverprofile", *out}, run...)...)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the tests: %w", err)
	}
	profiles, err := profile.ParseProfiles(*out)
	if err != nil {
		return fmt.Errorf("read the profile: %w", err)
	}
	table(stdout, count(profiles))
	if left > 0 {
		fmt.Fprintf(stdout, "packages left out, whose tests start machines: %d\n", left)
	}
	return nil
}

// choose takes the packages whose tests start no machine, or all; left is how
// many it leaves out.
func choose(pkgs []pkg, all bool) (run []string, left int) {
	starts := map[string]bool{}
	for _, p := range pkgs {
		if name, ok := strings.CutSuffix(p.ImportPath, ".test"); ok {
			starts[name] = slices.ContainsFunc(p.Deps, func(d string) bool {
				// A package that is built anew for this test has that in brackets.
				name, _, _ := strings.Cut(d, " ")
				return name == starter
			})
		}
	}
	for _, p := range pkgs {
		switch {
		case strings.HasSuffix(p.ImportPath, ".test") || strings.Contains(p.ImportPath, " "):
		case starts[p.ImportPath] && !all:
			left++
		default:
			run = append(run, p.ImportPath)
		}
	}
	return run, left
}

// count adds up a profile by package, the least covered first.
func count(profiles []*profile.Profile) []covered {
	var out []covered
	at := map[string]int{}
	for _, p := range profiles {
		name := path.Dir(p.FileName)
		i, ok := at[name]
		if !ok {
			i = len(out)
			at[name] = i
			out = append(out, covered{pkg: name})
		}
		for _, b := range p.Blocks {
			out[i].all += b.NumStmt
			if b.Count > 0 {
				out[i].reached += b.NumStmt
			}
		}
	}
	slices.SortFunc(out, func(a, b covered) int {
		return cmp.Or(cmp.Compare(a.percent(), b.percent()), strings.Compare(a.pkg, b.pkg))
	})
	return out
}

func table(w io.Writer, rows []covered) {
	total := covered{pkg: "total"}
	fmt.Fprintln(w, "COVERED  STATEMENTS  PACKAGE")
	print := func(c covered) { fmt.Fprintf(w, "%5.1f %%  %10d  %s\n", c.percent(), c.all, c.pkg) }
	for _, c := range rows {
		total.all += c.all
		total.reached += c.reached
		print(c)
	}
	print(total)
}
