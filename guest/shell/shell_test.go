package shell

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is the shell when it is started as one, as labguest is.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "sh" {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

func sh(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Args = append([]string{"sh"}, args...)
	cmd.Dir = t.TempDir()
	return cmd
}

// run returns what a shell printed and its status, as a shell counts them.
func run(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	e := cmd.Run()
	if exit := (*exec.ExitError)(nil); e != nil && !errors.As(e, &exit) {
		t.Fatal(e)
	}
	return out.String(), err.String(), programStatus(e)
}

func TestScripts(t *testing.T) {
	for _, tt := range []struct {
		name, line     string
		stdout, stderr string // stderr is a part
		status         int
	}{
		{name: "exit", line: "exit 7", status: 7},
		{name: "last status", line: "true; false", status: 1},
		{name: "set -e", line: "set -e; false; echo no", status: 1},
		{name: "not found", line: "no-such-command; echo $?", stdout: "127\n", stderr: "sh: no-such-command: not found"},
		{name: "no such path", line: "./none", stderr: "sh: ./none: no such file", status: 127},
		{name: "not executable", line: "echo x >f; ./f", stderr: "sh: ./f: permission denied", status: 126},
		{name: "script without #!", line: "echo 'echo $0 $1' >f; chmod +x f; ./f a; :", stdout: "./f a\n"},
		{name: "no interpreter", line: "echo '#!/no/such' >f; chmod +x f; ./f; exit $?", stderr: "its interpreter", status: 127},
		{name: "syntax", line: "if true; then", stderr: "must be followed", status: 2},
		{name: "killed", line: "sh() { :; }; kill -9 $$", status: 137},
		{name: "child killed", line: "cat /proc/self/stat | true; /bin/sh -c 'kill -TERM $$'; echo $?", stdout: "143\n"},
		{name: "echo", line: `echo -n a; echo -e 'b\tc\x41\c'; echo -ne '\n'; echo -E '\t' "$(echo x)"; echo 'a%d'; echo -e '5%\n6'; echo -x`,
			stdout: "ab\tcA\n\\t x\na%d\n5%\n6\n-x\n"},
		{name: "printf", line: `printf '%s-%03d\n' a 1 b 2; printf -- '%%|%5s|\n' x`, stdout: "a-001\nb-002\n%|    x|\n"},
		{name: "refused write", line: "echo x > /dev/full; echo $?; printf x > /dev/full; echo $?", stdout: "1\n1\n", stderr: "echo: write: no space left on device"},
		{name: "cd and test", line: "mkdir d && cd d && [ -d ../d ] && test 1 -lt 2 && basename $PWD", stdout: "d\n"},
		{name: "here-doc", line: "x=1; cat <<E\na $x $((x+1))\nE\ncat <<'E'\n$x\nE\ncat <<-E\n\ttab\n\tE\n", stdout: "a 1 2\n$x\ntab\n"},
		{name: "pipe", line: "echo hi | tr a-z A-Z | sed 's/H/J/'", stdout: "JI\n"},
		{name: "pipe has own variables", line: "n=0; seq 3 | while read i; do n=$((n+i)); done; echo $n; echo 5 | read n; echo $n", stdout: "0\n0\n"},
		{name: "redirections", line: "echo a >f; echo b >>f; echo c >|g; cat <f g 2>&1; ls none 2>/dev/null; echo e >&2", stdout: "c\n", stderr: "e\n"},
		{name: "descriptor 3", line: "exec 3>f; echo $?; echo x >&3; echo next", stdout: "2\nnext\n", stderr: "descriptor 3: not supported"},
		{name: "function and case", line: `f() { case $1 in a*) echo A$1;; *) return 3;; esac; }; f ab; f b; echo $?`, stdout: "Aab\n3\n"},
		{name: "function instead of ours", line: "echo() { printf 'my %s\\n' \"$1\"; }; echo x", stdout: "my x\n"},
		{name: "loops", line: "for i in 1 2 3; do [ $i = 2 ] && continue; printf $i; done; i=0; while :; do i=$((i+1)); [ $i -gt 3 ] && break; done; echo $i", stdout: "134\n"},
		{name: "globs", line: "touch a1 a2 b; echo a* c*", stdout: "a1 a2 c*\n"},
		{name: "job", line: "sleep 0.05 & p=$!; kill -0 $p && wait $p; echo $?; wait $p; echo $?", stdout: "0\n127\n", stderr: "no such job"},
		{name: "job's status", line: "(exit 3) & wait $!; echo $?; sh -c 'exit 4' & wait %1; echo $?", stdout: "3\n4\n"},
		{name: "job killed", line: "sleep 100 & kill $!; wait $!; echo $?", stdout: "143\n"},
		{name: "job is the program", line: "sleep 100 & until [ $(cat /proc/$!/comm) = sleep ]; do sleep 0.05; done; kill -9 %1; wait $!; echo $?", stdout: "137\n"},
		{name: "job has the shell's state", line: "x='a b'; a=(1 '2 3'); export y=e; f() { echo \"$x|${a[1]}|$1|$(printenv y)|$0|$#\"; }; set -- p q; f \"$2\" & wait; { x=2; } & wait; echo $x",
			stdout: "a b|2 3|q|e|sh|1\na b\n"},
		{name: "jobs at once", line: "for i in 1 2 3; do (echo $i >o$i) & done; wait; cat o*; jobs", stdout: "1\n2\n3\n"},
		{name: "job reads nothing", line: "cat & wait; echo $?", stdout: "0\n"},
		{name: "quotes in a job", line: `f() { echo "it's" 'a"b' & wait; }; f; f & wait`, stdout: "it's a\"b\nit's a\"b\n"},
		{name: "trap exit", line: "trap 'echo bye $?' EXIT; (exit 3)", stdout: "bye 3\n", status: 3},
		{name: "trap a signal", line: "trap 'echo got' USR1 TERM; kill -USR1 $$; echo 'a  b'; kill -TERM $$; true; trap - TERM; kill -TERM $$; sleep 1", stdout: "got\na  b\ngot\n", status: 143},
		{name: "trap ends", line: "trap 'exit 5' TERM; kill -TERM $$; sleep 10; echo no", status: 5},
		{name: "trap ends a wait", line: "trap 'echo got' USR1; sleep 10 & p=$!; (sleep 0.1; kill -USR1 $$) & wait $p; echo $?; kill $p", stdout: "got\n138\n"},
		{name: "trap ignores", line: "trap '' TERM; kill -TERM $$; echo alive; /bin/sh -c 'kill -TERM $$; echo too'", stdout: "alive\ntoo\n"},
		{name: "trap of nothing", line: "trap 'x' NOSUCH; echo $?; trap x KILL; echo $?", stdout: "1\n1\n", stderr: "trap: NOSUCH: no signal"},
		{name: "exec", line: "echo $$; exec sh -c 'echo $$'", stdout: "same"},
		{name: "exec in a subshell", line: "(exec echo a); echo b; (exec sh -c 'exit 3'); echo $?", stdout: "a\nb\n3\n"},
		{name: "exec of nothing", line: "exec no-such-program; echo no", status: 127, stderr: "exec: no-such-program: not found"},
		{name: "exec redirects", line: "exec >f; echo in; cat f >&2", stderr: "in\n"},
		{name: "one program becomes it", line: "sh -c 'echo $PPID' ", stdout: strconv.Itoa(os.Getpid()) + "\n"},
		{name: "dollar zero", line: `echo "$0abc ${0}"; eval 'echo $0'`, stdout: "shabc sh\nsh\n"},
		{name: "kill -l and bad ones", line: "kill -l | grep -c SIG; kill -l | head -n 1; kill x; kill -NOSUCH 1; kill %3; kill", stdout: "0\n 1 HUP\n", status: 2, stderr: "kill: x: not a pid"},
		{name: "umask", line: "umask 077; umask; touch f; stat -c %a f", stdout: "0077\n600\n"},
		{name: "date", line: "[ $(date +%s) -gt 1700000000 ] && date '+%F %T' | grep -Ec '^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}$'; date -u | grep -c UTC", stdout: "1\n1\n"},
		{name: "stty on no terminal", line: "stty -a </dev/null", status: 1, stderr: "stty: standard input is no terminal"},
		{name: "sleep is refused", line: "PATH=/nowhere; sleep x; sleep 0.01 && echo slept; sleep", stdout: "slept\n", stderr: `"x" is no time`, status: 2},
		{name: "unset and parameters", line: `set -- a "b c"; shift; echo "$1" $# ${x:-none} ${1%c}`, stdout: "b c 1 none b\n"},
		{name: "command substitution", line: "x=$(printf 'a\\n\\n'); echo \"[$x]\" `echo back` $(exit 3); y=$(exit 4); echo $?", stdout: "[a] back\n4\n"},
		{name: "source", line: `echo 'echo "$1" $0; x=1; sleep 0.01 & wait $!; return 3' >f; . ./f a; echo $? $x; PATH=.:$PATH; . f b; . ./none; echo $?`, stdout: "a sh\n3 1\nb sh\n1\n", stderr: "none: no such file"},
		{name: "eval", line: "eval 'f() { echo $0 \"$@\"; }; sleep 0.01 &' 'wait $!; f a'; eval 'if'; echo $?", stdout: "sh a\n1\n", stderr: "must be followed"},
		{name: "environment", line: "A=1 sh -c 'echo $A'; B=2; sh -c 'echo [$B]'; export B; sh -c 'echo [$B]'; unset B; sh -c 'echo [$B]'", stdout: "1\n[]\n[2]\n[]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := sh(t, "-c", tt.line)
			bin := filepath.Join(t.TempDir(), "bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(cmd.Path, filepath.Join(bin, "sh")); err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			stdout, stderr, status := run(t, cmd)
			if tt.stdout == "same" {
				if a, b, _ := strings.Cut(strings.TrimSpace(stdout), "\n"); a != b {
					t.Errorf("pids %s and %s; want the same", a, b)
				}
			} else if stdout != tt.stdout {
				t.Errorf("printed %q; want %q", stdout, tt.stdout)
			}
			if status != tt.status || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("status %d, standard error %q; want %d, %q", status, stderr, tt.status, tt.stderr)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	dir := t.TempDir()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shell, script := filepath.Join(dir, "sh"), filepath.Join(dir, "script")
	if err := os.Symlink(path, shell); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!"+shell+" -u\necho \"$0|$1|$#|$*\"\nexit 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, "binary")
	if err := os.WriteFile(long, []byte("\x7fELF\x00\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		stdin  string
		stdout string
		stderr string
		status int
	}{
		{args: []string{script, "a", "b c"}, stdout: script + "|a|2|a b c\n", status: 5},
		{args: []string{"-c", script + " x"}, stdout: script + "|x|1|x\n", status: 5}, // by its first line
		{args: []string{"-c", `echo "$0|$1"`, "name", "x"}, stdout: "name|x\n"},
		{args: []string{"-ec", "false; echo no"}, status: 1},
		{args: []string{"-e", "-c", "false; echo no"}, status: 1},
		{args: []string{"-o", "errexit", "-c", "false; echo no"}, status: 1},
		{args: []string{"-x", "-c", "echo a"}, stdout: "a\n", stderr: "+ echo a"},
		{args: []string{"-Z", "-c", "echo a"}, stderr: "invalid option", status: 2},
		{args: []string{"-c"}, stderr: "-c: give a line", status: 2},
		{args: []string{"--trace-log"}, stderr: "--trace-log: give a file", status: 2},
		{args: []string{filepath.Join(dir, "none")}, stderr: "no such file", status: 127},
		{args: []string{dir}, stderr: "is a directory", status: 126},
		{args: []string{long}, stderr: "not a script", status: 126},
		{stdin: "echo a\nread x\nline\necho \"got $x\"\nfor i in 1 2\ndo echo $i\ndone\ncat <<E\ndoc\n\nif two\nE\necho b \\\nc\n\n# comment\nexit 4\necho no\n",
			stdout: "a\ngot line\n1\n2\ndoc\n\nif two\nb c\n", status: 4},
		{stdin: "echo no newline", stdout: "no newline\n"},
		{stdin: "trap 'echo bye' EXIT\nfalse\n", stdout: "bye\n", status: 1},
		{stdin: "echo a; )\necho b $?\n", stdout: "b 2\n", stderr: "sh:1:"},
		{stdin: "if true; then\n", stderr: "sh:1:", status: 2},
		{stdin: "cat\nrest\n", stdout: "rest\n"},
	} {
		t.Run(strings.Join(tt.args, " ")+tt.stdin[:min(8, len(tt.stdin))], func(t *testing.T) {
			cmd := sh(t, tt.args...)
			cmd.Stdin = strings.NewReader(tt.stdin)
			stdout, stderr, status := run(t, cmd)
			if stdout != tt.stdout || status != tt.status || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("printed %q, status %d, standard error %q; want %q, %d, %q", stdout, status, stderr, tt.stdout, tt.status, tt.stderr)
			}
		})
	}
}

// The view is handed on to the shells that a script starts, and to its jobs.
func TestViewIsHandedOn(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	cmd := sh(t, "--trace-compat", "--trace-log", log, "-c", "printenv "+envTraceCompat+" "+envTraceLog+"; printenv "+envTraceLog+" & wait")
	stdout, stderr, status := run(t, cmd)
	if want := "1\n" + log + "\n" + log + "\n"; stdout != want || status != 0 {
		t.Errorf("printed %q (%s), status %d; want %q, 0", stdout, stderr, status, want)
	}
}

func TestFormatTime(t *testing.T) {
	at := time.Date(2026, 3, 8, 9, 5, 7, 42, time.UTC)
	for format, want := range map[string]string{
		"%F %T": "2026-03-08 09:05:07", "%s.%N": "1772960707.000000042", "%j %u %w %V %G": "067 7 0 10 2026",
		"%a %b %e %H:%M:%S %Z %Y": "Sun Mar  8 09:05:07 UTC 2026", "%%%n%t%q%": "%\n\t%q%", "%D %R %p %I %k %C %y": "03/08/26 09:05 AM 09  9 20 26",
	} {
		if got := formatTime(at, format); got != want {
			t.Errorf("formatTime(%q) = %q; want %q", format, got, want)
		}
	}
}

// terminal is a shell on a pseudo-terminal.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	output chan []byte
	seen   string // and not waited for yet
	all    string
}

func openTerminal(t *testing.T, dir string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var name string
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		n, _ := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		name = "/dev/pts/" + strconv.Itoa(n)
		unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	})
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	x := &terminal{t: t, cmd: sh(t), master: master, output: make(chan []byte, 64)}
	x.cmd.Dir, x.cmd.Env = dir, append(os.Environ(), "TERM=xterm")
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(x.output)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if n > 0 {
				x.output <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	x.wait(" # ")
	return x
}

// wait reads until the text comes, and drops all before its end.
func (x *terminal) wait(text string) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	for {
		if i := strings.Index(x.seen, text); i >= 0 {
			x.seen = x.seen[i+len(text):]
			return
		}
		select {
		case b, ok := <-x.output:
			if !ok {
				x.t.Fatalf("the shell ended; waited for %q in %q at the end of\n%s", text, x.seen, x.all)
			}
			x.seen += string(b)
			x.all += string(b)
		case <-ctx.Done():
			x.t.Fatalf("waited for %q in %q at the end of\n%s", text, x.seen, x.all)
		}
	}
}

func (x *terminal) keys(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// line types keys and waits for what a command prints, on a line of its own, and
// for the next prompt.
func (x *terminal) line(keys, want string) {
	x.t.Helper()
	x.keys(keys)
	x.wait("\n" + want)
	x.wait(" # ")
}

func (x *terminal) end(status int) {
	x.t.Helper()
	go func() {
		for range x.output {
		}
	}()
	if got := programStatus(x.cmd.Wait()); got != status {
		x.t.Errorf("the shell ended with %d; want %d", got, status)
	}
}

const (
	up, down, left, right = "\x1b[A", "\x1b[B", "\x1b[D", "\x1b[C"
)

func TestTerminal(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"long-name-a", "long-name-b", "other-file"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("inside "+name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x := openTerminal(t, dir)
	x.line("echo $((40+2))\r", "42")
	x.line("echo ac"+left+"b\r", "abc")
	x.line("echo $((50+5))\r", "55")
	x.line(up+up+up+"\r", "42")
	x.line(up+up+down+"\r", "42")
	x.line("echo x$((1+1))"+"\x01"+"\x0b"+"echo y$((2+2))\r", "y4") // Ctrl-A, Ctrl-K

	// Tab: a command, a file, several files.
	x.line("unalia\tx; printf 'st%s\\n' $?\r", "st0")
	x.line("cat oth\t\r", "inside other-file")
	x.keys("cat lo\t\t")
	x.wait("long-name-a  long-name-b")
	x.line("a\r", "inside long-name-a")

	// Ctrl-C abandons a line, also one that goes on.
	x.keys("exit 9\x03")
	x.wait(" # ")
	x.line("echo st$?\r", "st130")
	x.keys("for i in 1 2\r")
	x.wait("> ")
	x.keys("do exit 9\x03")
	x.wait(" # ")
	x.keys("for i in 1 2\r")
	x.wait("> ")
	x.line("do echo i$i; done\r", "i1")

	// Ctrl-C ends a program, a builtin, a loop.
	for _, command := range []string{"sleep 1000", "while :; do :; done", "sleep 1000 & wait"} {
		x.keys("echo be''gin; " + command + "; echo running\r")
		x.wait("\nbegin") // the keys are the foreground's from here on
		x.keys("\x03")
		x.wait(" # ")
		x.line("echo st$?\r", "st130")
	}
	x.line("kill %1; wait; echo e''nd\r", "end")

	// Ctrl-R finds an old line, and an older one.
	x.line("bc\x12\r", "abc")

	x.line("stty size\r", "24 80")
	raw, err := x.master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132})
	})
	x.line("stty size\r", "50 132")
	x.line("stty -a | grep -c 'icanon.* echo '\r", "1")
	x.line("stty -echo; stty -a | grep -c -- ' -echo '; stty sane\r", "1")

	// A program that reads from the terminal gets its line.
	x.keys("read a; echo got $a\r")
	x.keys("typed\r") // too early or not
	x.wait("got typed")
	x.wait(" # ")

	// A job that ended is reported before a prompt.
	x.keys("sh -c 'exit 3' &\r")
	x.wait("[1] ")
	x.wait(" # ")
	x.line("wait; sleep 0.2\r", "")
	x.keys("false\r")
	x.wait(" # ")
	x.keys("\x04")
	x.end(1)
}

