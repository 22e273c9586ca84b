// Package kthread holds the probe that has kthreadd make a kernel thread.
//
// User space cannot ask for one directly. The kernel does on its own when it is
// given new work, so each trigger turns something on, watches /proc for the
// thread and turns it off again.
package kthread

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"labctl/guest/probe"
	"labctl/guest/probe/procfs"
	"labctl/guest/wire"
)

func init() {
	probe.Register(probe.Probe{Name: "kthread", Run: func(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
		return run(ctx, kernel{"/proc", "/sys"}, params)
	}})
}

// kernel is where the kernel's files are.
type kernel struct{ proc, sys string }

// trigger is one way to make the kernel want a thread.
type trigger struct {
	name   string
	method string
	comm   string                 // the thread that must appear; with a * at its end, one that begins so
	others func(comm string) bool // threads that come with it, may be nil
	// prepare brings the kernel to the state before, and says what it found.
	// An absent error lets the next trigger try.
	prepare func(ctx context.Context, k kernel) (found string, err error)
	// fire asks for the thread; undo restores what prepare found.
	fire func(k kernel, found string) (undo func() error, err error)
}

// absent says why this kernel or machine has not what a trigger needs.
type absent string

func (a absent) Error() string { return string(a) }

// triggers in order of preference: the first two leave no trace, a second CPU
// can be new only once.
var triggers = []trigger{
	{
		name:    "thp",
		method:  "transparent huge pages turned off and on: start_stop_khugepaged",
		comm:    "khugepaged",
		prepare: thpOff,
		fire: func(k kernel, found string) (func() error, error) {
			return func() error { return write(k.thp(), found) }, write(k.thp(), "always")
		},
	},
	{
		name:    "psi",
		method:  "a trigger written to /proc/pressure/cpu: psi_trigger_create",
		comm:    "psimon",
		prepare: psiThere,
		fire:    psiWatch,
	},
	{
		name:    "cpu1",
		method:  "CPU 1 brought online: smpboot_create_threads, workqueue_prepare_cpu",
		comm:    "cpuhp/1",
		others:  func(comm string) bool { return strings.HasSuffix(comm, "/1") || strings.HasPrefix(comm, "kworker/1:") },
		prepare: cpu1Offline,
		fire: func(k kernel, found string) (func() error, error) {
			return func() error { return write(k.cpu1(), found) }, write(k.cpu1(), "1")
		},
	},
	{
		name:    "kworker",
		method:  "unbound work kept to one CPU: workqueue_set_unbound_cpumask, which wants pools of workers for it",
		comm:    "kworker/u*",
		prepare: severalCPUs,
		fire: func(k kernel, found string) (func() error, error) {
			return func() error { return write(k.workers(), found) }, write(k.workers(), oneCPU(found))
		},
	},
}

func (k kernel) thp() string  { return filepath.Join(k.sys, "kernel/mm/transparent_hugepage/enabled") }
func (k kernel) psi() string  { return filepath.Join(k.proc, "pressure/cpu") }
func (k kernel) cpu1() string { return filepath.Join(k.sys, "devices/system/cpu/cpu1/online") }

// workers is the mask of CPUs for work that is bound to none, wq_unbound_cpumask.
func (k kernel) workers() string { return filepath.Join(k.sys, "devices/virtual/workqueue/cpumask") }

