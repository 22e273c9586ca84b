package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"labctl/host/kernel"
	"labctl/host/lab/progress"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/session"
	"labctl/labs"
)

// site is a server under test.
type site struct {
	link *url.URL
	dir  string
	o    Options
	s    *Server
	l    *cuts
	end  func()
}

// cuts is a listener whose connections can be cut.
type cuts struct {
	net.Listener
	mu  sync.Mutex
	all []net.Conn
}

func (l *cuts) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, c)
	}
	return c, err
}

// cut ends all connections, as a computer's sleep does.
func (l *cuts) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.all {
		c.Close()
	}
	l.all = nil
}

// serve serves a page until the test ends, which then is refused nothing.
func serve(t testing.TB) *site { t.Helper(); return serveWith(t, func(*Options) {}) }

// serveWith serves a page with other options.
func serveWith(t testing.TB, change func(*Options)) *site {
	t.Helper()
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	store, err := progress.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &site{dir: t.TempDir()}
	ready, served := make(chan string, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	p.o = Options{
		Env: session.Env{Env: machine.Env{Cache: cache}, Version: "test"}, Labs: labs.FS, Lang: "en", Dir: p.dir, Progress: store,
		Ready: func(link string) error { ready <- link; return nil },
	}
	change(&p.o)
	s, err := newServer(ctx, p.o)
	if err != nil {
		t.Fatal(err)
	}
	p.s = s
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", p.o.Port))
	if err != nil {
		t.Fatal(err)
	}
	p.l = &cuts{Listener: l}
	go func() {
		defer s.root.Close()
		served <- s.serve(ctx, p.l)
	}()
	p.end = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(p.end)
	select {
	case link := <-ready:
		if p.link, err = url.Parse(link); err != nil {
			t.Fatal(err)
		}
	case err := <-served:
		served <- nil
		t.Fatalf("serve: %v", err)
	}
	return p
}

// do sends a request of a browser that was, or was not, let in.
func (p *site) do(t *testing.T, in bool, method, path string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	if in {
		r, err := c.Get(p.link.String())
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	r, err := http.NewRequest(method, "http://"+p.link.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Origin", "http://"+p.link.Host)
	}
	if change != nil {
		change(r)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func send(body string) func(*http.Request) {
	return func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(body)) }
}

// TestGuard has everything that is to be kept out, beside what is to be let in.
func TestGuard(t *testing.T) {
	p := serve(t)
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	origin := func(o string) func(*http.Request) { return func(r *http.Request) { r.Header.Set("Origin", o) } }
	_, port, _ := strings.Cut(p.link.Host, ":")
	for what, test := range map[string]struct {
		in           bool
		method, path string
		change       func(*http.Request)
		want         int
	}{
		"the page":                           {true, "GET", "/", nil, 200},
		"a lesson":                           {true, "GET", "/lab/P1/", nil, 200},
		"localhost":                          {true, "GET", "/static/page.css", nil, 200},
		"no token":                           {false, "GET", "/", nil, 401},
		"no token, a file":                   {false, "GET", "/static/page.css", nil, 401},
		"no token, a command":                {false, "POST", "/api/machine/start", nil, 401},
		"another token":                      {false, "GET", "/?token=" + strings.Repeat("A", 26), nil, 401},
		"no token, another cookie":           {false, "GET", "/", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "labctl-" + port, Value: "x"}) }, 401},
		"the token where it is not":          {false, "GET", "/lab/P1/?" + p.link.RawQuery, nil, 401},
		"a name that was bound to this host": {true, "GET", "/", host("evil.example:" + port), 421},
		"the same without a port":            {true, "GET", "/", host("evil.example"), 421},
		"another port":                       {true, "GET", "/", host("127.0.0.1:1"), 421},
		"the token by another name":          {false, "GET", "/?" + p.link.RawQuery, host("evil.example:" + port), 421},
		"a command of another page":          {true, "POST", "/api/machine/stop", origin("http://evil.example"), 403},
		"of another page of this host":       {true, "POST", "/api/machine/stop", origin("http://127.0.0.1:1"), 403},
		"of a page of no origin":             {true, "POST", "/api/machine/stop", origin("null"), 403},
		"a command that does not say":        {true, "POST", "/api/machine/stop", func(r *http.Request) { r.Header.Del("Origin") }, 403},
		"a command by GET":                   {true, "GET", "/api/machine/start", nil, 405},
		"a path upward":                      {true, "GET", "/static/..%2fguard.go", nil, 404},
		"a path upward in a lab":             {true, "GET", "/lab/P1/..%2f..%2flabs.go", nil, 404},
		"a lab's own files":                  {true, "GET", "/lab/P1/lab.yaml", nil, 404},
		"a lab's solution":                   {true, "GET", "/lab/P1/solution/main.go", nil, 404},
		"a template":                         {true, "GET", "/static/lab.tmpl", nil, 404},
		"a lab that is none":                 {true, "GET", "/lab/..%2fx/", nil, 404},
		"a folder upward":                    {true, "POST", "/api/lab/P1/pick", send(`{"folder":"../x"}`), 400},
		"a folder elsewhere":                 {true, "POST", "/api/lab/P1/pick", send(`{"folder":"/etc"}`), 400},
		"a folder that is none":              {true, "POST", "/api/lab/P1/pick", send(`{"folder":"none"}`), 400},
		"too much":                           {true, "POST", "/api/lab/P1/pick", send(`{"folder":"` + strings.Repeat("x", maxBody) + `"}`), 413},
		"another field":                      {true, "POST", "/api/lab/P1/pick", send(`{"path":"x"}`), 400},
		"answers before a try":               {true, "POST", "/api/lab/P1/answers", send(`{}`), 400},
	} {
		t.Run(what, func(t *testing.T) {
			res, body := p.do(t, test.in, test.method, test.path, test.change)
			if res.StatusCode != test.want {
				t.Errorf("%s %s: got %d, want %d; %.200s", test.method, test.path, res.StatusCode, test.want, body)
			}
			if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "script-src 'self' 'unsafe") {
				t.Errorf("Content-Security-Policy: got %q", csp)
			}
			if got := res.Header.Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("Access-Control-Allow-Origin: got %q", got)
			}
		})
	}
}

