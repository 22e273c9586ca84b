package vm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm/qmp"
)

// Limits on the query to QEMU about a hung guest. QEMU 7.2 replies within
// milliseconds, even if the guest hangs.
const (
	registersWait = 2 * time.Second
	maxRegisters  = 1 << 20 // bytes
	maxCPUs       = 64
	maxRegs       = 256
)

// CPU is the state of one CPU of the guest.
type CPU struct {
	ID     int
	PC     uint64
	Mode   string // as QEMU prints it: "CPL=0", "EL1h", "svc32"
	Masked bool   // interrupts masked; also true for an idle CPU of arm64 and arm
	Halted bool   // waits for an interrupt; known on x86 only
	User   bool   // in user mode
	// Regs are the general registers and those that QEMU prints with them, by QEMU's
	// names in lower case: "rip", "x29", "r15".
	Regs map[string]uint64 `json:"-"`
}

// String returns one line for a user.
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

// State is the state of a guest that missed a deadline: its registers, and what the
// console reports that can be the reason.
type State struct {
	CPUs      []CPU
	Registers string          // QEMU's output, at most 1 MiB
	File      string          // file with Registers, if saved
	Guilty    string          // what keeps the guest from going on, one line; "" if that cannot be told
	Tasks     string          // file with all tasks, if saved
	Reports   []*crash.Report // oopses, then stalls, lockups and hung tasks
	Tail      []string        // the console's last lines, cleaned
	Log       string          // file with the whole console, if saved
}

// Seen returns the CPUs' states, one line each, and the last hang reported, or the
// last oops if nothing hangs.
func (s State) Seen() (cpus []string, report *crash.Report) {
	for _, c := range s.CPUs {
		cpus = append(cpus, c.String())
	}
	if n := len(s.Reports); n > 0 {
		report = s.Reports[n-1]
	}
	return cpus, report
}

// DeadlineError reports that a running guest did not complete an operation in time.
type DeadlineError struct {
	After time.Duration // since QEMU's start
	Cause error         // the context's, or the operation's error
	State
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("%v (the guest is up for %.1f s)%s", e.Cause, e.After.Seconds(), e.blame())
}

// blame is what an error's text says of the guilty task.
func (s State) blame() string {
	if s.Guilty == "" {
		return ""
	}
	return ": " + s.Guilty
}

func (e *DeadlineError) Unwrap() error { return e.Cause }

// Outcome is Deadline.
func (e *DeadlineError) Outcome() outcome.Kind { return outcome.Deadline }

// AgentError is a DeadlineError in a guest whose agent no longer responds, while
// QEMU is running and the kernel has not reported a crash.
type AgentError struct{ *DeadlineError }

func (e *AgentError) Error() string {
	return "the guest's agent does not respond: " + e.DeadlineError.Error()
}

func (e *AgentError) Unwrap() error { return e.DeadlineError }

// Outcome is GuestCrashed.
func (e *AgentError) Outcome() outcome.Kind { return outcome.GuestCrashed }

// How is Silent.
func (e *AgentError) How() outcome.How { return outcome.Silent }

// state inspects the guest before it is killed.
func (v *VM) state() State {
	s := State{Tail: v.con.tail(), Log: v.cfg.ConsoleLog}
	var hangs []*crash.Report
	for _, r := range v.con.reports() {
		switch {
		case r.Kind.Hang():
			hangs = append(hangs, r)
		case r.Kind == crash.Oops:
			s.Reports = append(s.Reports, r)
		}
	}
	s.Reports = append(s.Reports, hangs...)
	ctx, cancel := context.WithTimeout(context.Background(), registersWait)
	defer cancel()
	var out string
	var err error
	if mon := v.asked.Load(); mon != nil {
		out, err = registers(ctx, mon)
	} else if v.joined != nil {
		out, err = v.joined.Registers(ctx)
	} else {
		return s
	}
	if err != nil {
		return s // without registers; the error to report is the deadline
	}
	s.Registers = out
	s.CPUs = ParseRegisters(s.Registers)
	if f := v.cfg.RegistersLog; f != "" && v.cfg.writeLog(f, s.Registers) == nil {
		s.File = f
	}
	s.Guilty, s.Tasks = v.autopsy()
	return s
}