// run tries the triggers in order, or only the one that params name.
func run(ctx context.Context, k kernel, params json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Trigger   *string `json:"trigger"`
		TimeoutMS int     `json:"timeout_ms"`
	}{TimeoutMS: 10_000}
	if err := probe.Params(params, &p); err != nil {
		return nil, err
	}
	if p.TimeoutMS < 1 || p.TimeoutMS > 600_000 {
		return nil, probe.Paramf("timeout_ms %d: give 1 to 600000", p.TimeoutMS)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(p.TimeoutMS)*time.Millisecond,
		fmt.Errorf("no answer from kthreadd in %d ms", p.TimeoutMS))
	defer cancel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	var refused []string
	for _, t := range triggers {
		if p.Trigger != nil && *p.Trigger != t.name {
			continue
		}
		found, err := t.prepare(ctx, k)
		if why := absent(""); errors.As(err, &why) {
			refused = append(refused, t.name+": "+string(why))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("trigger %s: %w", t.name, err)
		}
		res, err := t.pull(ctx, k, found)
		if err != nil {
			return nil, fmt.Errorf("trigger %s: %w", t.name, err)
		}
		return res, nil
	}
	if refused == nil {
		return nil, probe.Paramf("trigger %q: give thp, psi, cpu1 or kworker", *p.Trigger)
	}
	return nil, fmt.Errorf("no way to have a kernel thread made (%s)", strings.Join(refused, "; "))
}

// pull fires t and reports the threads that appeared. It undoes t even when they
// did not.
func (t trigger) pull(ctx context.Context, k kernel, found string) (res *wire.ProbeResult, err error) {
	before, err := threads(k)
	if err != nil {
		return nil, err
	}
	undo, err := t.fire(k, found)
	if undo != nil {
		defer func() {
			if undoErr := undo(); undoErr != nil {
				res, err = nil, errors.Join(err, fmt.Errorf("restore %q: %w", found, undoErr))
			}
		}()
	}
	if err != nil {
		return nil, err
	}
	var fresh []procfs.Stat
	if err := poll(ctx, func() (bool, error) {
		now, err := threads(k)
		fresh = appeared(before, now)
		return slices.ContainsFunc(fresh, t.isWanted), err
	}); err != nil {
		return nil, fmt.Errorf("wait for %s: %w", t.comm, err)
	}
	res = &wire.ProbeResult{Probe: "kthread", Method: t.method, Tasks: []wire.Task{probe.Self()}}
	unrelated := []string{}
	for _, s := range fresh {
		if t.isWanted(s) || t.others != nil && t.others(s.Comm) {
			res.Tasks = append(res.Tasks, wire.Task{Role: "kthread", Comm: s.Comm, PID: s.PID, TID: s.PID, TGID: s.PID, PPID: s.PPID})
		} else {
			unrelated = append(unrelated, s.Comm)
		}
	}
	res.Data = map[string]any{"trigger": t.name, "before": found, "unrelated": unrelated}
	return res, nil
}

// isWanted compares names. /proc shows a worker's with what it works on behind it:
// "kworker/u5:0-events_unbound" (wq_worker_comm).
func (t trigger) isWanted(s procfs.Stat) bool {
	if start, ok := strings.CutSuffix(t.comm, "*"); ok {
		return strings.HasPrefix(s.Comm, start)
	}
	return s.Comm == t.comm
}

// threads are the kernel threads that kthreadd made.
func threads(k kernel) ([]procfs.Stat, error) {
	all, err := procfs.Processes(k.proc)
	return slices.DeleteFunc(all, func(s procfs.Stat) bool { return !s.KernelThread() || s.PPID != kthreadd }), err
}

const kthreadd = 2 // rest_init makes it second

// appeared are those of now that before does not have. A pid that was reused
// has another start time.
func appeared(before, now []procfs.Stat) []procfs.Stat {
	type key struct {
		pid   int
		start uint64
	}
	old := map[key]bool{}
	for _, s := range before {
		old[key{s.PID, s.StartTime}] = true
	}
	return slices.DeleteFunc(slices.Clone(now), func(s procfs.Stat) bool { return old[key{s.PID, s.StartTime}] })
}

