package class

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/lab"
	"labctl/host/lab/compile"
	"labctl/host/matrix"
	"labctl/host/outcome"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// three is a lab whose exercise has three checks.
func three() *lab.Lab {
	l := &lab.Lab{ID: "P1", Exercise: &lab.Graded{}}
	for _, id := range []string{"waits", "prints-pid", "one-child"} {
		l.Exercise.Checks = append(l.Exercise.Checks, lab.Check{ID: id, Says: lab.Text{EN: "the program " + id}})
	}
	return l
}

func result(learner string, status outcome.Kind, how outcome.How, verdicts ...string) matrix.Result {
	r := matrix.Result{
		Cell: matrix.Cell{Kernel: "6.12", Target: "arm64", Work: matrix.Work{Kind: matrix.Exercise, Name: "P1", Args: []string{learner}}},
		// Of the same length in any run.
		Status: status, How: how, Seconds: 1.25, Record: "runs/" + learner,
	}
	for i, v := range verdicts {
		c := matrix.Check{ID: three().Exercise.Checks[i].ID, Verdict: v}
		if v == "fail" {
			c.Seen = "flags = 0x11, without CLONE_FS"
		}
		r.Checks = append(r.Checks, c)
	}
	return r
}

func class() []matrix.Result {
	broken := result("broken", outcome.BadInput, outcome.NoCompile)
	broken.Reason, broken.Output = "broken/main.go:3:15: undefined: nonsense", "broken/main.go:3:15: undefined: nonsense\nbroken/main.go:4:1: more"
	late := result("late", outcome.HostLacks, "")
	late.Reason = "no space on device"
	return []matrix.Result{
		result("=1+1", outcome.OK, "", "pass", "pass", "pass"),
		broken,
		result("half", outcome.CheckFailed, "", "pass", "fail", "not applicable"),
		late,
		result("slow", outcome.Deadline, outcome.TooSlow),
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: -want +got\n%s", name, d)
	}
}

func TestBook(t *testing.T) {
	l := three()
	w, err := ParseWeights("waits=3,prints-pid=0.5", l)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBook(l, w, class())
	b.Similar = []Pair{{"half", "slow", 0.97}}
	dir := t.TempDir()
	also, moodle := filepath.Join(dir, "also.csv"), filepath.Join(dir, "moodle.csv")
	if err := b.Keep(dir, also, moodle); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"book.csv": filepath.Join(dir, File), "moodle.csv": moodle} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, string(data))
	}
	var out strings.Builder
	for _, lang := range lab.Languages {
		if err := b.Print(&out, lang, 100); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "book.txt", out.String())
	var all strings.Builder
	for i := range b.Rows {
		data, err := b.Rows[i].Gradescope(l)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	golden(t, "gradescope.json", all.String())
}

func TestEnd(t *testing.T) {
	all := class()
	for _, tt := range []struct {
		name    string
		results []matrix.Result
		status  int
		msg     string
	}{
		{"all good", all[:1], 0, ""},
		{"one failed", all[:3], 1, ""},
		{"one not graded", all, 3, "1 of 5 submissions were not graded; --resume tries them again\n  late: host lacks: no space on device"},
	} {
		err := NewBook(three(), nil, tt.results).End()
		if got := outcome.ExitStatus(err); got != tt.status {
			t.Errorf("%s: exit status %d, want %d", tt.name, got, tt.status)
		}
		if tt.msg != "" && err.Error() != tt.msg {
			t.Errorf("%s: %q, want %q", tt.name, err, tt.msg)
		}
	}
}

func TestParseWeights(t *testing.T) {
	for in, want := range map[string]string{
		"waits":         `want CHECK=POINTS`,
		"waits=x":       `want CHECK=POINTS`,
		"waits=-1":      `want CHECK=POINTS`,
		"waits=NaN":     `want CHECK=POINTS`,
		"wait=1":        `did you mean waits?`,
		"waits=1,":      `want CHECK=POINTS`,
		"waits=1000.01": `want CHECK=POINTS`,
	} {
		_, err := ParseWeights(in, three())
		if err == nil || !strings.Contains(err.Error(), want) || outcome.Of(err) != outcome.BadInput {
			t.Errorf("ParseWeights(%q) = %v; want bad input with %q", in, err, want)
		}
	}
}

