package warm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func store(t *testing.T, limit int64) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "templates"), limit)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill creates a template whose memory uses that many MB.
func fill(mb int) func(*Draft) (Info, error) {
	return func(d *Draft) (Info, error) {
		if _, err := d.RAM.Write(make([]byte, mb<<20)); err != nil {
			return Info{}, err
		}
		fmt.Fprint(d.State, "state")
		fmt.Fprint(d.Console, "console")
		return Info{Target: "amd64", Kernel: "6.12", MemoryMB: 64}, nil
	}
}

func files(t *testing.T, s *Store) string {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestGet(t *testing.T) {
	s := store(t, 0)
	a, err := s.Get(t.Context(), "k", 64, fill(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := files(t, s), "k.console k.hits k.json k.ram k.state"; got != want {
		t.Errorf("files %q, want %q", got, want)
	}
	st, err := os.Stat(a.RAM())
	if err != nil || st.Size() != 64<<20 || a.Disk > 2<<20 || st.Mode().Perm() != 0o600 {
		t.Errorf("memory %v, %v, on disk %d; want 64 MB, sparse, for the user alone", st, err, a.Disk)
	}
	if b, err := a.Console(); err != nil || string(b) != "console" {
		t.Errorf("Console = %q, %v", b, err)
	}
	b, err := s.Get(t.Context(), "k", 64, func(*Draft) (Info, error) {
		t.Error("made again")
		return Info{}, nil
	})
	if err != nil || b.Kernel != "6.12" || b.Made.IsZero() {
		t.Errorf("second Get = %+v, %v", b, err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Hits != 2 {
		t.Errorf("List = %+v, %v; want one with 2 starts", all, err)
	}
	if err := a.Drop(); err != nil || files(t, s) != "" {
		t.Errorf("Drop = %v, left %q", err, files(t, s))
	}
}

func TestMakerFails(t *testing.T) {
	s := store(t, 0)
	broken := errors.New("broken")
	if _, err := s.Get(t.Context(), "k", 64, func(d *Draft) (Info, error) {
		d.RAM.Write(make([]byte, 1<<20))
		return Info{}, broken
	}); err != broken {
		t.Errorf("Get = %v, want the error of make", err)
	}
	if got := files(t, s); got != "" {
		t.Errorf("left behind: %q", got)
	}
}

// While it is being created a template has no name, so nothing is left if the process
// is killed.
func TestNamelessWhileMade(t *testing.T) {
	s := store(t, 0)
	if _, err := s.Get(t.Context(), "k", 64, func(d *Draft) (Info, error) {
		if got := files(t, s); got != "k.lock" {
			t.Errorf("files while it is made: %q, want its lock alone", got)
		}
		return fill(1)(d)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestOneMaker(t *testing.T) {
	s := store(t, 0)
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := s.Get(t.Context(), "k", 64, func(d *Draft) (Info, error) {
				made.Add(1)
				time.Sleep(50 * time.Millisecond)
				return fill(1)(d)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := made.Load(); got != 1 {
		t.Errorf("made %d times, want once", got)
	}
}

// A template without one of its files does not count.
func TestNotWhole(t *testing.T) {
	s := store(t, 0)
	a, err := s.Get(t.Context(), "k", 64, fill(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.State()); err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("List = %v, %v; want none", all, err)
	}
	if _, err := s.GC(DefaultLimit); err != nil || files(t, s) != "" {
		t.Errorf("GC = %v, left %q", err, files(t, s))
	}
	if _, err := s.Get(t.Context(), "k", 64, fill(1)); err != nil {
		t.Errorf("Get after that = %v", err)
	}
}

// Leftovers of killed processes are removed, templates being created are kept.
func TestSweep(t *testing.T) {
	s := store(t, 0)
	if _, err := s.Get(t.Context(), "whole", 64, fill(1)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"whole.lock", "dead.lock", "half.ram", "half.state"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(t.Context(), "busy", 64, func(d *Draft) (Info, error) {
		_, err := s.GC(DefaultLimit)
		if got, want := files(t, s), "busy.lock whole.console whole.hits whole.json whole.ram whole.state"; got != want {
			t.Errorf("files %q, want %q", got, want)
		}
		return Info{}, errors.Join(err, errors.New("enough"))
	}); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}

// Removing one makes room for another that was used earlier.
func TestRoom(t *testing.T) {
	s := store(t, 0)
	old := time.Now().Add(-time.Hour)
	for i, mb := range []int{1, 3, 2} {
		key := fmt.Sprint("k", i)
		if _, err := s.Get(t.Context(), key, 64, fill(mb)); err != nil {
			t.Fatal(err)
		}
		when := old.Add(time.Duration(-i) * time.Minute)
		if err := os.Chtimes(s.file(key, "hits"), when, when); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 3 {
		t.Fatalf("List = %v, %v; want three", all, err)
	}
	gone, err := s.GC(all[0].Disk + all[2].Disk)
	if err != nil || len(gone) != 1 || gone[0].Key != "k1" {
		t.Errorf("GC = %v, %v; want k1 gone", gone, err)
	}
}

// A template that was just used may be about to be opened: it is kept whatever the
// limit, except with GC(0), which removes all.
func TestGrace(t *testing.T) {
	s := store(t, 0)
	if _, err := s.Get(t.Context(), "k", 64, fill(1)); err != nil {
		t.Fatal(err)
	}
	// However slow the host is.
	now := time.Now().Add(time.Hour)
	if err := os.Chtimes(s.file("k", "hits"), now, now); err != nil {
		t.Fatal(err)
	}
	if gone, err := s.GC(1); err != nil || len(gone) != 0 {
		t.Errorf("GC(1) = %v, %v; want none gone", gone, err)
	}
	if gone, err := s.GC(0); err != nil || len(gone) != 1 {
		t.Errorf("GC(0) = %v, %v; want one gone", gone, err)
	}
}

func TestDrop(t *testing.T) {
	s := store(t, 0)
	a, err := s.Get(t.Context(), "k", 64, fill(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.State()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a.RAM()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(a.RAM(), "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	// One file is already gone, and one cannot be removed.
	if err := a.Drop(); err == nil || !strings.Contains(err.Error(), a.RAM()) || strings.Contains(err.Error(), a.State()) || files(t, s) != "k.ram" {
		t.Errorf("Drop = %v, left %q; want an error for the directory alone", err, files(t, s))
	}
}

func TestLimit(t *testing.T) {
	s := store(t, 5<<20)
	old := time.Now().Add(-time.Hour)
	for i := range 4 {
		key := fmt.Sprint("k", i)
		if _, err := s.Get(t.Context(), key, 64, fill(2)); err != nil {
			t.Fatal(err)
		}
		// The first is the second most recently used.
		when := old.Add(time.Duration(-i) * time.Minute)
		if err := os.Chtimes(s.file(key, "hits"), when, when); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, x := range all {
		keys = append(keys, x.Key)
	}
	if got, want := strings.Join(keys, " "), "k0 k3"; got != want {
		t.Errorf("kept %q, want %q: the newest and the last used", got, want)
	}
	if got, err := s.GC(all[0].Disk + all[1].Disk); err != nil || len(got) != 0 {
		t.Errorf("GC to what they take = %v, %v; want none gone", got, err)
	}
	if gone, err := s.GC(0); err != nil || len(gone) != 2 || files(t, s) != "" {
		t.Errorf("GC(0) = %v, %v, left %q", gone, err, files(t, s))
	}
}

// TestChanged: a template is used as it was stored, or made again.
func TestChanged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, s *Store) error
		made   bool
	}{
		{"nothing", func(*testing.T, *Store) error { return nil }, false},
		{"touched", func(_ *testing.T, s *Store) error {
			return os.Chtimes(s.file("k", "ram"), time.Now(), time.Now())
		}, false},
		{"copied", func(_ *testing.T, s *Store) error {
			b, err := os.ReadFile(s.file("k", "ram"))
			if err != nil {
				return err
			}
			if err := os.Remove(s.file("k", "ram")); err != nil {
				return err
			}
			return os.WriteFile(s.file("k", "ram"), b, 0o600) // without its holes
		}, false},
		{"a bit of the memory", func(t *testing.T, s *Store) error { return flip(t, s.file("k", "ram"), 40<<20) }, true},
		{"a bit that was set", func(t *testing.T, s *Store) error { return flip(t, s.file("k", "ram"), 100) }, true},
		{"a bit of the state", func(t *testing.T, s *Store) error { return flip(t, s.file("k", "state"), 2) }, true},
		{"cut", func(_ *testing.T, s *Store) error { return os.Truncate(s.file("k", "ram"), 32<<20) }, true},
		{"a bit of the description", func(t *testing.T, s *Store) error { return flip(t, s.file("k", "json"), 10) }, true},
		{"an old description", func(_ *testing.T, s *Store) error {
			return os.WriteFile(s.file("k", "json"), []byte(`{"target": "amd64"}`), 0o600)
		}, true},
	} {
		s := store(t, 0)
		made := 0
		get := func() *Template {
			t.Helper()
			k, err := s.Get(t.Context(), "k", 64, func(d *Draft) (Info, error) {
				made++
				if _, err := d.RAM.WriteAt([]byte("abc"), 100); err != nil {
					return Info{}, err
				}
				return fill(1)(d)
			})
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			return k
		}
		get()
		var said []string
		s.Say = func(line string) { said = append(said, line) }
		if err := tt.change(t, s); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			get()
		}
		want := 1
		if tt.made {
			want = 2
		}
		told := len(said) == 1 && strings.HasSuffix(said[0], "is not as it was stored; made again")
		if made != want || told != (tt.made && tt.name != "an old description") {
			t.Errorf("%s: made %d times, want %d; said %q", tt.name, made, want, said)
		}
		// What was found to be the same is not read again.
		k, err := s.open("k")
		if err != nil {
			t.Fatal(err)
		}
		for kind, f := range k.Files {
			if ok, moved, err := f.same(s.file("k", kind)); !ok || moved != nil || err != nil {
				t.Errorf("%s: %s afterwards: %v, %v, %v", tt.name, kind, ok, moved, err)
			}
		}
	}
}

func flip(t *testing.T, name string, at int64) error {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 4
	_, err = f.WriteAt(b, at)
	return err
}

// FuzzDescription puts anything in place of a template's description: it serves only if
// its files are as that says.
func FuzzDescription(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir, 0)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Get(f.Context(), "k", 1, func(d *Draft) (Info, error) {
		fmt.Fprint(d.State, "state")
		return Info{Target: "amd64"}, nil
	}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(s.file("k", "json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"files":{"ram":{},"state":{},"console":{}}}`))
	f.Add([]byte(`{"files":{"../../etc/passwd":{}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(s.file("k", "json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := s.use("k")
		if err != nil {
			return
		}
		for _, kind := range []string{"ram", "state", "console"} {
			if err := k.Files[kind].intact(s.file("k", kind)); err != nil {
				t.Errorf("serves with the description %q, but its %s is not as that says", text, kind)
			}
		}
	})
}
