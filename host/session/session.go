// Package session owns a run: one machine, one record of it, one outcome.
//
// Run prepares the machine, opens the record, boots, has the work done that it is
// given, collects what the kernel reported, closes the machine, settles why the run
// ended as it did, and writes the record. The other files of the package are the
// kinds of work: a program (Exec), a program under a trace (Trace), probes
// (Probes), a shell (Shell) and the trial of trace presets (CheckPresets). Labs and
// the cells of a matrix bring work of their own.
package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"labctl/host/crash"
	"labctl/host/image/program"
	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/registry"
	"labctl/host/vm"
)

// Env is what the runs of one labctl share.
type Env struct {
	machine.Env
	Version string   // labctl's, for the records
	Command []string // how it was called, for the records
	// Warn is notified of trouble that is not what the run ended with: a log that
	// could not be written when the program has a status of its own.
	Warn func(error)
	// Page makes the page of a record that is whole; nil for none. That it cannot be made
	// is trouble, and not what the run ended with.
	Page func(dir string) error
}

func (e *Env) warn(err error) {
	if err != nil && e.Warn != nil {
		e.Warn(err)
	}
}

// For is the Env of one of several runs, whose name is before all that is said of it.
func (e Env) For(name string) Env {
	say, warn := e.Say, e.Warn
	if say != nil {
		e.Say = func(line string) { say(name + ": " + line) }
	}
	if warn != nil {
		e.Warn = func(err error) { warn(fmt.Errorf("%s: %w", name, err)) }
	}
	return e
}

func (e *Env) say(format string, args ...any) {
	if e.Say != nil {
		e.Say(fmt.Sprintf(format, args...))
	}
}

// Keep says what a run leaves on disk.
type Keep int

const (
	// KeepRecord leaves a record directory.
	KeepRecord Keep = iota
	// KeepTrouble leaves a record where Options.Out asks for one. Otherwise the
	// logs stay in memory, and go to a directory of the system's for temporary
	// files when the guest crashed, hung or did not come up.
	KeepTrouble
	// KeepNothing leaves nothing.
	KeepNothing
)

// Options are a run without its work.
type Options struct {
	Name string // of the record: "probe-fork"
	Out  string // directory of the record; empty: labctl-out/TIME-NAME
	Keep Keep
	Spec machine.Spec
	// Console, when set, gets the kernel's console live.
	Console io.Writer
	// Timeout ends the guest after this long, boot included; 0 is no limit.
	Timeout time.Duration
	// FailOn says which reports of the kernel make the run fail. Unless it is
	// FailOnNone, a program is ended that does nothing any more since a task of its
	// own died in an oops; Waits says that doing nothing is no sign: it has a user.
	FailOn record.FailOn
	Waits  bool
	// Unprepared asks for a record even when no machine can be prepared.
	Unprepared bool

	// Files are brought into the guest before the work begins; nil for none. Prepared may
	// still add to them.
	Files *program.Bundle

	// In is the machine to work in, in place of one of the run's own: Spec has the
	// features that are needed alone then.
	In *registry.Machine
	// Apart has In left alone: its agent is not spoken to, and VM stays nil. That is for
	// a debugger, which the guest need not answer.
	Apart bool
	// Machine is the name of the machine, for other commands to use it by; empty for
	// one that says what the run is. Idle is how long it is kept without use, for the
	// list of machines; 0 is for ever.
	Machine string
	Idle    time.Duration

	// Before is called before anything else is made ready. It may change the machine.
	Before func(context.Context, *machine.Spec) error
	// Prepared is called before the boot. ErrNoBoot ends the run well without one.
	Prepared func(context.Context, *Session) error
	// Write is called when the machine is closed, to write the record's files. err
	// is how the run has ended so far; what Write returns ends it instead.
	Write func(s *Session, err error) error
}

// ErrNoBoot is what Options.Prepared returns when there is nothing to boot for.
var ErrNoBoot = outcome.New(outcome.OK, "there is nothing to boot for")

// Session is a run.
type Session struct {
	Machine *machine.Machine
	VM      *vm.VM     // nil before the boot, and with Options.Apart
	Dir     record.Dir // its Path is empty when nothing is kept
	Run     record.Run // as far as it is known

	entry *registry.Entry // in the list of running machines, nil if it is not there
	env   Env
	o     Options
	start time.Time
	spool *vm.Spool
	kept  bool // the spool is on disk

	carried bool            // Options.Files are in the initramfs
	program bool            // the work is a program, which has a status
	reports []*crash.Report // once the machine is closed
}

