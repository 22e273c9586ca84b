package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
)

// builtin is a command of the shell's own; args are without its name. It takes
// the place of a program, or of the interpreter's own builtin.
type builtin func(s *shell, ctx context.Context, args []string) error

// builtins go before programs of the same name. Those of them that are also the
// interpreter's are called by a name that it does not know.
var builtins map[string]builtin

func init() {
	builtins = map[string]builtin{
		cmdBackground:  (*shell).startJob,
		cmdExec:        (*shell).become,
		cmdUnsupported: (*shell).unsupported,
		cmdStatus:      (*shell).status,
		"echo":         (*shell).echo,
		"printf":       (*shell).printf,
		"wait":         (*shell).wait,
		"kill":         (*shell).kill,
		"jobs":         (*shell).listJobs,
		"fg":           (*shell).fg,
		"bg":           (*shell).bg,
		"date":         (*shell).date,
		"stty":         (*shell).stty,
		"umask":        (*shell).umask,
	}
}

// ownName keeps the interpreter from taking a builtin of ours for its own.
const ownName = "__sh_"

// call sees every command before it runs and may replace it.
func (s *shell) call(ctx context.Context, args []string) ([]string, error) {
	if code := s.traps.due(); code != "" {
		words := make([]string, len(args))
		for i, arg := range args {
			words[i] = quote(arg)
		}
		return []string{"eval", s.adaptText(code) + "\n" + strings.Join(words, " ")}, nil
	}
	s.mu.Lock()
	declared := s.declared[args[0]]
	s.mu.Unlock()
	if declared {
		return args, nil
	}
	switch args[0] {
	case "eval":
		return []string{"eval", s.adaptText(strings.Join(args[1:], " "))}, nil
	case ".", "source":
		if len(args) > 1 {
			args = slices.Clone(args)
			args[1] = adaptedFile + findScript(interp.HandlerCtx(ctx), args[1])
		}
		return args, nil
	case "trap":
		rest, err := s.traps.set(ctx, args)
		if err != nil {
			fmt.Fprintf(interp.HandlerCtx(ctx).Stderr, "sh: %v\n", err)
			return []string{cmdStatus, "1"}, nil
		}
		return rest, nil
	}
	if _, ok := builtins[args[0]]; ok && !strings.HasPrefix(args[0], ownName) {
		return append([]string{ownName + args[0]}, args[1:]...), nil
	}
	return args, nil
}

// exec runs what is neither a function nor a builtin of the interpreter's.
func (s *shell) exec(ctx context.Context, args []string) error {
	name := args[0]
	if b, ok := builtins[name]; ok {
		return b(s, ctx, args[1:])
	}
	if b, ok := builtins[strings.TrimPrefix(name, ownName)]; ok {
		return b(s, ctx, args[1:])
	}
	hc := interp.HandlerCtx(ctx)
	path, status, err := lookUp(hc, name)
	if err != nil && name == "sleep" { // where there are no programs
		return s.sleep(ctx, args[1:])
	}
	if err != nil {
		return s.fail(hc, status, "%v", err)
	}
	if s.execNext {
		return s.replaceShell(hc, path, args)
	}
	return s.runProgram(ctx, path, args)
}

