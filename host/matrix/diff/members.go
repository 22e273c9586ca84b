package diff

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"labctl/host/kernel/profile"
)

// Layout is one structure in all kernels.
type Layout struct {
	Name string `json:"name"`
	Size Row    `json:"size"` // in bytes
	// Members are those that differ anywhere, in the order of their declaration.
	Members []Row `json:"members,omitempty"`
	Count   []int `json:"count"` // of members; -1 is not known
}

// layouts compares the structures that profiles have.
func (d *Diff) layouts() {
	names := map[string]bool{}
	for _, k := range d.Kernels {
		for _, s := range k.profile.Structs {
			names[s.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		structs, unknown := make([]*profile.Struct, len(d.Kernels)), make([]bool, len(d.Kernels))
		sizes := make([]string, len(d.Kernels))
		l := Layout{Name: name}
		for i, k := range d.Kernels {
			structs[i], unknown[i] = k.profile.Struct(name), !k.profile.BTF
			l.Count = append(l.Count, -1)
			if s := structs[i]; s != nil {
				sizes[i], l.Count[i] = fmt.Sprint(s.Size), len(s.Members)
			}
		}
		l.Size = d.row("size", sizes, unknown)
		for _, r := range d.members(structs, unknown) {
			if r.has() {
				l.Members = append(l.Members, r)
			}
		}
		if len(l.Members) > 0 || l.Size.has() {
			d.Layouts = append(d.Layouts, l)
		}
	}
}

// members follows every member through the kernels, under the names that it has.
func (d *Diff) members(structs []*profile.Struct, unknown []bool) (rows []Row) {
	type line struct {
		at  []*profile.Member // of each kernel
		how []string          // by what a new name was recognised
	}
	var lines []*line
	var left *profile.Struct
	leftCol := 0
	for col, s := range structs {
		if s == nil {
			continue
		}
		at, older := map[string]*line{}, map[string]*line{} // the left kernel's, and those that it had lost, by name
		for _, l := range lines {
			if m := l.at[leftCol]; m != nil {
				at[m.Name] = l
			} else {
				older[before(l.at, col).Name] = l
			}
		}
		pairs, how := match(left, s)
		var order []*line // new lines go behind what is before them in the structure
		behind := map[*line][]*line{}
		var previous *line
		for j := range s.Members {
			m := &s.Members[j]
			l := at[pairs[m.Name]]
			if l == nil {
				l = older[m.Name]
			}
			if l == nil {
				l = &line{at: make([]*profile.Member, len(structs)), how: make([]string, len(structs))}
				behind[previous] = append(behind[previous], l)
			}
			l.at[col], l.how[col] = m, how[m.Name]
			previous = l
		}
		var put func(*line)
		put = func(l *line) {
			if l != nil {
				order = append(order, l)
			}
			for _, next := range behind[l] {
				put(next)
			}
		}
		put(nil)
		for _, l := range lines {
			put(l)
		}
		lines, left, leftCol = order, s, col
	}
	for _, l := range lines {
		rows = append(rows, d.memberRow(l.at, l.how, unknown))
	}
	return rows
}

// before is the member in the nearest kernel to the left of col that has one.
func before(at []*profile.Member, col int) *profile.Member {
	for _, m := range slices.Backward(at[:col]) {
		if m != nil {
			return m
		}
	}
	return nil
}

func (d *Diff) memberRow(at []*profile.Member, how []string, unknown []bool) Row {
	names := make([]string, len(at))
	for i, m := range at {
		if m != nil {
			names[i] = m.Name
		}
	}
	r := d.row(names[slices.IndexFunc(names, func(n string) bool { return n != "" })], names, unknown)
	var left *profile.Member
	for i, m := range at {
		c := &r.Cells[i]
		if m == nil {
			continue
		}
		c.Place = (*Place)(m)
		if left != nil && !slices.Contains(c.Changes, Appeared) {
			c.Changes, c.How = nil, ""
			if m.Name != left.Name {
				c.Changes, c.How = append(c.Changes, Renamed), how[i]
			}
			if m.Type != left.Type {
				c.Changes = append(c.Changes, Retyped)
			}
			if m.Size != left.Size || m.Bits != left.Bits {
				c.Changes = append(c.Changes, Resized)
			}
			if m.Offset*8+m.Shift != left.Offset*8+left.Shift {
				c.Changes = append(c.Changes, Moved)
			}
		}
		left = m
	}
	d.first(&r)
	return r
}

// match finds for the members of b those of a that they were: of the same name, or
// renamed, for which how says by what that was recognised.
//
// Members that both have by name and in the same order part a structure into
// gaps. A member of b that a does not have was renamed when its gap in a has one
// that b does not have, with the same name but for underscores or, if there is no
// other such pair in the gap, with the same size and type. Bit fields are too much
// alike for the latter.
func match(a, b *profile.Struct) (was, how map[string]string) {
	was, how = map[string]string{}, map[string]string{}
	if a == nil {
		return was, how
	}
	inA, inB := map[string]bool{}, map[string]bool{}
	for _, m := range a.Members {
		inA[m.Name] = true
	}
	for _, m := range b.Members {
		inB[m.Name] = true
		if inA[m.Name] {
			was[m.Name] = m.Name
		}
	}
	var gone, come []*profile.Member // of the gap at hand
	gap := func() {
		for _, related := range []func(x, y *profile.Member) bool{sameWord, sameKind} {
			for _, y := range come {
				var like []*profile.Member
				for _, x := range gone {
					if related(x, y) {
						like = append(like, x)
					}
				}
				rivals := 0
				for _, z := range come {
					if len(like) == 1 && was[z.Name] == "" && related(like[0], z) {
						rivals++
					}
				}
				if was[y.Name] == "" && len(like) == 1 && rivals == 1 && !taken(was, like[0].Name) {
					was[y.Name], how[y.Name] = like[0].Name, reason(like[0], y)
				}
			}
		}
		gone, come = nil, nil
	}
	for _, at := range align(len(a.Members), len(b.Members), func(i, j int) int {
		if a.Members[i].Name == b.Members[j].Name {
			return same
		}
		return farther
	}) {
		switch {
		case at[0] >= 0 && at[1] >= 0:
			gap()
		case at[0] >= 0 && !inB[a.Members[at[0]].Name]:
			gone = append(gone, &a.Members[at[0]])
		case at[1] >= 0 && !inA[b.Members[at[1]].Name]:
			come = append(come, &b.Members[at[1]])
		}
	}
	gap()
	return was, how
}

func taken(was map[string]string, name string) bool {
	for _, old := range was {
		if old == name {
			return true
		}
	}
	return false
}

// sameWord says that names differ by underscores around them.
func sameWord(x, y *profile.Member) bool {
	return strings.Trim(x.Name, "_") == strings.Trim(y.Name, "_")
}

func sameKind(x, y *profile.Member) bool {
	return x.Size == y.Size && x.Type == y.Type && x.Bits == 0 && y.Bits == 0 && x.Size > 0
}

func reason(x, y *profile.Member) string {
	switch {
	case x.Size != y.Size:
		return "same place in the order, same word"
	case x.Type != y.Type:
		return "same place in the order, same size"
	}
	return "same place in the order, same size and type"
}
