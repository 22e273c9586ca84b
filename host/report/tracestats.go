package report

import (
	"fmt"
	"io"
	"time"

	"labctl/host/text"
	"labctl/host/trace/stats"
	"labctl/host/ui/table"
)

// TraceStats prints the counts of a trace. Of lists it prints the first top rows.
func TraceStats(w io.Writer, s *stats.Stats, top, width int) error {
	out := text.NewWriter(w)
	fmt.Fprintf(out, "%s: trace.dat version %d", s.File, s.Version)
	if s.Kernel != "" {
		fmt.Fprintf(out, ", %s", s.Kernel)
	}
	if s.Clock != "" {
		fmt.Fprintf(out, ", clock %s", s.Clock)
	}
	lost := "none lost"
	if s.Lost > 0 {
		lost = fmt.Sprintf("%d lost", s.Lost)
	}
	span := fmt.Sprintf("in %s (%d.%06d to %d.%06d)", time.Duration(s.End-s.Start).Round(time.Microsecond),
		s.Start/1e9, s.Start%1e9/1000, s.End/1e9, s.End%1e9/1000)
	if s.Ticks {
		span = fmt.Sprintf("in %d ticks of the clock (%d to %d)", s.End-s.Start, s.Start, s.End)
	}
	fmt.Fprintf(out, "\n%d events, %d stacks among them, %s, %s\n\n", s.Events, s.Stacks, lost, span)
	t := table.New(width, "CPU", "INSTANCE", "BYTES", "EVENTS", "LOST", "REMARKS")
	for _, i := range []int{0, 2, 3, 4} {
		t.Columns[i].Right = true
	}
	for _, c := range s.CPUs {
		lost, remarks := fmt.Sprint(c.Lost), ""
		if c.AtLeast {
			lost = "≥" + lost
		}
		if c.Unknown > 0 {
			remarks = fmt.Sprintf("%d of events that the file does not describe", c.Unknown)
		}
		if c.Damaged > 0 {
			if remarks != "" {
				remarks += "; "
			}
			remarks += fmt.Sprintf("%d places damaged", c.Damaged)
		}
		t.Row(c.CPU, Clean(c.Instance), c.Bytes, c.Events, lost, remarks)
	}
	if err := t.Write(out); err != nil {
		return err
	}
	for _, l := range []struct {
		head   string
		counts []stats.Count
	}{{"EVENT", s.Kinds}, {"FUNCTION", s.Funcs}, {"TASK", s.Tasks}} {
		if len(l.counts) == 0 {
			continue
		}
		fmt.Fprintln(out)
		t := table.New(width, "COUNT", l.head)
		t.Columns[0].Right = true
		for i, c := range l.counts {
			if i == top {
				t.Row("", fmt.Sprintf("and %d more", len(l.counts)-i))
				break
			}
			t.Row(c.N, Clean(c.Name))
		}
		if err := t.Write(out); err != nil {
			return err
		}
	}
	if s.Unkept > 0 {
		fmt.Fprintf(out, "\nnot told apart: %d, too many names\n", s.Unkept)
	}
	for _, d := range s.Damage {
		fmt.Fprintf(out, "not read: %s\n", Clean(d))
	}
	if more := s.Damaged - int64(len(s.Damage)); more > 0 {
		fmt.Fprintf(out, "not read: %d more places\n", more)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(out, "note: %s\n", Clean(n))
	}
	return out.Flush()
}
