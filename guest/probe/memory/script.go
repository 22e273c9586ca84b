// Package memory holds the probes that look at which page is behind an address of a
// parent, a child and a thread, before and after one of them touches it.
//
// The memory that is looked at is mapped by the probe for the purpose, in pages that are
// part of no huge page, and lies outside the Go heap. What a child does with it is a
// rawclone program, so that the page faults of the child are those of the script and
// no others.
package memory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

// script is what a child does, act by act; it sleeps between two acts.
type script struct {
	prog *rawclone.Program
	cues []rawclone.Word // an act begins when its word is 1
	done rawclone.Word   // acts that are over
	pid  rawclone.Word
	ppid rawclone.Word

	role  string
	child *rawclone.Child
}

func newScript(role string) (*script, error) {
	prog, err := rawclone.NewProgram()
	if err != nil {
		return nil, err
	}
	return &script{prog: prog, done: prog.Var(0), pid: prog.Syscall(unix.SYS_GETPID), ppid: prog.Syscall(unix.SYS_GETPPID), role: role}, nil
}

// act begins the next act: what is put into the program until the next is part of it. It
// returns the act's number.
func (s *script) act() int {
	if len(s.cues) > 0 {
		s.prog.Add(s.done, s.prog.Const(1))
	}
	cue := s.prog.Var(0)
	s.cues = append(s.cues, cue)
	s.prog.FutexWait(cue, 0)
	return len(s.cues) - 1
}

// read reads a word of each of n pages, and gives the last.
func (s *script) read(addr rawclone.Word, n int) rawclone.Word {
	value := s.prog.Var(0)
	s.each(addr, n, func(at rawclone.Word) { s.prog.Load(value, at) })
	return value
}

// write writes a word to each of n pages.
func (s *script) write(addr rawclone.Word, n int, value uintptr) {
	s.each(addr, n, func(at rawclone.Word) { s.prog.Store(at, s.prog.Const(value)) })
}

func (s *script) each(addr rawclone.Word, n int, do func(at rawclone.Word)) {
	page := uintptr(os.Getpagesize())
	at, end := s.prog.Var(0), s.prog.Var(0)
	s.prog.Add(at, addr)
	s.prog.Add(end, addr)
	s.prog.Add(end, s.prog.Const(uintptr(n)*page))
	again := s.prog.Here()
	do(at)
	s.prog.Add(at, s.prog.Const(page))
	s.prog.JumpIfEqual(s.prog.Ahead(2), at, end)
	s.prog.JumpIfEqual(again, rawclone.Word{}, rawclone.Word{})
}

// spawn makes the child, which waits for the first act.
func (s *script) spawn(args rawclone.Args) error {
	s.act() // the end, which nobody need wait for
	s.prog.Exit(0)
	child, err := rawclone.Spawn(rawclone.Clone, args, s.prog)
	if err != nil {
		return errors.Join(err, s.prog.Close())
	}
	s.child = child
	return nil
}

// play has the child do one act and returns when that is over.
func (s *script) play(ctx context.Context, act int) error {
	if err := s.prog.Post(s.cues[act], 1); err != nil {
		return err
	}
	return s.prog.Await(ctx, s.done, uintptr(act)+1)
}

// end has the child do what is left of its script, and reaps it.
func (s *script) end() (wire.Task, error) {
	self := probe.Self()
	t := wire.Task{Role: s.role, Comm: self.Comm, TID: s.child.TID,
		Asked: &wire.Asked{Syscall: s.child.Syscall, Flags: s.child.Flags, ExitSignal: s.child.ExitSignal}}
	for _, cue := range s.cues {
		if err := s.prog.Post(cue, 1); err != nil {
			return t, err
		}
	}
	thread := s.child.Thread()
	status, err := s.child.Wait()
	if err != nil {
		return t, err // its memory stays: the child may still use it
	}
	if !thread {
		raw := int(status)
		t.Status = &raw
	}
	t.PID, t.PPID = int(s.prog.Get(s.pid)), int(s.prog.Get(s.ppid))
	t.TGID = t.PID
	return t, s.prog.Close()
}

var (
	forked   = rawclone.Args{ExitSignal: int(unix.SIGCHLD)}
	threaded = rawclone.Args{Flags: rawclone.PThreadFlags}
)

