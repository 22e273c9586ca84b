package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notFiles are what a name may stand for in place of the file that is wanted.
var notFiles = []struct {
	name string
	make func(t *testing.T, path string) error
}{
	{"endless device", func(_ *testing.T, path string) error { return os.Symlink("/dev/zero", path) }},
	{"pipe", func(_ *testing.T, path string) error { return syscall.Mkfifo(path, 0o600) }},
	{"directory", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o755) }},
	{"socket", func(t *testing.T, path string) error {
		l, err := net.Listen("unix", path)
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}},
	{"10 GB", func(_ *testing.T, path string) error {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(10 << 30)
	}},
	{"endless link", func(_ *testing.T, path string) error { return os.Symlink(filepath.Base(path), path) }},
}

// TestNotFiles gives every command that reads files of the user's something that is
// none: each says so in one line, at once, whatever it is.
func TestNotFiles(t *testing.T) {
	const bad, badProgram = 2, 125
	tests := []struct {
		file string // what is made
		args string
		want int
		says string
	}{
		{"bzImage", "kernel info ./bzImage", bad, "labctl: "},
		{"bzImage", "exec --kernel ./bzImage -- true", badProgram, "labctl: "},
		{"bzImage", "probe run fork --kernel ./bzImage", bad, "labctl: "},
		{"bzImage", "boot --kernel ./bzImage --cmd true", bad, "labctl: "},
		{"bzImage", "matrix run --kernels ./bzImage -- true", bad, "labctl: "},
		{"x", "exec -- ./x", badProgram, "labctl: "},
		{"x.sh", "exec -- ./x.sh", badProgram, "labctl: "},
		{"x", "trace --quiet-prog -- ./x", badProgram, "labctl: "},
		{"x", "trace --script ./x -- true", badProgram, "labctl: "},
		{"rec/run.json", "report rec", bad, "labctl: "},
		{"rec/lab.json", "lab judge rec", bad, "labctl: "},
		{"rec/matrix.json", "report rec", bad, "labctl: "},
		{"rec/matrix.json", "matrix merge rec", bad, "labctl: "},
		{"rec/matrix.json", "matrix diff rec rec", bad, "labctl: "},
		{"rec/plan.json", "matrix run --out rec --resume", bad, "labctl: "},
		{"plan.yaml", "matrix run --plan plan.yaml", bad, "labctl: "},
		{"x", "report x", bad, "labctl: "},
		{"x", "lab judge x", bad, "labctl: "},
		{"x", "matrix merge x", bad, "labctl: "},
		{"x.config", "kernel build --source ./tree --fragment ./x.config mine", bad, "labctl: "},
		{"x.tar", "kernel build --source ./x.tar mine", bad, "labctl: "},
		{"tree/Makefile", "kernel build --source ./tree mine", bad, "labctl: "},
		{"own/W1-x/lab.yaml", "lab lint --labs own W1", bad, "W1-x/lab.yaml: "},
		{"own/W1-x/lab.yaml", "lab run --labs own W1", bad, "labctl: "},
	}
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("LABCTL_CACHE", filepath.Join(dir, "cache"))
	for _, kind := range notFiles {
		for _, tt := range tests {
			if err := os.MkdirAll(filepath.Dir(tt.file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := kind.make(t, tt.file); err != nil {
				t.Fatal(err)
			}
			var out, said bytes.Buffer
			status := make(chan int, 1)
			go func() { status <- run(strings.Fields("-q "+tt.args), strings.NewReader(""), &out, &said) }()
			select {
			case got := <-status:
				if lines := strings.Count(said.String(), "\n"); got != tt.want || lines > 1 || !strings.Contains(out.String()+said.String(), tt.says) {
					t.Errorf("labctl %s, with a %s: exit status %d, %d lines; want %d, one line with %q\n%s%s", tt.args, kind.name, got, lines, tt.want, tt.says, &out, &said)
				}
			case <-time.After(time.Minute):
				t.Fatalf("labctl %s, with a %s: does not end", tt.args, kind.name)
			}
			if err := os.RemoveAll(strings.SplitN(tt.file, "/", 2)[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestNotDirectories gives every command that takes a record or another directory
// something that is none, and says what it is.
func TestNotDirectories(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("LABCTL_CACHE", filepath.Join(dir, "cache"))
	if err := errors.Join(syscall.Mkfifo("pipe", 0o600), os.WriteFile("file", nil, 0o644), os.Symlink("loop", "loop")); err != nil {
		t.Fatal(err)
	}
	const bad, badProgram = 2, 125
	for _, tt := range []struct {
		args string // X is what is no directory
		want int
		new  bool // a directory that is not there is made
	}{
		{"report X", bad, false},
		{"report X --html page.html", bad, false},
		{"lab judge X", bad, false},
		{"matrix merge X X", bad, false},
		{"matrix diff X X", bad, false},
		{"matrix run --kernels 6.12 --out X --resume -- true", bad, false},
		{"matrix run --kernels 6.12 --junit X/x.xml -- true", bad, false},
		{"matrix submit --slurm --shards 1 --kernels 6.12 --junit X/x.xml -- true", bad, false},
		{"matrix merge rec --summary X/x.md", bad, false},
		{"lab check P1 . --gradescope X/results.json", bad, false},
		{"lab check P1 --class . --csv X/grades.csv", bad, false},
		{"trace --folded X/folded.txt -- true", badProgram, false},
		{"lab check P1 --class X", bad, false},
		{"lab start P1 X", bad, true},
		{"lab solve P1 X", bad, true},
		{"lab ls --labs X", bad, false},
		{"exec --get /proc/version:X/version -- true", badProgram, false},
	} {
		for name, says := range map[string]string{"pipe": "not a directory", "file": "a file, not a directory", "nothing": "no such directory", "loop": "too many levels of symbolic links"} {
			if name == "nothing" && tt.new {
				continue
			}
			var out, said bytes.Buffer
			status := run(strings.Fields("-q "+strings.ReplaceAll(tt.args, "X", name)), strings.NewReader(""), &out, &said)
			if status != tt.want || strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), name) || !strings.Contains(said.String(), says) {
				t.Errorf("labctl %s, with %s: exit status %d, %q; want %d, one line with %q", tt.args, name, status, said.String(), tt.want, says)
			}
		}
	}
}
