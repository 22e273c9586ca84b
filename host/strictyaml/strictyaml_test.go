package strictyaml

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestNesting(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     int
	}{
		{"nothing", "", 0},
		{"plain", "a: [1, {b: 2}]\nc:\n  - - d\n", 0},
		{"as deep as may be", strings.Repeat("[", maxNesting) + "\n" + strings.Repeat("]", maxNesting) + "[", 0},
		{"brackets", "a\n" + strings.Repeat("[{", maxNesting/2) + "\n\n[", 4},
		{"one after the other", strings.Repeat("[]{}", 5000), 0},
		{"as many dashes as may be", strings.Repeat("- ", maxNesting) + "a", 0},
		{"dashes", "a\n  " + strings.Repeat("-  ", maxNesting+1) + "a", 2},
		{"dashes without spaces", strings.Repeat("-", 5000), 0},
		{"closing brackets alone", strings.Repeat("]", 5000) + strings.Repeat("[", maxNesting), 0},
	} {
		if got := nesting([]byte(tt.in)); got != tt.want {
			t.Errorf("%s: line %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 1\n")
	for i := range 8 {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 8), i)
	}
	for _, tt := range []struct {
		name, in string
		line     int
		want     string // "" for none
	}{
		{"good", "a: 1\nb: [x, \"*y\"]\n", 0, ""},
		{"an alias", "a: &x 1\nb: *x\n", 0, ""},
		{"an alias within itself", "a: &x [*x]\n", 1, "its aliases stand for too much"},
		{"a bomb of aliases", laughs.String(), 6, "its aliases stand for too much"},
		{"two documents", "a: 1\n---\nb: 2\n", 1, "2 YAML documents; want one"},
		{"nothing", "", 0, ""},
		{"no end", "a: 1\nb: [\n", 2, "']' not found"},
		{"a bomb", "a: 1\nb: " + strings.Repeat("[", 200_000), 2, "nested too deep"},
		{"a bomb of dashes", strings.Repeat("- ", 100_000) + "a", 1, "nested too deep"},
	} {
		_, err := Parse([]byte(tt.in))
		var e *Error
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v; want no error", tt.name, err)
		case tt.want != "" && (!errors.As(err, &e) || e.Line != tt.line || !strings.Contains(e.Msg, tt.want)):
			t.Errorf("%s: %#v; want line %d, %q", tt.name, err, tt.line, tt.want)
		}
	}
}

// FuzzParse: whatever is parsed, memory stays in proportion to it, and nothing panics.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: 1\n", "a: &x [1]\nb: *x\n", "- - - {a: [b]}\n", strings.Repeat("[", 499), strings.Repeat("? ", 300)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		Parse(data)
		runtime.ReadMemStats(&after)
		if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 256 {
			t.Errorf("%d bytes took %d MB", len(data), mb)
		}
	})
}
