package diff

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/host/kernel/profile"
)

// sets makes rows of the names that not all kernels have, of those that know.
func (d *Diff) sets(part string, of func(*Kernel) (names []string, known bool)) (rows []Row) {
	unknown := make([]bool, len(d.Kernels))
	have := map[string][]string{}
	counts := make([]int, len(d.Kernels))
	for i, k := range d.Kernels {
		names, known := of(k)
		if unknown[i] = !known; unknown[i] {
			counts[i] = -1
			continue
		}
		counts[i] = len(names)
		for _, n := range names {
			if have[n] == nil {
				have[n] = make([]string, len(d.Kernels))
			}
			have[n][i] = n
		}
	}
	d.count[part] = counts
	for _, n := range slices.Sorted(maps.Keys(have)) {
		if r := d.row(n, have[n], unknown); r.has() {
			rows = append(rows, r)
		}
	}
	return rows
}

// functions compares those that deal with tasks. Of a kernel without types only
// those of a family are known, by their symbols.
func (d *Diff) functions(mixed bool) {
	all := map[string][]*profile.Function{}
	counts := make([]int, len(d.Kernels))
	for i, k := range d.Kernels {
		if counts[i] = len(k.profile.Functions); !k.profile.BTF && !k.profile.Symbols {
			counts[i] = -1
		}
		for j := range k.profile.Functions {
			f := &k.profile.Functions[j]
			if all[f.Name] == nil {
				all[f.Name] = make([]*profile.Function, len(d.Kernels))
			}
			all[f.Name][i] = f
		}
		if p := k.profile; p.BTF && p.Symbols && p.Known.Types < p.Known.Symbols/10*9 {
			d.note("the types of %s tell of %d of its %d functions: one that is not among its functions here may be in it", k.Label, p.Known.Types, p.Known.Symbols)
		}
	}
	d.count[Functions] = counts
	var rows []Row
	families := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		family, protos := "", false
		for _, f := range all[name] {
			if f != nil {
				family = cmp.Or(family, f.Family)
				protos = protos || f.Proto != ""
			}
		}
		families[name] = family
		texts, unknown := make([]string, len(d.Kernels)), make([]bool, len(d.Kernels))
		for i, f := range all[name] {
			p := d.Kernels[i].profile
			switch {
			case f != nil && (f.Proto != "" || !protos):
				texts[i] = cmp.Or(f.Proto, f.Name)
			case f != nil: // it is there; how it is called is not known
				unknown[i] = true
			default:
				unknown[i] = !p.BTF && (family == "" || !p.Symbols)
			}
		}
		rows = append(rows, d.row(name, texts, unknown))
	}
	if !mixed {
		rows = d.successors(rows, families)
	}
	for _, r := range rows {
		if r.has() {
			d.Functions = append(d.Functions, r)
		}
	}
	// Those that make tasks come first.
	slices.SortStableFunc(d.Functions, func(a, b Row) int { return cmp.Compare(min(1, len(families[b.Name])), min(1, len(families[a.Name]))) })
}

// successors joins the rows of a creation function's names: a kernel has one.
func (d *Diff) successors(rows []Row, families map[string]string) []Row {
	var out []Row
	var creation *Row
	for _, r := range rows {
		if families[r.Name] != ksym.FamilyCreation {
			out = append(out, r)
			continue
		}
		if creation == nil {
			creation = &r
			continue
		}
		for i, c := range r.Cells {
			if mine := &creation.Cells[i]; mine.Text == "" {
				mine.Text, mine.Unknown = c.Text, c.Text == "" && (c.Unknown || mine.Unknown)
			}
		}
	}
	if creation == nil {
		return out
	}
	texts, unknown := make([]string, len(d.Kernels)), make([]bool, len(d.Kernels))
	for i, c := range creation.Cells {
		texts[i], unknown[i] = c.Text, c.Unknown
	}
	joined := d.row(creation.Name, texts, unknown)
	for i := range joined.Cells {
		if c := &joined.Cells[i]; slices.Contains(c.Changes, Changed) && nameOf(c.Text) != nameOf(last(texts[:i])) {
			c.Changes = []Change{Renamed}
		}
	}
	return append([]Row{joined}, out...)
}

// nameOf is the function's name in a prototype, or in a bare name.
func nameOf(proto string) string {
	head, _, _ := strings.Cut(proto, "(")
	return head[strings.LastIndexAny(head, " *")+1:]
}
