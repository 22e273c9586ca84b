// Package agree holds what a probe asked for against what the kernel showed. It
// works from the record alone.
package agree

import (
	"fmt"

	"labctl/guest/catalogue"
	"labctl/guest/wire"
	"labctl/host/clone"
	"labctl/host/record"
	"labctl/host/trace/creation"
)

// kthreadd is the task that makes kernel threads (init/main.c, rest_init).
const kthreadd = 2

// Check compares the tasks that a probe reports with the creations that the kernel
// showed. Without a result there is nothing to compare.
func Check(p *record.Probe) []record.Finding {
	var j findings
	if p.Result == nil {
		return nil
	}
	if len(p.Result.Tasks) == 0 || p.Result.Tasks[0].Role != "self" {
		j.add("the probe reports itself", false, "nothing", "a first task of role self")
		return j.all
	}
	self := p.Result.Tasks[0]
	for _, t := range p.Result.Tasks {
		if t.Role == "self" {
			continue
		}
		who := fmt.Sprintf("%s %d", t.Role, t.TID)
		c := find(p.Creations, t.TID)
		j.same(who+" was made in the kernel", c != nil, true)
		if c == nil {
			continue
		}
		j.task(who, self, t, c)
	}
	j.add("the trace is whole", p.Lost == 0 && p.Damaged == 0, fmt.Sprintf("%d events lost, %d places damaged", p.Lost, p.Damaged), "0 and 0")
	for _, info := range catalogue.Probes() {
		if info.Name != p.Name || info.Makes == "" {
			continue
		}
		n := 0
		for _, t := range p.Result.Tasks {
			if t.Role == info.Makes {
				n++
			}
		}
		j.add("tasks made of role "+info.Makes, n > 0, fmt.Sprint(n), "at least 1")
	}
	return j.all
}

type findings struct{ all []record.Finding }

func (j *findings) add(what string, ok bool, got, want string) {
	j.all = append(j.all, record.Finding{What: what, OK: ok, Got: got, Want: want})
}

func (j *findings) same(what string, got, want any) {
	j.add(what, got == want, fmt.Sprint(got), fmt.Sprint(want))
}

func (j *findings) task(who string, self, t wire.Task, c *creation.Creation) {
	if t.Role == "kthread" {
		j.same(who+" was made by kthreadd", c.Requester.TID, kthreadd)
		j.same(who+" came by", c.Via, "kthread")
		j.add(who+" was asked for", c.AskedBy != nil, asker(c), "a task that asked kthreadd")
	} else {
		j.same(who+" was made by the probe's task", c.Requester.TID, self.TID)
	}
	if a := t.Asked; a != nil && !a.Unknown {
		j.same(who+" came by the system call", c.Via, a.Syscall)
		if c.Args == nil {
			j.add(who+" flags as the kernel received them", false, "not traced", "traced")
		} else {
			j.same(who+" flags as the kernel received them", c.Args.Flags, clone.Flags(a.Flags))
			if c.Args.ExitSignal != nil {
				j.same(who+" exit signal as the kernel received it", *c.Args.ExitSignal, clone.Signal(a.ExitSignal))
			}
		}
	}
	j.add(who+" stack starts at the creation function", len(c.Stack.Frames) > 0 && c.Stack.Frames[0].Base() == c.Symbol, top(c), c.Symbol)
	j.add(who+" stack goes down to the kernel's entry", !c.Stack.Truncated, bottom(c), "an entry from user mode or the start of a kernel thread")
}

func find(all []creation.Creation, tid int) *creation.Creation {
	for i := range all {
		if all[i].Child.TID == tid {
			return &all[i]
		}
	}
	return nil
}

func asker(c *creation.Creation) string {
	if c.AskedBy == nil {
		return "nobody seen"
	}
	return fmt.Sprintf("%s-%d", c.AskedBy.Comm, c.AskedBy.TID)
}

func top(c *creation.Creation) string {
	if len(c.Stack.Frames) == 0 {
		return "no stack"
	}
	return c.Stack.Frames[0].Name
}

func bottom(c *creation.Creation) string {
	if n := len(c.Stack.Frames); n > 0 {
		return c.Stack.Frames[n-1].Name
	}
	return "no stack"
}
