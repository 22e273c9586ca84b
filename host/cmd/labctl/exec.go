package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"labctl/guest/wire"
	"labctl/host/image/program"
	"labctl/host/machine"
	"labctl/host/targets"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

type execOptions struct {
	spec    machine.Spec
	env     []string
	files   []string
	gets    []string
	dir     string
	out     string
	timeout time.Duration

	cwd string // where a test is at home; empty: where labctl is
}

func (a *app) execCmd() *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:   "exec [flags] -- PROG [ARGS]",
		Short: "Run a program in a guest",
		Long: `Boot a kernel, run one program in it, and pass on its standard files and its
exit status. PROG is one of

  ./prog              a static program for Linux
  ./cmd/x, ./x.go     a folder with Go source, or a Go file, or the path of a
  example.com/x       package: built for the guest, without cgo
  ./x.sh              a shell script, by its name or its first line
  ls                  a command of u-root's in the guest

A Go test binary (x.test, as go test -exec hands it over) runs in a copy of the
folder that it runs in here, with testdata and the files beside it, at most
64 MB; of the folders above it, up to the module's, testdata and go.mod are there,
too. Profiles that its flags name (-test.coverprofile and the like) are brought
back, and so are inputs that fuzzing has found (-test.fuzz).

No path of this host is known in the guest. A test that looks for files where
its source was (runtime.Caller) finds them with --file "$PWD:$PWD".

The first Ctrl-C, or SIGTERM, SIGHUP, SIGQUIT, goes to the program; the next
one ends the guest.

The exit status is the program's, 128+N when signal N ended it. 124: --timeout
has passed; 125: labctl could not run it; 126: the guest crashed, or cannot
execute PROG; 127: no such program in the guest.`,
		Example: `  labctl exec --arch arm64 -- ./hello
  labctl exec --kernel 5.10 -- ./cmd/server -v
  labctl exec --arch arm64 --file input.bin --get output.bin -- ./convert input.bin output.bin
  GOARCH=arm64 go test -exec 'labctl exec --' ./...`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.exec(c.Context(), o, args); err != nil {
				return execError{err}
			}
			return nil
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return execError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	programFlags(c, &o)
	return c
}

// programFlags are the flags of commands that run one program.
func programFlags(c *cobra.Command, o *execOptions) {
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.SetInterspersed(false) // what follows PROG is PROG's
	f.StringArrayVar(&o.env, "env", nil, "K=V for the program's environment, or K for this one's value; may be given again")
	f.StringArrayVar(&o.files, "file", nil, "HOST[:GUEST]: a file or folder that the guest gets; may be given again")
	f.StringArrayVar(&o.gets, "get", nil, "GUEST[:HOST]: a file or folder to bring back; may be given again")
	f.StringVar(&o.dir, "dir", "", "run in this folder of the guest; relative GUEST paths are below it")
	f.StringVar(&o.out, "out", "", "keep console.log and qemu.txt in this folder")
	f.DurationVar(&o.timeout, "timeout", 0, "end the guest after this long, boot included")
}

// exec runs one program. The signals of its time are its own to handle, so that
// the first can be the program's.
func (a *app) exec(ctx context.Context, o execOptions, argv []string) (err error) {
	if len(argv) == 0 {
		return errors.New("which program? write labctl exec [flags] -- PROG [ARGS]")
	}
	if !a.progress.terminal {
		a.progress.quiet = true
	}
	ctx, signals := newRelay(context.WithoutCancel(ctx))
	defer signals.stop()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errDeadline)
		defer cancel()
	}
	if o.spec.Arch == "" && o.spec.Board == "" {
		if t, ok := targets.Find(program.Arch(argv[0])); ok {
			o.spec.Arch = t.Name
		}
	}
	if err := a.settle(&o.spec); err != nil {
		return err
	}
	tgt, err := machine.FindTarget(o.spec.Arch, o.spec.Board)
	if err != nil {
		return err
	}
	prog, err := program.Find(ctx, argv[0], tgt.Arch)
	if err != nil {
		return err
	}
	defer prog.Close()
	job, err := newJob(prog, argv, o)
	if err != nil {
		return err
	}
	v, done, err := a.bootFor(ctx, o, prog)
	if err != nil {
		return err
	}
	defer func() { err = done(err) }()

	res, err := a.runIn(v, job, signals)
	if err != nil {
		return v.Why(err)
	}
	a.explainKill(v, res)
	// Whatever the program's end, what it has written may tell why.
	if err := program.Fetch(v.Context(), v.Agent(), job.outputs); err != nil {
		if status := statusOf(res); status != nil {
			a.report(v.Why(err))
			return status
		}
		return v.Why(err)
	}
	return statusOf(res)
}

