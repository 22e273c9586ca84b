package serve

import (
	"errors"
	"io/fs"
	"os"
)

// axe is where npm ci puts axe-core (make browser-tools).
const axe = "ui/node_modules/axe-core/axe.min.js"

// axeSource is read before a test changes its directory.
var axeSource, axeErr = os.ReadFile(axe)

// accessible has axe-core look at the page.
func (b *browser) accessible(what string) {
	b.t.Helper()
	if errors.Is(axeErr, fs.ErrNotExist) {
		b.t.Logf("%s: axe-core is not here (make browser-tools, with npm, gets it)", what)
		return
	}
	if axeErr != nil {
		b.t.Fatal(axeErr)
	}
	eval[bool](b, `window.axe === undefined && (() => { `+string(axeSource)+` })(), window.found = undefined,
		axe.run(document, {resultTypes: ["violations"]}).then(r => { window.found = r.passes.length === 0 ? "nothing to look at" : r.violations.filter(v => v.impact === "serious" || v.impact === "critical")
			.map(v => v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 120)).join(" | ")).join("\n"); }, e => { window.found = "axe failed: " + e; }), true`)
	b.until(`window.found !== undefined`)
	if found := eval[string](b, "window.found"); found != "" {
		b.t.Errorf("%s: axe-core finds\n%s", what, found)
	}
}
