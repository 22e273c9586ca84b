package report

import (
	"fmt"
	"io"

	"labctl/host/record"
	"labctl/host/text"
)

// Crash prints what the kernel reported: a line that names it, and its stack.
func Crash(w io.Writer, c *record.Crash, o Options) error {
	out := text.NewWriter(w)
	p := &printer{w: out}
	p.crash(c, o)
	if p.err != nil {
		return p.err
	}
	return out.Flush()
}

// outcome prints how a run that died or hung ended.
func (p *printer) outcome(o *record.Outcome, opt Options) {
	if o.Crash != nil {
		p.crash(o.Crash, opt)
	}
	for _, c := range o.CPUs {
		p.f("%s\n", Clean(c))
	}
	if o.Crash != nil || len(o.CPUs) > 0 {
		p.f("\n")
	}
}

func (p *printer) crash(c *record.Crash, o Options) {
	if !o.Untitled {
		p.f("kernel %s: %s\n", Clean(c.Kind), Clean(c.Title))
	}
	switch {
	case c.Count > 1 && c.Last != "" && c.Last != c.Title:
		p.f("   %d times, the last: %s\n", c.Count, Clean(c.Last))
	case c.Count > 1:
		p.f("   %d times\n", c.Count)
	}
	if c.Cause != "" {
		p.f("   cause: %s\n", Clean(c.Cause))
	}
	if c.Victim != nil {
		p.f("   killed: %s\n", crashTask(c.Victim))
	}
	if c.Task != nil {
		p.f("   task: %s\n", crashTask(c.Task))
	}
	if c.Stack == nil || len(c.Stack.Frames) == 0 {
		return
	}
	s := whole(c.Stack, o.Raw)
	p.stack(&s, o.Style)
}

func crashTask(t *record.Task) string {
	s := "not named"
	if t.Comm != "" {
		s = task(t.Comm, t.PID)
	}
	if t.CPU >= 0 {
		s += fmt.Sprintf(" on CPU %d", t.CPU)
	}
	return s
}
