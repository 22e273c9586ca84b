package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"mvdan.cc/sh/v3/syntax"
)

// maxHistory is how many lines are kept, in memory alone: a guest has no disk.
const maxHistory = 1000

// runTerminal is the shell that people type at.
func (s *shell) runTerminal() int {
	s.interactive = true
	// Ctrl-C and Ctrl-\ are for what runs in the foreground, which gets them
	// from the terminal too.
	interrupts, stop := notify(unix.SIGINT)
	defer stop()
	// The others would stop the shell.
	_, stopOthers := notify(unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	defer stopOthers()
	s.control = newControl(int(os.Stdin.Fd()))

	e := newEditor(os.Stdin, os.Stdout, s.complete)
	defer e.close()
	status := s.runLines(func(more bool) (string, error) {
		s.reportJobs()
		if more {
			return e.line("> ")
		}
		return e.line(prompt(s.runner.Dir))
	}, func(stmts []*syntax.Stmt) int {
		for len(interrupts) > 0 {
			<-interrupts
		}
		ctx, cancel := context.WithCancel(context.Background())
		s.control.line(cancel)
		var watch sync.WaitGroup
		watch.Go(func() {
			select {
			case <-interrupts:
				cancel()
			case <-ctx.Done():
			}
		})
		// It must not live to take the next line's.
		defer watch.Wait()
		defer cancel()
		status := s.run(ctx, stmts)
		switch {
		case s.control.wasSuspended():
			s.setStatus(statusStopped)
			return statusStopped
		case ctx.Err() != nil:
			status = statusInterrupted
		}
		if status == statusInterrupted && !s.runner.Exited() {
			fmt.Fprintln(os.Stdout)
			s.setStatus(status)
		}
		return status
	})
	return s.leave(status)
}

// reportJobs reports jobs that have ended, or were stopped, since the last prompt.
func (s *shell) reportJobs() {
	for _, job := range s.jobs.all() {
		isStopped := job.group.state() == stopped
		if isStopped {
			_, isStopped = s.jobs.of(job.group, job.source)
		}
		select {
		case <-job.done:
			isStopped = true
		default:
		}
		if isStopped {
			fmt.Fprintf(s.stderr, "[%d]  %-12s %s\n", job.number, s.jobs.word(job), job.source)
		}
	}
}

// prompt says which machine this is: "6.12.107+deb13-arm64 / # ".
func prompt(dir string) string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return dir + " # "
	}
	release, machine := unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	// Releases of Debian end with its own name of the architecture.
	if !strings.HasSuffix(release, "-amd64") && !strings.HasSuffix(release, "-arm64") {
		release += " " + machine
	}
	return release + " " + dir + " # "
}

// editor reads lines from a terminal, which is raw only meanwhile.
type editor struct {
	in       *os.File
	out      *os.File
	keys     *keys
	history  history
	term     *term.Terminal
	complete func(line string, pos int) (completion, bool)
	resize   func()
	tabs     int    // one after the other
	search   string // of Ctrl-R
	found    int    // its place in the history, -1 before the first
}

func newEditor(in, out *os.File, complete func(string, int) (completion, bool)) *editor {
	e := &editor{in: in, out: out, keys: &keys{in: in}, complete: complete, found: -1}
	e.renew()
	resized, stop := notify(unix.SIGWINCH)
	e.resize = stop
	go func() {
		for range resized {
			e.fit()
		}
	}()
	return e
}

func (e *editor) close() { e.resize() }

// renew begins with an empty line: the only way to take one back.
func (e *editor) renew() {
	e.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{e.keys, e.out}, "")
	e.term.History = &e.history
	e.term.AutoCompleteCallback = e.key
	e.fit()
}

func (e *editor) fit() {
	if cols, rows, err := term.GetSize(int(e.in.Fd())); err == nil && cols > 0 && rows > 0 {
		e.term.SetSize(cols, rows)
	}
}

