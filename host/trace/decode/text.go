package decode

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"labctl/host/text"
	"labctl/host/trace/format"
	"labctl/host/trace/printfmt"
)

// printer prints the events of one format.
type printer struct {
	special func(d *Decoder, e *Event) string
	prog    *printfmt.Program
	err     error // why there is no prog
}

// Text is what the kernel's own trace file shows behind an event's name, on one
// line and clean for terminals. Of a function no offset is shown. Where the
// kernel's print format is beyond this package it is "field=value …".
func (d *Decoder) Text(e *Event) string {
	p := d.printer(e.Format)
	switch {
	case p.special != nil:
		return p.special(d, e)
	case p.prog != nil && e.Format.System == "raw_syscalls" && callField(e.Format) != nil:
		return d.withCall(e, p.prog.Text(e.Data))
	case p.prog != nil && e.Format.Field("__probe_ret_ip") != nil:
		return e.withError(p.prog.Text(e.Data))
	case p.prog != nil:
		return p.prog.Text(e.Data)
	}
	var b strings.Builder
	for i := range e.Format.Fields {
		f := &e.Format.Fields[i]
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.Name + "=" + e.plain(f))
	}
	return b.String()
}

func (d *Decoder) printer(f *format.Event) *printer {
	p := d.texts[f]
	if p == nil {
		p = &printer{}
		if f.System == "ftrace" {
			p.special = specials[f.Name]
		}
		if p.special == nil {
			if p.prog, p.err = printfmt.Compile(f, d.env()); p.err == nil {
				p.err = p.prog.Err()
			}
		}
		d.texts[f] = p
	}
	return p
}

func (d *Decoder) env() *printfmt.Env {
	return &printfmt.Env{
		Uint:     d.number,
		LongSize: d.longSize,
		Symbol:   d.symbolText,
		String:   func(addr uint64) (string, bool) { s, ok := d.strings()[addr]; return s, ok },
	}
}

// symbolText is an address as %pS prints it, or %ps.
func (d *Decoder) symbolText(addr uint64, offset bool) (string, bool) {
	s, ok := d.Symbol(addr)
	if !ok {
		return "", false
	}
	name := s.Name
	if offset {
		name += "+0x" + strconv.FormatUint(addr-s.Start, 16) + "/0x" + strconv.FormatUint(s.Size, 16)
	}
	if s.Module != "" {
		name += " [" + s.Module + "]"
	}
	return name, true
}

func (d *Decoder) function(addr uint64, offset bool) string {
	if name, ok := d.symbolText(addr, offset); ok {
		return name
	}
	return "0x" + strconv.FormatUint(addr, 16)
}

// plain is a field's value by its type alone.
func (e *Event) plain(f *format.Field) string {
	if v, ok := e.UintOf(f); ok {
		switch {
		case f.Signed:
			return strconv.FormatInt(extend(v, f.Size), 10)
		case strings.HasSuffix(f.Type, "*"):
			return "0x" + strconv.FormatUint(v, 16)
		}
		return strconv.FormatUint(v, 10)
	}
	b, err := e.bytes(f)
	switch {
	case err != nil:
		return "(not in the record)"
	case f.IsText():
		return oneLine(cstring(b))
	}
	const most = 64
	if len(b) > most {
		return hex.EncodeToString(b[:most]) + "…"
	}
	return hex.EncodeToString(b)
}

func oneLine(s string) string {
	return strings.ReplaceAll(text.Clean(s), "\n", "\uFFFD")
}

