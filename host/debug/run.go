package debug

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"labctl/host/debug/command"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm/gdb"
)

// Reasons of stops.
const (
	reasonBreak     = "breakpoint"
	reasonWatch     = "watchpoint"
	reasonStep      = "step"
	reasonFinish    = "finish"
	reasonUntil     = "until"
	reasonInterrupt = "interrupt"
)

// goal ends a run besides the session's points: a CPU comes to an address, and reached
// accepts it.
type goal struct {
	reason  string
	addrs   []uint64
	reached func(ctx context.Context) (bool, error)
}

// stopWait is how long a guest may take to stop when it is told to.
const stopWait = 60 * time.Second

// elsewhere is how long another command is left that has stopped the guest: one that
// looks at it with --stop.
const elsewhere = 300 * time.Millisecond

// run lets the guest run to the next stop that is to be told of, and tells of it.
func (s *Session) run(ctx context.Context, g *goal) (err error) {
	if g != nil {
		for i, a := range g.addrs {
			if err := s.c.Insert(ctx, gdb.Point{Kind: gdb.Execute, Addr: a}); err != nil {
				for _, b := range g.addrs[:i] {
					err = errors.Join(err, s.c.Remove(ctx, gdb.Point{Kind: gdb.Execute, Addr: b}))
				}
				return err
			}
		}
		defer func() {
			for _, a := range g.addrs {
				if !s.c.Running() {
					err = errors.Join(err, s.c.Remove(context.WithoutCancel(ctx), gdb.Point{Kind: gdb.Execute, Addr: a}))
				}
			}
		}()
	}
	for {
		stop, stopped, err := s.leave(ctx)
		if err != nil {
			return err
		}
		if !stopped {
			if err := s.c.Continue(ctx); err != nil {
				return err
			}
			if stop, err = s.c.Wait(ctx); err != nil {
				if ctx.Err() == nil {
					return err
				}
				return s.interrupt(ctx)
			}
		}
		for stop.Signal == gdb.SignalInt {
			// Another command has stopped it, and lets it run again.
			brief, cancel := context.WithTimeout(ctx, elsewhere)
			stop2, err := s.c.Wait(brief)
			cancel()
			if err == nil {
				stop = stop2
				continue
			}
			if errors.Is(err, gdb.ErrEnded) {
				return err
			}
			break
		}
		if stop.Signal == gdb.SignalInt {
			if ctx.Err() != nil {
				return s.interrupt(ctx)
			}
			clear(s.met)
			continue
		}
		done, err := s.arrive(ctx, stop, g)
		if err != nil || done {
			return err
		}
	}
}

// leave has a CPU that stands at a point that was told of leave it, with the others
// standing still. That may end in a stop of its own, at memory that is watched.
func (s *Session) leave(ctx context.Context) (stop gdb.Stop, stopped bool, err error) {
	for cpu, pc := range s.met {
		delete(s.met, cpu)
		regs, err := s.c.Registers(ctx, cpu)
		if err != nil {
			return stop, false, err
		}
		if regs[s.row.pc] != pc {
			continue
		}
		if stop, err = s.single(ctx, cpu); err != nil {
			return stop, false, err
		}
		if stop.Watch != 0 {
			return stop, true, nil
		}
	}
	return stop, false, nil
}

// single steps a CPU. A step takes no time that could be interrupted.
func (s *Session) single(ctx context.Context, cpu int) (gdb.Stop, error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopWait, outcome.Errorf(outcome.Deadline, "CPU %d has not stepped in %v", cpu, stopWait))
	defer cancel()
	if err := s.c.Step(ctx, cpu); err != nil {
		return gdb.Stop{}, err
	}
	return s.c.Wait(ctx)
}

// interrupt stops the guest because ctx has ended.
func (s *Session) interrupt(ctx context.Context) error {
	cause := context.Cause(ctx)
	wait, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopWait, outcome.Errorf(outcome.GuestCrashed, "the guest has not stopped in %v", stopWait))
	defer cancel()
	stop := gdb.Stop{CPU: s.place.cpu}
	if s.c.Running() {
		if err := s.c.Interrupt(); err != nil {
			return err
		}
		var err error
		if stop, err = s.c.Wait(wait); err != nil {
			return err
		}
	}
	if err := s.look(wait, stop.CPU); err != nil {
		return err
	}
	if err := s.tell(wait, &Event{Reason: reasonInterrupt}); err != nil {
		return err
	}
	return cause
}

