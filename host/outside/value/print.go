package value

import (
	"fmt"
	"strings"
)

// maxLine is how long a value may be to stand on one line.
const maxLine = 76

// String is the value as C would initialise it, over several lines if it is long:
//
//	{
//	  pid = 2
//	  comm = "kthreadd"
//	  tasks = {next = 0xffff…, prev = 0xffff…}
//	}
func (v Value) String() string { return v.format(0) }

// Line is the value with its name: "pid = 2".
func (v Value) Line() string { return v.line(0) }

func (v Value) line(indent int) string {
	if v.Name == "" {
		return v.format(indent)
	}
	name := v.Name
	if v.Bits > 0 {
		name += fmt.Sprintf(":%d", v.Bits)
	}
	return name + " = " + v.format(indent)
}

func (v Value) format(indent int) string {
	switch {
	case v.Error != "":
		return "? (" + v.Error + ")"
	case v.Text != "":
		if v.More > 0 {
			return fmt.Sprintf("%s … %d bytes more", v.Text, v.More)
		}
		return v.Text
	}
	// atomic_t and its like are what they hold, where they are members.
	if v.Name != "" && len(v.Members) == 1 && v.Members[0].Elems == nil && v.Members[0].Bits == 0 && v.Members[0].Error == "" {
		if s := v.Members[0].format(indent); !strings.Contains(s, "\n") && len(s) < maxLine {
			return s
		}
	}
	parts := make([]string, 0, len(v.Members)+len(v.Elems))
	for _, m := range v.Members {
		parts = append(parts, m.line(indent+2))
	}
	parts = append(parts, repeats(v.Elems, indent+2)...)
	if v.More > 0 {
		parts = append(parts, fmt.Sprintf("… %d more", v.More))
	}
	one := "{" + strings.Join(parts, ", ") + "}"
	if len(one)+indent <= maxLine && !strings.Contains(one, "\n") {
		return one
	}
	pad := strings.Repeat(" ", indent)
	return "{\n" + pad + "  " + strings.Join(parts, "\n"+pad+"  ") + "\n" + pad + "}"
}

// repeats formats elements, equal neighbours once.
func repeats(elems []Value, indent int) (parts []string) {
	for i := 0; i < len(elems); {
		s, n := elems[i].format(indent), 1
		for i+n < len(elems) && elems[i+n].format(indent) == s {
			n++
		}
		if n > 3 {
			parts = append(parts, fmt.Sprintf("%s (%d times)", s, n))
		} else {
			for range n {
				parts = append(parts, s)
			}
		}
		i += n
	}
	return parts
}
