// Package diff says what differs between kernels, from the records of labs that
// ran on them and the profiles of the kernels that are kept there. It starts no
// machine.
package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Schema is the value of Report.Schema.
const Schema = "labctl/matrix-diff/v1"

// The parts of a diff.
const (
	Stacks      = "stacks"      // the ways to make a task, frame by frame
	Members     = "members"     // structures
	Claims      = "claims"      // verdicts, of checks too
	Tracepoints = "tracepoints" //
	Syscalls    = "syscalls"    // and which of them makes a task
	Functions   = "functions"   // that deal with tasks
)

// Parts are all of them, in the order of printing.
var Parts = []string{Stacks, Members, Claims, Tracepoints, Syscalls, Functions}

// Report is what is printed: a diff, or one for each architecture.
type Report struct {
	Schema string `json:"schema"`
	// Problems are records that could not be read, a line each.
	Problems []string `json:"problems,omitempty"`
	Diffs    []*Diff  `json:"diffs"`
}

// Diff compares kernels, each with the one to the left of it.
type Diff struct {
	Kernels []*Kernel `json:"kernels"`
	Notes   []string  `json:"notes,omitempty"`

	Paths       []Path   `json:"paths,omitempty"`
	Layouts     []Layout `json:"structs,omitempty"`
	Checks      []Row    `json:"checks,omitempty"` // whose verdict differs
	Claims      []Row    `json:"claims,omitempty"`
	Tracepoints []Row    `json:"tracepoints,omitempty"` // that not all have
	Syscalls    []Row    `json:"syscalls,omitempty"`
	Ways        []Row    `json:"ways,omitempty"` // how a program's request becomes a system call
	Functions   []Row    `json:"functions,omitempty"`

	parts []string
	count map[string][]int // how many tracepoints, system calls, functions a kernel has; -1 is not known
}

// Row is one thing in all kernels.
type Row struct {
	Name string `json:"name"`
	Says string `json:"says,omitempty"` // of a check or a claim
	// Cells are the kernels'; First is the label of the first one that differs
	// from one to the left of it.
	Cells []Cell `json:"cells"`
	First string `json:"first,omitempty"`
}

// Cell is what one kernel has of it.
type Cell struct {
	// Text is empty where the kernel has none, Unknown says that nobody knows.
	Text    string `json:"text,omitempty"`
	Unknown bool   `json:"unknown,omitempty"`
	// Changes are from the next kernel to the left that is known; none is the
	// same. How says by what a new name was recognised.
	Changes []Change `json:"changes,omitempty"`
	How     string   `json:"how,omitempty"`
	// Place is a member's.
	Place *Place `json:"place,omitempty"`
}

// Place is where a member is, in bytes, or bits of them.
type Place struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Offset int    `json:"offset"`
	Size   int    `json:"size"`
	Bits   int    `json:"bits,omitempty"`
	Shift  int    `json:"shift,omitempty"`
}

// Change is one way to differ.
type Change string

// The changes.
const (
	Appeared    Change = "appeared"
	Vanished    Change = "vanished"
	Changed     Change = "changed"
	Renamed     Change = "renamed"
	Counterpart Change = "counterpart" // what another architecture has in its place
	Retyped     Change = "retyped"
	Resized     Change = "resized"
	Moved       Change = "moved"
)

// has reports whether any kernel differs in one of these ways, in any way when none
// is given.
func (r *Row) has(ways ...Change) bool {
	return slices.ContainsFunc(r.Cells, func(c Cell) bool {
		return len(ways) == 0 && len(c.Changes) > 0 || slices.ContainsFunc(c.Changes, func(w Change) bool { return slices.Contains(ways, w) })
	})
}

// Differs reports whether there is any difference.
func (d *Diff) Differs() bool {
	any := func(rows []Row) bool { return slices.ContainsFunc(rows, func(r Row) bool { return r.has() }) }
	return any(d.Checks) || any(d.Claims) || any(d.Tracepoints) || any(d.Syscalls) || any(d.Ways) || any(d.Functions) ||
		slices.ContainsFunc(d.Paths, func(p Path) bool { return any(p.Frames) }) ||
		slices.ContainsFunc(d.Layouts, func(l Layout) bool { return any(l.Members) || l.Size.has() })
}

