package tracefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"labctl/guest/wire"
)

// The triggers that make an event of each wake-up (Documentation/trace/histogram.rst, "Trace
// event wakeup_latency"), in nanoseconds. Each remembers so many tasks.
const (
	wakingTrigger = "hist:keys=pid:labctl_ts=common_timestamp:size=16384"
	switchTrigger = "hist:keys=next_pid:labctl_lat=common_timestamp-$labctl_ts:size=16384"
	onSwitch      = ":onmatch(sched.sched_waking).%s($labctl_lat,next_pid,next_prio)"
)

// armWakeup has the kernel measure how long tasks wait from their wake-up to their run, and
// record it as an event of its own. All tracefs has one list of such events: its name is of
// the capture.
func (r *Capture) armWakeup() {
	if !r.params.Wakeup {
		return
	}
	if err := r.makeWakeup(wire.WakeupEvent + strings.TrimPrefix(r.name, probeSystem)); err != nil {
		r.miss("wakeup "+wire.WakeupEvent, err)
	}
}

func (r *Capture) makeWakeup(name string) error {
	clock := ""
	if r.params.Clock != "" {
		clock = ":clock=" + r.params.Clock
	} else if err := r.set("trace_clock", "global"); err != nil { // as the triggers would, and give back
		return fmt.Errorf("trace_clock: %w", err)
	}
	taken := len(r.undo)
	err := r.wakeupSteps(name, clock)
	if err != nil {
		for i := len(r.undo) - 1; i >= taken; i-- {
			err = errors.Join(err, r.undo[i]())
		}
		r.undo = r.undo[:taken]
	}
	return err
}

func (r *Capture) wakeupSteps(name, clock string) error {
	const file = "synthetic_events"
	definition := name + " u64 lat; pid_t pid; int prio"
	synthetic := func(command string) error {
		return explained(r.fs.root, func() error {
			return r.fs.files.Write(filepath.Join(r.fs.root, file), command+"\n", os.O_APPEND)
		}, r.fs.files)
	}
	if _, err := os.Stat(filepath.Join(r.fs.root, file)); errors.Is(err, fs.ErrNotExist) {
		return errors.New("this kernel makes no synthetic events: it is built without SYNTH_EVENTS")
	}
	if err := synthetic(definition); err != nil {
		return err
	}
	r.undo = append(r.undo, func() error {
		// Some kernels free a trigger behind the back of who took it away.
		return whileBusy(func() error { return synthetic("!" + definition) })
	})
	for _, t := range []struct{ event, trigger string }{
		{"sched/sched_waking", wakingTrigger + clock},
		{"sched/sched_switch", switchTrigger + clock + fmt.Sprintf(onSwitch, name)},
	} {
		if err := explained(r.dir, func() error { return r.trigger(t.event, t.trigger) }, r.fs.files); err != nil {
			return err
		}
		r.undo = append(r.undo, func() error { return r.trigger(t.event, "!"+t.trigger) })
	}
	enable := "events/synthetic/" + name + "/enable"
	if err := r.write(enable, "1"); err != nil {
		return err
	}
	r.undo = append(r.undo, func() error { return r.write(enable, "0") })
	r.events = append(r.events, "synthetic/"+name)
	return nil
}