// awaitInterrupt is for after a program that Ctrl-C ended: it is meant for the
// rest of the line too, and the signal may have reached the program first.
func (s *shell) awaitInterrupt(ctx context.Context, status int) {
	if s.interactive && status == statusInterrupted {
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// lookUp finds a program and says, when it cannot, with which status that ends.
func lookUp(hc interp.HandlerContext, name string) (path string, status int, err error) {
	path, err = interp.LookPathDir(hc.Dir, hc.Env, name)
	if err == nil {
		return path, 0, nil
	}
	if !strings.Contains(name, "/") {
		return "", statusNotFound, fmt.Errorf("%s: not found", name)
	}
	if errors.Is(err, os.ErrNotExist) {
		return "", statusNotFound, fmt.Errorf("%s: no such file", name)
	}
	return "", statusNotRunnable, fmt.Errorf("%s: %w", name, err)
}

// runProgram runs a program in the foreground. Ctrl-C reaches it from the
// terminal, and without one ctx is never cancelled.
func (s *shell) runProgram(ctx context.Context, path string, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if s.control != nil {
		status, err := s.runForeground(ctx,
			func() *exec.Cmd { return program(hc, path, args) },
			func() *exec.Cmd { return program(hc, self(), scriptArgs(path, args)) })
		if err != nil {
			status, text := notStarted(args[0], err)
			return s.fail(hc, status, "%s", text)
		}
		return s.programEnd(hc, status)
	}
	cmd := program(hc, path, args)
	err := cmd.Start()
	if errors.Is(err, syscall.ENOEXEC) { // a script without #!
		cmd = program(hc, self(), scriptArgs(path, args))
		err = cmd.Start()
	}
	if err != nil {
		status, text := notStarted(args[0], err)
		return s.fail(hc, status, "%s", text)
	}
	// Ctrl-C may have come just before there was a program to get it.
	started := time.Now()
	stop := context.AfterFunc(ctx, func() {
		if time.Since(started) < time.Second {
			cmd.Process.Signal(unix.SIGINT)
		}
	})
	status := programStatus(cmd.Wait())
	stop()
	s.awaitInterrupt(ctx, status)
	return s.programEnd(hc, status)
}

// programEnd says which signal ended a program, where somebody sees it.
func (s *shell) programEnd(hc interp.HandlerContext, status int) error {
	if s.interactive && status > statusSignal && status != statusInterrupted && status != statusStopped && status != statusSignal+int(unix.SIGPIPE) {
		fmt.Fprintf(hc.Stderr, "%v\n", syscall.Signal(status-statusSignal))
	}
	return exitStatus(status)
}

func program(hc interp.HandlerContext, path string, args []string) *exec.Cmd {
	cmd := &exec.Cmd{Path: path, Args: args, Env: exported(hc.Env), Dir: hc.Dir}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files(hc)
	return cmd
}

// scriptArgs start a shell on a script under the name that it was called by.
func scriptArgs(path string, args []string) []string {
	if strings.Contains(args[0], "/") {
		path = args[0]
	}
	return append([]string{defaultProgramName, path}, args[1:]...)
}

// notStarted puts a failed exec into words.
func notStarted(name string, err error) (status int, text string) {
	if errors.Is(err, os.ErrNotExist) { // it was found
		return statusNotFound, name + ": its interpreter, in the first line, is not there"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return statusNotRunnable, fmt.Sprintf("%s: %v", name, err)
}

// programStatus is the shell's number for a program's end.
func programStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return statusSignal + int(ws.Signal())
		}
		return exit.ExitCode()
	}
	return 1 // its output could not be copied
}

// become is exec COMMAND.
func (s *shell) become(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if _, ok := builtins[args[0]]; ok {
		err := s.exec(ctx, args)
		status, _ := interp.IsExitStatus(err)
		os.Exit(int(status))
	}
	path, status, err := lookUp(hc, args[0])
	if err != nil {
		s.fail(hc, status, "exec: %v", err)
		os.Exit(status)
	}
	return s.replaceShell(hc, path, args)
}

// replaceShell does not return when the program could be started.
func (s *shell) replaceShell(hc interp.HandlerContext, path string, args []string) error {
	stdin, stdout, stderr := files(hc)
	for fd, stream := range []any{stdin, stdout, stderr} {
		f, ok := stream.(*os.File)
		if !ok { // a file of the view: somebody has to stay and copy
			return s.runAndExit(hc, path, args)
		}
		if f == nil || int(f.Fd()) == fd {
			continue
		}
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return s.fail(hc, 1, "exec: %v", err)
		}
	}
	if err := os.Chdir(hc.Dir); err != nil {
		return s.fail(hc, 1, "exec: %v", err)
	}
	err := syscall.Exec(path, args, exported(hc.Env))
	if errors.Is(err, syscall.ENOEXEC) {
		err = syscall.Exec(self(), scriptArgs(path, args), exported(hc.Env))
	}
	status, text := notStarted(args[0], err)
	fmt.Fprintf(os.Stderr, "sh: %s\n", text)
	os.Exit(status)
	return nil
}

func (s *shell) runAndExit(hc interp.HandlerContext, path string, args []string) error {
	cmd := program(hc, path, args)
	status, text := 0, ""
	if err := cmd.Start(); err != nil {
		status, text = notStarted(args[0], err)
		fmt.Fprintf(hc.Stderr, "sh: %s\n", text)
	} else {
		status = programStatus(cmd.Wait())
	}
	for _, w := range []io.Writer{hc.Stdout, hc.Stderr} {
		if c, ok := w.(io.Closer); ok {
			c.Close()
		}
	}
	os.Exit(status)
	return nil
}

func (s *shell) unsupported(ctx context.Context, args []string) error {
	return s.fail(interp.HandlerCtx(ctx), statusUsage, "%s: not supported by this shell", strings.Join(args, " "))
}

func (s *shell) status(_ context.Context, args []string) error {
	n, _ := strconv.Atoi(args[0])
	return exitStatus(n)
}

// echo writes all at once: tracefs takes a command a write. Its status reports a
// write that the kernel refused.
func (s *shell) echo(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	end, escapes := "\n", false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && strings.Trim(args[0][1:], "neE") == "" {
		for _, c := range args[0][1:] {
			switch c {
			case 'n':
				end = ""
			case 'e', 'E':
				escapes = c == 'e'
			}
		}
		args = args[1:]
	}
	text := strings.Join(args, " ")
	if escapes {
		text, end = unescape(text, end)
	}
	return s.write(hc, "echo", text+end)
}

// unescape does echo -e; \c ends the output.
func unescape(text, end string) (string, string) {
	for i := 0; i+1 < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if text[i+1] == 'c' {
			text, end = text[:i], ""
			break
		}
		i++
	}
	out, _, err := expand.Format(nil, text, nil)
	if err != nil {
		return text, end
	}
	return out, end
}

