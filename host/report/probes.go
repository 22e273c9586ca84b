// Package report renders run records. It reads nothing but the record, so a
// record can be shown again later, elsewhere.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"labctl/guest/wire"
	"labctl/host/clone"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/creation"
	"labctl/host/ui/table"
)

// Styles of stacks that code asks for; the others are stack.Styles.
const (
	TRACE32 = "trace32"
	JSON    = "json" // everything, for machines
)

// Styles lists the values of Options.Style.
var Styles = styles()

func styles() (names []string) {
	for _, s := range stack.Styles {
		names = append(names, s.Name)
	}
	return append(names, JSON)
}

// Options say how a run is printed.
type Options struct {
	Style string // one of Styles
	Raw   bool   // with the frames that were trimmed
	// Untitled leaves a crash's first line out, where an error has said it.
	Untitled bool
}

// Clean makes a guest's words fit for a terminal.
func Clean(s string) string { return text.Line(s, 500) }

// Probes prints a run of probes: the machine, a line for each task that was
// made, then each probe's result and stacks.
//
// Nothing of the record is trusted: words are cleaned where they are put in a
// line, so that none can look like another line, and all of it on its way out.
func Probes(w io.Writer, r *record.Run, o Options) error {
	out := text.NewWriter(w)
	p := &printer{w: out}
	p.head(r)
	p.outcome(&r.Outcome, o)
	p.table(r)
	for i := range r.Probes {
		p.probe(&r.Probes[i], o)
	}
	if p.err != nil {
		return p.err
	}
	return out.Flush()
}

// printer keeps the first error of a series of writes.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) head(r *record.Run) {
	p.f("%s on %s, QEMU %s (%s)", Clean(r.Kernel.Release), Clean(r.Target.Name), Clean(r.QEMU.Version), Clean(r.QEMU.Accel))
	if len(r.Phases) > 0 {
		total := 0.0
		var parts []string
		for _, ph := range r.Phases {
			total += ph.Seconds
			parts = append(parts, fmt.Sprintf("%s %.2f", Clean(ph.Name), ph.Seconds))
		}
		p.f(", up in %.2f s (%s)", total, strings.Join(parts, ", "))
	}
	p.f("\n\n")
}

func (p *printer) table(r *record.Run) {
	if p.err != nil || len(r.Probes) == 0 {
		return
	}
	w := table.New(0, "PROBE", "REQUESTER", "CHILD", "DEPTH", "AGREES", "FLAGS IN THE KERNEL")
	for i := range r.Probes {
		pr := &r.Probes[i]
		verdict := "yes"
		switch {
		case pr.NotApplicable != "":
			verdict = "not applicable"
		case pr.Result == nil:
			verdict = "failed"
		case failed(pr) > 0:
			verdict = "NO"
		case len(pr.Findings) == 0:
			verdict = "-" // the run ended before its trace could be read
		}
		if len(pr.Creations) == 0 {
			w.Row(Clean(pr.Name), "-", "-", "-", verdict, "-")
		}
		for j := range pr.Creations {
			c := &pr.Creations[j]
			flags := "not traced"
			if c.Args != nil {
				flags = Clean(c.Args.Text)
			}
			w.Row(Clean(pr.Name),
				task(c.Requester.Comm, c.Requester.TID), task(c.Child.Current(), c.Child.TID), len(c.Stack.Frames), verdict, flags)
		}
	}
	p.err = w.Write(p.w)
}

func task(comm string, tid int) string { return fmt.Sprintf("%s-%d", Clean(comm), tid) }

func failed(p *record.Probe) int {
	n := 0
	for _, f := range p.Findings {
		if !f.OK {
			n++
		}
	}
	return n
}

