package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"labctl/guest/wire"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/trace/plan"
)

// maxShown bounds the stacks that are printed for events; the record has all.
const maxShown = 20

// Trace prints the trace of a program's run: what was traced and what could not
// be, the tree of tasks, and each distinct stack with a count.
func Trace(w io.Writer, r *record.Run, o Options) error {
	out := text.NewWriter(w)
	p := &printer{w: out}
	p.head(r)
	p.outcome(&r.Outcome, o)
	if t := r.Trace; t != nil {
		p.lines(t)
		p.tree(t)
		p.paths(t, o)
		p.hists(t, o)
		p.wakeups(t)
		p.sleepers(t, o)
		p.sums(t)
	}
	if p.err != nil {
		return p.err
	}
	return out.Flush()
}

// lines prints what was asked for. Things that are armed under their own names
// share a line; the others say what became of them.
func (p *printer) lines(t *record.Trace) {
	var plain []string
	for i := range t.Lines {
		if l := &t.Lines[i]; !l.Missing() && l.Why == "" && l.Count == 1 && l.Armed[0] == l.Name {
			plain = append(plain, Clean(l.Name))
		}
	}
	if t.Preset != "" {
		plain = append([]string{"preset " + Clean(t.Preset)}, plain...)
	}
	if t.Script != nil {
		plain = append([]string{"by the script " + Clean(t.Script.Name)}, plain...)
	}
	p.f("%s\n", strings.TrimSuffix("traced: "+strings.Join(plain, ", "), " "))
	width := 0
	for i := range t.Lines {
		width = max(width, len(Clean(t.Lines[i].Name)))
	}
	for _, missing := range []bool{false, true} {
		for i := range t.Lines {
			l := &t.Lines[i]
			if l.Missing() != missing || !missing && l.Why == "" && l.Count == 1 && l.Armed[0] == l.Name {
				continue
			}
			p.f("   %-8s %-*s  %s\n", Clean(l.Kind), width, Clean(l.Name), Clean(Became(l)))
		}
	}
	p.idle(t)
	p.f("\n")
}

