package report

import (
	"fmt"
	"strings"

	"labctl/host/record"
	"labctl/host/trace/tasks"
	"labctl/host/ui/table"
	"labctl/host/view"
)

// wakeups prints how long tasks waited to run, and what the two sources of that say of each
// other.
func (p *printer) wakeups(t *record.Trace) {
	w := t.Wakeups
	if w == nil {
		return
	}
	p.f("\nwake-up latency, from sched_waking to the run: %s\n", counted(uint64(max(w.Count, 0)), "wake-up", "wake-ups"))
	if w.Count > 0 && p.err == nil {
		p.err = wakeupTable(w).Write(p.w)
		p.f("half within %s, 90%% within %s, 99%% within %s, the longest %s\n", tasks.Span(w.Median), tasks.Span(w.P90), tasks.Span(w.P99), tasks.Span(w.Max))
	}
	if len(w.Worst) > 0 && p.err == nil {
		p.f("\n")
		p.err = worstTable(w).Write(p.w)
	}
	for _, s := range wakeupNotes(w) {
		p.f("%s\n", s)
	}
}

// wakeupNotes are what two sources say of each other, and what the table is without.
func wakeupNotes(w *record.Wakeups) (notes []string) {
	say := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	switch {
	case w.Kernel == 0 && w.Differ == 0:
		say("reckoned from sched_waking and sched_switch alone: the kernel has not measured")
	case w.Differ > 0 && w.Lost:
		say("the kernel measured %d; %d of them are what sched_waking and sched_switch come to, and events were lost, so that not all can be compared", w.Kernel, w.Agree)
	case w.Differ > 0:
		say("not to be relied on: the kernel measured %d, of sched_waking and sched_switch come %d, and %d are not the same", w.Kernel, w.Reckoned, w.Differ)
		for _, d := range w.Differing {
			say("   %s", Clean(d))
		}
	default:
		say("two witnesses: the kernel measured %d by its synthetic event, and each is what sched_waking and sched_switch come to, to the nanosecond", w.Agree)
	}
	for _, left := range []struct {
		n   int64
		why string
	}{
		{w.Before, "woken before the trace began"},
		{w.Running, "still on its CPU when it was woken, so that it had not slept"},
		{w.Others, "not of the program"},
		{w.Unkept, "more than can be kept"},
	} {
		if left.n > 0 {
			say("left out: %d, %s", left.n, left.why)
		}
	}
	return notes
}

// short is a bound of a range: "512 µs", "1 ms".
func short(ns int64) string {
	switch us := ns / 1000; {
	case us < 1024:
		return fmt.Sprintf("%d µs", us)
	case us < 1024*1024:
		return fmt.Sprintf("%d ms", us/1024)
	default:
		return fmt.Sprintf("%d s", us/(1024*1024))
	}
}

func rangeName(r *record.WakeupRange) string { return short(r.From) + " – " + short(r.To) }

func wakeupTable(w *record.Wakeups) *table.Table {
	tab := table.New(0, "LATENCY", "WAKE-UPS", "")
	tab.Columns[0].Right, tab.Columns[1].Right = true, true
	most := mostWoken(w)
	for i := range w.Ranges {
		r := &w.Ranges[i]
		tab.Row(rangeName(r), r.Count, bar(uint64(max(r.Count, 0)), most))
	}
	return tab
}

func mostWoken(w *record.Wakeups) (most uint64) {
	for _, r := range w.Ranges {
		most = max(most, uint64(max(r.Count, 0)))
	}
	return most
}

func worstTable(w *record.Wakeups) *table.Table {
	tab := table.New(0, "LATENCY", "RAN AT", "CPU", "TASK", "PRIO", "WOKEN BY")
	for _, i := range []int{0, 1, 2, 4} {
		tab.Columns[i].Right = true
	}
	for i := range w.Worst {
		l := &w.Worst[i]
		tab.Row(tasks.Span(l.Latency), fmt.Sprintf("%d.%06d", l.Time/1e9, l.Time%1e9/1000), l.CPU, task(l.Task.Comm, l.Task.TID), l.Prio, wokenBy(l))
	}
	return tab
}

func wokenBy(l *record.WakeupLatency) string {
	switch {
	case l.By == nil:
		return ""
	case l.Interrupt:
		return fmt.Sprintf("an interrupt of %s, CPU %d", task(l.By.Comm, l.By.TID), l.WokenOn)
	}
	return fmt.Sprintf("%s, CPU %d", task(l.By.Comm, l.By.TID), l.WokenOn)
}

// wakeupViews are the same for a page.
func wakeupViews(t *record.Trace) []*view.View {
	w := t.Wakeups
	if w == nil {
		return nil
	}
	note := strings.Join(wakeupNotes(w), ". ") + "."
	spread := &view.Table{Columns: []view.Column{{Head: view.Words{EN: "latency", KO: "지연"}, Right: true}, {Head: view.Words{EN: "wake-ups", KO: "깨움"}, Right: true}, {}}}
	most := mostWoken(w)
	for i := range w.Ranges {
		r := &w.Ranges[i]
		spread.Rows = append(spread.Rows, view.Row{Cells: []view.Cell{
			{Kind: view.Text, Text: rangeName(r)}, {Kind: view.Number, Text: fmt.Sprint(r.Count)}, {Kind: view.Text, Text: bar(uint64(max(r.Count, 0)), most)}}})
	}
	worst := &view.Table{Columns: []view.Column{
		{Head: view.Words{EN: "latency", KO: "지연"}, Right: true}, {Head: view.Words{EN: "ran at", KO: "실행 시각"}, Right: true}, {Head: view.Same("CPU"), Right: true},
		{Head: view.Words{EN: "task", KO: "태스크"}}, {Head: view.Same("prio"), Right: true}, {Head: view.Words{EN: "woken by", KO: "깨운 태스크"}}}}
	for i := range w.Worst {
		l := &w.Worst[i]
		worst.Rows = append(worst.Rows, view.Row{Cells: []view.Cell{
			{Kind: view.Number, Text: tasks.Span(l.Latency)}, {Kind: view.Number, Text: fmt.Sprintf("%d.%06d", l.Time/1e9, l.Time%1e9/1000)}, {Kind: view.Number, Text: fmt.Sprint(l.CPU)},
			{Kind: view.Text, Text: task(l.Task.Comm, l.Task.TID)}, {Kind: view.Number, Text: fmt.Sprint(l.Prio)}, {Kind: view.Text, Text: wokenBy(l)}}})
	}
	return []*view.View{
		{ID: "wakeups", Title: view.Words{EN: "How long tasks waited to run", KO: "태스크가 깨어난 뒤 실행되기까지 기다린 시간"}, Table: spread, Note: view.Words{EN: note}},
		{ID: "wakeups-worst", Title: view.Words{EN: "Those that waited longest", KO: "가장 오래 기다린 경우"}, Table: worst},
	}
}
