package kbuild

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"labctl/host/outcome"
	"labctl/host/text"
)

// MakeError reports that a step of a build failed.
type MakeError struct {
	Step  string // "build", "configure"
	First string // the first line that reports an error; "" if none does
	Log   string // file with the complete output
	Err   error  // how make ended; ENOSPC if the disk was full
}

func (e *MakeError) Error() string {
	what := e.First
	if what == "" {
		what = e.Err.Error()
	}
	if errors.Is(e.Err, syscall.ENOSPC) {
		what = "no space left on the cache's disk; a kernel's objects and symbols need 1 to 2 GB"
	}
	return fmt.Sprintf("%s: %s (log: %s)", e.Step, what, e.Log)
}

func (e *MakeError) Unwrap() error { return e.Err }

// Outcome is that of Err, such as a full disk, else BadInput: the source cannot be
// built as requested.
func (e *MakeError) Outcome() outcome.Kind {
	return outcome.Of(outcome.Default(outcome.BadInput, e.Err))
}

// makeRun is one run of make.
type makeRun struct {
	step  string
	dir   string
	args  []string
	log   *os.File
	count func(object string) // called for each object that make reports
}

// maxLine limits the length of a line of make's output; longer lines are split.
const maxLine = 16 << 10

// object matches kbuild's short command lines, "  CC      kernel/fork.o" and
// "  CC [M]  net/core/pktgen.o" (scripts/Kbuild.include, quiet_cmd).
var object = regexp.MustCompile(`^  (CC|AS|LD|AR|HOSTCC|HOSTLD|CPP|LDS|DTC|BTF|OBJCOPY|ZOFFSET|VOFFSET|BUILD|KSYMS?|NM|GZIP|GEN|MODPOST)(?: \[M\])? +(\S.*)$`)

// wrong and stopped match lines that report an error: a program's message, and
// make's message about it.
var (
	wrong   = regexp.MustCompile(`(?:^|[\s:])(?:fatal )?error(?: \w+)?:|[Ee]rror: |undefined reference to|multiple definition of|cannot find -l|No rule to make target|FAILED|No space left on device|command not found|Killed`)
	stopped = regexp.MustCompile(`\*\*\*`)
)

// firstError records the first line of output that reports an error.
type firstError struct {
	said, make string
	full       bool // the disk was full
}

func (f *firstError) line(s string) {
	if strings.Contains(s, "No space left on device") {
		f.full = true
	}
	switch {
	case f.said == "" && wrong.MatchString(s) && !stopped.MatchString(s):
		f.said = text.Line(strings.TrimSpace(s), 240)
	case f.make == "" && stopped.MatchString(s):
		f.make = text.Line(strings.TrimSpace(s), 240)
	}
}

func (f *firstError) String() string {
	if f.said != "" {
		return f.said
	}
	return f.make
}

// run runs make in its own process group, which is killed when the context ends
// and when labctl ends. All output goes to the log.
func (m makeRun) run(ctx context.Context) error {
	// The parent-death signal is tied to the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fmt.Fprintf(m.log, "$ make %s\n", strings.Join(m.args, " "))
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, "make", m.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = m.dir, w, w, makeEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	// A process of the group that outlives make would keep the pipe open.
	done := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		done <- err
	}()
	var first firstError
	logErr := m.follow(r, &first)
	err = <-done
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(logErr, syscall.ENOSPC), err != nil && first.full:
		err = syscall.ENOSPC
	case err == nil:
		err = logErr
	}
	if err == nil {
		return nil
	}
	return &MakeError{Step: m.step, First: first.String(), Log: m.log.Name(), Err: err}
}

// follow reads the output to its end, even if the log cannot be written.
func (m makeRun) follow(r io.Reader, first *firstError) error {
	var logErr error
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			if _, err := m.log.Write(line); err != nil && logErr == nil {
				logErr = err
			}
			s := strings.TrimRight(string(line), "\r\n")
			if o := object.FindStringSubmatch(s); o != nil && m.count != nil {
				m.count(text.Line(o[2], 60))
			}
			first.line(s)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return logErr
		}
	}
}

// makeEnv returns an environment without variables that would affect the build.
func makeEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(name, "KBUILD_"), strings.HasPrefix(name, "KCONFIG_"), strings.HasPrefix(name, "LC_"), strings.HasPrefix(name, "HOST"):
			continue
		}
		switch name {
		case "ARCH", "CROSS_COMPILE", "CC", "LD", "AS", "CFLAGS", "KCFLAGS", "LDFLAGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "O", "V", "LOCALVERSION", "LANG", "LLVM", "INSTALL_MOD_PATH":
			continue
		}
		env = append(env, e)
	}
	// Each build name has its own directory, whose path is in the debug information;
	// without this, ccache would not share objects between them.
	return append(env, "LC_ALL=C", "CCACHE_NOHASHDIR=1")
}
