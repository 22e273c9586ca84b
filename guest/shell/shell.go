// Package shell is the guest's /bin/sh: mvdan.cc/sh's interpreter of POSIX and
// bash syntax, with what it lacks for a shell that people type at and that runs
// scripts written for others.
//
// Synopsis:
//
//	sh [-eux] [--trace-names | --trace-compat] [--trace-log FILE]
//	sh [-eux] [--trace-names | --trace-compat] [--trace-log FILE] -c LINE [NAME [ARG...]]
//	sh [-eux] [--trace-names | --trace-compat] [--trace-log FILE] FILE [ARG...]
//
// Description:
//
//	Without LINE and FILE it reads commands from standard input: with a line
//	editor if that is a terminal, else statement by statement, so that a command
//	may read the lines that follow it.
//
//	--trace-compat is the compatibility view of tracefs for scripts that were
//	written for other kernels, see view. Run a script under it as
//
//	    /labctl/sh --trace-compat --trace-log /tmp/view.jsonl FILE [ARG...]
//
//	What became of each name goes to standard error, or to the log as one
//	wire.TraceName a line. Shells that a script starts have the view too: it is
//	handed on in the environment, as LABCTL_TRACE_COMPAT=1 and
//	LABCTL_TRACE_LOG=FILE.
//
//	--trace-names is that view for commands that are typed, as LABCTL_TRACE_COMPAT=names:
//	names are changed likewise, but what this kernel has not got is an error of the
//	command that wrote it, and where a filter would be left empty, which means every
//	function, the commands after it are not run.
//
// The exit status is that of the last command, 128+N where signal N ended it, 126
// for a file that cannot be executed, 127 for a command that is not found, and 2
// for a line that cannot be parsed and for usage.
//
// A background job is a process of its own, with its own $!. On a terminal what runs in
// the foreground has a process group of its own, and Ctrl-Z, jobs, fg, bg and kill %N
// work; a stop ends the line. What is not there: descriptors above 2, and ulimit.
package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// self starts this program again: by a path that a process listing shows as sh,
// where there is one.
var self = sync.OnceValue(func() string {
	const exe, sh = "/proc/self/exe", "/bin/sh"
	a, err := os.Stat(exe)
	if err != nil {
		return exe
	}
	if b, err := os.Stat(sh); err == nil && os.SameFile(a, b) {
		return sh
	}
	return exe
})

// Exit statuses by POSIX 2.8.2; usage has that of a syntax error.
const (
	statusUsage        = 2
	statusNotRunnable  = 126
	statusNotFound     = 127
	statusSignal       = 128
	statusInterrupted  = statusSignal + int(syscall.SIGINT)
	statusStopped      = statusSignal + int(syscall.SIGTSTP)
	envTraceCompat     = "LABCTL_TRACE_COMPAT"
	envTraceLog        = "LABCTL_TRACE_LOG"
	maxScript          = 8 << 20 // bytes; a file that is longer is none
	defaultProgramName = "sh"
)

// shell is one running shell process.
type shell struct {
	runner *interp.Runner
	env    *environ
	jobs   jobs
	traps  traps
	view   *view // nil without --trace-compat
	stderr io.Writer

	interactive bool
	control     *jobControl // nil where nothing can be stopped: no terminal
	execNext    bool        // a job's only command replaces the shell

	mu       sync.Mutex
	declared map[string]bool // functions that scripts define: they go before our builtins
}

// compat says how the view of tracefs is, as in the environment.
type compat string

const (
	compatNone   compat = ""
	compatScript compat = "1"     // --trace-compat
	compatNames  compat = "names" // --trace-names
)

type options struct {
	line    string
	isLine  bool
	isJob   bool
	set     []string // -e, -u, -x
	args    []string // name, then $1…
	compat  compat
	compLog string
}

// Main is the program sh with its arguments, args[0] its own name; it gives the
// exit status.
func Main(args []string) int {
	o, err := parseArgs(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sh: %v\n", err)
		return statusUsage
	}
	s, err := newShell(o, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sh: %v\n", err)
		return statusUsage
	}
	switch {
	case o.isJob:
		return s.runJob()
	case o.isLine:
		return s.runSource("sh", []byte(o.line))
	case len(o.args) > 0:
		source, err := readScript(o.args[0])
		if err != nil {
			fmt.Fprintf(os.Stderr, "sh: %v\n", err)
			if errors.Is(err, os.ErrNotExist) {
				return statusNotFound
			}
			return statusNotRunnable
		}
		return s.runSource(o.args[0], source)
	case term.IsTerminal(int(os.Stdin.Fd())):
		return s.runTerminal()
	}
	return s.runInput(os.Stdin)
}

