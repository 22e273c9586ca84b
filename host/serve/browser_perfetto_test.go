package serve

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"labctl/host/record"
)

// perfettoUI answers as the hosted one does (perfetto: ui/src/frontend/post_message_handler.ts),
// and passes on what it was given.
const perfettoUI = `<!doctype html><title>ui</title><script>
addEventListener("message", e => {
	if (e.data === "PING") e.source.postMessage("PONG", "*");
	else if (e.data.perfetto) fetch("/got?" + new URLSearchParams({ name: e.data.perfetto.fileName, title: e.data.perfetto.title }), { method: "POST", body: e.data.perfetto.buffer });
});
</script>`

// TestBrowserPerfetto: the page of a record gives a trace to Perfetto's page when it is
// asked to, and asks it for nothing before.
func TestBrowserPerfetto(t *testing.T) {
	type given struct {
		name, title string
		trace       []byte
	}
	asked, got := make(chan string, 100), make(chan given, 1)
	ui := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Host + r.URL.Path
		if r.URL.Path != "/got" {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, perfettoUI)
			return
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- given{r.URL.Query().Get("name"), r.URL.Query().Get("title"), b}
	}))
	defer ui.Close()
	b := openBrowser(t, serve(t),
		chromedp.Flag("host-resolver-rules", "MAP ui.perfetto.dev "+ui.Listener.Addr().String()), chromedp.Flag("ignore-certificate-errors", true))

	dir := t.TempDir()
	trace := bytes.Repeat([]byte("\x0a\x02\x08\x01"), 1000)
	if err := os.WriteFile(filepath.Join(dir, record.ViewFile), trace, 0o644); err != nil {
		t.Fatal(err)
	}
	file := pageOf(t, dir, 1)
	b.do(chromedp.Navigate("file://"+file), chromedp.WaitReady("main"))
	eval[bool](b, `document.getElementById("perfetto-open").closest("details")?.setAttribute("open", ""), true`)
	b.do(chromedp.SetUploadFiles("#pftrace", []string{filepath.Join(dir, record.ViewFile)}, chromedp.ByQuery))
	b.until(`!document.getElementById("perfetto-open").disabled`)
	if len(asked) > 0 {
		t.Errorf("Perfetto's page was asked for %s before a click", <-asked)
	}
	b.click("#perfetto-open")
	select {
	case g := <-got:
		if g.name != record.ViewFile || g.title == "" || !bytes.Equal(g.trace, trace) {
			t.Errorf("Perfetto got %d bytes of %q, %q; want %d bytes of %s with the page's title", len(g.trace), g.name, g.title, len(trace), record.ViewFile)
		}
	case <-time.After(patience):
		t.Errorf("Perfetto got nothing in %v; %d requests came", patience, len(asked))
	}
}