// arrive settles whether a stop is to be told of, and tells of it.
func (s *Session) arrive(ctx context.Context, stop gdb.Stop, g *goal) (done bool, err error) {
	if err := s.look(ctx, stop.CPU); err != nil {
		return false, err
	}
	if stop.Watch != 0 {
		return s.accessed(ctx, stop)
	}
	pc := s.place.pc
	s.met[stop.CPU] = pc
	for _, p := range s.at(pc) {
		ok, err := s.counts(ctx, p)
		if err != nil {
			return true, errors.Join(s.tell(ctx, &Event{Reason: reasonBreak, Point: p}), err)
		}
		if !ok || p.Hits < p.Count || done {
			continue
		}
		done = true
		if p.Once {
			if err := s.drop(ctx, p); err != nil {
				return true, err
			}
		}
		if err := s.tell(ctx, &Event{Reason: reasonBreak, Point: p}); err != nil {
			return true, err
		}
	}
	if done || g == nil {
		return done, nil
	}
	for _, a := range g.addrs {
		if a != pc {
			continue
		}
		ok, err := g.reached(ctx)
		if err != nil || !ok {
			return err != nil, err
		}
		return true, nil
	}
	return false, nil
}

// counts applies a point's filters, and counts the hit that they let through.
func (s *Session) counts(ctx context.Context, p *Point) (bool, error) {
	if p.Task != "" || p.PID != 0 {
		who, err := s.place.task(ctx)
		if err != nil {
			return false, err
		}
		if p.PID != 0 && p.PID != who.pid && p.PID != who.tid {
			return false, nil
		}
		if ok, _ := path.Match(p.Task, who.comm); p.Task != "" && !ok {
			return false, nil
		}
	}
	if p.cond != nil {
		v, err := p.cond.eval(s.place.scope(ctx, p.Hits+1))
		if err != nil {
			return false, err
		}
		if !v.true() {
			return false, nil
		}
	}
	p.Hits++
	return true, nil
}

// accessed handles an access to memory that is watched. QEMU stops after it.
func (s *Session) accessed(ctx context.Context, stop gdb.Stop) (done bool, err error) {
	for _, p := range s.points {
		if p.kind == gdb.Execute || p.Disabled || stop.Addr < p.Addrs[0] || stop.Addr >= p.Addrs[0]+uint64(p.Size) {
			continue
		}
		now, err := s.place.l.Uint(p.Addrs[0], p.Size)
		if err != nil {
			return true, err
		}
		old := p.old
		p.old = now
		if p.kind == gdb.OnWrite && now == old {
			continue // written, and as it was
		}
		ok, err := s.counts(ctx, p)
		if err != nil {
			return true, errors.Join(s.tell(ctx, &Event{Reason: reasonWatch, Point: p, Old: &old, New: &now}), err)
		}
		if !ok || p.Hits < p.Count || done {
			continue
		}
		done = true
		if err := s.tell(ctx, &Event{Reason: reasonWatch, Point: p, Old: &old, New: &now}); err != nil {
			return true, err
		}
	}
	return done, nil
}

// goOn is the command go.
func (s *Session) goOn(ctx context.Context, c *command.Command) error {
	if len(c.Args) > 0 {
		return s.until(ctx, c)
	}
	return s.run(ctx, nil)
}

// until is the command until.
func (s *Session) until(ctx context.Context, c *command.Command) error {
	if len(c.Args) != 1 {
		return outcome.Inputf("until: want one place: a function, a symbol+offset or an address")
	}
	_, addrs, err := s.resolve(c.Args[0])
	if err != nil {
		return err
	}
	same := s.sameTask(ctx)
	return s.run(ctx, &goal{reason: reasonUntil, addrs: addrs, reached: func(ctx context.Context) (bool, error) {
		ok, err := same(ctx)
		if ok {
			err = s.tell(ctx, &Event{Reason: reasonUntil})
		}
		return ok, err
	}})
}

// sameTask returns a function that reports whether the CPU runs the task that it runs now.
// On a kernel whose tasks are not known, any does.
func (s *Session) sameTask(ctx context.Context) func(context.Context) (bool, error) {
	was, err := s.place.task(ctx)
	if err != nil {
		return func(context.Context) (bool, error) { return true, nil }
	}
	return func(ctx context.Context) (bool, error) {
		who, err := s.place.task(ctx)
		return err == nil && who.addr == was.addr, err
	}
}

// finish is the command finish.
func (s *Session) finish(ctx context.Context, _ *command.Command) error {
	st, err := s.place.stack(ctx)
	if err != nil {
		return err
	}
	if len(st.Frames) < 2 || st.Frames[0].Exception {
		return outcome.Inputf("finish: the caller of this function is not known")
	}
	function, ret, sp := st.Frames[0].Name, st.Frames[1].PC, s.place.regs[s.row.sp]
	same := s.sameTask(ctx)
	return s.run(ctx, &goal{reason: reasonFinish, addrs: []uint64{ret}, reached: func(ctx context.Context) (bool, error) {
		ok, err := same(ctx)
		if !ok || err != nil || s.place.regs[s.row.sp] < sp { // a call further in
			return false, err
		}
		e := &Event{Reason: reasonFinish, Function: function, Returned: s.returned(function)}
		return true, s.tell(ctx, e)
	}})
}

