package grade

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"labctl/guest/wire"
	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/lab/runner"
	"labctl/host/machine"
	"labctl/host/session"
)

// cheated is the kernel that the cheats are tried on.
var cheated = flag.String("kernel", series, "the kernel that TestCheats runs")

// cheat is a line of testdata/cheats/cheats.yaml.
type cheat struct {
	Name   string        `yaml:"name"`
	Lab    string        `yaml:"lab"`
	Passed *int          `yaml:"passed"`  // checks at most
	Said   string        `yaml:"said"`    // in its standard error
	AsRoot judge.Verdict `yaml:"as_root"` // "" to leave it
}

func cheats(t *testing.T) (all []cheat) {
	t.Helper()
	data, err := os.ReadFile("testdata/cheats/cheats.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalWithOptions(data, &all, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCheats runs every cheat, those of one lab in one machine. One that brings the
// machine down takes the others' verdicts with it, and fails the test.
func TestCheats(t *testing.T) {
	env, set := setup(t)
	byLab := map[string][]cheat{}
	for _, c := range cheats(t) {
		byLab[c.Lab] = append(byLab[c.Lab], c)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		spec := machine.Spec{Arch: arch, Kernel: *cheated}
		b := compile.Go(t.Context(), compile.Source{FS: os.DirFS("testdata/cheats/program"), Shown: "cheats", Name: programName}, arch)
		if b.Err != nil {
			t.Fatal(b.Err)
		}
		t.Cleanup(func() { b.Close() })
		for id, of := range byLab {
			l, err := set.Find(id)
			if err != nil {
				t.Fatal(err)
			}
			inTurn(t, id+"-"+arch, func(t *testing.T) {
				for i, r := range attempt(t, env, spec, l, b, of) {
					of[i].expect(t, r, judgeOf(t, l, r))
				}
			})
			root := *l
			root.Needs.Privileges = []string{"root"}
			for _, c := range of {
				if c.AsRoot == "" {
					continue
				}
				inTurn(t, id+"-"+arch+"-root-"+c.Name, func(t *testing.T) {
					r := attempt(t, env, spec, &root, b, []cheat{c})[0]
					rep := judgeOf(t, &root, r)
					t.Logf("%s: %s %q", c.Name, rep.Verdict(), rep.Tampered)
					if got := rep.Verdict(); got != c.AsRoot {
						t.Errorf("%s as root: %s %v, it said %q; want %s", c.Name, got, rep.Checks, r.Steps[0].Stderr, c.AsRoot)
					}
				})
			}
		}
	}
}

func attempt(t *testing.T, env session.Env, spec machine.Spec, l *lab.Lab, b compile.Built, of []cheat) []*result.Result {
	t.Helper()
	var all []runner.Attempt
	for _, c := range of {
		all = append(all, runner.Attempt{Program: b.Program, Args: []string{c.Name}})
	}
	results, err := runner.Programs(t.Context(), env, session.Options{Keep: session.KeepNothing, Spec: spec}, l, all)
	if err != nil || len(results) != len(of) {
		last := ""
		if n := len(results); n > 0 && n <= len(of) {
			last = of[n-1].Name
		}
		t.Fatalf("%d of %d cheats were run, the last is %s: %v", len(results), len(of), last, err)
	}
	return results
}

func judgeOf(t *testing.T, l *lab.Lab, r *result.Result) *judge.Report {
	t.Helper()
	if len(r.Missing) > 0 {
		t.Fatalf("lab %s is not run: %s", l.ID, strings.Join(r.Missing, "; "))
	}
	rep, err := judge.Judge(l, r)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestPrivileges: a program has those that its lab declares, and no others.
func TestPrivileges(t *testing.T) {
	env, _ := setup(t)
	const file = "K1-fork-path/lab.yaml"
	config, err := os.ReadFile(filepath.Join(folder, file))
	if err != nil {
		t.Fatal(err)
	}
	spec := machine.Spec{Arch: "arm64", Kernel: *cheated}
	b := compile.Go(t.Context(), compile.Source{FS: os.DirFS("testdata/cheats/program"), Shown: "cheats", Name: programName}, spec.Arch)
	if b.Err != nil {
		t.Fatal(b.Err)
	}
	t.Cleanup(func() { b.Close() })
	names := []string{""}
	for _, p := range wire.Privileges {
		names = append(names, p.Name)
	}
	for _, name := range names {
		inTurn(t, cmp.Or(name, "none"), func(t *testing.T) {
			l, err := lab.Parse(append([]byte("needs: {privileges: ["+name+"]}\n"), config...), file)
			if err != nil {
				t.Fatal(err)
			}
			said := attempt(t, env, spec, l, b, []cheat{{Name: "privileges"}})[0].Steps[0].Stdout
			for _, p := range wire.Privileges {
				if want := fmt.Sprintf("%s %t\n", p.Name, p.Name == name); !strings.Contains(said, want) {
					t.Errorf("with %q: it says %q; want %q in it", name, said, want)
				}
			}
		})
	}
}

func (c *cheat) expect(t *testing.T, r *result.Result, rep *judge.Report) {
	t.Helper()
	step := r.Steps[0]
	var holds []string
	for _, check := range rep.Checks {
		if check.Verdict == judge.Pass {
			holds = append(holds, check.ID)
		}
	}
	got := fmt.Sprintf("%s: %s, %v of %d checks hold, it said %q", c.Name, rep.Verdict(), holds, len(rep.Checks), step.Stderr)
	t.Log(got)
	if v := rep.Verdict(); !slices.Contains([]judge.Verdict{judge.Fail, judge.Tampered}, v) {
		t.Errorf("%s; want it to fail", got)
	}
	if len(rep.Tampered) > 0 { // nothing to bend the evidence by is in reach
		t.Errorf("%s, and the evidence was bent: %s", got, strings.Join(rep.Tampered, "; "))
	}
	if c.Passed != nil && len(holds) > *c.Passed {
		t.Errorf("%s; want at most %d", got, *c.Passed)
	}
	if !strings.Contains(step.Stderr, c.Said) {
		t.Errorf("%s; want %q", got, c.Said)
	}
}
