// Package debug is labctl's debugger: it stops a guest at functions and at accesses to
// memory, steps it, and shows what stands there, with types and names from the kernel's
// image alone.
//
//	s, err := debug.Open(ctx, inspector, guest, debug.Options{Out: os.Stdout})
//	defer s.Close()                              // the guest runs on
//	err = s.Do(ctx, "break kernel_clone task sh")
//	err = s.Do(ctx, "go")                        // prints the stack there
//
// The packages below and beside it: command is the language; host/vm/gdb stops and steps
// the guest; host/outside reads everything that is shown. Nothing is read by gdb's
// protocol but registers, so that what is read does not depend on which page tables a CPU
// uses.
package debug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"labctl/host/debug/command"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/outside/kern"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/gdb"
)

// Options are a session's.
type Options struct {
	Out   io.Writer   // gets what is shown
	JSON  bool        // as Events, a line each, in place of text
	Style stack.Style // of stacks; the first of stack.Styles if it has no name

	// Save stores a checkpoint of the machine, nil where there is none.
	Save func(ctx context.Context, name string) error
	// Back returns the machine of a checkpoint, which stands still, nil where there
	// is none. The session takes it in place of the one that it has.
	Back func(ctx context.Context, name string) (vm.Inspector, *outside.Guest, error)
}

// Session is a debugger that has a guest. It is not safe for concurrent use.
type Session struct {
	o    Options
	g    *outside.Guest
	conn net.Conn
	c    *gdb.Client
	row  archRow

	points []*Point
	last   int            // number of the last point
	met    map[int]uint64 // CPUs that stand at a point that was told of, and where
	saved  string         // last checkpoint
	// CPUs that were looked at when a checkpoint was made, by its name.
	savedAt map[string]int
	ended   bool

	place *place // what is looked at while the guest stands still
}

// archRow is what the debugger knows of an architecture: gdb's names of registers.
type archRow struct {
	pc, sp, result string
	args           []string
}

// Open takes a guest over, which stands still from here on until Do lets it run. i and g
// are the same guest.
func Open(ctx context.Context, i vm.Inspector, g *outside.Guest, o Options) (*Session, error) {
	if o.Style.Name == "" {
		o.Style = stack.Styles[0]
	}
	s := &Session{o: o, met: map[int]uint64{}, savedAt: map[string]int{}}
	return s, s.take(ctx, i, g)
}

// take connects to a guest.
func (s *Session) take(ctx context.Context, i vm.Inspector, g *outside.Guest) error {
	row, ok := rows[g.Image.Arch]
	if !ok {
		return outcome.Inputf("labctl debugs no kernel for %s", g.Image.Arch)
	}
	// The arguments at a stop need all types, whose reading takes some tens of milliseconds:
	// it begins here, when nobody waits for it yet.
	go func() { _, _ = g.Types() }() // what is wrong with them is told at the stop
	conn, err := i.GDB(ctx)
	if err != nil {
		return err
	}
	c, err := gdb.New(ctx, conn)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	s.g, s.conn, s.c, s.row, s.ended = g, conn, c, row, false
	clear(s.met)
	return s.look(ctx, 0)
}

// SetSave replaces Options.Save: the session has another machine.
func (s *Session) SetSave(save func(ctx context.Context, name string) error) { s.o.Save = save }

// Close removes what stops the guest and lets it run.
func (s *Session) Close() error {
	if s.conn == nil {
		return nil
	}
	s.c.Release() // the reply to the detachment is for who sends that
	err := s.conn.Close()
	s.conn = nil
	return err
}

// ErrQuit is what Do returns for the command quit.
var ErrQuit = outcome.New(outcome.OK, "the session ends")

// Do performs a command. Errors of outcome.BadInput leave the session as it was. When ctx
// ends while the guest runs, it is stopped, and the error is ctx's cause.
func (s *Session) Do(ctx context.Context, line string) error {
	c, err := command.Parse(line)
	if c == nil || err != nil {
		return err
	}
	if s.ended && c.Name != "help" && c.Name != "quit" && c.Name != "back" {
		return gdb.ErrEnded
	}
	err = verbs[c.Name](s, ctx, c)
	if errors.Is(err, gdb.ErrEnded) {
		s.ended = true
	}
	return err
}

// Ended reports whether the guest is gone.
func (s *Session) Ended() bool { return s.ended }

// verbs are what the words of the language do.
var verbs = map[string]func(*Session, context.Context, *command.Command) error{
	"break":      (*Session).breakAt,
	"tbreak":     (*Session).breakAt,
	"watch":      (*Session).watch,
	"breaks":     (*Session).list,
	"delete":     (*Session).remove,
	"disable":    (*Session).enable,
	"enable":     (*Session).enable,
	"go":         (*Session).goOn,
	"step":       (*Session).step,
	"next":       (*Session).step,
	"finish":     (*Session).finish,
	"until":      (*Session).until,
	"stop":       (*Session).stop,
	"stack":      (*Session).showStack,
	"registers":  (*Session).showRegisters,
	"cpu":        (*Session).chooseCPU,
	"print":      (*Session).print,
	"struct":     (*Session).showStruct,
	"dump":       (*Session).dump,
	"list":       (*Session).disassemble,
	"set":        (*Session).set,
	"ps":         (*Session).showTasks,
	"modules":    (*Session).showModules,
	"dmesg":      (*Session).showLog,
	"symbol":     (*Session).showSymbol,
	"symbols":    (*Session).findSymbols,
	"checkpoint": (*Session).checkpoint,
	"back":       (*Session).back,
	"help":       (*Session).help,
	"quit":       (*Session).quit,
}

