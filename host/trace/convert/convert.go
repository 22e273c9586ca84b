// Package convert writes a trace in the forms of other tools, by their names.
package convert

import (
	"io"

	"labctl/host/stack"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/firefox"
	"labctl/host/trace/export/folded"
	"labctl/host/trace/export/jsonl"
	"labctl/host/trace/export/perfetto"
	"labctl/host/trace/listing"
)

// Options are of the forms that print stacks.
type Options struct {
	Style stack.Style
}

// Format is one form. Write writes all events; damage to the trace does not end it, but
// is the error after all is written.
type Format struct {
	Name  string
	Ext   string // of its files, with the dot
	For   string // what reads it
	Text  bool   // fit to be read, and so to be printed
	Write func(io.Writer, *decode.Decoder, Options) error
}

// Formats are all forms, the first of them the usual one.
var Formats = []Format{
	{"perfetto", ".pftrace", "ui.perfetto.dev: tasks, CPUs, arrows from parent to child, stacks", false,
		func(w io.Writer, d *decode.Decoder, _ Options) error { return perfetto.Write(w, d) }},
	{"firefox", ".firefox.json", "profiler.firefox.com: call tree and flame graph of the stacks, events as markers", false,
		func(w io.Writer, d *decode.Decoder, _ Options) error { return firefox.Write(w, d) }},
	{"folded", ".folded", "flame graphs: flamegraph.pl, speedscope, inferno", true,
		func(w io.Writer, d *decode.Decoder, _ Options) error { return folded.Write(w, d) }},
	{"text", ".txt", "people: each event as the kernel's trace file has it", true,
		func(w io.Writer, d *decode.Decoder, o Options) error { return listing.Write(w, d, o.Style) }},
	{"json", ".jsonl", "programs: one object a line", true,
		func(w io.Writer, d *decode.Decoder, _ Options) error { return jsonl.Write(w, d) }},
}

// Names are those of all forms.
func Names() (out []string) {
	for _, f := range Formats {
		out = append(out, f.Name)
	}
	return out
}

// Find finds a form by its name.
func Find(name string) (Format, bool) {
	for _, f := range Formats {
		if f.Name == name {
			return f, true
		}
	}
	return Format{}, false
}
