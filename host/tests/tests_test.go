package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	profile "golang.org/x/tools/cover"
)

// module makes the working directory a module with these files.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	files["go.mod"] = "module m\n\ngo 1.26\n"
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChoose(t *testing.T) {
	pkgs := []pkg{
		{ImportPath: "m/a"}, {ImportPath: "m/a.test", Deps: []string{"m/a", "fmt"}},
		{ImportPath: "m/b"}, {ImportPath: "m/b.test", Deps: []string{"m/b", starter}},
		{ImportPath: starter}, {ImportPath: starter + ".test", Deps: []string{starter + " [" + starter + ".test]"}},
		{ImportPath: starter + " [" + starter + ".test]"},
		{ImportPath: "m/untested", Deps: []string{starter}},
	}
	for all, want := range map[bool][]string{false: {"m/a", "m/untested"}, true: {"m/a", "m/b", starter, "m/untested"}} {
		if run, left := choose(pkgs, all); !slices.Equal(run, want) || left != 4-len(want) {
			t.Errorf("choose(all %t) = %q, %d left out; want %q", all, run, left, want)
		}
	}
}

func TestTable(t *testing.T) {
	profiles, err := profile.ParseProfilesFromReader(strings.NewReader(`mode: set
m/b/x.go:1.1,2.2 3 1
m/b/x.go:3.1,4.2 1 0
m/a/y.go:1.1,2.2 4 0
m/b/z.go:1.1,2.2 2 7
m/c/doc.go:1.1,2.2 0 0
`))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	table(&b, count(profiles))
	want := `COVERED  STATEMENTS  PACKAGE
  0.0 %           4  m/a
 83.3 %           6  m/b
100.0 %           0  m/c
 50.0 %          10  total
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
}

func TestCover(t *testing.T) {
	module(t, map[string]string{
		"a/a.go":      "package a\n\nfunc F() int { return 1 }\n\nfunc G() int { return 2 }\n",
		"a/a_test.go": "package a\n\nimport \"testing\"\n\nfunc TestF(t *testing.T) { F() }\n",
		"b/b.go":      "package b\n\nfunc H() int { return 3 }\n",
	})
	var out, errs bytes.Buffer
	if err := run(t.Context(), []string{"cover", "-profile", "out"}, &out, &errs); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	want := "COVERED  STATEMENTS  PACKAGE\n  0.0 %           1  m/b\n 50.0 %           2  m/a\n 33.3 %           3  total\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
	if _, err := os.Stat("out"); err != nil {
		t.Error(err)
	}
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, out string
		want      result
		rate      int
	}{
		{"runs", `fuzz: elapsed: 0s, gathering baseline coverage: 0/206 completed
fuzz: elapsed: 1s, gathering baseline coverage: 206/206 completed, now fuzzing with 2 workers
fuzz: elapsed: 3s, execs: 0 (0/sec), new interesting: 0 (total: 206)
fuzz: elapsed: 6s, execs: 19825 (6608/sec), new interesting: 117 (total: 323)
fuzz: elapsed: 1m2s, execs: 29137 (0/sec), new interesting: 147 (total: 353)
PASS
ok  	labctl/host/trace/format	8.834s
`, result{29137, 62, true}, 469},
		{"stands", `fuzz: elapsed: 0s, gathering baseline coverage: 206/206 completed, now fuzzing with 2 workers
fuzz: elapsed: 3s, execs: 206 (0/sec), new interesting: 0 (total: 206)
fuzz: elapsed: 6s, execs: 206 (00/sec), new interesting: 0 (total: 206)
PASS
`, result{206, 6, false}, 34},
		{"less than a second", "fuzz: elapsed: 0s, execs: 12 (300/sec), new interesting: 0 (total: 1)\n", result{12, 0, true}, 12},
		{"nothing", "?   	m	[no test files]\n", result{}, 0},
	} {
		if got := read(tt.out); got != tt.want || got.rate() != tt.rate {
			t.Errorf("%s: %+v, %d/s; want %+v, %d/s", tt.name, got, got.rate(), tt.want, tt.rate)
		}
	}
}

func TestTimeUp(t *testing.T) {
	const end = "FAIL\nexit status 1\nFAIL\tm\t5.131s\n"
	for _, tt := range []struct {
		out  string
		want bool
	}{
		{"fuzz: elapsed: 5s, execs: 6875 (1013/sec), new interesting: 79 (total: 103)\n--- FAIL: FuzzView (5.06s)\n    context deadline exceeded\n" + end, true},
		{"--- FAIL: FuzzView (0.06s)\n    --- FAIL: FuzzView (0.00s)\n        x_test.go:9: context deadline exceeded\n    \n    Failing input written to testdata/fuzz/FuzzView/1\n" + end, false},
		{"--- FAIL: FuzzView (5.06s)\n    fuzzing process hung or terminated unexpectedly: exit status 2\n" + end, false},
		{"ok  \tm\t5.131s\n", false},
	} {
		if got := timeUp.MatchString(tt.out); got != tt.want {
			t.Errorf("%q is the end of the time: %t, want %t", tt.out, got, tt.want)
		}
	}
}

// TestFuzz fuzzes for real, but for a target whose first input fails: what the
// others do in a second is the host's.
func TestFuzz(t *testing.T) {
	module(t, map[string]string{
		"a/a_test.go": "package a\n\nimport \"testing\"\n\nfunc FuzzBad(f *testing.F) {\n\tf.Add(1)\n\tf.Fuzz(func(t *testing.T, n int) { t.Error(\"it is bad\") })\n}\n",
		"a/x_test.go": "package a_test\n\nimport \"testing\"\n\nfunc FuzzOther(f *testing.F) {}\n\nfunc TestX(t *testing.T) {}\n",
	})
	all, err := targets(t.Context(), os.Stderr, []string{"./..."})
	if d := cmp.Diff([]target{{"m/a", "FuzzBad"}, {"m/a", "FuzzOther"}}, all, cmp.AllowUnexported(target{})); err != nil || d != "" {
		t.Fatalf("targets: %v, -want +got\n%s", err, d)
	}
	var out bytes.Buffer
	err = run(t.Context(), []string{"fuzz", "-time", "1s", "-run", "Bad"}, &out, os.Stderr)
	if want := "1 of 1 fuzz targets failed, or did not run: FuzzBad"; err == nil || err.Error() != want {
		t.Errorf("fuzz = %v; want %q", err, want)
	}
	if got := out.String(); !strings.HasPrefix(got, "   failed  m/a FuzzBad: exit status 1\n") || !strings.Contains(got, "it is bad") {
		t.Errorf("printed\n%s", got)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "want cover, race, fuzz or deadcode first"},
		{[]string{"bench"}, "want cover, race, fuzz or deadcode first"},
		{[]string{"fuzz", "-run", "["}, "-run: error parsing regexp"},
		{[]string{"fuzz", "-run", "NoneSuch", "."}, `no fuzz target in ["."] matches "NoneSuch"`},
	} {
		if err := run(t.Context(), tt.args, new(bytes.Buffer), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("tests %q: %v; want %q", tt.args, err, tt.want)
		}
	}
}

func TestJudge(t *testing.T) {
	read := func(text string) (found []unreached) {
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			t.Fatal(err)
		}
		return found
	}
	// As cmd/deadcode -json prints it.
	f := func(name, file string) string {
		return `{"Name":"` + name + `","Position":{"File":"` + file + `","Line":3,"Col":6},"Generated":false,"Marker":false}`
	}
	p := func(path string, funcs ...string) string {
		return `{"Name":"p","Path":"` + path + `","Funcs":[` + strings.Join(funcs, ",") + `]}`
	}
	programs := read("[" + strings.Join([]string{
		p("m/a", f("F", "a/f.go"), f("T.G", "a/g.go")), p("m/synth", f("Used", "synth/s.go"), f("Dead", "synth/s.go")),
		p("m/a", f("F", "a/f.go"), f("onArm", "a/f_arm.go")), // of another architecture
	}, ",") + "]")
	tests := read("[" + p("m/synth", f("Dead", "synth/s.go")) + "," + p("m/b", f("untested", "b/b.go")) + "]")
	for _, tt := range []struct {
		name   string
		spared map[string]string
		want   []string
	}{
		{"nothing is spared", nil, []string{
			"a/f.go:3: F is reached by no program", "a/f_arm.go:3: onArm is reached by no program", "a/g.go:3: T.G is reached by no program",
			"b/b.go:3: untested is reached by no program and no test",
			"synth/s.go:3: Dead is reached by no program and no test", "synth/s.go:3: Used is reached by no program",
		}},
		{"a package is spared as far as tests reach it", map[string]string{"m/synth": "x", "m/a F": "x", "m/a T.G": "x", "m/a onArm": "x", "m/b untested": "x"}, []string{
			"synth/s.go:3: Dead is reached by no program and no test",
		}},
		{"what is spared for nothing", map[string]string{"m/a": "x", "m/synth Dead": "x", "m/synth Used": "x", "m/b untested": "x", "m/c": "x", "m/a Gone": "x"}, []string{
			"host/tests/deadcode.go: m/a Gone need not be spared", "host/tests/deadcode.go: m/c need not be spared",
		}},
	} {
		if d := cmp.Diff(tt.want, judge(programs, tests, tt.spared)); d != "" {
			t.Errorf("%s: judge (-want +got):\n%s", tt.name, d)
		}
	}
}
