package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"labctl/host/kernel"
	"labctl/host/matrix"
)

var known = Known{
	Labs: []string{"P1", "P2", "P9", "C1", "K1", "K2"},
	Cached: func(arch string) ([]string, error) {
		return map[string][]string{"amd64": {"5.10", "6.12"}, "arm64": {"6.12"}}[arch], nil
	},
	Within: func(span kernel.Span, archs []string) ([]kernel.Spanned, error) {
		if span.From == "8.0" {
			return nil, errors.New("kernels 8.0..: none")
		}
		return []kernel.Spanned{{Name: "6.1", Archs: archs}, {Name: "build:x", Archs: archs[:1]}, {Name: "6.12", Archs: archs}}, nil
	},
	Packages: func(pattern, arch string) ([]string, error) {
		switch pattern {
		case "./broken":
			return nil, errors.New("go list ./broken: no such folder")
		case "./empty":
			return nil, nil
		}
		return []string{"x/a", "x/b-" + arch}, nil
	},
}

func ids(cells []matrix.Cell) string {
	var out []string
	for _, c := range cells {
		out = append(out, c.ID())
	}
	return strings.Join(out, " ")
}

func TestCells(t *testing.T) {
	labs := func(globs ...string) Work { return Work{Kind: matrix.Lab, Names: FromFlags("--labs", globs)} }
	spec := func(kernels, targets string, work ...Work) Spec {
		s := Spec{Kernels: FromFlags("--kernels", strings.Split(kernels, ",")), Work: work}
		if targets != "" {
			s.Targets = FromFlags("--arch", strings.Split(targets, ","))
		}
		return s
	}
	on := func(cpus, mb int) Spec {
		s := spec("6.12", "raspi3b", labs("P1"))
		s.CPUs, s.MemoryMB = cpus, mb
		return s
	}
	for _, tt := range []struct {
		name      string
		spec      Spec
		want, err string
	}{
		{"order", spec("6.12,5.10", "arm64,amd64", labs("p*", "K1", "P1")),
			"6.12/arm64/P1 6.12/arm64/P2 6.12/arm64/P9 6.12/arm64/K1 6.12/amd64/P1 6.12/amd64/P2 6.12/amd64/P9 6.12/amd64/K1 " +
				"5.10/arm64/P1 5.10/arm64/P2 5.10/arm64/P9 5.10/arm64/K1 5.10/amd64/P1 5.10/amd64/P2 5.10/amd64/P9 5.10/amd64/K1", ""},
		{"once each", spec("6.12,6.12", "arm64,arm64", labs("P1")), "6.12/arm64/P1", ""},
		{"cached", spec("cached", "amd64,arm64", labs("P1")), "5.10/amd64/P1 6.12/amd64/P1 6.12/arm64/P1", ""},
		{"cached and named", spec("cached,5.10", "amd64,arm64", labs("P1")), "5.10/amd64/P1 5.10/arm64/P1 6.12/amd64/P1 6.12/arm64/P1", ""},
		{"nothing cached", spec("cached", "arm", labs("P1")), "", "--kernels: no kernel is cached; labctl kernel pull gets some"},
		{"a span", spec("7.2,6.1..6.12,5.10", "amd64,arm64", labs("P1")),
			"7.2/amd64/P1 7.2/arm64/P1 6.1/amd64/P1 6.1/arm64/P1 build:x/amd64/P1 6.12/amd64/P1 6.12/arm64/P1 5.10/amd64/P1 5.10/arm64/P1", ""},
		{"a span of one architecture", spec("6.1..6.12", "arm64,raspi3b", labs("P1")),
			"6.1/arm64/P1 6.1/raspi3b/P1 build:x/arm64/P1 build:x/raspi3b/P1 6.12/arm64/P1 6.12/raspi3b/P1", ""},
		{"an empty span", spec("8.0..", "amd64", labs("P1")), "", "--kernels: kernels 8.0..: none"},
		{"no span", spec("6.12..6.1", "amd64", labs("P1")), "", "--kernels: kernels 6.12..6.1: the older series comes first: 6.1..6.12"},
		{"program and tests", spec("6.12", "arm64", Work{Kind: matrix.GoTest, Names: FromFlags("--gotest", []string{"./..."})},
			Work{Kind: matrix.Program, Names: FromFlags("PROG", []string{"./x"}), Args: []string{"-v", "1"}}),
			"6.12/arm64/x/a 6.12/arm64/x/b-arm64 6.12/arm64/./x -v 1", ""},
		{"no tests", spec("6.12", "arm64", Work{Kind: matrix.GoTest, Names: FromFlags("--gotest", []string{"./empty"})}), "", "--gotest: ./empty: no package of it has tests for arm64"},
		{"broken tests", spec("6.12", "arm64", Work{Kind: matrix.GoTest, Names: FromFlags("--gotest", []string{"./broken"})}), "", "--gotest: go list ./broken: no such folder"},
		{"kernel", spec("6.21", "arm64", labs("P1")), "", `--kernels: kernel "6.21" is not known, did you mean 6.12?`},
		{"target", spec("6.12", "arm46", labs("P1")), "", `--arch: target "arm46" is not known, did you mean arm64?`},
		{"lab", spec("6.12", "arm64", labs("P7")), "", `--labs: lab "P7" is not known (known: P1, P2, P9, C1, K1, K2)`},
		{"glob", spec("6.12", "arm64", labs("P[")), "", `--labs: "P[": syntax error in pattern`},
		{"two of one name", spec("6.12", "arm64", labs("P1"), Work{Kind: matrix.Program, Names: FromFlags("PROG", []string{"P1"})}), "", "--kernels: cell 6.12/arm64/P1: it is in the plan twice"},
		{"a board as it is", on(4, 1024), "6.12/raspi3b/P1", ""},
		{"a board's CPUs", on(2, 0), "", "--arch: raspi3b always has 4 CPUs and 1024 MB of memory; leave smp and mem out"},
		{"a board's memory", on(4, 2048), "", "--arch: raspi3b always has 4 CPUs and 1024 MB of memory; leave smp and mem out"},
		{"no kernels", Spec{Work: []Work{labs("P1")}}, "", "which kernels?"},
		{"no work", spec("6.12", "arm64"), "", "which work?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cells, err := tt.spec.Cells(known)
			if got := ids(cells); got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Cells = %q, %v\nwant    %q, %q", got, err, tt.want, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
		})
	}
}