// A link out of the learner's folders is no folder.
func TestFolderLink(t *testing.T) {
	p := serve(t)
	if err := os.Symlink("/", filepath.Join(p.dir, "out")); err != nil {
		t.Fatal(err)
	}
	if res, body := p.do(t, true, "POST", "/api/lab/P1/pick", send(`{"folder":"out/tmp"}`)); res.StatusCode != 400 {
		t.Errorf("got %d, %s", res.StatusCode, body)
	}
}

func TestCookie(t *testing.T) {
	p := serve(t)
	res, body := p.do(t, false, "GET", "/?"+p.link.RawQuery, nil)
	all := res.Cookies()
	if len(all) != 1 || !all[0].HttpOnly || all[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("got %v, want one cookie, HttpOnly and SameSite=Strict", all)
	}
	if token := p.link.Query().Get("token"); all[0].Value == token || strings.Contains(body, token) {
		t.Error("the cookie, or the page, is the token")
	}
}

// dial opens a WebSocket of a browser that was let in, unless cookie is empty.
func (p *site) dial(t *testing.T, path, cookie, origin string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	h := http.Header{}
	if cookie != "" {
		h.Set("Cookie", cookie)
	}
	if origin != "" {
		h.Set("Origin", origin)
	}
	conn, res, err := websocket.Dial(ctx, "ws://"+p.link.Host+path, &websocket.DialOptions{HTTPHeader: h})
	if err == nil {
		conn.SetReadLimit(4 << 20)
		t.Cleanup(func() { conn.CloseNow() })
	}
	return conn, res, err
}

func (p *site) cookie(t *testing.T) string {
	t.Helper()
	res, _ := p.do(t, false, "GET", "/?"+p.link.RawQuery, nil)
	c := res.Cookies()[0]
	return c.Name + "=" + c.Value
}

func TestSockets(t *testing.T) {
	p := serve(t)
	cookie, own := p.cookie(t), "http://"+p.link.Host
	for _, path := range []string{"/ws", "/ws/term?id=0123456789"} {
		for what, test := range map[string]struct {
			cookie, origin string
			want           int
		}{
			"of another page":      {cookie, "http://evil.example", 403},
			"that does not say":    {cookie, "", 403},
			"of a page of no host": {cookie, "null", 403},
			"without a cookie":     {"", own, 401},
		} {
			conn, res, err := p.dial(t, path, test.cookie, test.origin)
			if err == nil {
				conn.CloseNow()
				t.Errorf("%s %s: it was let in", path, what)
			} else if res == nil || res.StatusCode != test.want {
				t.Errorf("%s %s: got %v, want %d", path, what, err, test.want)
			}
		}
	}
	for what, said := range map[string]string{
		"too long":     `{"address":"` + strings.Repeat("x", maxSaid) + `"}`,
		"not JSON":     `x`,
		"a long word":  `{"address":"` + strings.Repeat("x", 200) + `"}`,
		"out of range": `{"tid":-1}`,
		"more fields":  `{"x":1}`,
	} {
		conn, _, err := p.dial(t, "/ws", cookie, own)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(said)); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, _, err = conn.Read(t.Context())
		}
		var closed websocket.CloseError
		if !errors.As(err, &closed) && !errors.Is(err, io.EOF) && websocket.CloseStatus(err) == -1 && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: got %v, want the end of the connection", what, err)
		}
	}
}