func (s *shell) printf(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return s.fail(hc, statusUsage, "printf: give a format")
	}
	format, args := args[0], args[1:]
	var b strings.Builder
	for {
		text, n, err := expand.Format(nil, format, args)
		if err != nil {
			return s.fail(hc, 1, "printf: %v", err)
		}
		b.WriteString(text)
		if args = args[n:]; n == 0 || len(args) == 0 {
			break
		}
	}
	return s.write(hc, "printf", b.String())
}

func (s *shell) write(hc interp.HandlerContext, name, text string) error {
	_, err := io.WriteString(hc.Stdout, text)
	if errors.Is(err, errRefused) {
		return exitStatus(1)
	}
	if err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		return s.fail(hc, 1, "%s: write: %v", name, err)
	}
	return nil
}

// sleep takes seconds, with a fraction, or 10ms, 2m…
func (s *shell) sleep(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if len(args) != 1 {
		return s.fail(hc, statusUsage, "sleep: give one time")
	}
	d, err := time.ParseDuration(args[0])
	if err != nil {
		if d, err = time.ParseDuration(args[0] + "s"); err != nil || d < 0 {
			return s.fail(hc, 1, "sleep: %q is no time", args[0])
		}
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return exitStatus(statusInterrupted)
	case sig := <-s.traps.pending:
		s.traps.note(sig)
		return exitStatus(statusSignal + int(sig.(syscall.Signal)))
	}
}

func (s *shell) umask(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	if len(args) == 0 {
		mask := syscall.Umask(0)
		syscall.Umask(mask)
		return s.write(hc, "umask", fmt.Sprintf("%04o\n", mask))
	}
	mask, err := strconv.ParseUint(args[0], 8, 9)
	if err != nil {
		return s.fail(hc, 1, "umask: %q: want an octal number", args[0])
	}
	syscall.Umask(int(mask))
	return nil
}

// open opens the files of redirections.
func (s *shell) open(ctx context.Context, path string, flag int, perm os.FileMode) (io.ReadWriteCloser, error) {
	hc := interp.HandlerCtx(ctx)
	if name, ok := strings.CutPrefix(path, adaptedFile); ok {
		source, err := readScript(name)
		if err != nil {
			return nil, err
		}
		return text{strings.NewReader(s.adaptText(string(source)))}, nil
	}
	if name, ok := strings.CutPrefix(path, keptFile); ok {
		f, err := s.open(ctx, name, flag, perm)
		if file, ok := f.(*os.File); ok && err == nil {
			return kept{file}, nil
		}
		return f, err
	}
	if path != "" && path[0] != '/' {
		path = hc.Dir + "/" + path
	}
	if s.view != nil && flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		if f, err, ok := s.view.open(path, flag); ok {
			return f, err
		}
	}
	return os.OpenFile(path, flag, perm)
}

// Prefixes of paths that only adapt and call make: a script that is adapted as it
// is read, and a file that stays open, which the interpreter closes with the
// statement that it is opened in, exec too.
const (
	adaptedFile = "/proc/self/adapted:"
	keptFile    = "/proc/self/kept:"
)

type text struct{ *strings.Reader }

func (text) Write([]byte) (int, error) { return 0, os.ErrInvalid }
func (text) Close() error              { return nil }

type kept struct{ *os.File }

func (kept) Close() error { return nil }

// files are the standard files of a program; kept ones are passed as they are.
func files(hc interp.HandlerContext) (stdin io.Reader, stdout, stderr io.Writer) {
	bare := func(w io.Writer) io.Writer {
		if k, ok := w.(kept); ok {
			return k.File
		}
		return w
	}
	return hc.Stdin, bare(hc.Stdout), bare(hc.Stderr)
}

// findScript finds what `.` is to read: in PATH, where it is not a path, then here.
func findScript(hc interp.HandlerContext, name string) string {
	if !strings.Contains(name, "/") {
		for _, dir := range filepath.SplitList(hc.Env.Get("PATH").String()) {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path
			}
		}
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(hc.Dir, name)
	}
	return name
}

// fail says why on standard error and returns the status.
func (s *shell) fail(hc interp.HandlerContext, status int, format string, args ...any) error {
	fmt.Fprintf(hc.Stderr, "sh: "+format+"\n", args...)
	return exitStatus(status)
}

// exitStatus is a status as the interpreter wants it.
func exitStatus(status int) error {
	if status == 0 {
		return nil
	}
	return interp.NewExitStatus(uint8(status))
}

// builtinNames are for completion.
func builtinNames() []string {
	names := []string{"alias", "cd", "command", "eval", "exec", "exit", "export", "getopts", "local", "pwd", "read", "readonly", "return", "set", "shift", "source", "test", "trap", "type", "unalias", "unset"}
	for name := range builtins {
		if !strings.HasPrefix(name, ownName) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
