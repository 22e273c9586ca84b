package serve

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"labctl/host/lab"
	"labctl/host/page"
	"labctl/host/record"
	"labctl/host/trace/tasks"
	"labctl/labs"
)

// BenchmarkFrames is how long a browser takes for its frames while the live view of 2,000
// tasks changes five times a second, in ms: the longest, and the median. The bound for
// the longest is 100 ms; an empty page has 17.
func BenchmarkFrames(b *testing.B) {
	for _, many := range []int{0, 2000} {
		b.Run(fmt.Sprintf("tasks=%d", many), func(b *testing.B) {
			p := serveWith(b, func(*Options) {})
			w := openBrowser(b, p)
			w.open("/machine")
			w.until(`document.querySelector("#connection").textContent === "connected"`)
			next := func(turn int) []byte {
				out := liveTasks{Machine: "bench", Forks: int64(turn), Tasks: []liveTask{}}
				for i := range many {
					// A tenth of them sleeps or runs in turn, and some come and go.
					one := liveTask{TID: i + 1, PID: i + 1, PPID: i / 10, Name: fmt.Sprintf("task-%d", i), State: "S", Depth: min(i, 3)}
					if i%10 == turn%10 {
						one.State, one.Runs = "R", true
					}
					if i%50 == 49 {
						one.TID, one.PID, one.New = one.TID+many*(turn+1), one.PID+many*(turn+1), true
					}
					out.Tasks = append(out.Tasks, one)
				}
				return encode("live", out)
			}
			show := func(turn int) {
				for _, t := range p.s.hub.all() {
					t.show("live", next(turn))
				}
			}
			show(0)
			w.until(fmt.Sprintf(`document.querySelector("#tree").children.length === %d`, many))
			eval[bool](w, `window.gaps = [], window.last = performance.now(), (function step(now) {
				gaps.push(now - last); last = now; requestAnimationFrame(step);
			})(last), true`)
			turn := 0
			for b.Loop() {
				for range 25 { // five seconds
					turn++
					show(turn)
					time.Sleep(showEvery)
				}
			}
			b.ReportMetric(eval[float64](w, `Math.max(...gaps.slice(1))`), "ms/longest")
			b.ReportMetric(eval[float64](w, `gaps.slice(1).sort((a, b) => a - b)[Math.floor(gaps.length / 2)]`), "ms/frame")
		})
	}
}

// BenchmarkReport is how long a browser takes to open the page of a record, in ms until it
// is drawn: of one task, and of 100,000. The bound is 2 s.
func BenchmarkReport(b *testing.B) {
	for _, many := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("tasks=%d", many), func(b *testing.B) {
			file := pageOf(b, b.TempDir(), many)
			w := openBrowser(b, serveWith(b, func(*Options) {}))
			var took []float64
			for b.Loop() {
				w.do(chromedp.Navigate("file://"+file), chromedp.WaitReady("main"))
				eval[bool](w, `requestAnimationFrame(() => requestAnimationFrame(() => { window.drawn = performance.now(); })), true`)
				w.until("window.drawn")
				took = append(took, eval[float64](w, "window.drawn"))
			}
			var sum float64
			for _, t := range took {
				sum += t
			}
			b.ReportMetric(sum/float64(len(took)), "ms/open")
		})
	}
}

// pageOf makes the page of a record with so many tasks, one of which made the others, in
// dir, and returns the page's file.
func pageOf(t testing.TB, dir string, many int) (file string) {
	t.Helper()
	line := &tasks.Timeline{Start: 1, End: int64(1000 * many), Events: map[string]int64{"sched_process_fork": int64(many)}}
	zero := 0
	line.Tasks = append(line.Tasks, tasks.Task{TID: 1, Comm: "init"})
	for i := range many {
		born, died := int64(i*1000), int64(i*1000+500)
		line.Tasks = append(line.Tasks, tasks.Task{TID: 2 + i, Comm: fmt.Sprintf("task-%d", i), Parent: &zero, Born: &born, Died: &died, Via: "clone", Flags: "CLONE_VM|CLONE_FS|CLONE_FILES|SIGCHLD"})
	}
	r := &record.Run{Schema: record.Schema, Name: "trace", Labctl: "v1", Started: time.Now(), Outcome: record.NewOutcome(nil), Trace: &record.Trace{Timeline: line}}
	if err := (record.Dir{Path: dir}).WriteRun(r); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), record.PageFile)
	if err := page.Write(dir, file, "en", func(id string) (*lab.Lab, error) { return lab.One(labs.FS, id) }); err != nil {
		t.Fatal(err)
	}
	return file
}
