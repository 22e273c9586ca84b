package build

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestStep builds C where a folder has no Go. On a host without a C compiler the
// one thing that may come out is that.
func TestStep(t *testing.T) {
	p, remove, err := Step(t.Context(), files("main.c", "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 3; }\n", "notes", "x"), "mine", "libc", runtime.GOARCH)
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
	defer remove()
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
	out, err := exec.CommandContext(t.Context(), p.File).Output()
	var exit *exec.ExitError
	if string(out) != "hello\n" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("the program: %q, %v; want hello, status 3", out, err)
	}

	_, _, err = Step(t.Context(), files("main.c", "int main(void) { return x; }\n"), "sub/mine", "libc", runtime.GOARCH)
	if err == nil || !strings.Contains(err.Error(), "sub/mine/main.c:1:") {
		t.Errorf("C that does not compile: %v; want its place", err)
	}
	p, remove, err = Step(t.Context(), files("main.go", "package main\n\nfunc main() {}\n", "x.c", "not C"), "mine", "x", runtime.GOARCH)
	if err != nil || filepath.Base(p.File) != "x" {
		t.Fatalf("Go beside C = %+v, %v; want the Go program", p, err)
	}
	remove()
}

// TestNoCompiler has a compiler that cannot link, and then none.
func TestNoCompiler(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	src := files("main.c", "int main(void) { return 0; }\n")
	var none *CompilerError
	if _, _, err := C(t.Context(), src, "mine", "x", "mips"); !errors.As(err, &none) {
		t.Errorf("C for mips: %v; want a CompilerError", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cc"), []byte("#!/bin/sh\necho cannot find -lc >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := C(t.Context(), src, "mine", "x", runtime.GOARCH); !errors.As(err, &none) || none.Compiler != "cc" {
		t.Errorf("C without a static library: %v; want a CompilerError", err)
	}
}
