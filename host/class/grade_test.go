package class_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"labctl/host/class"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/session"
)

// gone are the ways in which a guest can end under a program that takes all of it.
var gone = []string{"too slow", "deadline", "check failed", "panic", "agent silent", "powered off", "restarted", "reset"}

// hostile are programs that a class may hold.
var hostile = map[string]struct {
	source string
	want   []string // words; one of them
}{
	"endless": {"package main\n\nfunc main() {\n\tfor {\n\t}\n}\n", []string{"too slow"}},
	"forkbomb": {`package main

import "os"

func main() {
	for {
		os.StartProcess("/proc/self/exe", []string{"x"}, &os.ProcAttr{})
	}
}
`, gone},
	"loud": {`package main

import (
	"bytes"
	"os"
)

func main() {
	b := bytes.Repeat([]byte("x"), 1<<20)
	for range 10 << 10 { // 10 GB
		os.Stdout.Write(b)
	}
}
`, []string{"prints too much"}},
	"crash": {`package main

import "os"

func main() { os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) }
`, []string{"check failed"}},
	"off": {`package main

import "syscall"

func main() { syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF) }
`, []string{"check failed"}},
	"hungry": {`package main

func main() {
	var all [][]byte
	for {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
}
`, gone},
	"array": {"package main\n\nvar all [512 << 20]byte\n\nfunc main() {\n\tfor i := range all {\n\t\tall[i] = 1\n\t}\n}\n", gone},
	"trace": {`package main

import (
	"os"
	"path/filepath"
)

func main() {
	files, _ := filepath.Glob("/sys/kernel/tracing/instances/*/trace")
	for _, f := range append(files, "/sys/kernel/tracing/trace") {
		os.WriteFile(f, nil, 0o644)
	}
}
`, []string{"check failed"}},
	"broken": {"package main\n\nfunc main() { nonsense() }\n", []string{"does not compile"}},
	"=1+1":   {"", []string{"no source"}},
}

const labsDir = "../../labs"

// TestClass grades honest and hostile programs side by side, is stopped halfway,
// resumed, and resumed again after a learner has handed in a new version.
func TestClass(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	set, err := lab.Load(os.DirFS(labsDir))
	if err != nil {
		t.Fatal(err)
	}
	l, err := set.Find("P1")
	if err != nil {
		t.Fatal(err)
	}
	short := *l.Exercise
	short.Seconds = 3 // of which every hostile program takes all
	exercise := *l
	exercise.Exercise = &short
	root := t.TempDir()
	write := func(name, source string) {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if source == "" {
			return
		}
		if err := os.WriteFile(filepath.Join(root, name, "main.go"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	solution, err := os.ReadFile(filepath.Join(labsDir, filepath.Dir(l.File), lab.Solution, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"alice": {"ok"}, "zoe": {"ok"}, "linked": {"no source"}}
	write("alice", string(solution))
	write("zoe", strings.NewReplacer("child, err", "kid, err", "child.Wait", "kid.Wait").Replace(string(solution)))
	if err := os.Symlink("alice", filepath.Join(root, "linked")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "notes.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, h := range hostile {
		write(name, h.source)
		want[name] = h.want
	}

	out := filepath.Join(t.TempDir(), "class")
	// grade runs the class until stopAfter results are kept.
	grade := func(ctx context.Context, resume bool, stopAfter int) (ran int, book *class.Book, err error) {
		c, err := class.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if len(c.Ignored) != 1 || !strings.Contains(c.Ignored[0], "notes.txt") {
			t.Errorf("ignored %q; want notes.txt", c.Ignored)
		}
		env := session.Env{Env: machine.Env{Cache: cache, Say: func(line string) { t.Log(line) }}}
		r := &cell.Runner{Env: env, Lab: func(string) (*lab.Lab, error) { return &exercise, nil }, Submission: c.Submission}
		defer r.Close()
		on := matrix.Cell{Kernel: "6.12", Target: "arm64"}
		stop := errors.New("stop")
		start := -1
		m, err := r.Matrix(ctx, cell.Options{
			Name: "class", Plan: c.Cells(on, l), Out: out, Resume: resume, Changes: true, Jobs: 2,
			Kept: func(_ string, all []matrix.Result) error {
				if start < 0 {
					start = len(all)
				}
				ran = len(all) - start
				book = class.NewBook(l, nil, all)
				if n := len(all); ran > 0 && stopAfter > 0 && n >= stopAfter {
					return stop
				}
				return nil
			},
		})
		if errors.Is(err, stop) {
			err = nil
		}
		if m != nil && stopAfter == 0 {
			book = class.NewBook(l, nil, m.Results.Results)
		}
		return ran, book, err
	}
	first, book, err := grade(t.Context(), false, len(want)/2)
	if err != nil || len(book.Rows) < len(want)/2 {
		t.Fatalf("first half: %d rows, %v", len(book.Rows), err)
	}
	second, book, err := grade(t.Context(), true, 0)
	if err != nil {
		t.Fatal(err)
	}
	// What ended beside the one that stopped the first run may have been kept too.
	if first+second < len(want) || second > len(want)-len(want)/2 {
		t.Errorf("graded %d, and %d when resumed; want %d in all, none twice", first, second, len(want))
	}
	if len(book.Rows) != len(want) {
		t.Errorf("%d rows; want %d", len(book.Rows), len(want))
	}
	for _, r := range book.Rows {
		t.Logf("%s: %s %d/%d in %.1f s: %s", r.Learner, r.Word(), r.Passed, r.Of, r.Seconds, r.Message)
		judged := r.Outcome == outcome.OK || r.Outcome == outcome.CheckFailed && r.How == ""
		if !slices.Contains(want[r.Learner], r.Word()) || !judged && r.Message == "" {
			t.Errorf("%s: %s (%s), %q; want one of %q with a message", r.Learner, r.Outcome, r.How, r.Message, want[r.Learner])
		}
		if _, err := (record.Dir{Path: filepath.Join(out, r.Record)}).ReadRun(); err != nil {
			t.Errorf("%s: %v", r.Learner, err)
		}
	}

	write("broken", string(solution))
	third, book, err := grade(t.Context(), true, 0)
	if err != nil || third != 1 {
		t.Errorf("after a new version: %d graded, %v; want 1", third, err)
	}
	for _, r := range book.Rows {
		if r.Learner == "broken" && r.Outcome != outcome.OK {
			t.Errorf("the new version: %s, %s; want ok", r.Word(), r.Message)
		}
	}
	c, err := class.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pairs := c.Similar(nil)
	if len(pairs) != 3 || pairs[0].Share < 0.99 {
		t.Errorf("near-identical: %+v; want alice, broken and zoe, whose names alone differ", pairs)
	}
}
