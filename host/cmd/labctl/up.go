package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/bounded"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/registry"
	"labctl/host/session"
	"labctl/host/strictjson"
	"labctl/host/text"
)

// defaultIdle is how long a machine in the background is kept without use, so that
// none runs for ever.
const defaultIdle = 30 * time.Minute

type upOptions struct {
	spec   machine.Spec
	detach bool
	idle   time.Duration
	out    string
	gdb    bool
}

func (a *app) upCmd() *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:   "up [NAME]",
		Short: "Start a machine and keep it for other commands",
		Long: `Start a machine and keep it under a name until Ctrl-C. Other commands, in other
terminals, use it by the name: sh, exec --in and trace --in run programs in it, one
after another or at the same time; vm ls lists it, down ends it. What was translated
of the kernel and of programs stays, so that the second run of a program takes a
fraction of the first.

--detach starts it in the background and returns when it is up. It powers off when
no command has used it for half an hour, or for as long as --idle says. The machine
ends with the labctl that keeps it, whatever ends that.

Without NAME the machine is called as its architecture or board is, or the checkpoint that
it starts from.`,
		Example: `  labctl up lab --arch arm64
  labctl up lab --kernel 5.10 --detach
  labctl sh lab
  labctl exec --in lab -- ./prog
  labctl down lab`,
		Args: atMostOne("a machine's name"),
		RunE: func(c *cobra.Command, args []string) error { return a.up(c.Context(), o, args) },
	}
	machineFlags(c, &o.spec)
	f := c.Flags()
	f.BoolVarP(&o.detach, "detach", "d", false, "keep the machine in the background")
	timeFlag(f, &o.idle, "idle", "power off when it has not been used for this long (default: 30m with --detach, else never)")
	f.StringVar(&o.out, "out", "", "keep a run record in this directory: run.json, console.log, qemu.txt")
	f.BoolVar(&o.gdb, "gdb", false, "write a vmlinux for gdb, and open QEMU's gdbstub on a socket (see labctl gdb)")
	return c
}

// atMostOne is Args of a command that takes one argument or none.
func atMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return outcome.Inputf("%s takes %s, got %q", c.CommandPath(), what, strings.Join(args, " "))
		}
		return nil
	}
}

func (a *app) up(ctx context.Context, o upOptions, args []string) error {
	name, err := o.name(args)
	if err != nil {
		return err
	}
	if err := registry.CheckFree(ctx, name); err != nil {
		return err
	}
	parent := takeParent()
	if o.detach && parent == nil {
		return a.detach(ctx, name)
	}
	if o.detach && o.idle == 0 {
		o.idle = defaultIdle
	}
	err = a.keep(ctx, o, name, parent)
	if parent != nil {
		parent.failed(err)
		if err == nil {
			registry.DropLog(name)
		}
	}
	return err
}

// name is the machine's name.
func (o *upOptions) name(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], registry.CheckName(args[0])
	}
	if o.spec.From != "" {
		return o.spec.From, registry.CheckName(o.spec.From)
	}
	t, err := machine.FindTarget(o.spec.Arch, o.spec.Board)
	return t.Name, err
}

// keep starts the machine and keeps it.
func (a *app) keep(ctx context.Context, o upOptions, name string, parent *parent) error {
	env, err := a.env()
	if err != nil {
		return err
	}
	var server *gdbServer
	err = session.Up(ctx, env, session.UpOptions{
		Options: session.Options{
			Name: "up", Machine: name, Idle: o.idle,
			Out: o.out, Keep: session.KeepTrouble, Spec: o.spec,
			FailOn: record.FailOnNone, // what the kernel reports fails the programs of its time
		},
		Ready: func(s *session.Session, info registry.Info) error {
			ready := fmt.Sprintf("%s is up: %s on %s, in %.1f s; next: labctl sh %s, labctl exec --in %s -- PROG, labctl down %s",
				name, info.Kernel.Release, info.Target, s.VM.BootTime().Seconds(), name, name, name)
			if o.gdb {
				g, err := a.ownGuest(ctx, s)
				if err != nil {
					return err
				}
				server, err = a.serveGDB(ctx, s.VM, g)
				if err := errors.Join(err, g.Close()); err != nil {
					return err
				}
				ready += "; for gdb: " + server.usage()
			}
			if parent != nil {
				return parent.ready(ready)
			}
			_, err := fmt.Fprintln(a.stdout, ready)
			return err
		},
	})
	if server != nil {
		err = errors.Join(err, server.Close())
	}
	if errors.Is(err, session.ErrIdle) {
		a.say(fmt.Sprintf("%s was not used for %v and is powered off", name, o.idle))
		err = nil
	}
	return err
}