// New compares kernels. Several of each architecture are a diff an architecture;
// else all are in one. parts is what is wanted, all when it is empty.
func New(kernels []*Kernel, parts []string) []*Diff {
	if len(parts) == 0 {
		parts = Parts
	}
	var arches []string
	of := map[string][]*Kernel{}
	for _, k := range kernels {
		if of[k.Arch] == nil {
			arches = append(arches, k.Arch)
		}
		of[k.Arch] = append(of[k.Arch], k)
	}
	if slices.ContainsFunc(arches, func(a string) bool { return len(of[a]) < 2 }) {
		return []*Diff{one(kernels, len(arches) > 1, parts)}
	}
	var all []*Diff
	for _, a := range arches {
		all = append(all, one(of[a], false, parts))
	}
	return all
}

func one(kernels []*Kernel, mixed bool, parts []string) *Diff {
	d := &Diff{Kernels: kernels, parts: parts, count: map[string][]int{}}
	label(kernels)
	if mixed {
		d.note("these are different architectures: layouts, entries and system calls differ by them, too")
	}
	for _, part := range parts {
		switch part {
		case Stacks:
			d.paths(mixed)
		case Members:
			d.layouts()
		case Claims:
			d.verdicts()
		case Tracepoints:
			d.Tracepoints = d.sets(Tracepoints, func(k *Kernel) ([]string, bool) {
				return k.profile.Tracepoints, k.profile.Symbols && len(k.profile.Tracepoints) > 0
			})
		case Syscalls:
			d.Syscalls = d.sets(Syscalls, func(k *Kernel) ([]string, bool) {
				return k.profile.Syscalls, k.profile.Symbols && len(k.profile.Syscalls) > 0
			})
			d.ways()
		case Functions:
			d.functions(mixed)
		}
	}
	return d
}

func (d *Diff) note(format string, args ...any) {
	d.Notes = append(d.Notes, fmt.Sprintf(format, args...))
}

// row makes a row of texts: an empty one is a thing that the kernel does not have.
func (d *Diff) row(name string, texts []string, unknown []bool) Row {
	r := Row{Name: name, Cells: make([]Cell, len(texts))}
	left := -1
	for i, t := range texts {
		c := &r.Cells[i]
		if c.Text, c.Unknown = t, unknown[i]; c.Unknown {
			c.Text = ""
			continue
		}
		if left >= 0 {
			switch before := texts[left]; {
			case before == t:
			case before == "":
				c.Changes = []Change{Appeared}
			case t == "":
				c.Changes = []Change{Vanished}
			default:
				c.Changes = []Change{Changed}
			}
		}
		left = i
	}
	d.first(&r)
	return r
}

// first finds the first kernel that differs.
func (d *Diff) first(r *Row) {
	r.First = ""
	for i, c := range r.Cells {
		if len(c.Changes) > 0 {
			r.First = d.Kernels[i].Label
			return
		}
	}
}

// label gives each kernel a short name that no other has.
func label(kernels []*Kernel) {
	for _, short := range []func(*Kernel) string{
		func(k *Kernel) string { return series(k.Release) },
		func(k *Kernel) string { return k.Arch },
		func(k *Kernel) string { return series(k.Release) + " " + k.Arch },
		func(k *Kernel) string { return k.Release },
		func(k *Kernel) string { return k.Release + " " + k.Target },
		func(k *Kernel) string { return strings.Join(k.Records, ", ") },
	} {
		seen := map[string]bool{}
		for _, k := range kernels {
			k.Label = cmp.Or(short(k), "?")
			seen[k.Label] = true
		}
		if len(seen) == len(kernels) {
			return
		}
	}
	for i, k := range kernels {
		k.Label = fmt.Sprintf("%s #%d", k.Release, i+1)
	}
}

// series is "6.12" of "6.12.107+deb13-arm64".
func series(release string) string {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return release
	}
	digits := strings.TrimLeft(parts[1], "0123456789")
	return parts[0] + "." + strings.TrimSuffix(parts[1], digits)
}
