package trace

import (
	"strings"
	"testing"

	"labctl/guest/wire"
	"labctl/host/record"
	"labctl/host/trace/plan"
)

func TestPlaces(t *testing.T) {
	var p places
	wait := []string{"[<0>] do_wait+0x164/0x240", "[<0>] __do_sys_wait4+0xb4/0xc0", "[<0>] do_syscall_64+0x55/0x80", "[<0>] entry_SYSCALL_64_after_hwframe+0x6e/0xd8"}
	for range 3 {
		p.add(&wire.Sleeper{TID: 7, Comm: "sh", State: "S", Stack: wait})
	}
	p.add(&wire.Sleeper{TID: 8, Comm: "sh", State: "S", Stack: wait, Moved: true})
	for range 9 {
		p.add(&wire.Sleeper{TID: 2, Comm: "kthreadd", State: "S", Kernel: true, Stack: []string{"[<0>] kthreadd+0x2b8/0x2c0", "[<0>] ret_from_fork+0x10/0x20"}})
	}
	p.add(&wire.Sleeper{TID: 9, Comm: "x\x1b", State: "\x1b[2J", Stack: []string{"[<0>] nap+0x1/0x2", "nonsense +", "[<0>] \x1b[2J+0x1/0x2"}})
	p.add(&wire.Sleeper{TID: 10, Comm: "runs", State: "S"})
	s := p.sleepers()
	var got []string
	for _, place := range s.Places {
		var who []string
		for _, k := range place.Tasks {
			who = append(who, k.Comm)
		}
		got = append(got, place.Stack.Frames[0].Name+" "+place.State+" "+strings.Join(who, ","))
		if len(place.Stack.Frames) > 4 {
			t.Errorf("%s has %d frames", place.Stack.Frames[0].Name, len(place.Stack.Frames))
		}
	}
	want := []string{"do_wait S sh,sh", "nap ?? x\x1b", "kthreadd S kthreadd"}
	if strings.Join(got, "; ") != strings.Join(want, "; ") || s.Places[0].Count != 4 || s.Moved != 1 {
		t.Errorf("places %q, first %d times, %d moved; want %q, 4, 1", got, s.Places[0].Count, s.Moved, want)
	}
}

// TestAsked: the stacks of what was asked for are wanted, not those of the
// events that are there for the tree.
func TestAsked(t *testing.T) {
	want := asked(&record.Trace{Lines: []plan.Line{
		{Kind: "probe", Name: "clone", Armed: []string{"kernel_clone"}, Count: 1},
		{Kind: "probe", Name: "mine", Armed: []string{"vfs_read"}, Count: 1},
		{Kind: "event", Name: "signal", Armed: []string{"signal/signal_deliver", "signal/signal_generate"}, Count: 2},
		{Kind: "event", Name: "sched/sched_switch", Why: "busy"},
		{Kind: "function", Name: "_do_fork", Armed: []string{"kernel_clone"}, Count: 1},
	}})
	for event, yes := range map[string]bool{"clone": false, "mine": true, "signal_deliver": true, "signal_generate": true, "sched_switch": false, "function": true, "sched_process_exit": false} {
		if want(event) != yes {
			t.Errorf("stacks of %s wanted: %v, want %v", event, !yes, yes)
		}
	}
}