// detachEnv tells a labctl in the background by which descriptor it reports to the one
// that has started it.
const (
	detachEnv = "LABCTL_UP_FD"
	detachFD  = 3
)

// parent is the labctl that waits for this one, in the background, to be up.
type parent struct{ pipe *os.File }

// takeParent returns the labctl that waits for this one, nil if none does.
func takeParent() *parent {
	if os.Getenv(detachEnv) != fmt.Sprint(detachFD) {
		return nil
	}
	os.Unsetenv(detachEnv) // not for what is started from here
	syscall.CloseOnExec(detachFD)
	return &parent{os.NewFile(detachFD, "parent")}
}

// tidings are what a labctl in the background reports, once.
type tidings struct {
	Ready string       `json:"ready,omitempty"`
	Kind  outcome.Kind `json:"kind,omitempty"`
	Error string       `json:"error,omitempty"`
}

const maxTidings = 64 << 10 // bytes

func (p *parent) ready(line string) error { return p.tell(tidings{Ready: line}) }

// failed reports why the machine is not up. It does nothing after ready.
func (p *parent) failed(err error) {
	if err != nil {
		p.tell(tidings{Kind: outcome.Of(err), Error: err.Error()})
	}
}

func (p *parent) tell(w tidings) error {
	if p.pipe == nil {
		return nil
	}
	b, err := json.Marshal(w)
	if err == nil {
		_, err = p.pipe.Write(b)
	}
	p.pipe.Close()
	p.pipe = nil
	return outcome.Default(outcome.HostLacks, err)
}

// detach starts this labctl once more, in the background, and waits until its machine
// is up.
func (a *app) detach(ctx context.Context, name string) error {
	log, err := registry.CreateLog(name)
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("keep a log: %w", err))
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return outcome.Default(outcome.HostLacks, err)
	}
	defer r.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: os.Args, Env: append(os.Environ(), fmt.Sprintf("%s=%d", detachEnv, detachFD)),
		Stdout: log, Stderr: log, ExtraFiles: []*os.File{w},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // no signals of this terminal
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start labctl in the background: %w", err))
	}
	a.say(fmt.Sprintf("starting %s in the background; its log: %s", name, log.Name()))
	interrupted := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	line, err := bounded.ReadAll(r, maxTidings)
	if !interrupted() {
		cmd.Wait()
		return context.Cause(ctx)
	}
	if err == nil && len(line) == 0 {
		err = io.ErrUnexpectedEOF
	}
	var said tidings
	if err == nil {
		err = strictjson.Format{Max: maxTidings}.Decode(line, &said)
	}
	if err != nil {
		cmd.Wait()
		return outcome.Errorf(outcome.HostLacks, "labctl in the background has ended without a word (%v); its log: %s", err, log.Name())
	}
	if said.Error != "" {
		cmd.Wait()
		if !said.Kind.Known() {
			said.Kind = outcome.Internal
		}
		registry.DropLog(name)
		return outcome.New(said.Kind, text.Line(said.Error, maxTidings))
	}
	_, err = fmt.Fprintln(a.stdout, text.Line(said.Ready, maxTidings))
	return err
}

func (a *app) downCmd() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "down NAME...",
		Short: "End machines that labctl up keeps",
		Long: `End machines that labctl up keeps, and the programs in them. Without a name it is
the only one that runs.`,
		Example:           "  labctl down lab\n  labctl down --all",
		ValidArgsFunction: machineNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			if all {
				if len(args) > 0 {
					return outcome.Inputf("down --all takes no names, got %q", args[0])
				}
				args = registry.Names(c.Context(), false)
			} else if len(args) == 0 {
				args = []string{""}
			}
			return a.down(c.Context(), args)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "end every machine that labctl up keeps")
	return c
}

func (a *app) down(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		m, err := registry.Find(ctx, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err = m.Down(ctx); err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s is down\n", m.Name)
		}
		errs = append(errs, err)
		m.Close()
	}
	return errors.Join(errs...)
}

// machineNames completes the names of running machines: those that the user has named,
// or, with all, every one.
func machineNames(all bool) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return registry.Names(c.Context(), all), cobra.ShellCompDirectiveNoFileComp
	}
}
