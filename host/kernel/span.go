package kernel

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"labctl/host/outcome"
	"labctl/host/text"
)

// Span is a range of kernel series, both ends included: "6.1..7.2".
type Span struct {
	From, To string // series; empty: no bound
	Flavour  string // of the sources' kernels; empty: the standard one
}

// spanMark is between the ends of a Span.
const spanMark = ".."

// ParseSpan reads "6.1..7.2", "6.1..", "..6.12" and "6.1-cloud..7.2-cloud". ok is
// false for what names one kernel: it has no "..", or is a path.
func ParseSpan(s string) (_ Span, ok bool, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	from, to, ok := strings.Cut(s, spanMark)
	if !ok || strings.ContainsRune(s, '/') || s == spanMark {
		return Span{}, false, nil
	}
	var r Span
	var flavours []string
	for _, end := range []struct {
		text string
		to   *string
	}{{from, &r.From}, {to, &r.To}} {
		if end.text == "" {
			continue
		}
		series, flavour, cut := strings.Cut(end.text, "-")
		if _, err := parseSeries(series); err != nil || cut && !plainName.MatchString(flavour) {
			return Span{}, true, fmt.Errorf("kernels %q: want two series, such as 6.1..7.2", text.Line(s, 80))
		}
		*end.to, flavours = series, append(flavours, flavour)
	}
	if r.Flavour = flavours[0]; flavours[len(flavours)-1] != r.Flavour {
		return Span{}, true, fmt.Errorf("kernels %s: both ends want the same flavour", text.Line(s, 80))
	}
	if r.From != "" && r.To != "" && compareSeries(r.From, r.To) > 0 {
		return Span{}, true, fmt.Errorf("kernels %s: the older series comes first: %s", text.Line(s, 80), Span{r.To, r.From, r.Flavour})
	}
	return r, true, nil
}

func (r Span) String() string {
	ends := []string{r.From, r.To}
	for i := range ends {
		if ends[i] != "" && r.Flavour != "" {
			ends[i] += "-" + r.Flavour
		}
	}
	return ends[0] + spanMark + ends[1]
}

func (r Span) has(series string) bool {
	_, err := parseSeries(series)
	return err == nil && (r.From == "" || compareSeries(series, r.From) >= 0) && (r.To == "" || compareSeries(series, r.To) <= 0)
}

// Spanned is a kernel of a Span.
type Spanned struct {
	Name  string   // as ParseRef takes it
	Archs []string // on which it is to be had, in the order that was asked for
}

// Within lists the kernels of a span, by series: those that the sources offer, cached
// or not, and, of the standard flavour, what else is cached: builds and modules. An
// empty span is an error.
func (c *Cache) Within(r Span, archs []string) ([]Spanned, error) {
	type found struct {
		Spanned
		series string
	}
	var all []found
	var offered []string // series, for the message
	for _, arch := range archs {
		rows, err := c.Sources(arch)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			series := row.Series
			switch {
			case row.Source == KindDebian && row.Ref.Flavour == r.Flavour:
				offered = append(offered, series)
			case row.Source == KindDebian || r.Flavour != "" || row.Kernel == nil:
				continue
			default:
				series = row.Kernel.Series
			}
			if !r.has(series) {
				continue
			}
			if i := slices.IndexFunc(all, func(f found) bool { return f.Name == row.Name }); i < 0 {
				all = append(all, found{Spanned{row.Name, []string{arch}}, series})
			} else if !slices.Contains(all[i].Archs, arch) {
				all[i].Archs = append(all[i].Archs, arch)
			}
		}
	}
	if len(all) == 0 {
		slices.SortFunc(offered, compareSeries)
		return nil, outcome.Inputf("kernels %s: none for %s is between these; offered: %s", r, strings.Join(archs, ", "),
			cmp.Or(strings.Join(slices.Compact(offered), ", "), "none"))
	}
	slices.SortStableFunc(all, func(a, b found) int { return compareSeries(a.series, b.series) })
	var out []Spanned
	for _, f := range all {
		out = append(out, f.Spanned)
	}
	return out, nil
}
