package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// firstBound is what a page may take from its first request to the first stacks, in
// seconds, of a machine that is up.
const firstBound = 1.0

// page measures what the live view of labctl serve costs the guest that it shows, and how
// soon it shows something.
func (b *bench) page() error {
	for _, goarch := range b.arches {
		if err := b.served(goarch); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) served(goarch string) (err error) {
	env, err := b.runtimeDir()
	if err != nil {
		return err
	}
	env = append(env, "LABCTL_DATA="+b.dir)
	labctl := func(args ...string) error {
		cmd := exec.CommandContext(b.ctx, b.labctl, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("labctl %s: %w: %s", args[0], err, out)
		}
		return nil
	}
	if err := labctl("up", "-q", "page", "--arch", goarch, "--kernel", b.kernel, "--detach"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, labctl("down", "page")) }()
	ctx, cancel := context.WithCancel(b.ctx)
	cmd := exec.CommandContext(ctx, b.labctl, "serve", "--in", "page", "--open=false")
	cmd.Env = env
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("labctl serve has printed no link: %w", err)
	}
	p, err := openPage(b.ctx, strings.TrimSpace(line))
	if err != nil {
		return err
	}
	first := row{what: goarch + ": from a page's request to its first stacks", baseline: fmt.Sprintf("the bound, %.0f s", firstBound), bound: "1.00", unit: "s", digits: 3}
	for range b.pairs + 1 {
		begun := time.Now()
		stop, err := p.watch(b.ctx)
		if err != nil {
			return err
		}
		took := time.Since(begun).Seconds()
		if err := stop(); err != nil {
			return err
		}
		first.got, first.base, first.ratios = append(first.got, took), append(first.base, firstBound), append(first.ratios, took/firstBound)
	}
	first.got, first.base, first.ratios = first.got[1:], first.base[1:], first.ratios[1:] // the first one finds the kernel's symbols
	b.table.add(first)
	b.say("  %s: %s", first.what, first.got.text("s", 3))
	r := row{what: goarch + ": 400 forks while a page shows the guest's tasks"}
	return b.watched(env, []string{"-q", "--in", "page"}, goarch, r, func([]string) (func() error, error) { return p.watch(b.ctx) })
}

// tab is a browser's side of a page.
type tab struct {
	client http.Client
	origin string
}

// openPage goes in by the link.
func openPage(ctx context.Context, link string) (*tab, error) {
	u, err := url.Parse(link)
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	t := &tab{client: http.Client{Jar: jar}, origin: "http://" + u.Host}
	return t, t.get(ctx, link)
}

func (t *tab) get(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := t.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", req.URL.Path, res.Status)
	}
	return nil
}

// watch opens the page of the live machine, and returns when the first stacks have come.
// It goes on to look at the tasks until it is stopped.
func (t *tab) watch(ctx context.Context) (stop func() error, err error) {
	for _, path := range []string{"/machine", "/static/base.js", "/static/machine.js"} {
		if err := t.get(ctx, t.origin+path); err != nil {
			return nil, err
		}
	}
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(t.origin, "http")+"/ws",
		&websocket.DialOptions{HTTPClient: &t.client, HTTPHeader: http.Header{"Origin": {t.origin}}})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(4 << 20)
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"live":true,"stacks":true}`)); err != nil {
		return nil, errors.Join(err, conn.CloseNow())
	}
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return nil, err
		}
		var m struct {
			Type string
			Data json.RawMessage
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, err
		}
		if m.Type == "stacks" && len(m.Data) > len("[]") {
			break
		}
	}
	// A page has the list of stacks folded until it is asked for.
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"live":true}`)); err != nil {
		return nil, errors.Join(err, conn.CloseNow())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, _, err := conn.Read(ctx); err != nil {
				return
			}
		}
	}()
	return func() error {
		err := conn.CloseNow()
		<-ended
		return err
	}, nil
}