// idle says what was armed and never hit.
func (p *printer) idle(t *record.Trace) {
	if t.Timeline == nil {
		return
	}
	never := "armed, never hit"
	if t.Lost() > 0 || t.Damaged > 0 || t.Left > 0 || t.Truncated != "" {
		never = "armed, no event in what is left of the trace"
	}
	// Those that were asked for one by one share a line.
	single := map[string][]string{}
	for i := range t.Lines {
		if l := &t.Lines[i]; l.Idle > 0 && l.Count == 1 {
			single[l.Kind] = append(single[l.Kind], l.Name)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(single)) {
		names, what := single[kind], kind
		if len(names) > 1 {
			what = kinds[kind]
		}
		p.names("   "+never+": "+Clean(what), " ", names, len(names))
	}
	for i := range t.Lines {
		l := &t.Lines[i]
		if l.Missing() || l.Idle == 0 || l.Count == 1 {
			continue
		}
		part := fmt.Sprintf("%d of the %d", l.Idle, l.Count)
		if l.Idle == l.Count {
			part = fmt.Sprintf("all %d", l.Count)
		}
		head := fmt.Sprintf("   %s: %s %s of %s", never, part, kinds[l.Kind], Clean(l.Name))
		p.names(head, ": ", l.Never, l.Idle)
	}
}

// Bounds on a list of names as it is printed.
const (
	maxListed = 20
	listWidth = 96
)

// names prints a head and behind it the first of count names, in lines of a width.
func (p *printer) names(head, sep string, names []string, count int) {
	names = names[:min(len(names), maxListed)]
	if len(names) == 0 { // of a record that does not have them
		p.f("%s\n", head)
		return
	}
	line := head + sep
	for i, name := range names {
		word := Clean(name)
		switch more := count - len(names); {
		case i < len(names)-1:
			word += ","
		case more > 0:
			word += fmt.Sprintf(" … and %d more", more)
		}
		if i > 0 && utf8.RuneCountInString(line+" "+word) > listWidth {
			p.f("%s\n", line)
			line = "      " + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	p.f("%s\n", line)
}

// kinds are several of a kind of line.
var kinds = map[string]string{"function": "functions", "graph": "functions", "event": "events", "probe": "probes", "hist": "histograms"}

// Became is what one thing that was asked for came to, in a few words.
func Became(l *plan.Line) string {
	switch {
	case l.Missing() && l.Asked():
		return "missing: " + l.Why
	case l.Missing():
		return l.Why
	}
	s := "→ " + strings.Join(l.Armed, ", ")
	if more := l.Count - len(l.Armed); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	if l.Why != "" {
		s += " (" + l.Why + ")"
	}
	return s
}

func (p *printer) tree(t *record.Trace) {
	if t.Timeline == nil || p.err != nil {
		return
	}
	switch {
	case t.Exit == nil && t.Count() == 0:
		p.f("nothing of the trace came out of the guest\n")
		return
	case len(t.Timeline.Tasks) == 0 && t.Script != nil:
		p.f("what the script traced tells of no task that was made or ended\n")
		return
	case len(t.Timeline.Tasks) == 0:
		p.f("no task was made and none ended\n")
		return
	}
	program := 0
	if t.Exit != nil {
		program = t.Exit.PID
	}
	p.err = t.Timeline.Tree(p.w, program)
	if n := t.Timeline.Unkept; n > 0 {
		p.f("the tree lacks %d events: more tasks than can be kept\n", n)
	}
}

// paths prints each distinct stack: the creations' in the order of the tree's
// numbers, then those of events, the most frequent first.
func (p *printer) paths(t *record.Trace, o Options) {
	if t.Timeline == nil {
		return
	}
	inTree := map[int]bool{}
	for i := range t.Timeline.Tasks {
		inTree[t.Timeline.Tasks[i].Path] = true
		inTree[t.Timeline.Tasks[i].AskedPath] = true
	}
	var numbers, others []int
	for i := range t.Timeline.Paths {
		if inTree[i+1] {
			numbers = append(numbers, i)
		} else {
			others = append(others, i)
		}
	}
	slices.SortStableFunc(others, func(a, b int) int {
		return int(t.Timeline.Paths[b].Count - t.Timeline.Paths[a].Count)
	})
	left := 0
	if len(others) > maxShown {
		left, others = len(others)-maxShown, others[:maxShown]
	}
	folded := o.Style == "folded"
	if folded && len(numbers)+len(others) > 0 {
		p.f("\n")
	}
	for _, i := range append(numbers, others...) {
		path := &t.Timeline.Paths[i]
		s := whole(&path.Stack, o.Raw)
		if folded {
			p.f("%s %d\n", s.Folded(), path.Count)
			continue
		}
		p.f("\n#%d %s, %s\n", i+1, Clean(path.Of), times(path.Count))
		p.stack(&s, o.Style)
	}
	if left > 0 {
		p.f("\n%d more stacks of events are in %s\n", left, record.StacksFile)
	}
	if n := t.Timeline.SkippedFrames; n > 0 && len(others) > 0 && !folded {
		p.f("\nThis kernel's tracer leaves the innermost %s out of the stack of an event. Those of creations, probes and functions are whole.\n", functions(n))
	}
	if n := t.Timeline.UnkeptPaths; n > 0 {
		p.f("\n%d events had yet other stacks, too many to keep\n", n)
	}
}

func functions(n int) string {
	if n == 1 {
		return "function"
	}
	return fmt.Sprintf("%d functions", n)
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (p *printer) sleepers(t *record.Trace, o Options) {
	s := t.Sleepers
	if s == nil {
		return
	}
	p.f("\nsleeping tasks, looked at %s:\n", times(int64(s.Samples)))
	for i := range s.Places {
		place := &s.Places[i]
		var who []string
		for _, k := range place.Tasks {
			who = append(who, task(k.Comm, k.TID))
		}
		kind := "state"
		if place.Kernel {
			kind = "kernel thread, state"
		}
		p.f("\n%s, %s %s: %s\n", times(place.Count), kind, Clean(place.State), strings.Join(who, ", "))
		s := whole(&place.Stack, o.Raw)
		p.stack(&s, o.Style)
	}
	if s.Moved > 0 {
		p.f("\n%d looks found a task that did not hold still\n", s.Moved)
	}
}

// sums prints the counts, and all that is known to be missing.
func (p *printer) sums(t *record.Trace) {
	p.f("\n%d events", t.Count())
	if line := t.Timeline; line != nil && len(line.Events) > 0 {
		var names []string
		for name := range line.Events {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int {
			if line.Events[a] != line.Events[b] {
				return int(line.Events[b] - line.Events[a])
			}
			return strings.Compare(a, b)
		})
		for i, name := range names {
			if i == 12 {
				p.f(", and %d more kinds", len(names)-i)
				break
			}
			sep := ", "
			if i == 0 {
				sep = ": "
			}
			p.f("%s%s %d", sep, Clean(name), line.Events[name])
		}
	}
	p.f("\n")
	for _, c := range t.CPUs {
		if c.Lost > 0 {
			p.f("lost on CPU %d: %d events beside the %d that are here (a larger --buffer keeps more)\n", c.CPU, c.Lost, c.Events)
		}
	}
	if t.Truncated != "" {
		p.f("the capture ended early: %s\n", Clean(t.Truncated))
	}
	if t.Left > 0 {
		p.f("recorded and not shipped, because of a bound (--max): %d bytes\n", t.Left)
	}
	for _, d := range t.Damage {
		p.f("not read: %s\n", Clean(d))
	}
	if more := t.Damaged - int64(len(t.Damage)); more > 0 {
		p.f("not read: %d more places\n", more)
	}
	if s := t.Script; s != nil && s.Unread != "" {
		p.f("not all that the script asked for is known: %s\n", Clean(s.Unread))
	}
	if s := t.Script; s != nil && s.Exit != nil && (t.Exit == nil || s.Exit.PID != t.Exit.PID) {
		p.f("the script %s ended with %s\n", Clean(s.Name), status(s.Exit))
	}
	if t.Exit != nil {
		p.f("%s\n", ended(t))
	}
}

// ended says how the program ended.
func ended(t *record.Trace) string {
	name := "the program"
	if len(t.Argv) > 0 {
		name = Clean(t.Argv[0])
	}
	return fmt.Sprintf("%s (%d) ended with %s", name, t.Exit.PID, status(t.Exit))
}

func status(e *wire.ExecResult) string {
	if e.Signaled {
		return fmt.Sprintf("signal %d", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}
