package warm

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labctl/host/outcome"
)

func TestCheckpoints(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("LABCTL_CACHE", cache)
	c, err := OpenCheckpoints()
	if err != nil {
		t.Fatal(err)
	}
	template := filepath.Join(cache, "template.ram")
	if err := os.WriteFile(template, []byte("memory"), 0o600); err != nil {
		t.Fatal(err)
	}
	ram, err := os.Open(template)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	save := func(name, state string) error {
		return c.Save(t.Context(), name, CheckpointInfo{Spec: []byte(`{"x":1}`), Template: "key"}, ram, func(f *os.File) error {
			_, err := io.WriteString(f, state)
			return err
		})
	}
	for _, state := range []string{"first", "second"} { // replaces it
		if err := save("a", state); err != nil {
			t.Fatal(err)
		}
		p, err := c.Open("a")
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(p.State())
		if err != nil || string(got) != state || strings.Join(strings.Fields(string(p.Spec)), "") != `{"x":1}` || p.Template != "key" {
			t.Errorf("checkpoint %+v with state %q, %v; want %q", p, got, err, state)
		}
	}
	// It outlives its template.
	if err := os.Remove(template); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Open("a"); err != nil {
		t.Error(err)
	} else if got, err := os.ReadFile(p.RAM()); string(got) != "memory" {
		t.Errorf("its memory is %q, %v", got, err)
	}
	// Without a template there is nothing to link.
	if err := os.Remove(filepath.Join(cache, "checkpoints", "a.ram")); err != nil {
		t.Fatal(err)
	}
	if err := save("b", "x"); err == nil || outcome.Of(err) != outcome.HostLacks {
		t.Errorf("Save without a template = %v, want an error", err)
	}
	// What fails leaves what was there.
	failed := errors.New("failed")
	if err := c.Save(t.Context(), "a", CheckpointInfo{}, ram, func(*os.File) error { return failed }); err != failed {
		t.Errorf("Save = %v, want %v", err, failed)
	}
	if all, err := c.List(); err != nil || len(all) != 1 || all[0].Name != "a" {
		t.Errorf("List = %v, %v; want a alone", all, err)
	}
	if _, err := c.Open("aa"); err == nil || outcome.Of(err) != outcome.BadInput || !strings.Contains(err.Error(), "did you mean") && !strings.Contains(err.Error(), "known: a") {
		t.Errorf("Open(aa) = %v, want that it is not known", err)
	}
	if err := os.WriteFile(filepath.Join(cache, "checkpoints", "a.state"), []byte("touched"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open("a"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("Open of a damaged checkpoint = %v, want one line", err)
	}
	if err := c.Remove("a"); err != nil {
		t.Error(err)
	}
	if err := c.Remove("a"); err == nil || outcome.Of(err) != outcome.BadInput {
		t.Errorf("Remove of what is not there = %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(cache, "checkpoints")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
