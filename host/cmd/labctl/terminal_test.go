package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// terminal FILE PROG ARG...: the program runs on a terminal of its own, and ends well. FILE
// says what is typed, and when: a line "< REGEXP" waits until the program has printed that,
// "> STRING", with Go's escapes, types, "^ REGEXP" types Ctrl-C until that is printed, since
// it is for a program that may not be there yet, and "~ N" asserts that the status is N.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: terminal FILE PROG ARG...")
	}
	talk := ts.ReadFile(args[0])
	prog := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, args[1]); prog == "" && fileExists(p) {
			prog = p
		}
	}
	if prog == "" {
		ts.Fatalf("there is no %s", args[1])
	}
	cmd := exec.Command(prog, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"TERM=xterm"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "LABCTL_CACHE"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	ts.Check(err)
	defer master.Close()
	defer cmd.Process.Kill()
	parts := make(chan []byte, 1024)
	go func() {
		defer close(parts)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if n > 0 {
				parts <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	const patience = 10 * time.Minute // on a host without time
	var all, unread bytes.Buffer
	await := func(pattern, typed string) bool {
		re, err := regexp.Compile(pattern)
		ts.Check(err)
		late := time.After(patience)
		for {
			if at := re.FindIndex(unread.Bytes()); at != nil {
				unread.Next(at[1])
				return true
			}
			select {
			case b, ok := <-parts:
				if !ok {
					return false
				}
				all.Write(b)
				unread.Write(b)
			case <-time.After(2 * time.Second):
				_, err := io.WriteString(master, typed)
				ts.Check(err)
			case <-late:
				return false
			}
		}
	}
	want := 0
	for line := range strings.Lines(talk) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if len(line) < 2 {
			ts.Fatalf("%s: %q", args[0], line)
		}
		what := line[2:]
		switch line[:2] {
		case "< ":
			if !await(what, "") {
				ts.Fatalf("the terminal has not shown %s:\n%s", what, all.Bytes())
			}
		case "^ ":
			if !await(what, "\x03") {
				ts.Fatalf("the terminal has not shown %s:\n%s", what, all.Bytes())
			}
		case "> ":
			typed, err := strconv.Unquote(`"` + what + `"`)
			ts.Check(err)
			_, err = io.WriteString(master, typed)
			ts.Check(err)
		case "~ ":
			want, err = strconv.Atoi(what)
			ts.Check(err)
		default:
			ts.Fatalf("%s: %q", args[0], line)
		}
	}
	for await(`(?s).+`, "") {
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != want {
		ts.Fatalf("%q: %v, want status %d:\n%s", cmd.Args, cmd.ProcessState, want, all.Bytes())
	}
	ts.Logf("%s", all.Bytes())
}