func parseArgs(args []string) (options, error) {
	o := options{compLog: os.Getenv(envTraceLog)}
	if c := compat(os.Getenv(envTraceCompat)); c == compatScript || c == compatNames {
		o.compat = c
	}
	for args = args[1:]; len(args) > 0; args = args[1:] {
		arg := args[0]
		switch {
		case arg == "--":
			o.args = args[1:]
			return o, nil
		case arg == "--trace-compat":
			o.compat = compatScript
		case arg == "--trace-names":
			o.compat = compatNames
		case arg == "--trace-log":
			if len(args) < 2 {
				return o, errors.New("--trace-log: give a file")
			}
			o.compLog, args = args[1], args[1:]
		case arg == jobFlag:
			o.isJob = true
		case arg == "-c":
			if len(args) < 2 {
				return o, errors.New("-c: give a line")
			}
			o.line, o.isLine, o.args = args[1], true, args[2:]
			return o, nil
		case arg == "-o" || arg == "+o":
			if len(args) < 2 {
				return o, fmt.Errorf("%s: give the name of an option", arg)
			}
			o.set, args = append(o.set, arg, args[1]), args[1:]
		case len(arg) > 2 && arg[0] == '-' && arg[1] != '-' && strings.HasSuffix(arg, "c"): // -ec
			o.set = append(o.set, arg[:len(arg)-1])
			args = append([]string{"", "-c"}, args[1:]...)
		case arg == "-i" || arg == "-l" || arg == "--login" || arg == "-s": // what it does anyway
		case len(arg) > 1 && (arg[0] == '-' || arg[0] == '+'):
			o.set = append(o.set, arg)
		default:
			o.args = args
			return o, nil
		}
	}
	return o, nil
}

func newShell(o options, stdin, stdout, stderr *os.File) (*shell, error) {
	s := &shell{stderr: stderr, declared: map[string]bool{}}
	name, params := defaultProgramName, []string(nil)
	if len(o.args) > 0 {
		name, params = o.args[0], o.args[1:]
	}
	s.env = newEnviron(os.Environ(), name, &s.jobs)
	if o.compat != compatNone {
		s.env.export(envTraceCompat, string(o.compat))
		log := changes(stderr)
		if o.compLog != "" {
			s.env.export(envTraceLog, o.compLog)
			var err error
			if log, err = openViewLog(o.compLog); err != nil {
				return nil, err
			}
		}
		s.view = newView(log)
		s.view.strict = o.compat == compatNames
	}
	s.traps.pending = make(chan os.Signal, 16)
	var err error
	s.runner, err = interp.New(
		interp.Env(s.env),
		interp.Params(append(append(o.set, "--"), params...)...),
		interp.StdIO(stdin, stdout, stderr),
		interp.CallHandler(s.call),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return s.exec }),
		interp.OpenHandler(s.open),
	)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// readScript refuses what a shell would only stumble over.
func readScript(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	source, err := io.ReadAll(io.LimitReader(f, maxScript+1))
	if err != nil {
		return nil, err
	}
	if len(source) > maxScript {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, maxScript)
	}
	if i := bytes.IndexByte(source[:min(len(source), 512)], 0); i >= 0 {
		return nil, fmt.Errorf("%s: not a script: it has zero bytes", path)
	}
	return source, nil
}

// runSource runs a whole script, and what the EXIT trap has.
func (s *shell) runSource(name string, source []byte) int {
	stmts, err := s.parse(name, source)
	if err != nil {
		fmt.Fprintf(s.stderr, "%v\n", err)
		return statusUsage
	}
	s.execNext = len(stmts) == 1 && s.isProgram(stmts[0])
	return s.leave(s.run(context.Background(), stmts))
}

// isProgram says that a statement is one command that runs one program at most,
// and so may become it: its pid is the shell's then, and there is one task less
// in a trace.
func (s *shell) isProgram(stmt *syntax.Stmt) bool {
	call, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok || stmt.Negated || len(call.Args) == 0 || s.view != nil {
		return false
	}
	switch name := call.Args[0].Lit(); {
	case name == "", s.runner.Funcs[name] != nil:
		return false
	case slices.Contains([]string{"eval", "source", ".", "command", "builtin"}, name):
		return false
	}
	one := true
	syntax.Walk(stmt, func(n syntax.Node) bool {
		switch n.(type) {
		case *syntax.CmdSubst, *syntax.ProcSubst:
			one = false
		}
		return one
	})
	return one
}

// runInput runs lines as they come in. A command may read on from the same input,
// so nothing is taken ahead of it.
func (s *shell) runInput(in io.Reader) int {
	lines := lineReader{in}
	status := s.runLines(func(bool) (string, error) { return lines.next() }, func(stmts []*syntax.Stmt) int {
		return s.run(context.Background(), stmts)
	})
	return s.leave(status)
}

