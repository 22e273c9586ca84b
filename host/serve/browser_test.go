package serve

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"labctl/host/lab"
	"labctl/host/machine"
	"labctl/host/page"
	"labctl/labs"
)

var screenshots = flag.String("screenshots", "", "a directory for screenshots of the page")

// patience is for what machines do on a busy host.
const patience = 8 * time.Minute

// browser is a browser with the page open, which notes where its requests go and what
// its scripts complain of.
type browser struct {
	t    testing.TB
	site *site
	ctx  context.Context

	mu     sync.Mutex
	strays []string
	faults []string
}

func openBrowser(t testing.TB, p *site, more ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Skip("a browser is for people's machines, not for continuous integration")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium (make browser-tools installs it)")
	}
	alloc, end := chromedp.NewExecAllocator(context.Background(), append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1440, 900), chromedp.WSURLReadTimeout(patience),
	}, more...)...)
	t.Cleanup(end)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // waits until the browser has ended
		cancel()
	})
	b := &browser{t: t, site: p, ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			b.sent(e.Request.URL)
		case *network.EventWebSocketCreated:
			b.sent(e.URL)
		case *cdpruntime.EventExceptionThrown:
			b.faults = append(b.faults, e.ExceptionDetails.Error())
		}
	})
	if err := chromedp.Run(ctx); err != nil { // without a deadline: it would be the browser's
		t.Fatalf("browser: %v", err)
	}
	b.do(network.Enable(), chromedp.Navigate(p.link.String()))
	b.until(`location.search === "" && document.readyState === "complete" && document.querySelector(".labs") !== null`)
	return b
}

// sent notes a request that leaves the server, and this host's files.
func (b *browser) sent(to string) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "data" && u.Scheme != "blob" && u.Scheme != "file" && u.Host != b.site.link.Host {
		b.strays = append(b.strays, to)
	}
}

func (b *browser) do(all ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, all...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

func (b *browser) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate("http://"+b.site.link.Host+path), chromedp.WaitReady("main"))
}

// report opens the page of a record, a file that stands by itself, and looks for words.
func (b *browser) report(dir, words string) {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), filepath.Base(dir)+".html")
	if err := page.Write(dir, file, "en", func(id string) (*lab.Lab, error) { return lab.One(labs.FS, id) }); err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.Navigate("file://"+file), chromedp.WaitReady("main"))
	if got := b.textOf("main"); !strings.Contains(got, words) {
		b.t.Errorf("the page of %s lacks %q:\n%s", dir, words, got)
	}
	b.accessible(dir)
	b.fits("report-" + filepath.Base(dir))
}

// eval returns what an expression of JavaScript is.
func eval[T any](b *browser, js string) (out T) {
	b.t.Helper()
	b.do(chromedp.Evaluate(js, &out))
	return out
}

