package wire

import "strings"

// TraceName says what became of one name that a script wrote to a file of
// tracefs, under the guest shell's --trace-compat. Its log has one as JSON a line.
type TraceName struct {
	File   string `json:"file"` // below tracefs: "set_ftrace_filter", "events/kmem/kmalloc_node/enable"
	Asked  string `json:"asked"`
	Became string `json:"became,omitempty"` // equal to Asked if the kernel has it, empty if it has nothing of the kind
	Why    string `json:"why,omitempty"`    // of a change or of the lack; the kernel's own word for a value that it refuses
}

func (n TraceName) String() string {
	var b strings.Builder
	b.WriteString(n.File + ": " + n.Asked)
	switch {
	case n.Became == "":
		b.WriteString(" is not there")
	case n.Became != n.Asked:
		b.WriteString(" → " + n.Became)
	}
	switch {
	case n.Why == "":
	case n.Became == "":
		b.WriteString(": " + n.Why)
	default:
		b.WriteString(" (" + n.Why + ")")
	}
	return b.String()
}