// runLines parses lines until they make statements and has them run, until the
// lines end or the shell exits. next is told whether the line goes on from the
// one before; with errAbandoned what has come so far is dropped.
func (s *shell) runLines(next func(more bool) (string, error), run func([]*syntax.Stmt) int) (status int) {
	var text strings.Builder
	for {
		line, err := next(text.Len() > 0)
		if errors.Is(err, errAbandoned) {
			text.Reset()
			status = statusInterrupted
			s.setStatus(status)
			continue
		}
		text.WriteString(line)
		ended := err != nil
		if ended && text.Len() == 0 {
			return status
		}
		stmts, perr := s.parse("sh", []byte(text.String()))
		if !ended && text.Len() < maxScript && goesOn(text.String(), perr) {
			continue
		}
		text.Reset()
		if perr != nil {
			fmt.Fprintf(s.stderr, "%v\n", perr)
			status = statusUsage
			s.setStatus(status)
		} else if len(stmts) > 0 {
			status = run(stmts)
		}
		if ended || s.runner.Exited() || s.view.halted() && !s.interactive {
			return status
		}
	}
}

var errAbandoned = errors.New("line abandoned")

// goesOn says that the text so far is the start of something.
func goesOn(text string, err error) bool {
	var perr syntax.ParseError
	switch {
	case errors.As(err, &perr) && strings.HasPrefix(perr.Text, "unclosed here-document"):
		return true // IsIncomplete says so only before its first line
	case err != nil:
		return syntax.IsIncomplete(err)
	}
	line := strings.TrimSuffix(text, "\n")
	backslashes := len(line) - len(strings.TrimRight(line, "\\"))
	return backslashes%2 == 1
}

// lineReader reads lines a byte at a time.
type lineReader struct{ r io.Reader }

func (l lineReader) next() (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < maxScript {
		n, err := l.r.Read(b[:])
		if n > 0 {
			line = append(line, b[0])
		}
		if n > 0 && b[0] == '\n' {
			return string(line), nil
		}
		if err != nil {
			return string(line), err
		}
	}
	return string(line), fmt.Errorf("a line of more than %d bytes", maxScript)
}

// setStatus makes $? known for what was not run.
func (s *shell) setStatus(status int) {
	s.runStmt(context.Background(), &syntax.Stmt{Cmd: &syntax.CallExpr{Args: []*syntax.Word{literal(cmdStatus), literal(strconv.Itoa(status))}}})
}

// parse returns statements that the interpreter can run.
func (s *shell) parse(name string, source []byte) ([]*syntax.Stmt, error) {
	file, err := syntax.NewParser().Parse(bytes.NewReader(source), name)
	if err != nil {
		return nil, err
	}
	s.adapt(file.Stmts)
	return file.Stmts, nil
}

// run runs statements one after the other until one ends the shell, and gives
// the last one's status.
func (s *shell) run(ctx context.Context, stmts []*syntax.Stmt) (status int) {
	s.view.resume()
	for _, stmt := range stmts {
		if s.control != nil {
			s.control.statement(strings.Join(strings.Fields(source(stmt)), " "))
		}
		status = s.runStmt(ctx, stmt)
		if s.view.halted() && !s.runner.Exited() {
			fmt.Fprintln(s.stderr, "sh: what follows is not run")
			s.setStatus(1)
			return 1
		}
		if s.runner.Exited() || ctx.Err() != nil {
			break
		}
	}
	return status
}

func (s *shell) runStmt(ctx context.Context, stmt *syntax.Stmt) (status int) {
	// The interpreter panics at what it has not got.
	defer func() {
		if what := recover(); what != nil {
			fmt.Fprintf(s.stderr, "sh: not supported: %v\n", what)
			status = statusUsage
		}
	}()
	err := s.runner.Run(ctx, stmt)
	if code, ok := interp.IsExitStatus(err); ok {
		return int(code)
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return statusInterrupted
	}
	fmt.Fprintf(s.stderr, "sh: %v\n", err)
	return 1
}

// leave runs what is left to do at the end of the last command: pending traps,
// then the EXIT trap, which `exit` has run already.
func (s *shell) leave(status int) int {
	if s.runner.Exited() {
		return status
	}
	end := fmt.Sprintf("exit %d", status)
	if code := s.traps.due(); code != "" {
		end = code + "\n" + end
	}
	stmts, err := s.parse("trap", []byte(end))
	if err != nil {
		fmt.Fprintf(s.stderr, "%v\n", err)
		return status
	}
	return s.run(context.Background(), stmts)
}