// until waits for an expression to be true. A page that is being left has no answer.
func (b *browser) until(js string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		var is bool
		err := chromedp.Run(ctx, chromedp.Evaluate("!!("+js+")", &is))
		if err == nil && is {
			return
		}
		if ctx.Err() != nil {
			b.t.Fatalf("the page never had %s (%v); it says:\n%s", js, err, eval[string](b, "document.body.innerText"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// textOf is what is seen of an element.
func (b *browser) textOf(selector string) string {
	b.t.Helper()
	return eval[string](b, "document.querySelector("+quote(selector)+").innerText")
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// click clicks with the mouse.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible))
}

// enter types a line in the terminal.
func (b *browser) enter(line string) {
	b.t.Helper()
	b.do(chromedp.Focus(".xterm-helper-textarea", chromedp.ByQuery), chromedp.KeyEvent(line+"\r"))
}

// within reports whether an expression of JavaScript becomes true in a while.
func (b *browser) within(d time.Duration, js string) bool {
	b.t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if eval[bool](b, "!!("+js+")") {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// terminalSays waits for a line of the terminal.
func (b *browser) terminalSays(want string) {
	b.t.Helper()
	b.until(`document.querySelector("#screen").textContent.replaceAll("\u00a0", " ").includes(` + quote(want) + `)`)
}

func (b *browser) shoot(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	var png []byte
	b.do(chromedp.CaptureScreenshot(&png))
	if err := os.WriteFile(filepath.Join(*screenshots, name), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// fits checks that nothing has to be scrolled sideways.
func (b *browser) fits(path string) {
	b.t.Helper()
	for _, width := range []int64{390, 1440} {
		b.do(emulation.SetDeviceMetricsOverride(width, 900, 1, false))
		b.until(fmt.Sprintf("innerWidth === %d", width))
		if got := eval[int64](b, "document.documentElement.scrollWidth"); got > width {
			wide := eval[string](b, fmt.Sprintf(`[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > %d).slice(0, 5).map(e => e.outerHTML.slice(0, 80)).join("\n")`, width))
			b.t.Errorf("%s at %d px: it is %d px wide\n%s", path, width, got, wide)
		}
		b.shoot(fmt.Sprintf("%s-%d.png", strings.Trim(strings.NewReplacer("/", "-", "?", "-").Replace(path), "-"), width))
	}
	b.do(emulation.ClearDeviceMetricsOverride())
}

// TestBrowser is a learner's way through P1, in a real browser, with real machines.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	t.Chdir(t.TempDir()) // where records go
	p := serveWith(t, func(o *Options) { o.Spec = machine.Spec{Kernel: "6.12", Arch: "amd64"} })
	b := openBrowser(t, p)
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.strays) > 0 {
			t.Errorf("requests left this page's server: %q", b.strays)
		}
		if len(b.faults) > 0 {
			t.Errorf("scripts of the page failed: %q", b.faults)
		}
	}()

	t.Log("the lesson")
	b.click(`li[data-lab="P1"] a`)
	b.until(`document.querySelector("#lesson h2, #lesson p") && document.querySelector("#connection").textContent === "connected"`)

	b.accessible("a lesson")

	t.Log("the live machine")
	begun := time.Now()
	b.click("#start")
	b.until(`document.querySelector("#machine").className === "up" && document.querySelector("#tree").children.length > 0`)
	t.Logf("tasks are shown %v after the click", time.Since(begun).Round(time.Millisecond))
	if HasTerminal() {
		b.terminal()
	} else {
		t.Log("no terminal in this build (make ui)")
	}
	b.chooseTask()

	t.Log("the run")
	b.click("#tab-run")
	b.click("#run-start")
	b.until(`document.querySelector("#run-stop").hidden && [...document.querySelectorAll("#checks > li")].every(l => l.className)`)
	if bad := eval[int](b, `document.querySelectorAll("#checks > li:not(.good):not(.plain)").length`); bad > 0 || eval[int](b, `document.querySelectorAll("#checks > li.good").length`) == 0 {
		t.Errorf("P1: checks do not hold:\n%s", b.textOf("#run"))
	}
	if eval[int](b, `document.querySelector("#views").children.length`) == 0 {
		t.Errorf("P1 shows no view:\n%s", b.textOf("#run"))
	}
	t.Logf("the run: %s", b.textOf("#run-says"))
	b.accessible("a run")
	b.shoot("run.png")

	b.exercise()
	b.questions()

	t.Log("checks that turn while the lab runs")
	b.open("/lab/P11/#run")
	b.until(`document.querySelector("#connection").textContent === "connected" && !document.querySelector("#run").hidden`)
	eval[bool](b, `window.early = 0, window.doings = new Set(), new MutationObserver(() => {
		if (document.querySelector("#run-stop").hidden) return;
		early = Math.max(early, document.querySelectorAll("#checks > li.good").length);
		doings.add(document.querySelector("#run-says").textContent);
	}).observe(document.querySelector("#run"), {subtree: true, childList: true, attributes: true}), true`)
	b.click("#run-start")
	b.until(`document.querySelector("#run-stop").hidden && document.querySelectorAll("#checks > li.good").length > 0`)
	doings := eval[string](b, `[...doings].join("\n")`)
	if n := eval[int](b, "early"); n == 0 || !strings.Contains(doings, "1/") || !strings.Contains(doings, "trace") {
		t.Errorf("%d checks turned before the lab had ended; the page said:\n%s", n, doings)
	}
	t.Logf("%d checks turned before the end; the page said:\n%s", eval[int](b, "early"), doings)

	t.Log("widths, Korean, dark")
	for _, path := range []string{"/", "/lab/P1/", "/lab/P1/#run", "/machine", "/lab/P1/?lang=ko", "/?lang=en"} {
		b.open(path)
		if strings.HasPrefix(path, "/lab") || path == "/machine" {
			b.until(`document.querySelector("#tree").children.length > 0`)
		}
		if strings.Contains(path, "lang=ko") {
			if got := eval[string](b, "document.documentElement.lang + document.querySelector('h1').innerText"); !strings.HasPrefix(got, "ko") || !strings.Contains(got, "세 가지 ID") {
				t.Errorf("Korean: got %q", got)
			}
		}
		b.fits(path)
		b.accessible(path)
	}
	b.open("/lab/P1/")
	light := eval[string](b, "getComputedStyle(document.body).backgroundColor")
	b.click("#theme")
	b.until(`getComputedStyle(document.body).backgroundColor !== ` + quote(light))
	b.shoot("dark.png")
	b.accessible("dark")
	b.click("#theme")

	t.Log("the end of the machine")
	b.click("#end")
	b.until(`document.querySelector("#machine").className === "ended" && !document.querySelector("#start").hidden`)
}

// terminal makes tasks in the terminal, and looks for them in the tree.
func (b *browser) terminal() {
	b.t.Helper()
	b.t.Log("the terminal")
	b.until(`document.querySelector("#terminal-says").textContent === "" && document.querySelector("#screen").innerText.trim() !== ""`)
	// labprobe's child ends at once; it is seen all the same, by what it leaves.
	childOf := func(more string) string {
		return `[...document.querySelectorAll("#tree .task")].find(r => r.querySelector(".mark").textContent && r.querySelector(".comm").textContent === "labprobe" && ` + more +
			` && [...document.querySelectorAll("#tree .task")].some(p => p.querySelector(".comm").textContent === "labprobe" && p.dataset.tid !== r.dataset.tid && r.querySelector(".ids").textContent.endsWith("ppid " + p.dataset.tid)))`
	}
	for try := 1; ; try++ { // the kernel may give its place away at once
		b.enter(fmt.Sprintf(`labprobe fork; echo en""ded-%d`, try))
		b.terminalSays(fmt.Sprintf("ended-%d", try))
		if b.within(5*time.Second, childOf("true")) {
			b.t.Logf("labprobe's child is in the tree after %d", try)
			break
		}
		if try == 20 {
			b.t.Fatalf("the child of labprobe fork was not in the tree:\n%s", b.textOf("#tree"))
		}
	}
	b.t.Logf("the count: %s", b.textOf("#forks"))
	b.t.Logf("the tree:\n%s", b.textOf("#tree"))

	// A child that stays is seen alive, and where in the kernel it sleeps.
	b.enter(`labprobe suspend '{"flags":0,"sleep_ms":60000}'`)
	b.until(childOf(`r.querySelector(".state").textContent === "S"`))
	tid := eval[string](b, childOf(`r.querySelector(".state").textContent === "S"`)+".dataset.tid")
	b.click(`#tree [data-tid="` + tid + `"]`)
	b.until(`document.querySelector("#chosen").textContent.includes("labprobe") && document.querySelector("#stack").textContent.includes("nanosleep")`)
	b.t.Logf("the child's stack:\n%s", b.textOf("#stack"))
	b.shoot("live.png")
	b.do(chromedp.Focus(".xterm-helper-textarea", chromedp.ByQuery), chromedp.KeyEvent("\x03"))
	b.until(`document.querySelector("#chosen").textContent.includes("ended")`)

	// A name and output that are markup stay text.
	b.enter(`echo '<img id=pwned>'; echo '<img id=pwned>' > /proc/$$/comm`)
	b.terminalSays("<img id=pwned>")
	b.until(`[...document.querySelectorAll("#tree .comm")].some(e => e.textContent.includes("<img id=pwned>"))`)
	if eval[bool](b, `document.getElementById("pwned") !== null`) {
		b.t.Error("what a guest wrote became a part of the page")
	}
}

// chooseTask looks at the guest's first task.
func (b *browser) chooseTask() {
	b.t.Helper()
	b.t.Log("a chosen task")
	b.click(`#tree [data-tid="1"]`)
	b.until(`document.querySelector("#chosen").textContent.endsWith("tid 1") && document.querySelectorAll("#fields tr").length > 10 && document.querySelectorAll("#walk li").length > 3`)
	b.until(`document.querySelectorAll("#stack li").length > 2`)
	if got := eval[string](b, `[...document.querySelectorAll("#fields tr")].find(r => r.children[0].textContent === "pid").children[1].textContent`); got != "1" {
		b.t.Errorf("pid of the first task: got %q", got)
	}
	b.t.Logf("stack:\n%s\nwalk:\n%s", b.textOf("#stack"), b.textOf("#walk"))
	b.do(chromedp.SetValue("#address", "init_task", chromedp.ByQuery))
	b.click("#follow button")
	b.until(`document.querySelector("#walk .to.good") && document.querySelector("#walk .from").textContent.includes("0xffffffff")`)
	b.do(chromedp.SetValue("#address", "0x10", chromedp.ByQuery))
	b.click("#follow button")
	b.until(`document.querySelector("#walk .to.mixed") && document.querySelector("#walk .from").textContent.startsWith("0x10 ")`)
	b.t.Logf("walk of 0x10:\n%s", b.textOf("#walk"))
	b.click("#sleepers summary")
	b.until(`document.querySelectorAll("#paths details").length > 3`)
	b.click("#sleepers summary")
	b.shoot("task.png")
}

// exercise solves P1's, breaks it, and reads hints.
func (b *browser) exercise() {
	t := b.t
	t.Helper()
	t.Log("the exercise")
	save := func(from string, change func(string) string) {
		t.Helper()
		src, err := labs.FS.ReadFile("P1-three-ids/" + from + "/main.go")
		if err != nil {
			t.Fatal(err)
		}
		said := string(src)
		if change != nil {
			said = change(said)
		}
		if err := os.WriteFile(filepath.Join(b.site.dir, "mine", "main.go"), []byte(said), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(b.site.dir, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	save("solution", nil)
	b.click("#tab-exercise")
	b.click("#folder")
	b.until(`[...document.querySelectorAll("#folders option")].some(o => o.value === "mine")`)
	b.do(chromedp.SendKeys("#folder", "mine", chromedp.ByQuery))
	b.click("#pick button:not([type])")
	b.until(`document.querySelector("#ex-says").classList.contains("good") && document.querySelectorAll("#ex-checks > li:not(.good)").length === 0`)
	t.Logf("solved: %s", b.textOf("#ex-says"))
	b.shoot("green.png")
	b.accessible("an exercise")

	save("wrong/wrong-tid", func(s string) string {
		return strings.Replace(s, "func main() {", "func main() {\n\tfmt.Println(`<img id=pwned>`)", 1)
	})
	b.until(`document.querySelectorAll("#ex-checks > li.bad").length > 0`)
	b.until(`document.querySelector("#ex-more").innerText.includes("<img id=pwned>")`)
	if eval[bool](b, `document.getElementById("pwned") !== null`) {
		t.Error("what a learner's program wrote became a part of the page")
	}
	t.Logf("wrong: %s\n%s", b.textOf("#ex-says"), b.textOf("#ex-checks"))
	b.shoot("red.png")

	for n := 1; !eval[bool](b, `document.querySelector("#hint").disabled`); n++ {
		b.click("#hint")
		b.until(fmt.Sprintf(`document.querySelectorAll("#hints li").length === %d`, n))
		if n > 20 {
			t.Fatal("hints do not end")
		}
	}
}

func (b *browser) questions() {
	b.t.Helper()
	b.t.Log("the questions")
	b.click("#tab-questions")
	b.click("#answers")
	b.until(`document.querySelectorAll(".answer").length > 0 && [...document.querySelectorAll(".answer")].every(p => !p.hidden && p.textContent)`)
}
