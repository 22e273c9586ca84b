package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a test that fails without ending this one.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "x.txt")
	check := func(got string) string {
		r := &recorder{TB: t}
		Check(r, file, got)
		return strings.Join(r.said, "\n")
	}
	*update = true
	if said := check("one\n"); said != "" {
		t.Errorf("with -update: %s", said)
	}
	*update = false
	if b, err := os.ReadFile(file); string(b) != "one\n" {
		t.Errorf("file holds %q, %v; want what was given", b, err)
	}
	if said := check("one\n"); said != "" {
		t.Errorf("the same text: %s", said)
	}
	if said := check("two\n"); !strings.Contains(said, file) || !strings.Contains(said, "one") || !strings.Contains(said, "two") {
		t.Errorf("another text: %q, want both and the file's name", said)
	}
}