// specials are the events that the kernel prints otherwise than by their print
// format (kernel/trace/trace_output.c).
var specials = map[string]func(*Decoder, *Event) string{
	"function": func(d *Decoder, e *Event) string {
		return e.symbolOf("ip") + e.arguments("args") + " <-" + e.symbolOf("parent_ip")
	},
	"funcgraph_entry": func(d *Decoder, e *Event) string {
		depth, _ := e.Uint("depth")
		return strings.Repeat("  ", int(min(depth, 64))) + e.symbolOf("func") + cmp.Or(e.arguments("args"), "()") + " {"
	},
	"funcgraph_exit": func(d *Decoder, e *Event) string {
		depth, _ := e.Uint("depth")
		s := strings.Repeat("  ", int(min(depth, 64))) + "} /* " + e.symbolOf("func") + " */"
		if v, err := e.Uint("retval"); err == nil {
			s += " ret=0x" + strconv.FormatUint(v, 16)
		}
		return s
	},
	"kernel_stack": func(d *Decoder, e *Event) string {
		var names []string
		for _, f := range d.Frames(e.Stack) {
			names = append(names, f.String())
		}
		return "<stack trace> " + strings.Join(names, " <- ")
	},
	"user_stack": func(d *Decoder, e *Event) string {
		var b strings.Builder
		b.WriteString("<user stack trace>")
		for _, pc := range e.UserStack {
			fmt.Fprintf(&b, " <%0*x>", 2*d.longSize, pc)
		}
		return b.String()
	},
	"print": func(d *Decoder, e *Event) string {
		return e.symbolOf("ip") + ": " + e.lineOf("buf")
	},
	"bputs": func(d *Decoder, e *Event) string {
		addr, _ := e.Uint("str")
		s, ok := d.strings()[addr]
		if !ok {
			s = "0x" + strconv.FormatUint(addr, 16)
		}
		return e.symbolOf("ip") + ": " + oneLine(strings.TrimRight(s, "\n"))
	},
	"bprint": func(d *Decoder, e *Event) string {
		addr, _ := e.Uint("fmt")
		form, ok := d.strings()[addr]
		b, err := e.Bytes("buf")
		if !ok || err != nil {
			return fmt.Sprintf("%s: 0x%x %x", e.symbolOf("ip"), addr, b)
		}
		return e.symbolOf("ip") + ": " + printfmt.Binary(d.env(), form, b)
	},
	"raw_data": func(d *Decoder, e *Event) string {
		id, _ := e.Uint("id")
		b, _ := e.Bytes("buf")
		return strings.TrimRight(fmt.Sprintf("# %x buf: % x", id, b), " ")
	},
}

func (e *Event) symbolOf(field string) string {
	addr, err := e.Uint(field)
	if err != nil {
		return "?"
	}
	return e.dec.function(addr, false)
}

// lineOf is a text field up to its end or its newline.
func (e *Event) lineOf(field string) string {
	b, err := e.Bytes(field)
	if err != nil {
		return "(not in the record)"
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return oneLine(strings.TrimRight(string(b), "\n"))
}

// arguments are those that a function was called with, "" where the kernel does
// not record them. Their names are in BTF, which is not in a capture.
func (e *Event) arguments(field string) string {
	f := e.Format.Field(field)
	if f == nil {
		return ""
	}
	vs, err := e.Array(nil, field)
	if err != nil || len(vs) == 0 {
		return ""
	}
	words := make([]string, len(vs))
	for i, v := range vs {
		words[i] = "0x" + strconv.FormatUint(v, 16)
	}
	return "(" + strings.Join(words, ", ") + ")"
}

// strings are the kernel's constant strings by their addresses, from
// printk_formats:
//
//	0xffffffff82ac3c39 : "CPU_ON"
func parseStrings(b []byte) map[uint64]string {
	const most = 1 << 20
	m := map[uint64]string{}
	for line := range bytes.Lines(b) {
		addr, rest, ok := strings.Cut(string(line), " : \"")
		v, err := strconv.ParseUint(strings.TrimPrefix(addr, "0x"), 16, 64)
		if !ok || err != nil || len(m) >= most {
			continue
		}
		s := strings.TrimSuffix(strings.TrimRight(rest, "\n"), `"`)
		m[v] = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`, `\"`, `"`).Replace(s)
	}
	return m
}
