package page

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/trace/tasks"
	"labctl/labs"
)

func find(id string) (*lab.Lab, error) { return lab.One(labs.FS, id) }

// aLab is the record of a lab's run: its result is that of a real run.
func aLab(t testing.TB, id string) string {
	t.Helper()
	dir := t.TempDir()
	b, err := os.ReadFile("../lab/see/testdata/" + id + ".json")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "lab.json"), string(b))
	aRun(t, dir, &record.Run{})
	write(t, filepath.Join(dir, record.ConsoleFile), "[    0.000000] Linux version 6.12\x1b[31m</pre><script>alert(1)</script>\n")
	write(t, filepath.Join(dir, record.QEMUFile), "qemu-system-x86_64 -machine q35\n")
	return dir
}

func aRun(t testing.TB, dir string, r *record.Run) {
	t.Helper()
	r.Schema, r.Name, r.Labctl, r.Started = record.Schema, "lab", "v1", time.Date(2026, 11, 28, 15, 0, 0, 0, time.UTC)
	r.Kernel.Release, r.Target.Name = "6.12.117+deb13-amd64", "amd64"
	r.Command = []string{"labctl", "lab", "run", "a b'</pre><script>alert(3)</script>"}
	r.Outcome = record.NewOutcome(nil)
	if err := (record.Dir{Path: dir}).WriteRun(r); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func pageOf(t testing.TB, dir string) string {
	t.Helper()
	p, err := Of(dir, "en", find)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.HTML()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPage parses a page as a browser does: one script and one style, which are those
// that its policy names; no address of anywhere; every id once; every link leads to one.
func TestPage(t *testing.T) {
	for _, id := range []string{"C1", "K2", "K3", "P7"} {
		source := pageOf(t, aLab(t, id))
		root, err := html.Parse(strings.NewReader(source))
		if err != nil {
			t.Fatal(err)
		}
		seen, ids, links := map[string]int{}, map[string]bool{}, []string{}
		var words strings.Builder
		var walk func(n *html.Node)
		walk = func(n *html.Node) {
			if n.Type == html.ElementNode {
				seen[n.Data]++
				for _, a := range n.Attr {
					switch {
					case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "src":
						t.Errorf("%s: <%s %s=%q>", id, n.Data, a.Key, a.Val)
					case a.Key == "id" && ids[a.Val]:
						t.Errorf("%s: the id %s twice", id, a.Val)
					case a.Key == "id":
						ids[a.Val] = true
					case a.Key == "href":
						links = append(links, a.Val)
					}
				}
			}
			if n.Type == html.TextNode && n.Parent.Data != "script" && n.Parent.Data != "style" {
				words.WriteString(n.Data)
			}
			for c := n.FirstChild; c != nil; c = c.NextSibling {
				walk(c)
			}
		}
		walk(root)
		if seen["script"] != 1 || seen["style"] != 1 || seen["h1"] != 1 || seen["main"] != 1 {
			t.Errorf("%s: elements %v", id, seen)
		}
		for _, l := range links {
			if !strings.HasPrefix(l, "#") || !ids[l[1:]] {
				t.Errorf("%s: a link to %q", id, l)
			}
		}
		for _, want := range []string{"<script>alert(1)</script>", "qemu-system-x86_64", "6.12.117+deb13-amd64", "What is claimed", "주장", `labctl lab run 'a b'\''`} {
			if !strings.Contains(words.String(), want) {
				t.Errorf("%s: no %q among the words", id, want)
			}
		}
		if strings.Contains(words.String(), "\x1b") {
			t.Errorf("%s: an escape sequence", id)
		}
		if n := strings.Count(source, "://"); n != 1 { // Perfetto's, behind a click
			t.Errorf("%s: %d addresses", id, n)
		}
	}
}

// TestUnfinished: a run that ended in its second step has a page of the first, which
// judges nothing.
func TestUnfinished(t *testing.T) {
	dir := aLab(t, "K2")
	file := filepath.Join(dir, result.File)
	r, err := result.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := r.Steps[len(r.Steps)-1].ID
	r.Steps = r.Steps[:len(r.Steps)-1]
	data, err := result.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(data))
	got := pageOf(t, dir)
	for _, want := range []string{"the run failed: step " + cut + " is not in the result", "qemu-system-x86_64", `id="tasks"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, no := range []string{"What is claimed", "What must hold"} {
		if strings.Contains(got, no) {
			t.Errorf("%q in the page of a run that was not judged", no)
		}
	}
}

// TestBounds: a page of very many tasks and stacks stays below its bound.
func TestBounds(t *testing.T) {
	line := &tasks.Timeline{Start: 1, End: 100_000_000, Events: map[string]int64{"sched_process_fork": 100_000}}
	zero := 0
	line.Tasks = append(line.Tasks, tasks.Task{TID: 1, Comm: "init"})
	for i := range 100_000 {
		born, died := int64(i*1000), int64(i*1000+500)
		line.Tasks = append(line.Tasks, tasks.Task{TID: 2 + i, Comm: fmt.Sprintf("task-%d", i), Parent: &zero, Born: &born, Died: &died, Via: "clone", Flags: "CLONE_VM|CLONE_FS|CLONE_FILES|SIGCHLD"})
	}
	dir := t.TempDir()
	aRun(t, dir, &record.Run{Trace: &record.Trace{Timeline: line}})
	write(t, filepath.Join(dir, record.ConsoleFile), strings.Repeat("a line of the console\n", 1<<20))
	if n := len(pageOf(t, dir)); n > most || n < 100_000 {
		t.Errorf("a page of %d bytes", n)
	}
}

func TestMatrix(t *testing.T) {
	dir := t.TempDir()
	r := &matrix.Results{Schema: matrix.Schema, Labctl: "v1", Started: time.Now()}
	for _, k := range []string{"6.1", "6.12"} {
		c := matrix.Cell{Kernel: k, Target: "amd64", Work: matrix.Work{Kind: matrix.Lab, Name: "P1"}}
		r.Plan = append(r.Plan, c)
		res := matrix.Result{Cell: c, Status: outcome.OK, Tries: 1, Record: "runs/" + k, Checks: []matrix.Check{{ID: "a", Verdict: "pass"}}}
		if k == "6.12" {
			res.Status, res.Reason = outcome.CheckFailed, "leader <b>fails</b>"
		}
		r.Results = append(r.Results, res)
	}
	if err := matrix.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	got := pageOf(t, dir)
	for _, want := range []string{`<a href="runs/6.1/report.html">`, "leader &lt;b&gt;fails", `class="bad"`, `class="good"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestNoPage(t *testing.T) {
	half := t.TempDir()
	write(t, filepath.Join(half, record.ConsoleFile), "x")
	later := t.TempDir()
	write(t, filepath.Join(later, record.RunFile), `{"schema": "labctl/run/v9"}`)
	for dir, want := range map[string]string{"nowhere": "no such directory", half: "the record is not whole", later: `schema is "labctl/run/v9"`} {
		if _, err := Of(dir, "en", find); err == nil || !strings.Contains(err.Error(), want) || outcome.Of(err) != outcome.BadInput {
			t.Errorf("Of(%s) = %v; want %q", dir, err, want)
		}
	}
}
