package scratch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	a, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(path); err != ErrLocked {
		t.Errorf("TryLock of a lock that is held = %v, want %v", err, ErrLocked)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := TakeLock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("TakeLock = %v, want a deadline", err)
	}
	if err := a.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is there after Release")
	}
	// The file of a dead holder.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := TakeLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Release(); err != nil {
		t.Error(err)
	}
	if _, err := TryLock(filepath.Join(path, "x")); err == nil || err == ErrLocked {
		t.Errorf("TryLock where no file can be = %v", err)
	}
}

// TestLockExcludes: many goroutines acquire and release one lock, never two at once.
func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	var wg sync.WaitGroup
	held := make(chan int, 1) // full while one holds the lock
	for i := range 8 {
		wg.Go(func() {
			for range 300 {
				l, err := TryLock(path)
				if err == ErrLocked {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case held <- i:
				default:
					t.Error("two hold the lock")
				}
				<-held
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
