package tracefs

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

func wakeupFake(t *testing.T) (*fakeKernel, *FS) {
	k, fsys := captureFake(t)
	k.file("synthetic_events", "")
	k.more = map[string]string{
		"events/sched/sched_waking/trigger": "", "events/sched/sched_switch/trigger": "",
		"events/synthetic/wakeup_lat_x/enable": "0\n", "events/synthetic/wakeup_lat_x/format": "name: wakeup_lat_x\n",
	}
	return k, fsys
}

func wakeupLog(k *fakeKernel) (out []string) {
	for _, line := range k.log {
		if strings.Contains(line, "hist:") || strings.Contains(line, "synthetic") || strings.Contains(line, "trace_clock") || strings.HasPrefix(line, "rmdir") {
			out = append(out, strings.TrimPrefix(line, "instances/labctl_x/"))
		}
	}
	return out
}

// TestWakeup: what measures is made in its order, and taken away in the other, the list of
// synthetic events that all instances share too.
func TestWakeup(t *testing.T) {
	k, fsys := wakeupFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "labctl_x", Wakeup: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.armed.Missing) > 0 || !slices.Contains(r.events, "synthetic/wakeup_lat_x") {
		t.Errorf("missing %v; events %q", r.armed.Missing, r.events)
	}
	k.busyEvents = 2
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	const waking, lat = "hist:keys=pid:labctl_ts=common_timestamp:size=16384", "hist:keys=next_pid:labctl_lat=common_timestamp-$labctl_ts:size=16384:onmatch(sched.sched_waking).wakeup_lat_x($labctl_lat,next_pid,next_prio)"
	if d := cmp.Diff([]string{
		"trace_clock=global",
		"synthetic_events=wakeup_lat_x u64 lat; pid_t pid; int prio",
		"events/sched/sched_waking/trigger=" + waking,
		"events/sched/sched_switch/trigger=" + lat,
		"events/synthetic/wakeup_lat_x/enable=1",
		"events/synthetic/wakeup_lat_x/enable=0",
		"events/sched/sched_switch/trigger=!" + lat,
		"events/sched/sched_waking/trigger=!" + waking,
		"synthetic_events=!wakeup_lat_x u64 lat; pid_t pid; int prio",
		"rmdir instances/labctl_x",
	}, wakeupLog(k)); d != "" {
		t.Errorf("commands (-want +got):\n%s", d)
	}
}

// TestWakeupRefused: what was made before the refusal is taken away, and the rest is traced.
func TestWakeupRefused(t *testing.T) {
	k, fsys := wakeupFake(t)
	k.fail["instances/labctl_x/events/sched/sched_switch/trigger"] = syscall.EINVAL
	r, err := fsys.Arm(wire.CaptureParams{Instance: "labctl_x", Wakeup: true, Clock: "mono"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []wire.CaptureMissing{{What: "wakeup wakeup_lat", Why: "invalid argument"}}; cmp.Diff(want, r.armed.Missing) != "" {
		t.Errorf("missing %v, want %v", r.armed.Missing, want)
	}
	if got := wakeupLog(k); got[len(got)-1] != "synthetic_events=!wakeup_lat_x u64 lat; pid_t pid; int prio" || !strings.HasSuffix(got[2], ":clock=mono") {
		t.Errorf("commands %q", got)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	_, fsys = captureFake(t)
	if r, err = fsys.Arm(wire.CaptureParams{Instance: "lab", Wakeup: true}); err != nil {
		t.Fatal(err)
	}
	defer r.Remove()
	if got, want := r.armed.Missing[0].Why, "this kernel makes no synthetic events: it is built without SYNTH_EVENTS"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}
