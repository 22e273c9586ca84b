package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Bounds on browsers.
const (
	maxTabs     = 32
	maxQueued   = 64               // messages that wait for one tab
	maxSaid     = 4 << 10          // bytes of a message from a tab
	tabPatience = 20 * time.Second // in which a tab takes a message
	pingEvery   = 15 * time.Second
)

// message is what a tab gets.
type message struct {
	Type string `json:"type"`
	Data any    `json:"data"`
}

func encode(kind string, data any) []byte {
	b, err := json.Marshal(message{kind, data})
	if err != nil {
		panic(err) // they are structures of this package
	}
	return b
}

// choice is what a tab looks at of the live machine.
type choice struct {
	Live    bool   `json:"live"`    // the tree of tasks
	Stacks  bool   `json:"stacks"`  // of all that sleeps
	TID     int    `json:"tid"`     // the chosen task, 0 for none
	Address string `json:"address"` // to follow through its page tables
}

// tab is one open page. What happens once waits in a queue, and a tab that does not keep
// up is let go, to come again and get all as it is then. Of what is shown again and
// again, the newest replaces what the tab has not taken yet.
type tab struct {
	queue chan []byte
	wake  chan struct{}
	drop  context.CancelCauseFunc

	mu     sync.Mutex
	newest map[string][]byte // by type, not yet taken
	order  []string
	last   map[string]string // what the tab has of each type
	choice choice
}

// hub knows the tabs.
type hub struct {
	mu   sync.Mutex
	tabs map[*tab]bool
	// moved is told that a tab looks at something else now.
	moved chan struct{}
}

func newHub() *hub { return &hub{tabs: map[*tab]bool{}, moved: make(chan struct{}, 1)} }

var errSlow = errors.New("this page does not keep up")

// send tells all tabs of an event.
func (h *hub) send(kind string, data any) {
	b := encode(kind, data)
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tabs {
		t.send(b)
	}
}

func (t *tab) send(b []byte) {
	select {
	case t.queue <- b:
	default:
		t.drop(errSlow)
	}
}

// show replaces what a tab sees of one type. What it has already is not sent again.
func (t *tab) show(kind string, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last[kind] == string(b) {
		return
	}
	t.last[kind] = string(b)
	if t.newest[kind] == nil {
		t.order = append(t.order, kind)
	}
	t.newest[kind] = b
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *tab) take() (b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		return nil
	}
	kind := t.order[0]
	t.order = t.order[1:]
	b = t.newest[kind]
	delete(t.newest, kind)
	return b
}

func (t *tab) looksAt() choice {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.choice
}

// all are the tabs.
func (h *hub) all() (tabs []*tab) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range h.tabs {
		tabs = append(tabs, t)
	}
	return tabs
}

func (h *hub) add(t *tab) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.tabs) >= maxTabs {
		return false
	}
	h.tabs[t] = true
	return true
}

func (h *hub) remove(t *tab) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tabs, t)
	h.stir()
}

// stir has whoever waits for it look at what the tabs want.
func (h *hub) stir() {
	select {
	case h.moved <- struct{}{}:
	default:
	}
}

// serve is the WebSocket of a tab. first are what it gets before anything else.
func (h *hub) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, first func() [][]byte) {
	// The guard has checked the origin; this checks it once more.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxSaid)
	ctx, drop := context.WithCancelCause(ctx)
	defer drop(nil)
	t := &tab{
		queue: make(chan []byte, maxQueued), wake: make(chan struct{}, 1), drop: drop,
		newest: map[string][]byte{}, last: map[string]string{},
	}
	if !h.add(t) {
		conn.Close(websocket.StatusTryAgainLater, "too many pages are open")
		return
	}
	defer h.remove(t)
	for _, b := range first() {
		if write(ctx, conn, b) != nil {
			return
		}
	}
	go func() { drop(t.listen(ctx, conn, h)) }()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		var b []byte
		select {
		case b = <-t.queue:
		case <-t.wake:
			for b = t.take(); b != nil; b = t.take() {
				if write(ctx, conn, b) != nil {
					return
				}
			}
			continue
		case <-ping.C:
			pinged, cancel := context.WithTimeout(ctx, tabPatience)
			err := conn.Ping(pinged)
			cancel()
			if err != nil {
				return
			}
			continue
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errSlow) {
				conn.Close(websocket.StatusPolicyViolation, errSlow.Error())
			} else {
				conn.Close(websocket.StatusGoingAway, "")
			}
			return
		}
		if write(ctx, conn, b) != nil {
			return
		}
	}
}

func write(ctx context.Context, conn *websocket.Conn, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, tabPatience)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, b)
}

// listen reads what a tab says: what it looks at.
func (t *tab) listen(ctx context.Context, conn *websocket.Conn, h *hub) error {
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		c, err := decodeChoice(b)
		if kind != websocket.MessageText || err != nil {
			conn.Close(websocket.StatusUnsupportedData, "not a choice")
			return errors.New("not a choice")
		}
		t.mu.Lock()
		t.choice = c
		t.mu.Unlock()
		h.stir()
	}
}

// decodeChoice reads and checks a choice.
func decodeChoice(b []byte) (c choice, err error) {
	if len(b) > maxSaid {
		return c, errors.New("too long")
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return choice{}, err
	}
	if c.TID < 0 || c.TID > 1<<22 || len(c.Address) > 128 {
		return choice{}, errors.New("out of range")
	}
	return c, nil
}