// registers asks QEMU.
func registers(ctx context.Context, mon *qmp.Monitor) (string, error) {
	out, err := mon.Commands(ctx).HumanMonitorCommand("info registers -a", nil)
	return text.Lines(out[:min(len(out), maxRegisters)]), err
}

// agentWait is how long to wait for the agent's response to a trivial request.
const agentWait = 2 * time.Second

// late converts an operation's deadline error to a *DeadlineError, or to an
// *AgentError if the agent does not respond at all.
func (v *VM) late(err error) error {
	e := &DeadlineError{After: time.Since(v.started), Cause: err, State: v.state()}
	ctx, cancel := context.WithTimeout(v.ctx, v.Patient(agentWait))
	defer cancel()
	if _, ping := v.client.Stat(ctx); errors.Is(ping, context.DeadlineExceeded) {
		return &AgentError{e}
	}
	return e
}

// Registers of QEMU's targets, as printed by target/*/cpu.c.
var (
	cpuHead = regexp.MustCompile(`^CPU#(\d+)`)
	// R15 is the program counter of 32-bit arm, and a general register, of 16 digits, on x86-64.
	pcField = regexp.MustCompile(`(?:^| )(?:(?:PC|RIP|EIP)=([0-9a-f]+)|R15=([0-9a-f]{8})(?:\s|$))`)
	modes   = []struct {
		field *regexp.Regexp // flags in hex, then the mode
		mask  uint64
		off   bool // the bit masks interrupts; else it enables them
	}{
		{regexp.MustCompile(`[RE]FL=([0-9a-f]+) \[\S*\] (CPL=\d)`), 1 << 9, false},              // x86: EFLAGS.IF
		{regexp.MustCompile(`^PSTATE=([0-9a-f]+) \S+ (?:NS )?(?:S )?(EL\dt?h?)`), 1 << 7, true}, // arm64: PSTATE.I
		{regexp.MustCompile(`^PSR=([0-9a-f]+) .*\b(\w+(?:26|32))`), 1 << 7, true},               // arm: CPSR.I
	}
	halted = regexp.MustCompile(` HLT=1\b`)
)

// A register of QEMU's output; those of vectors have other digits behind a colon or a
// space, and segments a selector before.
var oneRegister = regexp.MustCompile(`(?:^|\s)([A-Za-z][A-Za-z0-9]{1,3}) ?=([0-9a-f]{8,16})(?:\s|$)`)

// userModes are the modes in which programs run.
var userModes = []string{"CPL=3", "EL0t", "usr32", "usr26"}

// ParseRegisters parses the known parts of the output of "info registers -a".
func ParseRegisters(out string) []CPU {
	var cpus []CPU
	for _, line := range strings.Split(out, "\n") {
		if m := cpuHead.FindStringSubmatch(line); m != nil {
			if len(cpus) == maxCPUs {
				break
			}
			id, _ := strconv.Atoi(m[1])
			cpus = append(cpus, CPU{ID: id, Mode: "mode unknown", Regs: map[string]uint64{}})
			continue
		}
		if len(cpus) == 0 {
			continue
		}
		c := &cpus[len(cpus)-1]
		if m := pcField.FindStringSubmatch(line); m != nil && c.PC == 0 {
			c.PC, _ = strconv.ParseUint(m[1]+m[2], 16, 64)
		}
		// Registers follow each other with one space, which a match takes.
		for rest := line; len(c.Regs) < maxRegs; {
			m := oneRegister.FindStringSubmatchIndex(rest)
			if m == nil {
				break
			}
			v, _ := strconv.ParseUint(rest[m[4]:m[5]], 16, 64)
			if name := strings.ToLower(rest[m[2]:m[3]]); c.Regs[name] == 0 {
				c.Regs[name] = v
			}
			rest = rest[m[5]:]
		}
		for _, mode := range modes {
			if m := mode.field.FindStringSubmatch(line); m != nil {
				flags, _ := strconv.ParseUint(m[1], 16, 64)
				c.Mode, c.Masked = m[2], flags&mode.mask != 0 == mode.off
				c.Halted = halted.MatchString(line)
				c.User = slices.Contains(userModes, c.Mode)
			}
		}
	}
	return cpus
}
