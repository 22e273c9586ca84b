package serve

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	gradebook "labctl/host/class"
	"labctl/host/lab"
	"labctl/host/machine"
	"labctl/host/matrix"
	"labctl/host/matrix/cell"
	"labctl/labs"
)

// gradeClass grades a class by P1's rules, as labctl lab check --class does.
func gradeClass(t *testing.T, p *site, subs map[string]string) (dir string) {
	t.Helper()
	l, err := lab.One(labs.FS, "P1")
	if err != nil {
		t.Fatal(err)
	}
	from := t.TempDir()
	for learner, of := range subs {
		src, err := labs.FS.ReadFile("P1-three-ids/" + of + "/main.go")
		if err == nil {
			err = os.Mkdir(filepath.Join(from, learner), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(from, learner, "main.go"), src, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := gradebook.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec := machine.Spec{Kernel: "6.12", Arch: "amd64"}
	env := p.o.Env
	if err := machine.Settle(env.Env, &spec); err != nil {
		t.Fatal(err)
	}
	on, err := cell.On(env.Env, spec)
	if err != nil {
		t.Fatal(err)
	}
	r := &cell.Runner{Env: env, Spec: spec, Lab: func(string) (*lab.Lab, error) { return l, nil }, Submission: c.Submission}
	defer r.Close()
	dir = filepath.Join(t.TempDir(), "class")
	_, err = r.Matrix(context.Background(), cell.Options{Name: "class-P1", Plan: c.Cells(on, l), Out: dir, Label: "class-P1", Changes: true,
		Kept: func(dir string, soFar []matrix.Result) error {
			return gradebook.NewBook(l, nil, soFar).Keep(dir, "", "")
		}})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestBrowserClass looks at a gradebook.
func TestBrowserClass(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	first := serve(t) // for its caches
	t.Chdir(t.TempDir())
	dir := gradeClass(t, first, map[string]string{"anna": "solution", "ben": "wrong/wrong-tid", "carla": "wrong/no-wait"})
	p := serveWith(t, func(o *Options) { o.Class = dir })
	b := openBrowser(t, p)
	b.tabTo(`header a[href="/class"]`)
	b.press(kb.Enter)
	b.until(`document.querySelectorAll("#book tr").length === 3 && document.querySelectorAll("#class-bars meter").length > 0`)
	rows := map[string]string{}
	for _, line := range strings.Split(eval[string](b, `[...document.querySelectorAll("#book tr")].map(r => r.children[0].textContent + "\t" + r.children[1].className + "\t" + r.children[1].textContent).join("\n")`), "\n") {
		learner, rest, _ := strings.Cut(line, "\t")
		rows[learner] = rest
	}
	for learner, want := range map[string]string{"anna": "good", "ben": "bad"} {
		if class, _, _ := strings.Cut(rows[learner], "\t"); class != want {
			t.Errorf("%s: got %q of %q, want %s", learner, class, rows, want)
		}
	}
	if says := b.textOf("#class-says"); !strings.Contains(says, "3 of 3 graded, 1 passed") {
		t.Errorf("the page says %q", says)
	}
	b.accessible("/class")
	b.fits("/class")
	b.shoot("class.png")
	b.report(dir, "carla")
	runs, err := filepath.Glob(filepath.Join(dir, "runs", "*", "run.json"))
	if err != nil || len(runs) != 3 {
		t.Fatalf("records of a class of three: %q, %v", runs, err)
	}
	for _, run := range runs {
		b.report(filepath.Dir(run), "kernel_clone")
	}
}
