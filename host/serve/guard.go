package serve

import (
	"crypto/rand"
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// guard lets in who has been given the link, and nobody else: not other programs' pages
// in the same browser, nor names that were bound to this host (DNS rebinding), nor other
// users of this host, who can connect to its ports as well.
type guard struct {
	token  string   // of the link, for as long as the server runs
	secret string   // of the cookie, which the token is exchanged for
	cookie string   // its name: cookies do not tell ports apart
	hosts  []string // what Host may be
}

func newGuard(addr net.Addr) *guard {
	_, port, _ := net.SplitHostPort(addr.String())
	return &guard{
		token: rand.Text(), secret: rand.Text(), cookie: "labctl-" + port,
		hosts: []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("localhost", port)},
	}
}

// link is what a browser is to open.
func (g *guard) link() string {
	return (&url.URL{Scheme: "http", Host: g.hosts[0], Path: "/", RawQuery: url.Values{"token": {g.token}}.Encode()}).String()
}

// policy is the Content-Security-Policy of every answer. Styles may be inline, for
// xterm.js makes a style element of its own; scripts may not.
func policy(host string) string {
	return "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; " +
		"connect-src 'self' ws://" + host + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// maxBody bounds what a browser may send in a request, in bytes.
const maxBody = 16 << 10

// wrap checks each request before next sees it.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !slices.Contains(g.hosts, r.Host) {
			h.Set("Content-Security-Policy", "default-src 'none'")
			http.Error(w, "labctl serve answers to "+g.hosts[0]+" alone", http.StatusMisdirectedRequest)
			return
		}
		h.Set("Content-Security-Policy", policy(r.Host))
		if !g.ownOrigin(r) {
			http.Error(w, "this request comes from another page", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if token := r.URL.Query().Get("token"); token != "" && r.Method == http.MethodGet && r.URL.Path == "/" {
			g.enter(w, token)
			return
		}
		c, err := r.Cookie(g.cookie)
		if err != nil || !same(c.Value, g.secret) {
			g.refuse(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownOrigin reports whether a request that a page made was made by one of these. A GET
// that asks for a page may come from a link anywhere; whatever changes something, and
// every WebSocket, says where it comes from.
func (g *guard) ownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	socket := strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	if origin == "" {
		return !socket && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	}
	return origin == "http://"+r.Host
}

// enter exchanges the token for the cookie. The page that goes on is one of this server's,
// so that the browser sends the strict cookie with the next request wherever the link
// was; the token is not in its address any more.
func (g *guard) enter(w http.ResponseWriter, token string) {
	if !same(token, g.token) {
		g.refuse(w)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: g.cookie, Value: g.secret, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(`<!doctype html><html lang="en"><meta http-equiv="refresh" content="0;url=/"><title>labctl</title><p><a href="/">labctl</a>`))
}

func (g *guard) refuse(w http.ResponseWriter) {
	http.Error(w, "Open the link that labctl serve has printed in its terminal: it has the token for this page.", http.StatusUnauthorized)
}
