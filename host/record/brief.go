package record

import (
	"fmt"

	"labctl/host/crash"
	"labctl/host/nearest"
	"labctl/host/text"
)

// Brief is a report of the kernel in a line, as results of many runs keep it.
type Brief struct {
	Kind  string `json:"kind"` // of Crash
	Title string `json:"title"`
	Task  string `json:"task,omitempty"`  // "comm:pid"; of an OOM report the one that was killed
	In    string `json:"in,omitempty"`    // the innermost function of its stack
	Count int    `json:"count,omitempty"` // of a hang that was reported more than once
}

// maxBrief bounds a text of a Brief, in bytes.
const maxBrief = 300

// Brief is the report in a line. Its texts are clean.
func (c *Crash) Brief() Brief {
	b := Brief{Kind: c.Kind, Title: c.Title, Count: c.Count}
	t := c.Task
	victim := c.Victim != nil // the stack is of whoever wanted memory
	if victim {
		t = c.Victim
	}
	if t != nil && t.Comm != "" {
		b.Task = fmt.Sprintf("%s:%d", t.Comm, t.PID)
	}
	if !victim && c.Stack != nil && len(c.Stack.Frames) > 0 {
		b.In = c.Stack.Frames[0].Name
	}
	return b.Clean()
}

// Clean bounds the texts, which may come from anywhere, and makes each one line.
func (b Brief) Clean() Brief {
	for _, s := range []*string{&b.Kind, &b.Title, &b.Task, &b.In} {
		*s = text.Line(*s, maxBrief)
	}
	return b
}

// String is "kernel oops: BUG: kernel NULL pointer dereference, … (task x:143, in f)".
func (b Brief) String() string {
	s := fmt.Sprintf("kernel %s: %s", b.Kind, b.Title)
	where := ""
	if b.Task != "" {
		where = "task " + b.Task
	}
	if b.In != "" {
		where = join(where, "in "+b.In)
	}
	if b.Count > 1 {
		where = join(where, fmt.Sprintf("%d times", b.Count))
	}
	if where != "" {
		s += " (" + where + ")"
	}
	return s
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// FailOn says which reports of the kernel make a run fail: those at or above a
// severity. Empty is FailOnOops. It is the value of a flag (pflag.Value).
type FailOn string

// The values of FailOn.
const (
	FailOnWarn FailOn = "warn"
	FailOnBug  FailOn = "bug"
	FailOnOops FailOn = "oops"
	FailOnNone FailOn = "none"
)

var failsOn = []struct {
	name FailOn
	from crash.Severity
}{
	{FailOnWarn, crash.SeverityWarn},
	{FailOnBug, crash.SeverityBug},
	{FailOnOops, crash.SeverityOops},
	{FailOnNone, crash.SeverityPanic + 1},
}

// Fails says whether a report of a kind makes the run fail.
func (f FailOn) Fails(k crash.Kind) bool {
	for _, r := range failsOn {
		if r.name == FailOn(f.String()) {
			return k.Severity() >= r.from
		}
	}
	return true
}

// Set takes one of the values.
func (f *FailOn) Set(s string) error {
	var known []string
	for _, r := range failsOn {
		if r.name == FailOn(s) {
			*f = r.name
			return nil
		}
		known = append(known, string(r.name))
	}
	return nearest.Unknown("kind of report", s, known)
}

func (f FailOn) String() string {
	if f == "" {
		return string(FailOnOops)
	}
	return string(f)
}

// Type is what a flag's help calls the value.
func (f FailOn) Type() string { return "KIND" }