const honest = `package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	pid := os.Getpid()
	parent := os.Getppid()
	for i := 0; i < 3; i++ {
		child, err := syscall.ForkExec("/proc/self/exe", []string{"child"}, nil)
		if err != nil {
			fmt.Println("fork:", err)
			os.Exit(1)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(child, &status, 0, nil); err != nil || !status.Exited() {
			os.Exit(2)
		}
	}
	fmt.Println(pid, parent)
}
`

const other = `package main

func main() {
	ch := make(chan int)
	go func() {
		defer close(ch)
		for _, n := range []int{1, 2, 3, 5, 8} {
			select {
			case ch <- n * n:
			default:
			}
		}
	}()
	sum := map[string]int{}
	for n := range ch {
		sum["all"] += n
	}
	if sum["all"] > 3 && len(sum) == 1 || cap(ch) != 0 {
		println(sum["all"])
	}
}
`

// TestOpen reads a directory as students fill it, and finds who copied.
func TestOpen(t *testing.T) {
	root := t.TempDir()
	write := func(name, source string) {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("alice", honest)
	write("bob", "// by bob\n"+strings.NewReplacer("pid", "me", "child", "kid", "\t", "    ").Replace(honest))
	write("carol", other)
	write("od\x1bd", "package main\n\nfunc main() {}\n")
	write("od\x01d", "package main\n\nfunc main() {}\n") // looks as the one before
	write(".git", honest)
	for link, to := range map[string]string{"dave": "alice", "eve": "/etc"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "frank"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "README"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := []string{filepath.Join(root, "README") + " is not a directory: not graded"}
	if d := cmp.Diff(want, c.Ignored); d != "" {
		t.Errorf("ignored: -want +got\n%s", d)
	}
	cells := c.Cells(matrix.Cell{Kernel: "6.12", Target: "arm64"}, three())
	if err := matrix.CheckPlan(cells); err != nil {
		t.Errorf("the plan: %v", err)
	}
	inputs := map[string]string{}
	for _, cell := range cells {
		name := cell.Work.Args[0]
		inputs[name] = cell.Input
		s, done := c.Submission(name)
		linked := name == "dave" || name == "eve"
		if (s.Err != nil) != linked || (cell.Input == "") != (linked || name == "frank") {
			t.Errorf("%s: input %q, %v", name, cell.Input, s.Err)
		}
		if linked && (outcome.HowOf(s.Err) != outcome.NoSource || !strings.Contains(s.Err.Error(), "is a symbolic link")) {
			t.Errorf("%s: %v; want no source, for it is a link", name, s.Err)
		}
		done()
	}
	if len(cells) != 8 || inputs["alice"] == inputs["bob"] {
		t.Errorf("%d cells, want 8: %v", len(cells), inputs)
	}
	if s, _ := c.Submission("nobody"); outcome.Of(s.Err) != outcome.Internal {
		t.Errorf("nobody: %v", s.Err)
	}
	pairs := c.Similar(nil)
	if d := cmp.Diff([]Pair{{"alice", "bob", 1}}, pairs); d != "" {
		t.Errorf("similar: -want +got\n%s", d)
	}
	// What the skeleton gave away does not make anyone a copyist.
	if pairs := c.Similar([]compile.File{{Name: "main.go", Data: []byte(honest)}}); len(pairs) != 0 {
		t.Errorf("similar beside the skeleton: %+v; want none", pairs)
	}
}

func TestOpenNothing(t *testing.T) {
	empty := t.TempDir()
	for _, dir := range []string{empty, filepath.Join(empty, "none"), "/dev/null"} {
		if _, err := Open(dir); outcome.Of(err) != outcome.BadInput {
			t.Errorf("Open(%s) = %v; want bad input", dir, err)
		}
	}
}
