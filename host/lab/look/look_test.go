package look

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/iotest"

	"labctl/host/lab"
	"labctl/host/outside/task"
)

func watcher(t *testing.T) *Watcher {
	w := &Watcher{points: []lab.Point{{At: "other"}}}
	w.ctx, w.cancel = context.WithCancel(t.Context())
	t.Cleanup(w.cancel)
	return w
}

// TestMarks takes marks out of output that comes in pieces of any size.
func TestMarks(t *testing.T) {
	text := "one\n@look a x=1\n@loo\n@look b\r\nmid @look c\n@look " + strings.Repeat("d", 5000) + "\ntwo\n@look e"
	want := "one\n@loo\nmid @look c\n@look " + strings.Repeat("d", 5000) + "\ntwo\n@look e"
	for _, size := range []int{1, 2, 7, 64, len(text)} {
		w := watcher(t)
		var out bytes.Buffer
		m, in := w.Stdout(&out)
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if k, err := m.Write([]byte(rest[:n])); k != n || err != nil {
				t.Fatalf("Write = %d, %v; want %d", k, err, n)
			}
			rest = rest[n:]
		}
		m.Flush()
		if out.String() != want {
			t.Errorf("pieces of %d: %.80q…; want %.80q…", size, out.String(), want)
		}
		w.cancel()
		var got bytes.Buffer
		for range 2 {
			var one [8]byte
			n, _ := in.Read(one[:])
			got.Write(one[:n])
		}
		if !strings.HasPrefix("\n\n", got.String()) {
			t.Errorf("answers %q; want a line for each of two marks", got.String())
		}
	}
}

// TestAnswers: there are as many as marks, and then the end.
func TestAnswers(t *testing.T) {
	w := watcher(t)
	m, in := w.Stdout(iotest.TruncateWriter(nil, 0))
	if _, err := m.Write([]byte("@look a\n@look b\n")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var p [8]byte
		if n, err := in.Read(p[:]); n != 1 || err != nil || p[0] != '\n' {
			t.Fatalf("Read = %d, %v, %q; want a line", n, err, p[:n])
		}
	}
	w.cancel()
	if n, err := in.Read(make([]byte, 8)); n != 0 || err == nil {
		t.Errorf("Read at the end = %d, %v; want an error", n, err)
	}
}

// TestBadMark is kept as a look without readings, so that a check shows what is wrong.
func TestBadMark(t *testing.T) {
	w := watcher(t)
	m, _ := w.Stdout(new(bytes.Buffer))
	for range maxLooks + 10 {
		if _, err := m.Write([]byte("@look a x=no\n")); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.looks) != maxLooks || !strings.Contains(w.looks[0].Error, "want NAME=NUMBER") {
		t.Errorf("%d looks, the first %+v; want %d with an error", len(w.looks), w.looks[0], maxLooks)
	}
}

// TestAwake: a task sleeps when it does so twice and has not run in between.
func TestAwake(t *testing.T) {
	said := map[string][]int64{"child": {7}}
	at := func(state string, switches uint64) *task.Tasks {
		return &task.Tasks{List: []task.Task{{TID: 7, Addr: 0x1000, State: state, Switches: switches}}}
	}
	var s sleepers
	for i, tt := range []struct {
		tasks *task.Tasks
		want  string
	}{
		{at("R", 1), "does not go to sleep"},
		{at("S", 2), "does not go to sleep"},
		{at("S", 3), "does not go to sleep"},
		{at("S", 3), ""},
		{&task.Tasks{}, "there is no task 7"},
	} {
		if got := s.awake(tt.tasks, []string{"child"}, said); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("look %d: %q; want %q", i, got, tt.want)
		}
	}
	if got := s.awake(at("S", 3), []string{"nobody"}, said); !strings.Contains(got, "does not say what task nobody is") {
		t.Errorf("a task without a number: %q", got)
	}
}

func FuzzMarks(f *testing.F) {
	f.Add([]byte("one\n@look a x=1\ntwo"), 3)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		w := watcher(t)
		var out bytes.Buffer
		m, _ := w.Stdout(&out)
		for rest := text; len(rest) > 0; {
			n := min(max(size, 1), len(rest))
			m.Write(rest[:n])
			rest = rest[n:]
		}
		m.Flush()
		if out.Len() > len(text) {
			t.Errorf("%d bytes out of %d", out.Len(), len(text))
		}
	})
}