// stage is a probe under way: what it has mapped, and whom it has made.
type stage struct {
	self    wire.Task
	mapped  [][]byte
	scripts []*script
	ended   []wire.Task
	data    map[string]any
}

// enter locks the thread to one CPU, so that what the kernel keeps for each CPU, such as
// pages on their way to a list, is in one place. leave undoes it.
func enter() (*stage, func(), error) {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return nil, nil, fmt.Errorf("CPUs: %w", err)
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return nil, nil, fmt.Errorf("stay on one CPU: %w", err)
	}
	leave := func() {
		unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	}
	return &stage{self: probe.Self(), data: map[string]any{"page_size": os.Getpagesize()}}, leave, nil
}

// perform has a probe do what it does on a stage of its own, and gives what came of it.
func perform(name, method string, on func(*stage) error) (*wire.ProbeResult, error) {
	st, leave, err := enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return st.result(name, method, on(st))
}

// staged is perform for a probe that has no parameters.
func staged(name, method string, on func(context.Context, *stage) error) func(context.Context, json.RawMessage) (*wire.ProbeResult, error) {
	return func(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
		if err := probe.Params(raw, &struct{}{}); err != nil {
			return nil, err
		}
		return perform(name, method, func(st *stage) error { return on(ctx, st) })
	}
}

// pages maps memory for the time of the probe.
func (st *stage) pages(n, flags int) ([]byte, error) {
	b, err := mm.Anonymous(n, flags)
	if err == nil {
		st.mapped = append(st.mapped, b)
	}
	return b, err
}

// spawn makes a child of a script; result ends it.
func (st *stage) spawn(s *script, args rawclone.Args) error {
	if err := s.spawn(args); err != nil {
		return err
	}
	st.scripts = append(st.scripts, s)
	return nil
}

// finish ends a child before the probe's end.
func (st *stage) finish(s *script) error {
	t, err := s.end()
	if err != nil {
		return err
	}
	st.ended = append(st.ended, t)
	st.scripts = slices.DeleteFunc(st.scripts, func(one *script) bool { return one == s })
	return nil
}

// result ends the children, unmaps the memory and gives what the probe has to say, if err
// is nil.
func (st *stage) result(name, method string, err error) (*wire.ProbeResult, error) {
	tasks := append([]wire.Task{st.self}, st.ended...)
	for _, s := range st.scripts {
		t, werr := s.end()
		if werr != nil {
			return nil, errors.Join(err, werr) // the memory stays: the child may still use it
		}
		tasks = append(tasks, t)
	}
	for _, b := range st.mapped {
		err = errors.Join(err, unix.Munmap(b))
	}
	if err != nil {
		return nil, err
	}
	return &wire.ProbeResult{Probe: name, Method: method, Tasks: tasks, Data: st.data}, nil
}

// look reads the pages of a mapping as a task has them.
func look(tid int, b []byte) ([]mm.Page, error) {
	n := len(b) / os.Getpagesize()
	pages := make([]mm.Page, n)
	for i := range pages {
		var err error
		if pages[i], err = mm.Look(tid, addrs(b)[i]); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// spot is an address of a task.
type spot struct {
	tid  int
	addr uintptr
}

// behind reads the page at each of the spots.
func behind(spots map[string]spot) (map[string]mm.Page, error) {
	pages := map[string]mm.Page{}
	for name, at := range spots {
		p, err := mm.Look(at.tid, at.addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		pages[name] = p
	}
	return pages, nil
}

// addrs are where the pages of a mapping start.
func addrs(b []byte) []uintptr {
	page := os.Getpagesize()
	all := make([]uintptr, len(b)/page)
	for i := range all {
		all[i] = mm.Addr(b) + uintptr(i*page)
	}
	return all
}

// said is addresses as wire.Look has them.
func said(b []byte) []int64 {
	var all []int64
	for _, a := range addrs(b) {
		all = append(all, int64(a))
	}
	return all
}

// fill writes a word of its own to each page.
func fill(b []byte) {
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = byte(i/os.Getpagesize() + 1)
	}
}

// faults counts the minor faults of a task that has one thread.
func faults(pid int) (uint64, error) {
	s, err := procfs.ReadStat(fmt.Sprintf("/proc/%d/stat", pid))
	return s.MinFlt, err
}
