// Command labctl boots real kernels under QEMU, runs probes in them and shows
// how they make tasks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"labctl/host/outcome"
)

// wantAddresses is the address space below which Go's threads or QEMU cannot be started,
// in bytes. It is about twice the VmPeak that labctl and QEMU have on two CPUs: each thread
// reserves its stack and an arena of the C library.
const wantAddresses = 4 << 30

func main() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &limit); err == nil && limit.Cur < wantAddresses {
		fmt.Fprintf(os.Stderr, "labctl: the address space is limited to %d MB, and %d are needed: raise ulimit -v\n", limit.Cur>>20, wantAddresses>>20)
		os.Exit(outcome.HostLacks.ExitStatus())
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is labctl without its process: arguments to exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := onSignals()
	defer stop()
	out := &stream{Writer: stdout}
	a := &app{stdin: stdin, stdout: out, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var signal *outcome.SignalError
	if err != nil && !a.runsProgram && errors.As(context.Cause(ctx), &signal) {
		err = signal // what was interrupted reports all sorts of things
	}
	if err == nil {
		err = out.failed()
	}
	return a.finish(err)
}

// onSignals ends the context at the first signal, so that everything is cleaned
// up. A second one has its usual effect; QEMU dies with labctl in any case.
func onSignals() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case s := <-ch:
			signal.Stop(ch)
			cancel(&outcome.SignalError{Signal: s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(ch); cancel(nil) }
}
