package labctl

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestWorkflows: actionlint has nothing to say of the workflows for GitHub. Its
// helpers are left out, so that it says the same on every host.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob(".github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("workflows: %v, %v; want some", files, err)
	}
	args := append([]string{"tool", "actionlint", "-no-color", "-shellcheck=", "-pyflakes="}, files...)
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Errorf("actionlint: %v\n%s", err, out)
	}
}