// poll calls done until it holds, fails or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// thpOff stops khugepaged and returns the setting that it had.
func thpOff(ctx context.Context, k kernel) (string, error) {
	text, err := procfs.ReadFile(k.thp())
	if errors.Is(err, os.ErrNotExist) {
		return "", absent("no transparent_hugepage in sysfs")
	}
	if err != nil {
		return "", err
	}
	found, err := chosen(string(text))
	if err != nil {
		return "", fmt.Errorf("%s: %w", k.thp(), err)
	}
	if err := write(k.thp(), "never"); err != nil {
		return "", err
	}
	err = poll(ctx, func() (bool, error) {
		now, err := threads(k)
		return !slices.ContainsFunc(now, func(s procfs.Stat) bool { return s.Comm == "khugepaged" }), err
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("wait for khugepaged to end: %w", err), write(k.thp(), found))
	}
	return found, nil
}

// chosen is the word in brackets of "always [madvise] never".
func chosen(text string) (string, error) {
	for _, word := range strings.Fields(text) {
		if inner, ok := strings.CutPrefix(word, "["); ok {
			if inner, ok = strings.CutSuffix(inner, "]"); ok && inner != "" {
				return inner, nil
			}
		}
	}
	return "", fmt.Errorf("%.60q: no [choice]", text)
}

// psiThere looks whether pressure stall information is on. The file exists in
// 5.10 even when it is off, and then cannot be opened.
func psiThere(_ context.Context, k kernel) (string, error) {
	f, err := os.OpenFile(k.psi(), os.O_RDWR, 0)
	if err != nil {
		return "", absent(fmt.Sprintf("no pressure stall information, boot with psi=1 (%v)", err))
	}
	return "no trigger", f.Close()
}

// psiWatch asks to be told of 0.5 s of stall in 1 s. The kernel ends the thread
// when the file is closed.
func psiWatch(k kernel, _ string) (func() error, error) {
	f, err := os.OpenFile(k.psi(), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString("some 500000 1000000\x00")
	return f.Close, err
}

// cpu1Offline wants CPU 1 there and offline. A CPU that was online once keeps
// its threads parked, and then nothing new appears.
func cpu1Offline(_ context.Context, k kernel) (string, error) {
	text, err := procfs.ReadFile(k.cpu1())
	if errors.Is(err, os.ErrNotExist) {
		return "", absent("no CPU 1 that can be brought online")
	}
	if err != nil {
		return "", err
	}
	if found := strings.TrimSpace(string(text)); found != "0" {
		return "", absent("CPU 1 is online already, boot with maxcpus=1")
	}
	now, err := threads(k)
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(now, func(s procfs.Stat) bool { return s.Comm == "cpuhp/1" }) {
		return "", absent("CPU 1 has its threads from an earlier time")
	}
	return "0", nil
}

// severalCPUs wants unbound work to have more than one of the first 32 CPUs, so
// that there is a smaller mask, which no pool of workers has yet.
func severalCPUs(_ context.Context, k kernel) (string, error) {
	text, err := procfs.ReadFile(k.workers())
	if errors.Is(err, os.ErrNotExist) {
		return "", absent("no mask of CPUs for workqueues in sysfs")
	}
	if err != nil {
		return "", err
	}
	found := strings.TrimSpace(string(text))
	mask, err := firstCPUs(found)
	if err != nil {
		return "", fmt.Errorf("%s: %w", k.workers(), err)
	}
	if mask&(mask-1) == 0 {
		return "", absent("unbound work has one CPU only")
	}
	return found, nil
}

// firstCPUs are the lowest 32 of a mask as bitmap_parse and %*pb have it: "3",
// "ff,ffffffff".
func firstCPUs(mask string) (uint32, error) {
	n, err := strconv.ParseUint(mask[strings.LastIndexByte(mask, ',')+1:], 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%.60q: no mask of CPUs", mask)
	}
	return uint32(n), nil
}

// oneCPU is a mask with the lowest CPU of another one.
func oneCPU(mask string) string {
	n, _ := firstCPUs(mask)
	return strconv.FormatUint(uint64(n&-n), 16)
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0) }
