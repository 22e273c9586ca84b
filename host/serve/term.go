package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/registry"
	"labctl/host/session"
	"labctl/host/text"
)

// Bounds on terminals.
const (
	maxTerminals = 12
	maxKeys      = 32 << 10         // bytes of one message from a browser
	maxScreen    = 256 << 10        // bytes of output that are kept for a browser that comes back
	maxAbsence   = 10 * time.Minute // after which a terminal that no browser shows is ended
	maxSide      = 1000             // rows, columns
)

// terminal is a shell in the guest. It outlives the connection of the browser that
// opened it, which may go to sleep.
type terminal struct {
	id      string
	keys    *io.PipeWriter
	resized chan [2]int
	end     context.CancelFunc

	mu     sync.Mutex
	output []byte        // the end of what it has shown
	total  int64         // bytes that it has shown
	more   chan struct{} // closed when there is more
	ended  bool
	users  int
	left   time.Time // when the last user left
}

// Write takes what the guest shows.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.output = append(t.output, p...)
	if over := len(t.output) - maxScreen; over > 0 {
		t.output = append(t.output[:0], t.output[over:]...)
	}
	t.total += int64(len(p))
	close(t.more)
	t.more = make(chan struct{})
	return len(p), nil
}

// since returns what was shown after the first at bytes, as far as it is kept, and what
// to wait for if there is nothing.
func (t *terminal) since(at int64) (out []byte, total int64, more <-chan struct{}, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := min(t.total-at, int64(len(t.output)))
	if have > 0 {
		out = append(out, t.output[int64(len(t.output))-have:]...)
	}
	return out, t.total, t.more, t.ended
}

// terminals are those of the server, by their ids.
type terminals struct {
	mu  sync.Mutex
	all map[string]*terminal
	wg  sync.WaitGroup
}

var errTerminals = outcome.New(outcome.BadInput, fmt.Sprintf("%d terminals are open; close one", maxTerminals))

// open returns the terminal with an id, and starts one if there is none.
func (s *Server) terminal(ctx context.Context, id string, rows, cols int) (*terminal, error) {
	s.terms.mu.Lock()
	defer s.terms.mu.Unlock()
	if t := s.terms.all[id]; t != nil {
		t.mu.Lock()
		t.users++
		t.mu.Unlock()
		return t, nil
	}
	if len(s.terms.all) >= maxTerminals {
		return nil, errTerminals
	}
	name := s.live.name()
	if name == "" {
		return nil, outcome.Inputf("no machine is running")
	}
	m, err := registry.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(s.ctx)
	in, keys := io.Pipe()
	t := &terminal{id: id, keys: keys, resized: make(chan [2]int, 1), end: end, more: make(chan struct{}), users: 1}
	s.terms.all[id] = t
	s.terms.wg.Go(func() {
		defer m.Close()
		defer end()
		env := s.o.Env
		env.Say, env.Warn = nil, nil
		_, err := session.Shell(ctx, env, session.ShellOptions{
			Options: session.Options{Name: "sh", In: m, Keep: session.KeepNothing, FailOn: record.FailOnNone},
			Screen:  &session.Screen{Rows: rows, Cols: cols, Resized: t.resized},
		}, session.Stdio{In: in, Out: t})
		in.Close()
		if err != nil && ctx.Err() == nil && outcome.Of(err) != outcome.OK {
			fmt.Fprintf(t, "\r\n%s\r\n", text.Line(err.Error(), 300))
		}
		t.mu.Lock()
		t.ended = true
		close(t.more)
		t.more = make(chan struct{})
		t.mu.Unlock()
		s.terms.mu.Lock()
		delete(s.terms.all, id)
		s.terms.mu.Unlock()
	})
	return t, nil
}

// leave notes that a browser has gone, and ends the terminal if none comes back.
func (t *terminal) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
	t.left = time.Now()
	left := t.left
	time.AfterFunc(maxAbsence, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.users == 0 && t.left.Equal(left) {
			t.end()
		}
	})
}

// side reads rows or columns.
func side(s string, otherwise int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 2 || n > maxSide {
		return otherwise
	}
	return n
}

// serveTerminal is the WebSocket of a terminal: bytes are keys and output, text is a
// size, {"rows":24,"cols":80}.
func (s *Server) serveTerminal(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := q.Get("id")
	if len(id) < 8 || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		http.Error(w, "a terminal has an id", http.StatusBadRequest)
		return
	}
	at, _ := strconv.ParseInt(q.Get("at"), 10, 64)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxKeys)
	t, err := s.terminal(r.Context(), id, side(q.Get("rows"), 24), side(q.Get("cols"), 80))
	if err != nil {
		conn.Close(websocket.StatusPolicyViolation, text.Line(err.Error(), 100))
		return
	}
	defer t.leave()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	go func() {
		defer cancel()
		for {
			kind, b, err := conn.Read(ctx)
			if err != nil {
				return
			}
			if kind == websocket.MessageBinary {
				if _, err := t.keys.Write(b); err != nil {
					return
				}
				continue
			}
			size, err := decodeSize(b)
			if err != nil {
				conn.Close(websocket.StatusUnsupportedData, "not a size")
				return
			}
			select { // the newest alone
			case <-t.resized:
			default:
			}
			t.resized <- size
		}
	}()
	for {
		b, total, more, ended := t.since(at)
		at = total
		if len(b) > 0 {
			wctx, done := context.WithTimeout(ctx, tabPatience)
			err := conn.Write(wctx, websocket.MessageBinary, b)
			done()
			if err != nil {
				return
			}
			continue
		}
		if ended {
			conn.Close(websocket.StatusNormalClosure, "the shell has ended")
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// decodeSize reads a terminal's size.
func decodeSize(b []byte) (size [2]int, err error) {
	var v struct{ Rows, Cols int }
	if len(b) > 100 {
		return size, errors.New("too long")
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return size, err
	}
	if v.Rows < 2 || v.Cols < 2 || v.Rows > maxSide || v.Cols > maxSide {
		return size, errors.New("out of range")
	}
	return [2]int{v.Rows, v.Cols}, nil
}
