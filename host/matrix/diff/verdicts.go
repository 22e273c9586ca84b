package diff

import (
	"slices"

	"labctl/host/text"
)

// verdicts compares what judging the records says, of labs that ran on more than
// one of the kernels.
func (d *Diff) verdicts() {
	type item struct {
		id, says string
		claim    bool
		verdicts []string
	}
	var items []*item
	find := func(id, says string, claim bool) *item {
		i := slices.IndexFunc(items, func(it *item) bool { return it.id == id && it.claim == claim })
		if i < 0 {
			i = len(items)
			items = append(items, &item{id, text.Line(says, 300), claim, make([]string, len(d.Kernels))})
		}
		return items[i]
	}
	for col, k := range d.Kernels {
		for _, r := range k.reports { // the last of a lab counts
			for _, c := range r.Checks {
				find(r.Lab+" "+c.ID, c.Says.EN, false).verdicts[col] = string(c.Verdict)
			}
			for _, c := range r.Claims {
				find(r.Lab+" "+c.ID, c.Says.EN, true).verdicts[col] = string(c.Verdict)
			}
		}
	}
	slices.SortFunc(items, func(a, b *item) int { return natural(a.id, b.id) })
	for _, it := range items {
		unknown := make([]bool, len(d.Kernels))
		for i, v := range it.verdicts {
			unknown[i] = v == ""
		}
		r := d.row(it.id, it.verdicts, unknown)
		if r.Says = it.says; !r.has() {
			continue
		}
		if it.claim {
			d.Claims = append(d.Claims, r)
		} else {
			d.Checks = append(d.Checks, r)
		}
	}
}