// stop is the command stop.
func (s *Session) stop(_ context.Context, c *command.Command) error {
	return s.say(c, "the guest stands still already")
}

// quit is the command quit.
func (*Session) quit(context.Context, *command.Command) error { return ErrQuit }

// place is a CPU at the moment at which the guest stands still. What it costs to find out
// is found out when it is asked for.
type place struct {
	s    *Session
	cpu  int
	regs gdb.Values
	pc   uint64

	l     *kern.Look
	find  stack.Lookup
	tasks *task.Tasks
	frame *stack.Stack
	read  *value.Reader
	who   *current
}

// current is the task of a CPU.
type current struct {
	addr     uint64
	comm     string
	pid, tid int
}

func (t *current) String() string { return fmt.Sprintf("%s, pid %d", t.name(), t.tid) }

func (t *current) name() string { return text.Line(t.comm, 64) }

// look looks at a CPU.
func (s *Session) look(ctx context.Context, cpu int) error {
	regs, err := s.c.Registers(ctx, cpu)
	if err != nil {
		return err
	}
	pc, ok := regs[s.row.pc]
	if !ok {
		return outcome.Hostf("QEMU's gdbstub tells no %s", s.row.pc)
	}
	s.place = &place{s: s, cpu: cpu, regs: regs, pc: pc, l: s.g.Look()}
	return nil
}

// lookup names addresses, those in modules too.
func (p *place) lookup() stack.Lookup {
	if p.find == nil {
		mods, _ := p.l.Modules() // without them their functions are addresses
		p.find = p.l.Finder(mods)
	}
	return p.find
}

// reader reads typed values.
func (p *place) reader() (*value.Reader, error) {
	if p.read == nil {
		r, err := value.New(p.l, p.lookup())
		if err != nil {
			return nil, err
		}
		p.read = r
	}
	return p.read, nil
}

// allTasks lists the tasks.
func (p *place) allTasks(ctx context.Context) (*task.Tasks, error) {
	if p.tasks == nil {
		t, err := p.s.g.Tasks(ctx)
		if err != nil {
			return nil, err
		}
		p.tasks = t
	}
	return p.tasks, nil
}

// task returns the task that the CPU runs.
func (p *place) task(ctx context.Context) (*current, error) {
	if p.who != nil {
		return p.who, nil
	}
	addr, err := p.currentAddr(ctx)
	if err != nil {
		return nil, err
	}
	o := p.l.Object("task_struct", addr)
	who := &current{addr: addr, comm: o.String("comm"), pid: int(o.Int("tgid")), tid: int(o.Int("pid"))}
	if o.Err() != nil {
		return nil, fmt.Errorf("the task of CPU %d: %w", p.cpu, o.Err())
	}
	p.who = who
	return who, nil
}

// currentAddr is where the CPU's task is. An arm64 kernel keeps it in sp_el0 (get_current
// in arch/arm64/include/asm/current.h), an x86 kernel in a variable of the CPU's; others
// are found by their run queue.
func (p *place) currentAddr(ctx context.Context) (uint64, error) {
	k := p.l.K
	if _, err := k.Member("task_struct", "comm"); err != nil {
		return 0, err
	}
	if cpsr, ok := p.regs["cpsr"]; ok && k.Image.Arch == "arm64" && cpsr&0xc != 0 {
		if v, err := p.s.c.Register(ctx, p.cpu, "sp_el0"); err == nil && v != 0 {
			return v, nil
		}
	}
	if at, ok := p.l.PerCPU("current_task", p.cpu); ok {
		return p.l.Pointer(at)
	}
	if at, ok := p.l.PerCPU("pcpu_hot", p.cpu); ok {
		o := p.l.Object("pcpu_hot", at)
		return o.Uint("current_task"), o.Err()
	}
	if at, ok := p.l.PerCPU("runqueues", p.cpu); ok {
		o := p.l.Object("rq", at)
		return o.Uint("curr"), o.Err()
	}
	tasks, err := p.allTasks(ctx)
	if err != nil {
		return 0, err
	}
	if one := tasks.Current(p.cpu); one != nil {
		return one.Addr, nil
	}
	return 0, outcome.Inputf("the task of CPU %d is not known", p.cpu)
}

// stack returns the CPU's stack, with the arguments of its innermost frame where they are
// known: at the function's first instruction.
func (p *place) stack(ctx context.Context) (*stack.Stack, error) {
	if p.frame != nil {
		return p.frame, nil
	}
	tasks := p.tasks
	if tasks == nil {
		var err error
		if tasks, err = p.s.g.CPUTasks(ctx); err != nil {
			return nil, err
		}
		if len(tasks.List) > 0 {
			p.tasks = tasks
		}
	}
	st, err := tasks.CPUStack(p.cpu)
	if err != nil {
		return nil, err
	}
	if len(st.Frames) > 0 && st.Frames[0].PC == p.pc && st.Frames[0].Offset == 0 && st.Frames[0].Name != "" {
		st.Frames[0].Args, st.Frames[0].AllArgs = p.arguments(st.Frames[0].Name)
	}
	p.frame = &st
	return p.frame, nil
}
