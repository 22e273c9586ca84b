package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/text"
)

// A task that dies in an oops takes with it what it holds: the other threads of its
// process, and whoever waits for that process, may wait forever. Whether they do
// cannot be known, but everything in the guest besides PID 1 belongs to the program,
// so an idle guest is a program that waits. deadTaskIdle is for how long. Patient does
// not scale it: what a busy host keeps waiting is not idle in the guest.
const (
	deadTaskIdle = 5 * time.Second
	deadTaskLook = time.Second
	maxIdleShare = 0.8 // of the time of all CPUs that counts as idle
)

// DeadTaskError reports that a program was ended because one of its tasks died in
// the kernel and nothing ran any more.
type DeadTaskError struct {
	Report *crash.Report
	Idle   time.Duration
	Log    string
}

func (e *DeadTaskError) Error() string { return fmt.Sprintf("%s (%v)", e.Short(), e.Report) }

// Short is the error for those who have been told of the report.
func (e *DeadTaskError) Short() string {
	t := e.Report.Task()
	return fmt.Sprintf("the program was ended: its task %s:%d died in the kernel, and for %.0f s nothing has run",
		text.Line(t.Comm, 64), t.PID, e.Idle.Seconds())
}

// Outcome is KernelReported.
func (e *DeadTaskError) Outcome() outcome.Kind { return outcome.KernelReported }

// How is the kind of the report: "oops".
func (e *DeadTaskError) How() outcome.How { return outcome.How(e.Report.Kind) }

// Seen returns the report from the console.
func (e *DeadTaskError) Seen() (cpus []string, report *crash.Report) { return nil, e.Report }

// EndDead makes every program end with a *DeadTaskError that waits for a task of its
// own that died in the kernel. It is called before the first program.
func (v *VM) EndDead() { v.client.Watch(v.deadTask) }

// deadTask waits for an oops of a user's task and then for the guest to be idle.
// It returns nil when ctx ends.
func (v *VM) deadTask(ctx context.Context) error {
	before := len(v.con.deaths())
	var dead *crash.Report
	for dead == nil {
		select {
		case <-v.con.oopsed:
		case <-ctx.Done():
			return nil
		}
		if all := v.con.deaths(); len(all) > before {
			dead = all[len(all)-1]
		} else if !sleep(ctx, deadTaskLook) {
			return nil
		}
	}
	var idle time.Duration
	for last, lastOK := v.cpuTime(ctx); idle < deadTaskIdle; {
		start := time.Now()
		if !sleep(ctx, deadTaskLook) {
			return nil
		}
		now, ok := v.cpuTime(ctx)
		if ok && lastOK && now.idleSince(last) && v.alone(ctx) {
			idle += time.Since(start)
		} else {
			idle = 0
		}
		last, lastOK = now, ok
	}
	return &DeadTaskError{Report: dead, Idle: idle, Log: v.cfg.ConsoleLog}
}

// alone reports whether the guest has no programs of others, which may be idle for
// reasons of their own.
func (v *VM) alone(ctx context.Context) bool { return v.joined == nil || v.joined.Alone(ctx) }

// sleep reports false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// userDied reports whether a task of a program died: not a thread of the kernel's,
// and not one of PID 1, by the name that its threads have.
func userDied(r *crash.Report) bool {
	if r.Kind != crash.Oops {
		return false
	}
	t := r.Task()
	if t == nil || t.PID <= 1 || t.Comm == initComm {
		return false
	}
	frames := r.Stack().Frames
	return len(frames) > 0 && frames[len(frames)-1].Exception
}

// initComm is the name of InitPath's threads.
var initComm = InitPath[strings.LastIndexByte(InitPath, '/')+1:]

// cpuTime is what /proc/stat says of all CPUs together, in clock ticks.
type cpuTime struct{ busy, idle uint64 }

func (t cpuTime) idleSince(before cpuTime) bool {
	busy, idle := t.busy-before.busy, t.idle-before.idle
	return float64(idle) >= maxIdleShare*float64(busy+idle)
}

// cpuTime asks the guest; it reports false when the answer makes no sense.
func (v *VM) cpuTime(ctx context.Context) (cpuTime, bool) {
	ctx, cancel := context.WithTimeout(ctx, v.Patient(agentWait))
	defer cancel()
	var b bytes.Buffer
	if err := v.client.ReadFile(ctx, "/proc/stat", maxStat, &b); err != nil {
		return cpuTime{}, false
	}
	t, err := parseStat(b.String())
	return t, err == nil
}

const maxStat = 1 << 20 // bytes

// parseStat parses the first line of /proc/stat (fs/proc/stat.c, show_stat): user,
// nice, system, idle, iowait, irq, softirq, steal, and guest times, which are in
// user and nice already.
func parseStat(s string) (t cpuTime, err error) {
	line, _, _ := strings.Cut(s, "\n")
	fields := strings.Fields(line)
	if len(fields) < 5 || fields[0] != "cpu" {
		return t, errors.New("/proc/stat: no line cpu")
	}
	for i, f := range fields[1:min(len(fields), 9)] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return t, fmt.Errorf("/proc/stat: %q is not a number", text.Line(f, 40))
		}
		if i == 3 || i == 4 {
			t.idle += n
		} else {
			t.busy += n
		}
	}
	return t, nil
}
