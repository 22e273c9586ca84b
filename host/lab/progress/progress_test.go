package progress

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"labctl/host/outcome"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, s *Store) map[string]*Lab {
	t.Helper()
	all, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestUpdate(t *testing.T) {
	s := open(t)
	if all := read(t, s); len(all) != 0 {
		t.Errorf("before anything was done: got %v, want nothing", all)
	}
	update := func(id string, f func(*Lab)) {
		t.Helper()
		if err := s.Update(t.Context(), id, f); err != nil {
			t.Fatal(err)
		}
	}
	update("P1", func(l *Lab) { l.Run(5, 6) })
	update("P1", func(l *Lab) { l.Try(1, 3, false) })
	if l := read(t, s)["P1"]; !l.Solved.IsZero() || l.Tries != 1 || l.Passed != 1 || l.Of != 3 || l.Held != 5 {
		t.Errorf("after a try that failed: got %+v", l)
	}
	update("P1", func(l *Lab) { l.Try(3, 3, true); l.Hint(2); l.Hint(1) })
	first := read(t, s)["P1"].Solved
	if first.IsZero() {
		t.Error("after a try that passed: not solved")
	}
	update("P1", func(l *Lab) { l.Try(0, 3, false) })
	if l := read(t, s)["P1"]; !l.Solved.Equal(first) || l.Tries != 3 || l.Hints != 2 {
		t.Errorf("after another try: got %+v, want solved at %v, 3 tries, 2 hints", l, first)
	}
	if err := s.Update(t.Context(), "../P1", func(*Lab) {}); outcome.Of(err) != outcome.BadInput {
		t.Errorf("an id that is none: got %v", err)
	}
}

// Two labctls, or a page and a terminal, keep what each other wrote.
func TestUpdateTogether(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Update(t.Context(), "K1", func(l *Lab) { l.Try(0, 1, false) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := read(t, s)["K1"].Tries; got != 20 {
		t.Errorf("20 tries at a time: got %d", got)
	}
}

func TestMayRead(t *testing.T) {
	var l Lab
	if l.MayRead(true) || l.MayRead(false) {
		t.Error("answers before a try")
	}
	l.Run(1, 1)
	if l.MayRead(true) || !l.MayRead(false) {
		t.Error("a run is a try where there is no exercise, and only there")
	}
	l.Try(0, 1, false)
	if !l.MayRead(true) {
		t.Error("no answers after a try")
	}
}

func TestDamaged(t *testing.T) {
	for what, test := range map[string]struct{ data, want string }{
		"no JSON":        {"{", "JSON"},
		"another schema": {`{"schema":"labctl/progress/v9","labs":{}}`, "schema"},
		"another field":  {`{"schema":"labctl/progress/v1","labs":{},"x":1}`, "x"},
		"an id":          {`{"schema":"labctl/progress/v1","labs":{"../x":{}}}`, "id"},
		"a count":        {`{"schema":"labctl/progress/v1","labs":{"P1":{"tries":-1}}}`, "count"},
	} {
		s := open(t)
		if err := os.WriteFile(s.path, []byte(test.data), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{func() error { _, err := s.Read(); return err }(), s.Update(t.Context(), "P1", func(*Lab) {})} {
			if outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), s.path) {
				t.Errorf("%s: got %v", what, err)
			}
		}
		if b, _ := os.ReadFile(s.path); string(b) != test.data {
			t.Errorf("%s: the file was changed to %s", what, b)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("LABCTL_DATA", "")
	t.Setenv("XDG_DATA_HOME", "/data")
	s, err := Open("")
	if want := "/data/labctl/progress.json"; err != nil || s.path != want {
		t.Errorf("got %v, %v, want %s", s, err, want)
	}
	t.Setenv("XDG_DATA_HOME", "relative")
	t.Setenv("HOME", "/home/kim")
	if s, err = Open(""); err != nil || s.path != filepath.Join("/home/kim", ".local/share/labctl", fileName) {
		t.Errorf("got %v, %v", s, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"schema":"labctl/progress/v1","labs":{"P1":{"ran":"2026-01-02T03:04:05Z","held":5,"checks":6,"tries":2}}}`))
	f.Add([]byte(`{"schema":"labctl/progress/v1","labs":{"P1":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		labs, err := decode(data)
		if err != nil {
			return
		}
		out, err := json.Marshal(file{Schema, labs})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(out); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
