package main

import (
	"fmt"
	"slices"
	"strings"

	"labctl/host/trace"
	"labctl/host/trace/plan"
)

// presets is the page of what each preset came to on each machine.
func presets(all []trace.Checks) string {
	var b strings.Builder
	b.WriteString(`# Presets of labctl trace

` + "`labctl trace --preset NAME -- PROG`" + ` arms one of these. Those under ` + "`book/`" + ` are the
settings of the shell scripts of a book on the Linux 4.19 of a Raspberry Pi, by
chapter and section; what their names have become on the kernel at hand is looked
up when they are armed. They are data: [presets.yaml](../host/trace/preset/presets.yaml).

Each was armed and run with ` + "`labprobe fork`" + ` on the kernels below. A cell says how
many of the functions, events and probes that the preset asks for were armed; "no
tracer", that none of its functions is there, so that only its events are recorded.
` + "`labctl trace --list-presets --check`" + ` says the same of any other kernel.

`)
	b.WriteString("| preset | what it shows | 무엇을 보이는가 |")
	for _, m := range all {
		fmt.Fprintf(&b, " %s, %s |", series(m.Release), m.Arch)
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(all)) + "\n")
	if len(all) == 0 {
		return b.String()
	}
	for i := range all[0].Presets {
		p := &all[0].Presets[i]
		fmt.Fprintf(&b, "| `%s` | %s | %s |", p.Name, p.EN, p.KO)
		for _, m := range all {
			fmt.Fprintf(&b, " %s |", cell(find(m, p.Name)))
		}
		b.WriteString("\n")
	}
	section(&b, all, "What is missing, and why", "missing", func(l *plan.Line) (string, bool) { return l.Why, l.Missing() && l.Asked() })
	section(&b, all, "What has another name", "traced as", func(l *plan.Line) (string, bool) {
		return "`" + strings.Join(l.Armed, "`, `") + "`: " + l.Why, !l.Missing() && l.Why != "" && l.Kind == "function"
	})
	b.WriteString("\nThis page is written by `make presets`, on these kernels:")
	for i, m := range all {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %s", m.Release)
	}
	b.WriteString(".\n")
	return b.String()
}

func find(m trace.Checks, name string) *trace.Check {
	for i := range m.Presets {
		if m.Presets[i].Name == name {
			return &m.Presets[i]
		}
	}
	return nil
}

func cell(c *trace.Check) string {
	if c == nil {
		return "-"
	}
	if c.Error != "" {
		return "failed: " + c.Error
	}
	armed, asked := c.Armed()
	s := fmt.Sprintf("%d/%d", armed, asked)
	for i := range c.Lines {
		if c.Lines[i].Kind == "tracer" {
			s += ", no tracer"
		}
	}
	return s
}

// section tabulates what pick takes of the lines: a row for each name, and what
// it came to on which kernels.
func section(b *strings.Builder, all []trace.Checks, title, column string, pick func(*plan.Line) (string, bool)) {
	type row struct{ name, what string }
	var rows []row
	where := map[row][]string{}
	in := map[row][]string{}
	for _, m := range all {
		for i := range m.Presets {
			c := &m.Presets[i]
			for j := range c.Lines {
				what, ok := pick(&c.Lines[j])
				if !ok {
					continue
				}
				r := row{c.Lines[j].Name, what}
				if len(where[r]) == 0 {
					rows = append(rows, r)
				}
				if at := series(m.Release) + " " + m.Arch; !slices.Contains(where[r], at) {
					where[r] = append(where[r], at)
				}
				if !slices.Contains(in[r], c.Name) {
					in[r] = append(in[r], c.Name)
				}
			}
		}
	}
	if len(rows) == 0 {
		return
	}
	slices.SortFunc(rows, func(x, y row) int { return strings.Compare(x.name+x.what, y.name+y.what) })
	fmt.Fprintf(b, "\n## %s\n\n| name | %s | kernels | presets |\n|---|---|---|---|\n", title, column)
	for _, r := range rows {
		kernels := strings.Join(where[r], ", ")
		if len(where[r]) == len(all) {
			kernels = "all"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", r.name, r.what, kernels, strings.Join(in[r], ", "))
	}
}

// series is "5.10" of "5.10.0-32-amd64".
func series(release string) string {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return release
	}
	return parts[0] + "." + parts[1]
}