// job is all that a guest has to be given to run a program.
type job struct {
	name    string // of the program, as the user gave it
	params  wire.ExecParams
	bundle  program.Bundle
	outputs []program.Output
	noInput bool // it leaves standard input to what comes after it
}

func newJob(prog *program.Program, argv []string, o execOptions) (*job, error) {
	cwd := o.cwd
	if cwd == "" {
		var err error
		if cwd, err = os.Getwd(); err != nil {
			return nil, err
		}
	}
	args := argv[1:]
	start := []string{prog.Argv0}
	if prog.Script {
		start = []string{program.Shell, prog.Argv0}
	}
	j := &job{name: argv[0], params: wire.ExecParams{Argv: append(start, args...), Dir: "/"}}
	if prog.File != "" {
		if err := j.bundle.AddProgram(prog); err != nil {
			return nil, err
		}
	}
	switch {
	case o.dir != "":
		j.params.Dir = path.Join("/", o.dir)
		j.bundle.AddFolder(j.params.Dir)
	case prog.Test:
		root := program.ModuleRoot(cwd)
		rel, err := filepath.Rel(root, cwd)
		if err != nil {
			return nil, err
		}
		j.params.Dir = path.Join(program.WorkDir, rel)
		if err := j.bundle.AddAbove(root, cwd, program.WorkDir, program.MaxTestFiles); err != nil {
			return nil, err
		}
		if err := j.bundle.AddTestDir(cwd, j.params.Dir, program.MaxTestFiles); err != nil {
			return nil, err
		}
	}
	for _, f := range o.files {
		host, guest, _ := strings.Cut(f, ":")
		if host == "" {
			return nil, fmt.Errorf("--file %s: want HOST or HOST:GUEST", f)
		}
		if guest == "" || strings.HasSuffix(guest, "/") {
			guest += filepath.Base(host)
		}
		if err := j.bundle.Add(host, inGuest(j.params.Dir, guest)); err != nil {
			return nil, fmt.Errorf("--file %s: %w", f, err)
		}
	}
	for _, g := range o.gets {
		out, err := getOutput(g, j.params.Dir)
		if err != nil {
			return nil, err
		}
		j.outputs = append(j.outputs, out)
	}
	if prog.File != "" && !prog.Script {
		outs, args := program.TestOutputs(args, cwd, j.params.Dir)
		if err := j.bundle.AddOutputs(outs, program.MaxTestFiles); err != nil {
			return nil, err
		}
		j.params.Argv = append(j.params.Argv[:1], args...)
		j.outputs = append(j.outputs, outs...)
	}
	for _, kv := range o.env {
		name, _, given := strings.Cut(kv, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %s: want K=V or K", kv)
		}
		if !given {
			value, there := os.LookupEnv(name)
			if !there {
				continue
			}
			kv = name + "=" + value
		}
		j.params.Env = append(j.params.Env, kv)
	}
	return j, nil
}

func inGuest(dir, name string) string {
	if !path.IsAbs(name) {
		name = path.Join(dir, name)
	}
	return path.Clean(name)
}

