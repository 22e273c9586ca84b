package initramfs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
)

func TestCacheFillsOnce(t *testing.T) {
	c := cache{dir: t.TempDir(), limit: 1 << 20, grace: time.Hour}
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, _, err := c.get(t.Context(), "image-amd64-1.cpio", func(w io.Writer) error {
				fills.Add(1)
				time.Sleep(30 * time.Millisecond)
				_, err := io.WriteString(w, "whole")
				return err
			})
			if err != nil {
				t.Error(err)
				return
			}
			if data, err := os.ReadFile(path); string(data) != "whole" {
				t.Errorf("read %q, %v; want whole", data, err)
			}
		})
	}
	wg.Wait()
	if got := fills.Load(); got != 1 {
		t.Errorf("filled %d times; want 1", got)
	}
}

func TestCacheFailedFillLeavesNothing(t *testing.T) {
	c := cache{dir: t.TempDir(), limit: 1 << 20, grace: time.Hour}
	boom := errors.New("boom")
	_, _, err := c.get(t.Context(), "image-amd64-1.cpio", func(w io.Writer) error {
		io.WriteString(w, "half")
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("get = %v; want boom", err)
	}
	for _, pattern := range []string{"*.cpio", tempPrefix + "*"} {
		if left, _ := filepath.Glob(filepath.Join(c.dir, pattern)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestCacheWaitsNoLongerThanItsContext(t *testing.T) {
	c := cache{dir: t.TempDir(), limit: 1 << 20, grace: time.Hour}
	unlock, err := c.lock(t.Context(), "image-amd64.lock", false)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err = c.get(ctx, "image-amd64-1.cpio", func(io.Writer) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("get under another's lock = %v; want a deadline", err)
	}
}

func TestCachePrune(t *testing.T) {
	c := cache{dir: t.TempDir(), limit: 250, grace: time.Minute}
	put := func(name string, age time.Duration) {
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o644); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := cachedir.Seal(path, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path+cachedir.SealSuffix, when, when); err != nil {
			t.Fatal(err)
		}
	}
	put("image-amd64-oldest.cpio", 5*time.Hour)
	put("image-amd64-old.cpio", 4*time.Hour)
	put("image-amd64-used.cpio", 6*time.Hour)
	put(tempPrefix+"building", 48*time.Hour)
	// One that is not as it was written is no hit.
	if err := os.WriteFile(filepath.Join(c.dir, "image-amd64-old.cpio"), make([]byte, 99), 0o644); err != nil {
		t.Fatal(err)
	}
	if hit, err := c.touch(t.Context(), filepath.Join(c.dir, "image-amd64-old.cpio")); hit || err != nil {
		t.Fatalf("touch of one that was changed = %v, %v; want no hit", hit, err)
	}
	if hit, err := c.touch(t.Context(), filepath.Join(c.dir, "image-amd64-used.cpio")); !hit || err != nil {
		t.Fatalf("touch = %v, %v; want a hit", hit, err)
	}
	if err := c.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		var got []string
		entries, err := os.ReadDir(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".lock") && !strings.HasSuffix(e.Name(), cachedir.SealSuffix) {
				got = append(got, strings.TrimPrefix(e.Name(), "image-amd64-"))
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("left %q; want %q", s, want)
		}
	}
	check(tempPrefix + "building old.cpio used.cpio")

	// Over the limit, but all too recent to be removed.
	put("image-amd64-young.cpio", time.Second)
	put("image-amd64-old.cpio", time.Second)
	if err := c.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(tempPrefix + "building old.cpio used.cpio young.cpio")
}

func TestKeyKeepsItemsApart(t *testing.T) {
	a, b := newKey("x"), newKey("x")
	a.add("ab", "c")
	b.add("a", "bc")
	if a.sum() == b.sum() {
		t.Error("two different lists have one key")
	}
}

// TestAnothersCache: a file of a cache that this user may only read is a hit, though its
// lock cannot be taken.
func TestAnothersCache(t *testing.T) {
	dir := t.TempDir()
	c := cache{dir: dir, limit: cacheLimit, grace: cacheGrace}
	if _, _, err := c.get(t.Context(), "base-test-1.cpio", func(w io.Writer) error { _, err := io.WriteString(w, "archive"); return err }); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "prune.lock"), 0); err != nil {
		t.Fatal(err)
	}
	// The files of this thread alone are opened as nobody, who has no rights to them. The
	// thread ends with the goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			if err := unix.Setfsuid(65534); err != nil {
				done <- err
				return
			}
		}
		_, hit, err := c.get(t.Context(), "base-test-1.cpio", func(io.Writer) error { return errors.New("it is made again") })
		if err == nil && !hit {
			err = errors.New("no hit")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