// step is the commands step and next.
func (s *Session) step(ctx context.Context, c *command.Command) error {
	n := 1
	if len(c.Args) > 0 {
		v, err := strconv.Atoi(c.Args[0])
		if err != nil || v < 1 || v > 100_000 || len(c.Args) > 1 {
			return outcome.Inputf("%s: want a number of steps from 1 to 100000, got %q", c.Name, text.Line(strings.Join(c.Args, " "), 40))
		}
		n = v
	}
	for range n {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if c.Name == "next" {
			if _, size, call := s.place.instruction(s.place.pc); call {
				if told, err := s.over(ctx, s.place.pc+uint64(size)); err != nil || told {
					return err
				}
				continue
			}
		}
		cpu := s.place.cpu
		delete(s.met, cpu)
		stop, err := s.single(ctx, cpu)
		if err != nil {
			return err
		}
		if err := s.look(ctx, stop.CPU); err != nil {
			return err
		}
		if stop.Watch != 0 {
			if done, err := s.accessed(ctx, stop); err != nil || done {
				return err
			}
		}
	}
	return s.tell(ctx, &Event{Reason: reasonStep})
}

// over runs a call to its end. told reports that another stop was met, and told of.
func (s *Session) over(ctx context.Context, next uint64) (told bool, err error) {
	same, sp, arrived := s.sameTask(ctx), s.place.regs[s.row.sp], false
	s.met[s.place.cpu] = s.place.pc
	err = s.run(ctx, &goal{reason: reasonStep, addrs: []uint64{next}, reached: func(ctx context.Context) (bool, error) {
		ok, err := same(ctx)
		arrived = ok && err == nil && s.place.regs[s.row.sp] >= sp
		return arrived, err
	}})
	return !arrived, err
}

// checkpoint is the command checkpoint.
func (s *Session) checkpoint(ctx context.Context, c *command.Command) error {
	if len(c.Args) != 1 {
		return outcome.Inputf("checkpoint: want one name")
	}
	if s.o.Save == nil {
		return outcome.Inputf("checkpoint: this machine cannot be saved")
	}
	start := time.Now()
	if err := s.o.Save(ctx, c.Args[0]); err != nil {
		return err
	}
	s.saved = c.Args[0]
	s.savedAt[s.saved] = s.place.cpu
	return s.say(c, fmt.Sprintf("saved as %s, in %.1f s; back returns here", c.Args[0], time.Since(start).Seconds()))
}

// kickWait is how long a step of an idle CPU is given: it may not end.
const kickWait = 200 * time.Millisecond

// kick steps the first CPU of a machine that was loaded and has not run yet: until that
// has run, QEMU's thread for the CPUs runs none (rr_cpu_thread_fn), so that no step of
// another would end.
func (s *Session) kick(ctx context.Context) error {
	if err := s.c.Step(ctx, 0); err != nil {
		return err
	}
	brief, cancel := context.WithTimeout(ctx, kickWait)
	defer cancel()
	_, err := s.c.Wait(brief)
	if err == nil || brief.Err() == nil {
		return err
	}
	if err := s.c.Interrupt(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopWait, outcome.Errorf(outcome.GuestCrashed, "the guest has not stopped in %v", stopWait))
	defer cancel()
	_, err = s.c.Wait(wait)
	return err
}

// back is the command back.
func (s *Session) back(ctx context.Context, c *command.Command) error {
	name := s.saved
	if len(c.Args) > 0 {
		name = c.Args[0]
	}
	if name == "" {
		return outcome.Inputf("back: to which checkpoint? checkpoint NAME makes one")
	}
	if s.o.Back == nil {
		return outcome.Inputf("back: not here")
	}
	cpu, ok := s.savedAt[name]
	if !ok {
		cpu = s.place.cpu
	}
	i, g, err := s.o.Back(ctx, name)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil && !s.ended { // the machine that is left runs on
		return err
	}
	if err := s.take(ctx, i, g); err != nil {
		return err
	}
	s.saved = name
	for _, p := range s.points {
		if p.Disabled {
			continue
		}
		if err := s.arm(ctx, p); err != nil {
			return err
		}
		if p.kind != gdb.Execute {
			p.old, _ = s.place.l.Uint(p.Addrs[0], p.Size)
		}
	}
	cpu = min(cpu, s.c.CPUs()-1)
	if cpu != 0 {
		if err := s.kick(ctx); err != nil {
			return err
		}
	}
	if err := s.look(ctx, cpu); err != nil {
		return err
	}
	s.met[s.place.cpu] = s.place.pc // it was told of before
	return s.tell(ctx, &Event{Reason: "back", Text: name})
}