// getOutput reads --get. A HOST that is a folder, or ends in a slash, gets the
// file under its own name, as with cp.
func getOutput(flag, dir string) (program.Output, error) {
	guest, host, _ := strings.Cut(flag, ":")
	o := program.Output{Flag: "--get", Guest: inGuest(dir, guest), File: true, Folder: true, Must: true}
	base := path.Base(o.Guest)
	if guest == "" || base == "/" {
		return o, fmt.Errorf("--get %s: want GUEST or GUEST:HOST, and no whole guest", flag)
	}
	if host == "" {
		host = base
	} else if fi, err := os.Stat(host); strings.HasSuffix(host, "/") || err == nil && fi.IsDir() {
		host = filepath.Join(host, base)
	}
	var err error
	if o.Host, err = filepath.Abs(host); err != nil {
		return o, err
	}
	// Known now and not after the run.
	if fi, err := os.Stat(filepath.Dir(o.Host)); err != nil || !fi.IsDir() {
		return o, fmt.Errorf("--get %s: there is no folder %s on this host", flag, filepath.Dir(o.Host))
	}
	return o, nil
}

// bootFor gives a running guest, and what ends it and tidies up.
func (a *app) bootFor(ctx context.Context, o execOptions, prog *program.Program) (_ *vm.VM, done func(error) error, err error) {
	env, err := a.env()
	if err != nil {
		return nil, nil, err
	}
	// Tests and scripts run the commands that every system has.
	o.spec.Commands = prog.File == "" || prog.Test || prog.Script
	m, err := machine.Prepare(ctx, env, o.spec)
	if err != nil {
		return nil, nil, err
	}
	dir, keep, err := a.logs(&env, o.out, "exec")
	if err != nil {
		return nil, nil, err
	}
	a.say(fmt.Sprintf("starting %s on %s (%s)", m.Kernel, m.Target.Name, m.Verdict.Accel))
	v, err := m.Boot(ctx, env, dir, nil)
	if err != nil {
		return nil, nil, errors.Join(err, keep(err))
	}
	return v, func(err error) error {
		err = errors.Join(err, v.Close())
		return errors.Join(err, keep(err))
	}, nil
}

// runIn sends what the program needs and runs it.
func (a *app) runIn(v *vm.VM, j *job, signals *relay) (wire.ExecResult, error) {
	if err := j.bundle.Send(v.Context(), v.Agent()); err != nil {
		return wire.ExecResult{}, err
	}
	return a.runSent(v.Context(), v, j, signals, a.stdout, a.stderr)
}

// runSent runs a program that the guest has, until ctx ends.
func (a *app) runSent(ctx context.Context, v *vm.VM, j *job, signals *relay, stdout, stderr io.Writer) (wire.ExecResult, error) {
	std := agent.IO{Stdout: stdout, Stderr: stderr, Started: signals.to}
	if isTerminal(stdout) {
		std.Stdout = text.NewWriter(stdout)
	}
	if isTerminal(stderr) {
		std.Stderr = text.NewWriter(stderr)
	}
	if a.stdin != nil && !j.noInput {
		std.Stdin = a.stdin
	}
	res, err := v.Agent().Exec(ctx, j.params, std)
	signals.to(nil)
	return res, j.refused(res, err)
}

// refused is the error of a run, which may be that the guest cannot start it.
func (j *job) refused(res wire.ExecResult, err error) error {
	var refused *agent.GuestError
	if errors.As(err, &refused) && res.Errno != 0 {
		return notRunError{j.name, syscall.Errno(res.Errno)}
	}
	return err
}

// relay passes one signal on to the program, while there is one. Every other
// ends the context that it came with.
type relay struct {
	ch  chan os.Signal
	end context.CancelCauseFunc

	mu   sync.Mutex
	call *agent.Call // that gets the next signal
}

func newRelay(ctx context.Context) (context.Context, *relay) {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &relay{ch: make(chan os.Signal, 4), end: cancel}
	signal.Notify(r.ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		for s := range r.ch {
			r.take(s.(syscall.Signal))
		}
	}()
	return ctx, r
}

func (r *relay) take(sig syscall.Signal) {
	r.mu.Lock()
	call := r.call
	r.call = nil
	r.mu.Unlock()
	if call == nil {
		r.end(interrupted{sig})
		return
	}
	// In the background: a guest that hangs takes nothing from the link.
	go call.Control(wire.Control{Signal: int(sig)})
}

// to names the program that gets the next signal, nil for none.
func (r *relay) to(call *agent.Call) {
	r.mu.Lock()
	r.call = call
	r.mu.Unlock()
}

func (r *relay) stop() {
	signal.Stop(r.ch)
	close(r.ch)
	r.end(nil)
}