// Recorded reports whether the run has a record directory.
func (s *Session) Recorded() bool { return s.Dir.Path != "" && s.spool == nil }

// Booted reports whether a machine was started.
func (s *Session) Booted() bool { return s.Run.Kernel.Release != "" }

// Run does work in a machine of its own. The Session is never nil: it has what the
// run came to, whatever the error. An error of work's is explained by what killed
// the guest, if something has. work's context ends with the guest.
func Run(ctx context.Context, env Env, o Options, work func(context.Context, *Session) error) (s *Session, err error) {
	s = &Session{env: env, o: o, start: time.Now()}
	s.Run = record.Run{Name: o.Name, Labctl: env.Version, Command: env.Command, Started: s.start.UTC()}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, outcome.ErrTimeout)
		defer cancel()
	}
	defer func() { err = s.end(ctx, err) }()
	if o.Unprepared {
		if err := s.open(); err != nil {
			return s, err
		}
	}
	if o.In != nil {
		if err := s.join(ctx); err != nil {
			return s, err
		}
		if o.Apart {
			return s, work(ctx, s)
		}
		return s, s.work(work)
	}
	if o.Before != nil {
		if err := o.Before(ctx, &o.Spec); err != nil {
			return s, err
		}
	}
	if s.Machine, err = machine.Prepare(ctx, env.Env, o.Spec); err != nil {
		return s, err
	}
	if o.Prepared != nil {
		if err := o.Prepared(ctx, s); err != nil {
			return s, err
		}
	}
	if !o.Unprepared {
		if err := s.open(); err != nil {
			return s, err
		}
	}
	if err := s.carry(ctx); err != nil {
		return s, err
	}
	if err := s.boot(ctx); err != nil {
		return s, err
	}
	return s, s.work(work)
}

// maxCarried are the files at most that a guest boots with, in bytes: they are in its
// memory twice until they are unpacked.
const maxCarried = 128 << 20

// carry has the machine boot with Options.Files, where it takes long to send them.
func (s *Session) carry(ctx context.Context) error {
	f := s.o.Files
	if f == nil || f.Files == 0 || f.Bytes > maxCarried || !s.Machine.Carries() {
		return nil
	}
	var archive bytes.Buffer
	if err := f.Archive(&archive); err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	s.carried = true
	return s.Machine.Carry(ctx, s.env.Env, archive.Bytes())
}

// send sends Options.Files, unless the guest has booted with them.
func (s *Session) send(ctx context.Context) error {
	if s.o.Files == nil || s.carried {
		return nil
	}
	return s.o.Files.Send(ctx, s.VM.Agent())
}

func (s *Session) work(work func(context.Context, *Session) error) error {
	err := s.send(s.VM.Context())
	if err == nil {
		err = work(s.VM.Context(), s)
	}
	if !outcome.Of(err).Broken() {
		s.awaitReports()
	}
	return err
}

// join joins a machine that another process has started.
func (s *Session) join(ctx context.Context) (err error) {
	if s.Machine, err = machine.Joined(s.env.Env, s.o.In.Info, s.o.Spec.Features); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	if s.o.Apart {
		s.Machine.Describe(&s.Run, nil)
		return nil
	}
	cfg := vm.Config{Console: s.o.Console, Spool: s.env.Spool, Patience: s.o.Spec.Patience}
	if s.Dir.Path != "" {
		cfg.ConsoleLog, cfg.RegistersLog = s.Dir.File(record.ConsoleFile), s.Dir.File(record.RegistersFile)
		cfg.TasksLog = s.Dir.File(record.TasksFile)
	}
	cfg.Autopsy = s.Machine.Autopsy(s.o.In.Template)
	s.VM, err = s.o.In.Join(ctx, cfg)
	s.Machine.Describe(&s.Run, s.VM)
	if err == nil {
		s.endDead()
	}
	return err
}

// endDead has programs ended that wait for a task of their own that has died.
func (s *Session) endDead() {
	if s.o.FailOn != record.FailOnNone && !s.o.Waits {
		s.VM.EndDead()
	}
}

