package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// dialogue is a minimal QEMU: it sends the greeting, replies to qmp_capabilities, and
// then passes each line to answer, which writes any reply.
func dialogue(t *testing.T, answer func(w io.Writer, id uint64, name string)) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		defer theirs.Close()
		fmt.Fprint(theirs, `{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":22},"package":""},"capabilities":[]}}`+"\r\n")
		r := bufio.NewScanner(theirs)
		for r.Scan() {
			var c struct {
				Execute string
				ID      uint64
			}
			if err := json.Unmarshal(r.Bytes(), &c); err != nil {
				t.Errorf("command %q: %v", r.Text(), err)
				return
			}
			if c.Execute == "qmp_capabilities" {
				fmt.Fprintf(theirs, `{"return":{},"id":%d}`+"\r\n", c.ID)
				continue
			}
			answer(theirs, c.ID, c.Execute)
		}
	}()
	return ours
}

func connect(t *testing.T, conn net.Conn) *Monitor {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := New(ctx, conn)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { m.Disconnect() })
	return m
}

func TestRepliesOutOfOrderFindTheirCommands(t *testing.T) {
	var held []uint64
	m := connect(t, dialogue(t, func(w io.Writer, id uint64, name string) {
		if held = append(held, id); len(held) < 3 {
			return
		}
		for i := len(held) - 1; i >= 0; i-- {
			fmt.Fprint(w, `{"event":"STOP","timestamp":{"seconds":1,"microseconds":2}}`+"\r\n")
			fmt.Fprintf(w, `{"return":%d,"id":%d}`+"\r\n", held[i], held[i])
		}
	}))
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	for range 3 {
		wg.Go(func() {
			raw, err := m.Bound(t.Context()).Run([]byte(`{"execute":"x"}`))
			if err != nil {
				t.Errorf("Run: %v", err)
				return
			}
			var r struct{ Return, ID int }
			if err := json.Unmarshal(raw, &r); err != nil || r.Return != r.ID {
				t.Errorf("reply %s, %v; want return equal to id", raw, err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[r.ID] = true
		})
	}
	wg.Wait()
	if len(seen) != 3 {
		t.Errorf("got replies %v; want three different ones", seen)
	}
	if got := m.Backlog(); got != 3 {
		t.Errorf("Backlog() = %d; want 3", got)
	}
}

func TestErrorWithoutIDEndsOldestCommand(t *testing.T) {
	m := connect(t, dialogue(t, func(w io.Writer, id uint64, name string) {
		if name == "bad" {
			fmt.Fprint(w, `{"error":{"class":"GenericError","desc":"JSON parse error"}}`+"\r\n")
			return
		}
		fmt.Fprintf(w, `{"return":{},"id":%d}`+"\r\n", id)
	}))
	_, err := m.Bound(t.Context()).Run([]byte(`{"execute":"bad"}`))
	var e *Error
	if !errors.As(err, &e) || e.Class != "GenericError" {
		t.Errorf("Run(bad) = %v; want *Error of class GenericError", err)
	}
	if err := m.Execute(t.Context(), "good", nil, nil); err != nil {
		t.Errorf("Execute(good) after it: %v", err)
	}
}

func TestAbandonedCommandLeavesSessionInStep(t *testing.T) {
	late := make(chan uint64, 1)
	m := connect(t, dialogue(t, func(w io.Writer, id uint64, name string) {
		if name == "slow" {
			late <- id
			return
		}
		fmt.Fprintf(w, `{"return":"late","id":%d}`+"\r\n", <-late)
		fmt.Fprintf(w, `{"return":"mine","id":%d}`+"\r\n", id)
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := m.Bound(ctx).Run([]byte(`{"execute":"slow"}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Run(slow) = %v; want DeadlineExceeded", err)
	}
	var got string
	if err := m.Execute(t.Context(), "next", nil, &got); err != nil || got != "mine" {
		t.Errorf("Execute(next) = %q, %v; want \"mine\"", got, err)
	}
}

// A QEMU that does not read leaves a partial command on the wire.
func TestWriteCutShortEndsSession(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ready := make(chan struct{})
	go func() {
		fmt.Fprint(theirs, `{"QMP":{"version":{},"capabilities":[]}}`+"\n")
		line, _ := bufio.NewReaderSize(theirs, 4096).ReadString('\n')
		var c struct{ ID uint64 }
		json.Unmarshal([]byte(line), &c)
		fmt.Fprintf(theirs, `{"return":{},"id":%d}`+"\n", c.ID)
		<-ready
		theirs.Read(make([]byte, 10))
	}()
	m := connect(t, ours)
	close(ready)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := m.Bound(ctx).Run([]byte(`{"execute":"long"}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run = %v; want DeadlineExceeded", err)
	}
	select {
	case <-m.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("session lives on after half a command")
	}
	if _, err := m.Bound(t.Context()).Run([]byte(`{"execute":"x"}`)); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after it = %v; want ErrClosed", err)
	}
}

func TestBadPeers(t *testing.T) {
	for _, tt := range []struct{ name, says, want string }{
		{"silence", "", "closed"},
		{"not QMP", "220 mail.example\r\n", "220 mail"},
		{"event first", `{"event":"STOP"}` + "\n", "want the greeting"},
		{"cut short", `{"QMP":{"ver`, "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() { io.WriteString(theirs, tt.says); theirs.Close() }()
			m, err := New(t.Context(), ours)
			if err == nil {
				m.Disconnect()
				t.Fatal("New succeeded")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %q; want it to hold %q", err, tt.want)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := New(ctx, ours); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("New = %v; want DeadlineExceeded", err)
		}
	})
}

func TestGarbageEndsSessionForAll(t *testing.T) {
	m := connect(t, dialogue(t, func(w io.Writer, id uint64, name string) {
		io.WriteString(w, `{"event":"SHUTDOWN","data":{"guest":true}}`+"\nnonsense\n")
	}))
	if _, err := m.Bound(t.Context()).Run([]byte(`{"execute":"x"}`)); !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("Run = %v; want ErrClosed that quotes the message", err)
	}
	events, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for e := range events {
		got = append(got, e.Event)
	}
	if len(got) != 1 || got[0] != "SHUTDOWN" {
		t.Errorf("events after the end = %v; want the one that came before it", got)
	}
}

func TestEventsReachEveryReader(t *testing.T) {
	m := connect(t, dialogue(t, func(w io.Writer, id uint64, name string) {
		fmt.Fprintf(w, `{"event":%q}`+"\n"+`{"return":{},"id":%d}`+"\n", name, id)
	}))
	emit := func(name string) {
		t.Helper()
		if err := m.Execute(t.Context(), name, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	emit("EARLY")
	first, _ := m.Events(t.Context())
	second, _ := m.Events(t.Context())
	emit("LATE")
	m.Disconnect()
	for _, tt := range []struct {
		name string
		ch   <-chan Event
		want string
	}{{"first", first, "EARLY LATE"}, {"second", second, "LATE"}} {
		var got []string
		for e := range tt.ch {
			got = append(got, e.Event)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s reader got %q; want %q", tt.name, s, tt.want)
		}
	}
	if got := m.Backlog(); got != 0 {
		t.Errorf("Backlog() = %d; want 0", got)
	}
}

func TestBadCommandsAreNotSent(t *testing.T) {
	m := connect(t, dialogue(t, func(w io.Writer, id uint64, name string) {
		t.Errorf("sent %s", name)
	}))
	for _, c := range []string{"", "{", "[]", "{}", `{"execute":1}`, `{"execute":""}`, "{\"execute\":\"x\"}\n{\"execute\":\"y\"}"} {
		if _, err := m.Bound(t.Context()).Run([]byte(c)); err == nil {
			t.Errorf("Run(%q) succeeded", c)
		}
	}
}

func TestReadLineBound(t *testing.T) {
	const max = 100
	for _, tt := range []struct {
		in   string
		want string
		err  error
	}{
		{strings.Repeat("a", max-2) + "\r\n", strings.Repeat("a", max-2), nil},
		{strings.Repeat("a", max-1) + "\r\n", "", errTooLong},
		{strings.Repeat("a", 5000), "", errTooLong},
		{"cut", "", io.ErrUnexpectedEOF},
		{"", "", io.EOF},
		{"\n", "", nil},
	} {
		got, err := readLine(bufio.NewReaderSize(strings.NewReader(tt.in), 16), max)
		if string(got) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("readLine(%.10q… %d bytes) = %.10q, %v; want %.10q, %v", tt.in, len(tt.in), got, err, tt.want, tt.err)
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{
		`{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}` + "\r\n",
		`{"timestamp": {"seconds": 1763774000, "microseconds": 1}, "event": "STOP"}` + "\r\n" + `{"return": {}, "id": 1}` + "\r\n",
		`{"error": {"class": "CommandNotFound", "desc": "x"}, "id": 2}` + "\n",
		`{"error": {"class": "GenericError", "desc": "JSON parse error"}}` + "\n",
		`{"return": null, "id": 18446744073709551615}` + "\n",
		`{"return": 1, "event": "both", "id": 1}` + "\n",
		"{}\n\nnull\n", "cut",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const max = 200
		r := bufio.NewReaderSize(strings.NewReader(string(in)), 16)
		rest := string(in)
		for {
			line, err := readLine(r, max)
			want, after, whole := strings.Cut(rest, "\n")
			fits := whole && len(want) < max
			if (err == nil) != fits {
				t.Fatalf("readLine = %q, %v; want %q", line, err, want)
			}
			if err != nil {
				return
			}
			if string(line) != strings.TrimRight(want, "\r") {
				t.Fatalf("readLine = %q; want %q", line, want)
			}
			rest = after
			m, err := decode(line)
			if err != nil {
				continue
			}
			kinds := 0
			for _, set := range []bool{m.greeting, m.event != nil, m.ret != nil, m.err != nil} {
				if set {
					kinds++
				}
			}
			if kinds != 1 || m.ret != nil && m.id == nil {
				t.Fatalf("decode(%q) = %+v; want exactly one kind, replies with id", line, m)
			}
		}
	})
}

func FuzzEncode(f *testing.F) {
	for _, s := range []string{`{"execute":"stop"}`, "{\n\"execute\" : \"x\",\"id\":\"mine\",\"arguments\":{\"a\":[1,\"<\\n\"]}}", `{}`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		line, name, err := encode(in, 7)
		if err != nil {
			return
		}
		if strings.Count(string(line), "\n") != 1 || line[len(line)-1] != '\n' {
			t.Fatalf("encode(%q) = %q; want one line", in, line)
		}
		var c struct {
			Execute string
			ID      int
		}
		if err := json.Unmarshal(line, &c); err != nil || c.ID != 7 || c.Execute != name {
			t.Fatalf("encode(%q) = %q (%v); want id 7 and %q", in, line, err, name)
		}
	})
}

// FuzzSession has QEMU say anything once it was asked: events reach their reader, a
// command has one answer, and the session ends.
func FuzzSession(f *testing.F) {
	f.Add([]byte(`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"},"timestamp":{"seconds":1,"microseconds":2}}` + "\n" + `{"return":{},"id":2}` + "\n"))
	f.Add([]byte(`{"error":{"class":"GenericError","desc":"x"}}` + "\n"))
	f.Add([]byte(`{"event":"STOP"}` + "\n" + `{"event":7}` + "\n"))
	f.Add([]byte(`{"return":[],"id":2}` + "\n" + `{"return":[],"id":2}` + "\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			fmt.Fprint(theirs, `{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":22},"package":""},"capabilities":[]}}`+"\r\n")
			r := bufio.NewScanner(theirs)
			for n := 0; r.Scan(); n++ {
				if n == 0 {
					fmt.Fprint(theirs, `{"return":{},"id":1}`+"\r\n")
					continue
				}
				theirs.Write(said)
				return
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m, err := New(ctx, ours)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Disconnect()
		events, err := m.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan int)
		go func() {
			n := 0
			for range events {
				n++
			}
			ended <- n
		}()
		m.Execute(ctx, "query-status", nil, nil)
		select {
		case n := <-ended:
			if most := strings.Count(string(said), "event"); n > most {
				t.Errorf("%d events of %q", n, said)
			}
		case <-ctx.Done():
			t.Fatal("the session does not end")
		}
	})
}
