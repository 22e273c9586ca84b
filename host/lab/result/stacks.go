package result

import (
	"fmt"
	"slices"
	"strings"

	"labctl/host/text"
)

// Stacks prints the creations of the steps for people, with their stacks in
// TRACE32's form.
func (r *Result) Stacks() string {
	var b strings.Builder
	for _, s := range r.Steps {
		printStacks(&b, s.ID, s.Creations)
	}
	return b.String()
}

// ReportedStacks is Stacks for the tasks alone that probes report: the Go runtime
// makes more.
func (r *Result) ReportedStacks() string {
	var b strings.Builder
	for _, s := range r.Steps {
		printStacks(&b, s.ID, slices.DeleteFunc(slices.Concat(s.Creations, s.Others), func(c Creation) bool {
			return !slices.ContainsFunc(s.Tasks, func(t Task) bool { return t.Role != "self" && t.TID == c.Child.TID })
		}))
	}
	return b.String()
}

func printStacks(b *strings.Builder, step string, all []Creation) {
	clean := func(s string) string { return text.Line(s, 500) }
	for i := range all {
		c := &all[i]
		fmt.Fprintf(b, "// step %s: %s-%d makes %s-%d%s\n", step, clean(c.Requester.Comm), c.Requester.TID,
			clean(c.Child.Name), c.Child.TID, clean(c.Way()))
		printed := c.Stack.Print()
		b.WriteString(printed.TRACE32())
		if c.Asked {
			fmt.Fprintf(b, "// asked for by %s-%d\n", clean(c.AskedBy.Comm), c.AskedBy.TID)
			printed := c.AskStack.Print()
			b.WriteString(printed.TRACE32())
		}
	}
}
