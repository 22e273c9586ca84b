// Package view is what there is to see of a run: tables, trees of tasks, stacks,
// times, and the like, as data. A View is made once and drawn by any of three
// renderers: Terminal, Markdown, and HTML with SVG.
//
// Words may come from a guest. Whoever makes a view puts them in as they are; the
// renderers clean and escape them.
package view

import (
	"cmp"

	"labctl/host/stack"
	"labctl/host/trace/tasks"
)

// Words is a text in English and Korean. One that has no other language is shown in
// the one that it has.
type Words struct {
	EN string `json:"en,omitempty"`
	KO string `json:"ko,omitempty"`
}

// In is the text in a language, "en" or "ko".
func (w Words) In(lang string) string {
	if lang == "ko" {
		return cmp.Or(w.KO, w.EN)
	}
	return cmp.Or(w.EN, w.KO)
}

// Same is a word that is the same in both languages: a name, a number.
func Same(s string) Words { return Words{s, s} }

// View is one picture. It has one of Table and what follows, or says in Absent or
// Failed why there is nothing to see.
type View struct {
	ID     string `json:"id"`
	Title  Words  `json:"title"`
	Note   Words  `json:"note,omitzero"` // how to read it
	Absent *Words `json:"absent,omitempty"`
	// Failed is what is wrong with the view or the record, where it could not be made.
	Failed string `json:"failed,omitempty"`

	Table    *Table    `json:"table,omitempty"`
	Tree     *Tree     `json:"tree,omitempty"`
	Stacks   *Stacks   `json:"stacks,omitempty"`
	Timeline *Timeline `json:"timeline,omitempty"`
	Walk     *Walk     `json:"walk,omitempty"`
	Layout   *Layout   `json:"layout,omitempty"`
	Compare  *Compare  `json:"compare,omitempty"`
	Pre      string    `json:"pre,omitempty"` // text as it was printed
}

// Table is rows of cells. Rows have a name of their own where Named.
type Table struct {
	Named   bool     `json:"named,omitempty"`
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"`
	More    int      `json:"more,omitempty"` // rows that were left out
}

// Column is a column's head.
type Column struct {
	Head  Words `json:"head"`
	Right bool  `json:"right,omitempty"` // numbers
}

// Row is one row: as many cells as there are columns.
type Row struct {
	Name  Words  `json:"name,omitzero"`
	Cells []Cell `json:"cells"`
}

// Kind is what a cell holds.
type Kind string

// Kinds of cells.
const (
	Text   Kind = "text"
	Number Kind = "number"
	Yes    Kind = "yes"
	No     Kind = "no"
	None   Kind = "none"  // there is no such value
	Wrong  Kind = "error" // it could not be found out: Text says why, or Words
	Said   Kind = "words" // Words, in both languages
)

// Tone is whether a cell is good news.
type Tone string

// Tones of cells. They never say alone what they say.
const (
	Good  Tone = "good"
	Bad   Tone = "bad"
	Mixed Tone = "mixed"
)

// Cell is one value.
type Cell struct {
	Kind  Kind   `json:"kind"`
	Text  string `json:"text,omitempty"`
	Words Words  `json:"words,omitzero"` // of Said, and of Wrong where there are such
	Tone  Tone   `json:"tone,omitempty"`
	Link  string `json:"link,omitempty"` // to a page beside this one, or a place in it
}

// Tree is tasks as they made each other.
type Tree struct {
	Tasks *tasks.Timeline `json:"tasks"`
	// Program is the TID of the task that is the program's, 0 for none.
	Program int `json:"program,omitempty"`
}

// Stacks is distinct ways through the kernel, each once.
type Stacks struct {
	Paths []Path `json:"paths"`
	More  int    `json:"more,omitempty"`
}

// Path is one way, and who came it.
type Path struct {
	Who   []string    `json:"who"`
	Count int         `json:"count"`
	Stack stack.Stack `json:"stack"`
}

// Timeline is what tasks did when. Times are nanoseconds from the guest's boot.
type Timeline struct {
	Start int64  `json:"start_ns"`
	End   int64  `json:"end_ns"`
	Lanes []Lane `json:"lanes"`
	Marks []Mark `json:"marks,omitempty"`
	More  int    `json:"more,omitempty"` // spans and marks that were left out
}

// Lane is one task.
type Lane struct {
	Name  Words  `json:"name"`
	TID   int64  `json:"tid"`
	Spans []Span `json:"spans"`
}

// State is what a task does for a while.
type State string

// States of tasks, beside those letters that /proc has for them: S, D, T, t, Z, X, I.
const (
	Running State = "running" // has a CPU
	Alive   State = "alive"   // lives; what it does is not known
	Ready   State = "R"       // waits for a CPU
	Asleep  State = "-"       // sleeps, and the kernel does not say how
)

// Span is a while in which a task was in one state.
type Span struct {
	From  int64 `json:"from"`
	To    int64 `json:"to"`
	State State `json:"state"`
	CPU   int64 `json:"cpu"` // of Running
}

// Mark is one moment in a lane.
type Mark struct {
	Lane int   `json:"lane"`
	Time int64 `json:"time"`
	Text Words `json:"text"`
}

// Walk is an address taken apart by the levels of the page tables.
type Walk struct {
	Address string `json:"address"`
	Levels  []Step `json:"levels"`
	To      string `json:"to,omitempty"` // where it leads: a page, or why there is none
}

// Step is one level.
type Step struct {
	Name  string `json:"name"`  // "PGD"
	Bits  string `json:"bits"`  // "47:39"
	Index string `json:"index"` // "0x1f"
	Entry string `json:"entry"` // what stands there
}

// Layout is a structure and where its members are.
type Layout struct {
	Name    string   `json:"name"`
	Size    int64    `json:"size,omitempty"` // bytes; 0 for unknown
	Members []Member `json:"members"`        // by offset
}

// Member is one member; Offset and Size are bytes. Note is what is to be said of it.
type Member struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"`
	Size   int64  `json:"size,omitempty"`
	Type   string `json:"type,omitempty"`
	Note   string `json:"note,omitempty"`
}

// Compare is lists of lines beside each other. Lines that a side has and another
// lacks stand out.
type Compare struct {
	Sides []Side `json:"sides"` // two to four
}

// Side is one list.
type Side struct {
	Title Words    `json:"title"`
	Lines []string `json:"lines"`
}
