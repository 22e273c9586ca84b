package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"labctl/host/targets"
	columns "labctl/host/ui/table"
	"labctl/host/vm/qemu"
)

// sample is one quantity, measured several times.
type sample []float64

func (s sample) median() float64 {
	if len(s) == 0 {
		return 0
	}
	x := slices.Sorted(slices.Values(s))
	if n := len(x); n%2 == 0 {
		return (x[n/2-1] + x[n/2]) / 2
	}
	return x[len(x)/2]
}

// text is "median (least–most)".
func (s sample) text(unit string, digits int) string {
	if len(s) == 0 {
		return "-"
	}
	m := fmt.Sprintf("%.*f", digits, s.median())
	if len(s) > 1 {
		m += fmt.Sprintf(" (%.*f–%.*f)", digits, slices.Min(s), digits, slices.Max(s))
	}
	if unit != "" {
		m += " " + unit
	}
	return m
}

// row is one line of the table: a quantity over its baseline.
type row struct {
	what, baseline string
	got, base      sample
	ratios         sample // of the pairs; of the medians when empty
	unit           string
	digits         int
	bound          string // what the ratio should stay under, if there is such
}

func (r row) ratio() sample {
	if len(r.ratios) == 0 && r.base.median() != 0 {
		return sample{r.got.median() / r.base.median()}
	}
	return r.ratios
}

// ratioText shows what is far below 1, too.
func ratioText(s sample) string {
	if m := s.median(); m > 0 && m < 0.1 {
		return s.text("", 4)
	}
	return s.text("", 2)
}

// table is all rows and, under each part, notes.
type table struct {
	rows  []row
	notes []string
}

func (t *table) add(r row) { t.rows = append(t.rows, r) }

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

func (t *table) String() string {
	var s strings.Builder
	w := columns.New(0, "RATIO", "BOUND", "N", "WHAT", "MEDIAN (MIN–MAX)", "BASELINE", "MEDIAN (MIN–MAX)")
	for _, r := range t.rows {
		bound := r.bound
		if bound == "" {
			bound = "-"
		}
		w.Row(ratioText(r.ratio()), bound, len(r.got),
			r.what, r.got.text(r.unit, r.digits), r.baseline, r.base.text(r.unit, r.digits))
	}
	s.WriteString(w.String())
	for _, n := range t.notes {
		s.WriteString(n + "\n")
	}
	return s.String()
}

// head says what was measured on.
func head(b *bench) string {
	host, _ := os.ReadFile("/proc/loadavg")
	s := fmt.Sprintf("labctl on %d CPUs (%s/%s), load %s, kernel %s, accelerator tcg\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH,
		strings.Join(strings.Fields(string(host))[:1], ""), b.kernel)
	for _, a := range b.arches {
		if t, ok := targets.Find(a); ok {
			if v, err := qemu.Version(t.Binary); err == nil {
				s += fmt.Sprintf("%s: %s %s, -machine %s, %d CPUs, %d MB\n", a, t.Binary, v, t.Machine, t.CPUs, t.MemoryMB)
			}
		}
	}
	return s + "\n"
}

// compare measures run and base in turn, the one that goes first changing each
// time, so that neither has the quieter machine. Both run once before, for the
// caches.
func (b *bench) compare(what, baseline, bound string, run, base func() error) error {
	for _, f := range []func() error{base, run} {
		if err := f(); err != nil {
			return err
		}
	}
	r := row{what: what, baseline: baseline, bound: bound, unit: "s", digits: 2}
	for i := range b.pairs {
		var took [2]float64
		for j := range 2 {
			which := (i + j) % 2
			start := time.Now()
			if err := []func() error{base, run}[which](); err != nil {
				return err
			}
			took[which] = time.Since(start).Seconds()
		}
		r.base, r.got, r.ratios = append(r.base, took[0]), append(r.got, took[1]), append(r.ratios, took[1]/took[0])
	}
	b.table.add(r)
	b.say("  %s: %s, %s of %s", what, r.got.text("s", 2), r.ratios.text("", 2), baseline)
	return nil
}