func (p *printer) probe(pr *record.Probe, o Options) {
	p.f("\n== %s", Clean(pr.Name))
	switch {
	case pr.NotApplicable != "":
		p.f(": not applicable: %s", Clean(pr.NotApplicable))
	case pr.Result != nil:
		p.f(": %s", Clean(pr.Result.Method))
	}
	p.f("\n")
	if pr.Result != nil {
		p.tasks(pr.Result.Tasks)
	}
	if pr.Armed != nil {
		for _, m := range pr.Armed.Missing {
			p.f("   not traced: %s\n", Clean(m.String()))
		}
	}
	for _, f := range pr.Findings {
		if !f.OK {
			p.f("   FAIL %s: got %s, want %s\n", Clean(f.What), Clean(f.Got), Clean(f.Want))
		}
	}
	switch {
	case len(pr.Creations) == 0:
	case o.Style == JSON:
		b, err := json.MarshalIndent(pr.Creations, "", "  ")
		if err != nil {
			p.err = err
			return
		}
		p.f("%s\n", b)
	case o.Style == "" || o.Style == TRACE32:
		p.f("%s", creation.Text(shown(pr.Creations, o.Raw)))
	default:
		for _, c := range shown(pr.Creations, o.Raw) {
			p.f("# %s makes %s\n", task(c.Requester.Comm, c.Requester.TID), task(c.Child.Current(), c.Child.TID))
			p.stack(&c.Stack, o.Style)
			if r := c.AskedBy; r != nil {
				p.f("# asked for by %s\n", task(r.Comm, r.TID))
				p.stack(&r.Stack, o.Style)
			}
		}
	}
}

func (p *printer) tasks(tasks []wire.Task) {
	if p.err != nil {
		return
	}
	w := table.New(0)
	w.Indent = 3
	for _, t := range tasks {
		asked := ""
		if a := t.Asked; a != nil {
			asked = Clean(a.Syscall)
			if !a.Unknown {
				asked += "(" + clone.Text(clone.Flags(a.Flags), clone.Signal(a.ExitSignal)) + ")"
			}
			asked = "asked by " + asked
		}
		w.Row(Clean(t.Role), Clean(t.Comm), fmt.Sprintf("pid %d", t.PID), fmt.Sprintf("tid %d", t.TID),
			fmt.Sprintf("tgid %d", t.TGID), fmt.Sprintf("ppid %d", t.PPID), asked)
	}
	p.err = w.Write(p.w)
}

// shown is the creations as they are printed: cleaned copies, with the trimmed
// frames back on top when raw.
func shown(all []creation.Creation, raw bool) []creation.Creation {
	out := make([]creation.Creation, len(all))
	for i, c := range all {
		c.Via, c.Symbol, c.Requester.Comm = Clean(c.Via), Clean(c.Symbol), Clean(c.Requester.Comm)
		c.Child.Comm, c.Child.Name = Clean(c.Child.Comm), Clean(c.Child.Name)
		c.Stack = whole(&c.Stack, raw)
		if c.Args != nil {
			a := *c.Args
			a.Text = Clean(a.Text)
			c.Args = &a
		}
		notes := c.Notes
		c.Notes = nil
		for _, n := range notes {
			c.Notes = append(c.Notes, Clean(n))
		}
		if c.AskedBy != nil {
			r := *c.AskedBy
			r.Comm = Clean(r.Comm)
			r.Stack = whole(&r.Stack, raw)
			c.AskedBy = &r
		}
		out[i] = c
	}
	return out
}

// stack prints a stack that is clean already.
func (p *printer) stack(s *stack.Stack, style string) {
	print, ok := stack.FindStyle(style)
	if !ok {
		print, _ = stack.FindStyle(TRACE32)
	}
	p.f("%s", print.Print(s))
}

func whole(s *stack.Stack, raw bool) stack.Stack {
	cp := *s
	cp.Frames = nil
	if raw {
		for _, f := range s.Trimmed {
			f.Note = strings.TrimPrefix(f.Note+"; trimmed", "; ")
			if f.Kind == "" {
				f.Kind = stack.Function
			}
			cp.Frames = append(cp.Frames, frame(f))
		}
	}
	for _, f := range s.Frames {
		cp.Frames = append(cp.Frames, frame(f))
	}
	return cp
}

func frame(f stack.Frame) stack.Frame {
	f.Name, f.Module, f.Note = stack.Sanitise(f.Name), stack.Sanitise(f.Module), Clean(f.Note)
	args := f.Args
	f.Args = nil
	for _, a := range args {
		f.Args = append(f.Args, stack.Arg{Name: Clean(a.Name), Value: Clean(a.Value)})
	}
	return f
}