// open makes what is kept of the run.
func (s *Session) open() (err error) {
	switch {
	case s.o.Keep == KeepRecord, s.o.Keep == KeepTrouble && s.o.Out != "":
		s.Dir, err = record.Create(s.o.Out, s.o.Name, s.start)
	case s.o.Keep == KeepTrouble:
		s.spool = new(vm.Spool)
		s.env.Spool = s.spool
		s.Dir.Path = filepath.Join(os.TempDir(), "labctl-"+s.o.Name+"-"+rand.Text())
	}
	return err
}

func (s *Session) boot(ctx context.Context) (err error) {
	m := s.Machine
	s.env.say("starting %s on %s (%s)", m.Kernel, m.Target.Name, m.Verdict.Accel)
	s.VM, err = m.Boot(ctx, s.env.Env, s.Dir, s.o.Console)
	m.Describe(&s.Run, s.VM)
	if err != nil {
		return err
	}
	s.endDead()
	return s.register()
}

// register makes the machine known to other commands. A run that nobody is to use does
// without.
func (s *Session) register() (err error) {
	info := s.Machine.Entry(s.VM)
	info.Name, info.Named, info.Run, info.IdleLimit = s.o.Machine, s.o.Machine != "", s.o.Name, registry.Seconds(s.o.Idle.Seconds())
	info.Labctl, info.Command = s.env.Version, s.env.Command
	s.entry, err = registry.Register(s.VM, info, func(ctx context.Context, name string) error { return s.Machine.Save(ctx, s.VM, name) })
	if err != nil && !info.Named {
		s.env.say("other commands do not see this machine: %v", err)
		return nil
	}
	return err
}

// end closes the machine and writes down how the run ended.
func (s *Session) end(ctx context.Context, err error) error {
	if errors.Is(err, ErrNoBoot) {
		err = nil
	}
	if s.entry != nil {
		err = s.add(err, s.entry.Close(s.died()))
	}
	if s.VM != nil {
		if !outcome.Quiet(err) { // a program that ran to its end needs no explanation
			err = s.VM.Why(err)
		}
		err = s.add(err, s.VM.Close())
		s.reports = s.VM.Reports() // the console is read to its end
		s.reports = append(s.reports, hidden(s.VM.Agent().Tainted(), s.reports)...)
		for _, r := range s.reports {
			s.Run.Reports = append(s.Run.Reports, record.NewCrash(r))
		}
		defer func() { s.sayReports(err) }()
	}
	// What was interrupted reports all sorts of things.
	var signal *outcome.SignalError
	if err != nil && errors.As(context.Cause(ctx), &signal) {
		err = signal
	}
	if s.spool != nil {
		err = s.failOn(err)
		if s.kept = unwell(err); s.kept {
			err = errors.Join(err, s.spool.Save())
		}
		return err
	}
	if s.o.Write != nil {
		err = s.o.Write(s, err)
	}
	err = s.failOn(err)
	if !s.Recorded() {
		return err
	}
	s.Run.Seconds = time.Since(s.start).Seconds()
	s.Run.Outcome = record.NewOutcome(err)
	trouble := s.Dir.WriteRun(&s.Run)
	if errors.Is(trouble, syscall.ENOSPC) && !unwell(err) {
		if errors.Is(err, syscall.ENOSPC) {
			trouble = nil // said
		}
		if s.o.Out == "" { // a directory of the user's may hold other things
			trouble = errors.Join(trouble, s.Dir.Discard())
		}
		return s.add(err, trouble)
	}
	if trouble == nil && s.env.Page != nil {
		s.env.warn(s.env.Page(s.Dir.Path))
	}
	return s.add(err, trouble)
}

// died is what the guest has died of, for those who use the machine; nil if it lives.
func (s *Session) died() error {
	if s.VM.Context().Err() == nil {
		return nil
	}
	why := context.Cause(s.VM.Context())
	switch outcome.Of(why) {
	case outcome.GuestCrashed, outcome.HostLacks, outcome.Deadline:
		return why
	}
	return nil
}

// add adds trouble to the error of a run. A program's own status stays what the
// run ends with, and does not hide the trouble.
func (s *Session) add(err, trouble error) error {
	if outcome.Quiet(err) {
		s.env.warn(trouble)
		return err
	}
	return errors.Join(err, trouble)
}

// unwell reports whether a run's logs are worth keeping.
func unwell(err error) bool {
	var boot *vm.BootError
	switch outcome.Of(err) {
	case outcome.GuestCrashed, outcome.Deadline, outcome.KernelReported:
		return true
	}
	return errors.As(err, &boot)
}