const nightly = `name: nightly
kernels: [5.10, "6.12"]
targets: [amd64, arm64]
work:
  - labs: [P1, K*]
  - program: ./cmd/x
    args: [-v, 2]
    files: [in.txt, 'data:/data']
  - gotest: ./guest/...
exclude:
  - kernels: 5.10
    work: [K*, x/a]
  - targets: arm64
    work: ./cmd/x
smp: 1
mem: 256
timeout: 90s
fail-on: warn
`

func TestParse(t *testing.T) {
	s, err := Parse([]byte(nightly), "nightly.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "nightly" || s.CPUs != 1 || s.MemoryMB != 256 || s.Timeout != 90*time.Second || s.Kernels[0] != (Item{"5.10", "nightly.yaml:2"}) {
		t.Errorf("Parse = %+v", s)
	}
	cells, err := s.Cells(known)
	if err != nil {
		t.Fatal(err)
	}
	want := "5.10/amd64/P1 5.10/amd64/./cmd/x -v 2 5.10/amd64/x/b-amd64 5.10/arm64/P1 5.10/arm64/x/b-arm64 " +
		"6.12/amd64/P1 6.12/amd64/K1 6.12/amd64/K2 6.12/amd64/./cmd/x -v 2 6.12/amd64/x/a 6.12/amd64/x/b-amd64 " +
		"6.12/arm64/P1 6.12/arm64/K1 6.12/arm64/K2 6.12/arm64/x/a 6.12/arm64/x/b-arm64"
	if got := ids(cells); got != want {
		t.Errorf("cells = %s\nwant    %s", got, want)
	}
	if c := cells[1]; !slices.Equal(c.Work.Files, []string{"in.txt", "data:/data"}) {
		t.Errorf("cell %+v has not the program's files", c)
	}
	if c := cells[0]; c.CPUs != 1 || c.MemoryMB != 256 {
		t.Errorf("cell %+v has not the plan's machine", c)
	}
}

func TestRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "p.yaml")
	for size, want := range map[int]string{maxFile: "", maxFile + 1: name + ": more than 256 KB"} {
		if err := os.WriteFile(name, append([]byte(nightly), bytes.Repeat([]byte("\n"), size-len(nightly))...), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Read(name); err == nil && s.Name != "nightly" || errText(err) != want {
			t.Errorf("Read of %d bytes = %+v, %v; want %q", size, s, err, want)
		}
	}
	if _, err := Read(filepath.Dir(name)); err == nil || err.Error() != filepath.Dir(name)+": not a regular file" {
		t.Errorf("Read of a directory = %v", err)
	}
	if _, err := Read(name + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing = %v", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"kernels: [6.12\n", "p.yaml:1: "},
		{"kernels: 6.12\nwork: [{labs: P1}]\nkernel: 5.10\n", `p.yaml:3: unknown field "kernel"`},
		{"kernels: 6.12\nwork:\n- lab: P1\n", `p.yaml:3: unknown field "lab"`},
		{"work: [{labs: P1}]\n", "p.yaml: kernels: missing"},
		{"kernels: 6.12\n", "p.yaml: work: missing"},
		{"kernels: {a: b}\nwork: [{labs: P1}]\n", "p.yaml:1: want a list of words"},
		{"kernels: [6.12, [1]]\nwork: [{labs: P1}]\n", "p.yaml:1: want one word"},
		{"kernels: 6.12\nwork:\n- labs: P1\n  program: ls\n", "p.yaml:3: work[0]: want exactly one of labs, program and gotest"},
		{"kernels: 6.12\nwork:\n- args: [x]\n", "p.yaml:3: work[0]: want exactly one of labs, program and gotest"},
		{"kernels: 6.12\nwork:\n- labs: P1\n  args: x\n", "p.yaml:3: work[0]: labs take no args"},
		{"kernels: 6.12\nwork:\n- labs: P1\n  files: x\n", "p.yaml:3: work[0]: labs take no files"},
		{"kernels: 6.12\nwork: [{labs: P1}]\nexclude: [{}]\n", "p.yaml: exclude[0]: it would take all"},
		{"kernels: 6.12\nwork: [{labs: P1}]\nexclude:\n- work: P[\n", `p.yaml:4: exclude[0]: "P[": syntax error in pattern`},
		{"kernels: 6.12\nwork: [{labs: P1}]\nfail-on: ops\n", `p.yaml:3: fail-on: kind of report "ops" is not known, did you mean oops? (known: warn, bug, oops, none)`},
		{"kernels: 6.12\nwork: [{labs: P1}]\ntimeout: soon\n", `p.yaml:3: timeout "soon": write it as 90s or 5m`},
		{"kernels: 6.12\nwork: [{labs: P1}]\ntimeout: 0s\n", `p.yaml:3: timeout "0s": write it as 90s or 5m`},
		{"kernels: 6.12\nwork: [{labs: P1}]\nmem: -1\n", "p.yaml: mem -1: want 64 to 1048576"},
		{"kernels: 6.12\nwork: [{labs: P1}]\nsmp: -1\n", "p.yaml: smp -1: want 1 to 64"},
		{"kernels: 6.12\nwork: [{labs: P1}]\nsmp: 99\n", "p.yaml: smp 99: want 1 to 64"},
		{"kernels: 6.12\nwork: [{labs: P1}]\nsmp: two\n", "p.yaml:3: "},
		{"kernels: 6.12\nwork:\n- labs: *\n", "p.yaml:3: "},
		{"kernels: 6.12\nwork:\n- labs: *all\n", "p.yaml:3: a word that begins with *, & or ! is put in quotes: '*'"},
		{"kernels: &a 6.12\nwork:\n- labs: *a\n", "p.yaml:1: a word that begins with"}, // the first of them
		{"kernels: 6.12\nwork: ! ", "p.yaml:2: a word that begins with"},
		{"", "p.yaml: want one YAML document"},
		{"a: 1\n---\nb: 2\n", "p.yaml:1: 2 YAML documents; want one"},
	} {
		_, err := Parse([]byte(tt.in), "p.yaml")
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Parse(%q) = %v; want %q", tt.in, err, tt.want)
		}
	}
}

// TestUselessExclude: a rule by which nothing goes is a slip of the pen.
func TestUselessExclude(t *testing.T) {
	in := "kernels: 6.12\ntargets: arm64\nwork: [{labs: P1}]\nexclude:\n- kernels: 5.10\n"
	for _, kernels := range []string{"6.12", "cached"} {
		s, err := Parse([]byte(strings.Replace(in, "6.12", kernels, 1)), "p.yaml")
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Cells(known)
		if want := "p.yaml:5: no cell is so: correct it, or take it out"; kernels == "6.12" && fmt.Sprint(err) != want || kernels == "cached" && err != nil {
			t.Errorf("%s: Cells = %v", kernels, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(nightly))
	f.Add([]byte("kernels: cached\nwork: [{program: ls}]\n"))
	f.Add([]byte("kernels: &a [*a]\nwork: [{labs: !!binary AA}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data, "p.yaml")
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		cells, err := s.Cells(known)
		if err == nil {
			err = matrix.CheckPlan(cells)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of several lines: %q", err)
		}
	})
}

// BenchmarkCells plans 1,000 cells of a plan file.
func BenchmarkCells(b *testing.B) {
	k := known
	k.Labs = nil
	for i := range 100 {
		k.Labs = append(k.Labs, fmt.Sprintf("P%d", i))
	}
	in := []byte("kernels: [5.10, 6.1, 6.12, 7.2, debian:trixie]\ntargets: [amd64, arm64]\nwork: [{labs: 'P*'}]\n")
	for b.Loop() {
		s, err := Parse(in, "p.yaml")
		if err != nil {
			b.Fatal(err)
		}
		if cells, err := s.Cells(k); err != nil || len(cells) != 1000 {
			b.Fatal(len(cells), err)
		}
	}
}
