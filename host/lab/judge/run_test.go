package judge

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"labctl/host/lab"
	"labctl/host/lab/result"
)

// TestReadAll: a run that failed keeps no other from being judged; by itself it is an error.
func TestReadAll(t *testing.T) {
	l := load(t)
	find := func(string) (*lab.Lab, error) { return l, nil }
	dir := t.TempDir()
	write := func(name string, r *result.Result) {
		t.Helper()
		data, err := result.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, result.File), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	failed := good(l)
	failed.Unfinished = "kernel panic: x"
	write("a", failed)
	write("b", good(l))
	runs, err := ReadAll(dir, find)
	if err != nil || len(runs) != 2 {
		t.Fatalf("ReadAll = %d runs, %v; want 2", len(runs), err)
	}
	if a := runs[0]; a.Report != nil || a.Unfinished == nil || a.Unfinished.Why != failed.Unfinished {
		t.Errorf("the run that failed: %+v; want no report, and why", a)
	}
	if b := runs[1]; b.Report == nil || b.Unfinished != nil {
		t.Errorf("the other: %+v; want a report", b)
	}
	var cut *UnfinishedError
	if _, err := ReadAll(filepath.Join(dir, "a"), find); !errors.As(err, &cut) {
		t.Errorf("ReadAll of it alone: %v; want an *UnfinishedError", err)
	}
}
