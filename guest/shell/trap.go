package shell

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// traps are those of signals; EXIT and ERR are the interpreter's. A signal's code
// runs before the next command.
type traps struct {
	pending chan os.Signal

	mu   sync.Mutex
	code map[syscall.Signal]string
	came []syscall.Signal

	// handlers are the Go runtime's, of signals that unhandled gave back.
	handlers map[syscall.Signal]sigaction
}

// sigaction is the kernel's struct of that name, whose layout and size are the
// architecture's; the first word is the handler, of which 0 is the default.
type sigaction [8]uint64

// deadly are the signals that the Go runtime handles only to die of them.
var deadly = []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM}

// unhandled lets the kernel deal with those signals, by their default. A thread
// that is in the runtime's handler when another one calls execve is killed there,
// and the signal is lost: the program that is to take this process's place would
// live on.
func (t *traps) unhandled() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handlers = map[syscall.Signal]sigaction{}
	for _, sig := range deadly {
		var was, none sigaction
		if changeAction(sig, nil, &was) == nil && uintptr(was[0]) > 1 && changeAction(sig, &none, nil) == nil {
			t.handlers[sig] = was
		}
	}
}

// handled undoes unhandled for a signal that the runtime is to be told of.
func (t *traps) handled(sig syscall.Signal) {
	if was, ok := t.handlers[sig]; ok && changeAction(sig, &was, nil) == nil {
		delete(t.handlers, sig)
	}
}

// changeAction is rt_sigaction(2).
func changeAction(sig syscall.Signal, new, old *sigaction) error {
	const setSize = 8 // bytes of the kernel's sigset_t
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(new)), uintptr(unsafe.Pointer(old)), setSize, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// set is the builtin trap without what the interpreter does itself, which it
// gives back as the arguments of that.
func (t *traps) set(ctx context.Context, args []string) (rest []string, err error) {
	hc := interp.HandlerCtx(ctx)
	args = slices.Clone(args)
	if len(args) > 1 && args[1] == "--" {
		args = slices.Delete(args, 1, 2)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(args) < 2 {
		for sig, code := range t.code {
			fmt.Fprintf(hc.Stdout, "trap -- %s %s\n", quote(code), signalName(sig))
		}
		return args, nil
	}
	// trap SIGNAL alone, and trap N..., reset.
	code, names := args[1], args[2:]
	if _, isSignal := signalByName(code); len(names) == 0 || isSignal && code[0] >= '0' && code[0] <= '9' {
		code, names = "-", args[1:]
	}
	var own []string
	for _, name := range names {
		if name == "EXIT" || name == "0" || name == "ERR" {
			own = append(own, strings.Replace(name, "0", "EXIT", 1))
			continue
		}
		sig, ok := signalByName(name)
		if !ok || sig == unix.SIGKILL || sig == unix.SIGSTOP {
			return nil, fmt.Errorf("trap: %s: no signal to be trapped", name)
		}
		if t.code == nil {
			t.code = map[syscall.Signal]string{}
		}
		delete(t.code, sig)
		switch code {
		case "-":
			signal.Reset(sig)
		case "": // programs ignore it too
			signal.Ignore(sig)
		default:
			t.code[sig] = code
			t.handled(sig)
			signal.Notify(t.pending, sig)
		}
	}
	if len(own) == 0 {
		return []string{"true"}, nil
	}
	return append([]string{"trap", "--", code}, own...), nil
}

// note keeps a signal for due.
func (t *traps) note(sig os.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := sig.(syscall.Signal); ok && !slices.Contains(t.came, n) {
		t.came = append(t.came, n)
	}
}

// await waits for a signal that the shell has sent itself, if there is code for
// it: that is to run before the next command (kill(2) promises as much).
func (t *traps) await(sig syscall.Signal) {
	t.mu.Lock()
	has := t.code[sig] != ""
	t.mu.Unlock()
	deadline := time.After(time.Second)
	for has {
		select {
		case came := <-t.pending:
			t.note(came)
			has = came != sig
		case <-deadline:
			return
		}
	}
}

// due returns the code of the signals that have come, once.
func (t *traps) due() string {
	for more := true; more; {
		select {
		case sig := <-t.pending:
			t.note(sig)
		default:
			more = false
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var code []string
	for _, sig := range t.came {
		if c := t.code[sig]; c != "" {
			code = append(code, c)
		}
	}
	t.came = nil
	return strings.Join(code, "\n")
}

// signalByName takes INT, SIGINT and 2.
func signalByName(name string) (syscall.Signal, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return syscall.Signal(n), n >= 0 && n <= 64
	}
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	return sig, sig != 0
}

// signalName is INT for SIGINT.
func signalName(sig syscall.Signal) string {
	return strings.TrimPrefix(unix.SignalName(sig), "SIG")
}
