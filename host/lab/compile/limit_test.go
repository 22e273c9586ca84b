package compile

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"labctl/host/outcome"
)

// TestBomb: source that takes the compiler for ever, or makes it write for ever, ends
// with an error that says so.
func TestBomb(t *testing.T) {
	cacheIn(t)
	// The standard library is built with the usual limits.
	if b := Go(t.Context(), mine("main.go", "package main\n\nfunc main() { println(1) }\n"), runtime.GOARCH); b.Err != nil {
		t.Fatal(b.Err)
	} else {
		b.Close()
	}
	var slow strings.Builder
	slow.WriteString("package main\n\ntype t0 struct{ a, b string }\n")
	for i := range 27 {
		fmt.Fprintf(&slow, "type t%d struct{ a, b t%d }\n", i+1, i)
	}
	slow.WriteString("\nfunc main() {\n\tvar x, y *t27\n\tprintln(*x == *y)\n}\n")
	old := limits
	defer func() { limits = old }()
	limits.cpu = 2 * time.Second
	b := Go(t.Context(), mine("main.go", slow.String()), runtime.GOARCH)
	if outcome.Of(b.Err) != outcome.Deadline || outcome.HowOf(b.Err) != outcome.TooSlow {
		t.Errorf("nested structures: %v; want a deadline, too slow", b.Err)
	}
	limits = old
	limits.file = 32 << 20
	large := "package main\n\nvar x = [64 << 20]byte{1}\n\nfunc main() { println(x[0]) }\n"
	if b := Go(t.Context(), mine("main.go", large), runtime.GOARCH); outcome.HowOf(b.Err) != outcome.NoCompile {
		t.Errorf("64 MB of data: %v; want that it does not compile", b.Err)
	}
}
