package vm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Limits of what is asked of QEMU about a guest that hangs. QEMU 7.2 answers in
// milliseconds, hung guest or not.
const (
	registersWait = 2 * time.Second
	maxRegisters  = 1 << 20 // bytes
	maxCPUs       = 64
)

// CPU is where one CPU of the guest was.
type CPU struct {
	ID     int
	PC     uint64
	Mode   string // as QEMU prints it: "CPL=0", "EL1h", "svc32"
	Masked bool   // takes no interrupts; so does an idle CPU of arm64 and arm
	Halted bool   // waits for an interrupt; known on x86 alone
}

// String is one line for a user.
func (c CPU) String() string {
	s := fmt.Sprintf("CPU %d: pc 0x%x, %s", c.ID, c.PC, c.Mode)
	if c.Halted {
		s += ", halted"
	}
	if c.Masked {
		s += ", interrupts masked"
	}
	return s
}

// State is what was seen of a guest that did not end: QEMU's registers, and
// what the console says hangs.
type State struct {
	CPUs      []CPU
	Registers string          // QEMU's own text, at most 1 MiB
	File      string          // where Registers is kept, if it is
	Hangs     []*crash.Report // stalls, lockups and hung tasks
	Tail      []string        // the console's last lines, cleaned
	Log       string          // where the whole console is, if kept
}

// Seen is where the CPUs were, a line each, and the last thing that hung.
func (s State) Seen() (cpus []string, report *crash.Report) {
	for _, c := range s.CPUs {
		cpus = append(cpus, c.String())
	}
	if n := len(s.Hangs); n > 0 {
		report = s.Hangs[n-1]
	}
	return cpus, report
}

// DeadlineError is a guest that lives and did not do in time what it was asked.
type DeadlineError struct {
	After time.Duration // since QEMU's start
	Cause error         // the context's, or the operation's error
	State
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("%v (the guest is up for %.1f s)", e.Cause, e.After.Seconds())
}

func (e *DeadlineError) Unwrap() error { return e.Cause }

// Outcome is Deadline.
func (e *DeadlineError) Outcome() outcome.Kind { return outcome.Deadline }

// AgentError is a DeadlineError in a guest whose agent does not answer any more,
// while QEMU lives and the kernel has not said that it died.
type AgentError struct{ *DeadlineError }

func (e *AgentError) Error() string {
	return "the guest's agent does not answer: " + e.DeadlineError.Error()
}

func (e *AgentError) Unwrap() error { return e.DeadlineError }

// Outcome is GuestCrashed.
func (e *AgentError) Outcome() outcome.Kind { return outcome.GuestCrashed }

// How is Silent.
func (e *AgentError) How() outcome.How { return outcome.Silent }

// state looks at the guest before it is ended.
func (v *VM) state() State {
	s := State{Tail: v.con.tail(), Log: v.cfg.ConsoleLog}
	for _, r := range v.con.reports() {
		if r.Kind.Hang() {
			s.Hangs = append(s.Hangs, r)
		}
	}
	mon := v.asked.Load()
	if mon == nil {
		return s
	}
	ctx, cancel := context.WithTimeout(context.Background(), registersWait)
	defer cancel()
	out, err := mon.Commands(ctx).HumanMonitorCommand("info registers -a", nil)
	if err != nil {
		return s // there is less to show; the deadline is the error
	}
	s.Registers = text.Lines(out[:min(len(out), maxRegisters)])
	s.CPUs = parseRegisters(s.Registers)
	if f := v.cfg.RegistersLog; f != "" && v.cfg.writeLog(f, s.Registers) == nil {
		s.File = f
	}
	return s
}

// agentWait is how long the agent has to answer a question that costs it nothing.
const agentWait = 2 * time.Second

// late makes a *DeadlineError of an operation's deadline, an *AgentError when
// the agent does not answer at all.
func (v *VM) late(err error) error {
	e := &DeadlineError{After: time.Since(v.started), Cause: err, State: v.state()}
	ctx, cancel := context.WithTimeout(v.ctx, v.Patient(agentWait))
	defer cancel()
	if _, ping := v.client.Stat(ctx); errors.Is(ping, context.DeadlineExceeded) {
		return &AgentError{e}
	}
	return e
}

// registers of QEMU's targets, each as target/*/cpu.c prints it.
var (
	cpuHead = regexp.MustCompile(`^CPU#(\d+)`)
	pcField = regexp.MustCompile(`(?:^| )(?:PC|RIP|EIP|R15)=([0-9a-f]+)`)
	modes   = []struct {
		field *regexp.Regexp // flags in hex, then the mode
		mask  uint64
		off   bool // the bit masks interrupts; else it lets them in
	}{
		{regexp.MustCompile(`[RE]FL=([0-9a-f]+) \[\S*\] (CPL=\d)`), 1 << 9, false},              // x86: EFLAGS.IF
		{regexp.MustCompile(`^PSTATE=([0-9a-f]+) \S+ (?:NS )?(?:S )?(EL\dt?h?)`), 1 << 7, true}, // arm64: PSTATE.I
		{regexp.MustCompile(`^PSR=([0-9a-f]+) .*\b(\w+(?:26|32))`), 1 << 7, true},               // arm: CPSR.I
	}
	halted = regexp.MustCompile(` HLT=1\b`)
)

// parseRegisters reads the answer to "info registers -a" as far as it is known.
func parseRegisters(out string) []CPU {
	var cpus []CPU
	for _, line := range strings.Split(out, "\n") {
		if m := cpuHead.FindStringSubmatch(line); m != nil {
			if len(cpus) == maxCPUs {
				break
			}
			id, _ := strconv.Atoi(m[1])
			cpus = append(cpus, CPU{ID: id, Mode: "mode not known"})
			continue
		}
		if len(cpus) == 0 {
			continue
		}
		c := &cpus[len(cpus)-1]
		if m := pcField.FindStringSubmatch(line); m != nil && c.PC == 0 {
			c.PC, _ = strconv.ParseUint(m[1], 16, 64)
		}
		for _, mode := range modes {
			if m := mode.field.FindStringSubmatch(line); m != nil {
				flags, _ := strconv.ParseUint(m[1], 16, 64)
				c.Mode, c.Masked = m[2], flags&mode.mask != 0 == mode.off
				c.Halted = halted.MatchString(line)
			}
		}
	}
	return cpus
}