// Ten tabs hear of what happens in any; one that comes later is told what is.
func TestTabs(t *testing.T) {
	p := serve(t)
	cookie, own := p.cookie(t), "http://"+p.link.Host
	var tabs []*websocket.Conn
	for range 10 {
		conn, _, err := p.dial(t, "/ws", cookie, own)
		if err != nil {
			t.Fatal(err)
		}
		tabs = append(tabs, conn)
	}
	hint := func(n string) string {
		_, body := p.do(t, true, "POST", "/api/lab/P1/hint", send(`{"hint":`+n+`}`))
		return body
	}
	// One after another: the third is not for who has read none.
	var got struct{ Hints []any }
	if err := json.Unmarshal([]byte(hint("3")), &got); err != nil || len(got.Hints) != 1 {
		t.Errorf("the third hint before the first: got %d hints, %v; want 1", len(got.Hints), err)
	}
	for i, conn := range tabs {
		for {
			_, b, err := conn.Read(t.Context())
			if err != nil {
				t.Fatalf("tab %d: %v", i, err)
			}
			if bytes.Contains(b, []byte(`"type":"progress"`)) && bytes.Contains(b, []byte(`"hints":1`)) {
				break
			}
		}
	}
	late, _, err := p.dial(t, "/ws", cookie, own)
	for seen := false; err == nil && !seen; {
		var b []byte
		_, b, err = late.Read(t.Context())
		seen = bytes.Contains(b, []byte(`"hints":1`))
	}
	if err != nil {
		t.Errorf("a tab that came later: %v", err)
	}
}

// A tab that takes nothing is let go, and holds up nobody.
func TestSlowTab(t *testing.T) {
	h := newHub()
	ctx, drop := context.WithCancelCause(t.Context())
	slow := &tab{queue: make(chan []byte, maxQueued), wake: make(chan struct{}, 1), drop: drop, newest: map[string][]byte{}, last: map[string]string{}}
	h.add(slow)
	for range maxQueued {
		h.send("x", 1)
	}
	if ctx.Err() != nil {
		t.Fatal("it was let go too early")
	}
	h.send("x", 1)
	if !errors.Is(context.Cause(ctx), errSlow) {
		t.Errorf("got %v, want %v", context.Cause(ctx), errSlow)
	}
	for i := range 1000 {
		slow.show("live", encode("live", i))
	}
	if got := slow.take(); string(got) != string(encode("live", 999)) || slow.take() != nil {
		t.Errorf("of what is shown again and again: got %s first, want the newest alone", got)
	}
}

func TestLessons(t *testing.T) {
	p := serve(t)
	res, body := p.do(t, true, "GET", "/lab/P1/?lang=ko", nil)
	if res.StatusCode != 200 || !strings.Contains(body, "세 가지 ID") || !strings.Contains(body, `<html lang="ko">`) {
		t.Errorf("P1 in Korean: %d, %.300s", res.StatusCode, body)
	}
	if strings.Contains(body, "style=") || strings.Contains(body, "onclick") {
		t.Error("something inline is on the page")
	}
}

func TestPortInUse(t *testing.T) {
	p := serve(t)
	o := p.o
	port := p.link.Port()
	if err := json.Unmarshal([]byte(port), &o.Port); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), o); outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), port) {
		t.Errorf("got %v, want one line with the port, bad input", err)
	}
	o.Port, o.Class = 0, p.dir
	if err := Serve(t.Context(), o); outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), "--class") {
		t.Errorf("a directory that is no class's: got %v", err)
	}
}

func FuzzDecodeChoice(f *testing.F) {
	f.Add([]byte(`{"live":true,"tid":1,"address":"0x400000"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeChoice(b); err == nil && (c.TID < 0 || len(c.Address) > 128) {
			t.Errorf("%q: got %+v", b, c)
		}
	})
}

func FuzzDecodeSize(f *testing.F) {
	f.Add([]byte(`{"rows":24,"cols":80}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if size, err := decodeSize(b); err == nil && (size[0] < 2 || size[1] > maxSide) {
			t.Errorf("%q: got %v", b, size)
		}
	})
}
