package compile

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// TestStep builds C where a directory has no Go. On a host without a C compiler the
// one thing that may come out is that.
func TestStep(t *testing.T) {
	cacheIn(t)
	p := Step(t.Context(), mine("main.c", "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 3; }\n", "notes", "x"), runtime.GOARCH)
	err := p.Err
	var none *CompilerError
	if _, missing := exec.LookPath("cc"); missing != nil || errors.As(err, &none) {
		if !errors.As(err, &none) || none.Compiler != "cc" {
			t.Errorf("without cc: %v; want a CompilerError", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f, err := elf.Open(p.File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			t.Error("the program is dynamic; want static")
		}
	}
	out, err := exec.CommandContext(t.Context(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.file.Fd())).Output()
	var exit *exec.ExitError
	if string(out) != "hello\n" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("the program: %q, %v; want hello, status 3", out, err)
	}

	err = Step(t.Context(), mine("main.c", "int main(void) { return x; }\n"), runtime.GOARCH).Err
	if err == nil || !strings.Contains(err.Error(), "sub/mine/main.c:1:") {
		t.Errorf("C that does not compile: %v; want its place", err)
	}
	both := Step(t.Context(), mine("main.go", "package main\n\nfunc main() { println(\"Go\") }\n", "x.c", "not C"), runtime.GOARCH)
	defer both.Close()
	if got := output(t, both); got != "Go\n" {
		t.Errorf("of Go beside C the program says %q; want Go", got)
	}
}

// TestNoCompiler has a compiler that cannot link, and then none.
func TestNoCompiler(t *testing.T) {
	cacheIn(t)
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	src := mine("main.c", "int main(void) { return 0; }\n")
	var none *CompilerError
	if err := C(t.Context(), src, "mips").Err; !errors.As(err, &none) {
		t.Errorf("C for mips: %v; want a CompilerError", err)
	}
	if err := os.WriteFile(dir+"/cc", []byte("#!/bin/sh\necho cannot find -lc >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := C(t.Context(), src, runtime.GOARCH).Err; !errors.As(err, &none) || none.Compiler != "cc" {
		t.Errorf("C without a static library: %v; want a CompilerError", err)
	}
}
