package serve

import (
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"labctl/host/machine"
)

// press presses keys one after another.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

// tabTo presses Tab until an element has the focus, and checks that the focus is seen.
func (b *browser) tabTo(selector string) {
	b.t.Helper()
	for range 80 {
		if eval[bool](b, "document.activeElement.matches("+quote(selector)+")") {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("Tab never comes to %s; it is at %s", selector, eval[string](b, "document.activeElement.outerHTML.slice(0, 200)"))
}

// TestBrowserKeys uses the page by the keyboard alone, loses the connection, and crashes
// the machine.
func TestBrowserKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	t.Chdir(t.TempDir())
	p := serveWith(t, func(o *Options) { o.Spec = machine.Spec{Kernel: "6.12", Arch: "amd64"} })
	b := openBrowser(t, p)
	b.tabTo(`li[data-lab="P1"] a`)
	b.press(kb.Enter)
	b.until(`document.querySelector("#lesson") && document.querySelector("#connection").textContent === "connected"`)
	b.tabTo("#tab-lesson")
	b.press(kb.ArrowRight)
	b.until(`document.activeElement.id === "tab-run" && !document.querySelector("#run").hidden && document.querySelector("#lesson").hidden`)
	b.tabTo("#run-start")
	b.press(kb.Enter)
	b.until(`!document.querySelector("#run-stop").hidden`)
	b.tabTo("#run-stop")
	b.press(kb.Enter)
	b.until(`document.querySelector("#run-stop").hidden && document.querySelector("#run-says").textContent === "stopped"`)

	b.tabTo("#start")
	b.press(kb.Enter)
	b.until(`document.querySelector("#machine").className === "up" && document.querySelector("#tree").children.length > 0`)
	if HasTerminal() {
		b.until(`document.querySelector("#terminal-says").textContent === "" && document.querySelector("#screen").innerText.trim() !== ""`)
		b.tabTo(".xterm-helper-textarea")
		b.press("echo by-\"\"keys\r")
		b.terminalSays("by-keys")
		b.press(kb.Tab) // is the shell's
		if !eval[bool](b, `document.activeElement.matches(".xterm-helper-textarea")`) {
			t.Error("Tab leaves the terminal, where it is to complete names")
		}
		b.press(kb.F6)
		b.until(`document.activeElement.id === "tree"`)
	}
	b.tabTo("#tree")
	b.press(kb.Home, kb.ArrowDown)
	b.until(`document.querySelector("#chosen").textContent.includes("labinit") && !document.querySelector("#chosen-parts").hidden`)
	b.tabTo("#address")
	b.press("init_task", kb.Enter)
	b.until(`document.querySelector("#walk .to.good")`)

	t.Log("the connection is lost, and comes back")
	eval[bool](b, `window.saidLost = false, new MutationObserver(() => { window.saidLost ||= document.querySelector("#connection").className === "lost"; }).observe(document.querySelector("#connection"), {childList: true, attributes: true}), true`)
	p.l.cut()
	b.until(`window.saidLost && document.querySelector("#connection").textContent === "connected"`)
	b.until(`document.querySelector("#machine").className === "up"`)
	if HasTerminal() {
		b.until(`document.querySelector("#terminal-says").textContent === ""`)
		b.enter(`echo again-""$((40+2))`)
		b.terminalSays("again-42")
		b.terminalSays("by-keys") // it is the same shell
	}

	t.Log("the machine crashes")
	if HasTerminal() {
		b.enter("echo c > /proc/sysrq-trigger")
		b.until(`document.querySelector("#machine").className === "trouble" && !document.querySelector("#crash").hidden`)
		says := b.textOf("#machine")
		if !strings.Contains(says, "the machine has ended") || !strings.Contains(says, "panic") && !strings.Contains(says, "crash") {
			t.Errorf("of a crash the page says %q", says)
		}
		if got := b.textOf("#crash"); !strings.Contains(got, "sysrq_handle_crash") {
			t.Errorf("the stack of the crash: got\n%s", got)
		}
		b.shoot("crash.png")
		b.accessible("a machine that crashed")
		t.Logf("%s\n%s", says, b.textOf("#crash"))
		b.click("#start") // and another one
		b.until(`document.querySelector("#machine").className === "up" && document.querySelector("#crash").hidden`)
	}

	t.Log("the server goes away, and another has its port")
	p.end()
	b.until(`document.querySelector("#connection").textContent.includes("does not answer")`)
	port, err := strconv.Atoi(p.link.Port())
	if err != nil {
		t.Fatal(err)
	}
	serveWith(t, func(o *Options) { o.Port = port })
	b.until(`document.querySelector("#connection").textContent.includes("open the link")`)
}