// line reads one, newline and all. Its error is errAbandoned after Ctrl-C, io.EOF
// after Ctrl-D.
func (e *editor) line(prompt string) (string, error) {
	fd := int(e.in.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return "", fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	defer term.Restore(fd, old)
	// Enter is a newline also when it is typed too early for a program that
	// reads lines.
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		t.Iflag |= unix.ICRNL
		unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
	e.fit()
	e.term.SetPrompt(prompt)
	e.tabs, e.search, e.found = 0, "", -1
	line, err := e.term.ReadLine()
	switch {
	case err == nil || errors.Is(err, term.ErrPasteIndicator):
		return line + "\n", nil
	case err == io.EOF && e.keys.last == ctrlC:
		io.WriteString(e.out, "^C\r\n")
		e.renew()
		return "", errAbandoned
	case err == io.EOF && e.keys.last == ctrlD:
		io.WriteString(e.out, "\r\n")
	}
	return line, err
}

const (
	ctrlC = 3
	ctrlD = 4
	ctrlR = 18
	tab   = '\t'
)

// keys returns one byte at a time, so that nothing typed ahead is taken from the
// program that runs next, and remembers it.
type keys struct {
	in   *os.File
	last byte
}

func (k *keys) Read(p []byte) (int, error) {
	n, err := k.in.Read(p[:min(1, len(p))])
	if n > 0 {
		k.last = p[0]
	}
	return n, err
}

// key does what the line editor has not: Tab and Ctrl-R.
func (e *editor) key(line string, pos int, key rune) (string, int, bool) {
	if key != tab {
		e.tabs = 0
	}
	if key != ctrlR {
		e.found = -1
	}
	switch key {
	case ctrlR:
		return e.searchBack(line)
	case tab:
		e.tabs++
		c, ok := e.complete(line, pos)
		if !ok {
			return line, pos, true
		}
		if c.line == line && e.tabs > 1 {
			fmt.Fprintf(e.term, "%s\n", strings.Join(c.choices, "  "))
		}
		return c.line, c.pos, true
	}
	return "", 0, false
}

// searchBack replaces the line by the latest one of the history that has it
// somewhere, and by the one before when asked again.
func (e *editor) searchBack(line string) (string, int, bool) {
	if e.found < 0 {
		e.search = line
	}
	for i := e.found + 1; i < e.history.Len(); i++ {
		if entry := e.history.At(i); strings.Contains(entry, e.search) && entry != line {
			e.found = i
			return entry, len(entry), true
		}
	}
	return line, len(line), true
}

// history is what was typed; At(0) is the latest.
type history struct{ lines []string }

func (h *history) Add(line string) {
	if strings.TrimSpace(line) == "" || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	h.lines = append(h.lines, line)
	if len(h.lines) > maxHistory {
		h.lines = h.lines[1:]
	}
}

func (h *history) Len() int        { return len(h.lines) }
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }

// completion is what Tab makes of a line.
type completion struct {
	line    string
	pos     int
	choices []string // where there is more than one
}

// complete completes the word that ends at pos: a command at the beginning of
// one, else a file.
func (s *shell) complete(line string, pos int) (completion, bool) {
	before, after := line[:pos], line[pos:]
	start := strings.LastIndexAny(before, " \t;|&(<>=") + 1
	word := before[start:]
	first := strings.TrimRight(before[:start], " \t")
	isCommand := first == "" || strings.HasSuffix(first, ";") || strings.HasSuffix(first, "|") || strings.HasSuffix(first, "&") || strings.HasSuffix(first, "(")
	var choices []string
	if isCommand && !strings.Contains(word, "/") {
		choices = s.commands(word)
	} else {
		choices = s.files(word)
	}
	if len(choices) == 0 {
		return completion{}, false
	}
	common := choices[0]
	for _, c := range choices[1:] {
		common = commonPrefix(common, c)
	}
	if len(choices) == 1 && !strings.HasSuffix(common, "/") {
		common += " "
	}
	if len(common) < len(word) {
		common = word
	}
	for i, c := range choices {
		if dir := strings.TrimSuffix(c, "/"); strings.Contains(dir, "/") {
			choices[i] = filepath.Base(dir) + c[len(dir):]
		}
	}
	return completion{before[:start] + common + after, start + len(common), choices}, true
}

// commands are builtins, functions and programs that begin with prefix.
func (s *shell) commands(prefix string) []string {
	found := map[string]bool{}
	for _, name := range builtinNames() {
		found[name] = true
	}
	for name := range s.runner.Funcs {
		found[name] = true
	}
	path := os.Getenv("PATH")
	if v, ok := s.runner.Vars["PATH"]; ok {
		path = v.String()
	}
	for _, dir := range filepath.SplitList(path) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				found[e.Name()] = true
			}
		}
	}
	return withPrefix(found, prefix)
}

// files are those that begin with word; directories end in a slash.
func (s *shell) files(word string) []string {
	dir, base := filepath.Split(word)
	at := dir
	if !filepath.IsAbs(at) {
		at = filepath.Join(s.runner.Dir, at)
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return nil
	}
	found := map[string]bool{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(base, ".") {
			continue
		}
		name := dir + e.Name()
		if info, err := os.Stat(filepath.Join(at, e.Name())); err == nil && info.IsDir() {
			name += "/"
		}
		found[name] = true
	}
	return withPrefix(found, word)
}

func withPrefix(names map[string]bool, prefix string) []string {
	var list []string
	for name := range names {
		if strings.HasPrefix(name, prefix) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func commonPrefix(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return strings.ToValidUTF8(a[:n], "")
}

// notify is signal.Notify with a channel of its own, and a function to end it.
func notify(signals ...os.Signal) (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, signals...)
	return c, func() { signal.Stop(c); close(c) }
}
