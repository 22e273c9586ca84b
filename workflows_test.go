package labctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorkflows: actionlint has nothing to say of the workflows for GitHub, the one
// in docs/ci.md included. Its helpers are left out, so that it says the same on
// every host.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob(".github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("workflows: %v, %v; want some", files, err)
	}
	doc, err := os.ReadFile("docs/ci.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(doc), "```yaml\nname: ")
	block, _, found := strings.Cut(block, "\n```")
	if !found {
		t.Fatal("docs/ci.md has no workflow")
	}
	recipe := filepath.Join(t.TempDir(), "recipe.yml")
	if err := os.WriteFile(recipe, []byte("name: "+block+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"tool", "actionlint", "-no-color", "-shellcheck=", "-pyflakes=", recipe}, files...)
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Errorf("actionlint: %v\n%s", err, out)
	}
}