// stop types Ctrl-Z when a program has the terminal's keys.
func (x *terminal) stop() {
	x.t.Helper()
	raw, err := x.master.SyscallConn()
	if err != nil {
		x.t.Fatal(err)
	}
	for pgrp, end := x.cmd.Process.Pid, time.Now().Add(time.Minute); pgrp == x.cmd.Process.Pid; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("no program has the foreground at the end of\n%s", x.all)
		}
		raw.Control(func(fd uintptr) { pgrp, err = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
		if err != nil {
			x.t.Fatal(err)
		}
	}
	x.keys("\x1a")
}

// TestJobControl: Ctrl-Z, jobs, fg, bg and kill %N, as in other shells.
func TestJobControl(t *testing.T) {
	x := openTerminal(t, t.TempDir())

	// A program that is stopped is a job, and its terminal is the shell's again.
	x.keys("echo be''gin; cat; echo not run\r")
	x.wait("\nbegin")
	x.stop()
	x.wait("[1]  Stopped      cat")
	x.wait(" # ")
	x.line("echo st$?\r", "st148")
	x.keys("jobs\r")
	x.wait(" Stopped      cat")
	x.wait(" # ")
	x.keys("fg\r")
	x.wait("\ncat\r\n")
	x.keys("typed\r")
	x.wait("typed\r\ntyped")
	x.stop()
	x.wait("[1]  Stopped")
	x.wait(" # ")
	x.keys("fg %1\r")
	x.wait("\ncat\r\n")
	x.keys("\x04")
	x.wait(" # ")
	x.line("echo st$?; jobs\r", "st0")

	// A pipeline is one job, that goes on in the background, and is killed as a whole.
	x.keys("echo be''gin; sleep 1000 | cat\r")
	x.wait("\nbegin")
	x.stop()
	x.wait("[1]  Stopped      sleep 1000 | cat")
	x.wait(" # ")
	x.keys("bg\r")
	x.wait("[1] sleep 1000 | cat &")
	x.wait(" # ")
	x.keys("jobs\r")
	x.wait(" Running      sleep 1000 | cat")
	x.wait(" # ")
	x.line("kill %1; wait; echo e''nd\r", "end")

	// A loop ends where it was stopped, and a job that is stopped can be killed.
	x.keys("for i in 1 2 3; do echo i$i; sleep 1000; done\r")
	x.wait("\ni1")
	x.stop()
	x.wait(" # ")
	x.line("kill %1; wait; echo st$?\r", "st0")
	if strings.Contains(x.all, "\ni2") {
		t.Errorf("the loop went on:\n%s", x.all)
	}

	// The modes of the terminal are those of who has it.
	x.keys("sh -c 'stty -echo; kill -STOP $$; stty -a | grep -c -- \" -echo \"'\r")
	x.wait("Stopped")
	x.wait(" # ")
	x.line("stty -a | grep -c ' echo '\r", "1")
	x.line("fg\r", "sh -c")
	x.line("stty echo; stty -a | grep -c ' echo '\r", "1")

	// What reads in the background is stopped, which is said.
	x.keys("cat &\r")
	x.wait("[1] ")
	for range 100 {
		x.keys("\r")
		x.wait(" # ")
		if strings.Contains(x.all[strings.LastIndex(x.all, "cat &"):], "[1]  Stopped      cat") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	x.keys("fg\r")
	x.wait("\ncat\r\n")
	x.keys("\x03")
	x.wait(" # ")
	x.line("echo st$?\r", "st130")
	x.keys("fg\r")
	x.wait("fg: %%: no such job")
	x.wait(" # ")
	x.keys("exit 4\r")
	x.end(4)
}

func TestTerminalExit(t *testing.T) {
	x := openTerminal(t, t.TempDir())
	x.line("trap 'echo b''ye' EXIT; echo o''k\r", "ok")
	x.keys("exit 3\r")
	x.wait("\nbye")
	x.end(3)
}

func TestPrompt(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	want := regexp.QuoteMeta(unix.ByteSliceToString(u.Release[:])) + "( " + unix.ByteSliceToString(u.Machine[:]) + ")? /x # "
	if got := prompt("/x"); !regexp.MustCompile("^" + want + "$").MatchString(got) {
		t.Errorf("prompt = %q; want %q", got, want)
	}
}

func TestHistory(t *testing.T) {
	var h history
	for _, line := range []string{"a", "", "  ", "b", "b", "a"} {
		h.Add(line)
	}
	if got := strings.Join(h.lines, ","); got != "a,b,a" {
		t.Errorf("history = %s; want a,b,a", got)
	}
	for i := range 2 * maxHistory {
		h.Add(strconv.Itoa(i))
	}
	if h.Len() != maxHistory || h.At(0) != strconv.Itoa(2*maxHistory-1) {
		t.Errorf("history has %d lines, the last %q", h.Len(), h.At(0))
	}
}

// What can be parsed can be parsed when it is adapted.
func FuzzAdapt(f *testing.F) {
	for _, seed := range []string{"a & b | read x; exec 3>&1", "f() { echo 'it\\''s' $0abc & }; f", "cat <<E &\nx\nE\n", "(exec a); x=$(b &)", "coproc x; a <>b", "exec >f <&-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := &shell{declared: map[string]bool{}}
		if _, err := s.parse("fuzz", []byte(text)); err != nil {
			return
		}
		if adapted := s.adaptText(text); adapted != text {
			if _, err := s.parse("again", []byte(adapted)); err != nil {
				t.Errorf("%q became %q: %v", text, adapted, err)
			}
		}
	})
}

// TestKillStarting: a signal finds a job whenever it comes, while its process is
// still a shell or already the program; and a job's own trap has it.
func TestKillStarting(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"at once", `n=0; while [ $n -lt 30 ]; do n=$((n+1)); sleep 60 & kill $!; wait $!; echo $?; done`, strings.Repeat("143\n", 30)},
		{"soon", `n=0; while [ $n -lt 20 ]; do n=$((n+1)); sleep 60 & sleep 0.0$n; kill $!; wait $!; echo $?; done`, strings.Repeat("143\n", 20)},
		{"trap", `(trap 'echo caught; : >down' TERM; : >up; while [ ! -e down ]; do sleep 0.05; done) & while [ ! -e up ]; do sleep 0.05; done; kill $!; wait $!; echo $?`, "caught\n0\n"},
		{"trap reset", `(trap 'exit 9' TERM; trap - TERM; : >up; while :; do sleep 0.05; done) & while [ ! -e up ]; do sleep 0.05; done; kill $!; wait $!; echo $?`, "143\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out, err, _ := run(t, sh(t, "-c", tt.script)); out != tt.want {
				t.Errorf("printed %q, and %q to standard error; want %q", out, err, tt.want)
			}
		})
	}
}
