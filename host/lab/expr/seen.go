package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
	"github.com/google/cel-go/parser"

	"labctl/host/clone"
	"labctl/host/lab/result"
	"labctl/host/text"
)

// Bounds on what is shown of a value.
const (
	maxShown    = 400 // bytes
	maxElements = 6   // of a list
	maxSeen     = 12  // sub-expressions
)

// seen returns the values that decided: of comparisons their two sides, of a call
// what it was called with, of a loop over a list that list.
func (x *Expr) seen(state interpreter.EvalState) []Seen {
	s := seer{state: state, info: x.ast.NativeRep().SourceInfo()}
	s.decide(x.ast.NativeRep().Expr())
	return s.out
}

type seer struct {
	state interpreter.EvalState
	info  *ast.SourceInfo
	out   []Seen
}

// decide walks down to what is true or false by itself.
func (s *seer) decide(e ast.Expr) {
	switch e.Kind() {
	case ast.SelectKind, ast.IdentKind:
		s.report(e)
	case ast.ComprehensionKind:
		s.loop(e.AsComprehension())
	case ast.CallKind:
		call := e.AsCall()
		switch call.FunctionName() {
		case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional:
			for _, a := range call.Args() {
				s.decide(a)
			}
		default:
			if call.IsMemberFunction() {
				s.report(call.Target())
			}
			for _, a := range call.Args() {
				s.report(a)
			}
			if fact(call.FunctionName()) {
				s.report(e)
			}
		}
	}
}

func fact(function string) bool {
	return slices.Contains([]string{"config", "symbol", "member"}, function)
}

// loop shows what a macro goes over; of cel.bind, what is bound and the rest.
func (s *seer) loop(c ast.ComprehensionExpr) {
	if r := c.IterRange(); r.Kind() != ast.ListKind || r.AsList().Size() > 0 {
		s.report(r)
		return
	}
	s.report(c.AccuInit())
	s.decide(c.Result())
}

// report shows one value, and the lists that it was found in.
func (s *seer) report(e ast.Expr) {
	switch {
	case e.Kind() == ast.LiteralKind, e.Kind() == ast.IdentKind && e.AsIdent() == Kernel:
		return
	case e.Kind() == ast.ListKind && onlyLiterals(e.AsList().Elements()):
		return
	}
	v, ok := s.state.Value(e.ID())
	if ok {
		if source, err := parser.Unparse(e, s.info); err == nil {
			item := Seen{text.Line(source, maxShown), show(v)}
			if len(s.out) < maxSeen && !slices.Contains(s.out, item) {
				s.out = append(s.out, item)
			}
		}
	}
	if e.Kind() == ast.CallKind {
		call := e.AsCall()
		for _, a := range call.Args() {
			if a.Kind() == ast.ComprehensionKind {
				s.loop(a.AsComprehension())
			}
		}
		if call.IsMemberFunction() && call.Target().Kind() == ast.ComprehensionKind {
			s.loop(call.Target().AsComprehension())
		}
	} else if e.Kind() == ast.ComprehensionKind {
		s.loop(e.AsComprehension())
	}
}

func onlyLiterals(all []ast.Expr) bool {
	return !slices.ContainsFunc(all, func(e ast.Expr) bool { return e.Kind() != ast.LiteralKind })
}

// show prints a value in one line, cleaned and cut.
func show(v ref.Val) string { return text.Line(showAny(v), maxShown) }

func showAny(v ref.Val) string {
	switch v := v.(type) {
	case *types.Err:
		return readable("nothing: " + v.Error())
	case types.String:
		return strconv.Quote(string(v))
	case types.Int:
		if v > 255 && v&0xff == 0 {
			return fmt.Sprintf("%d (%#x)", int64(v), int64(v))
		}
		return strconv.FormatInt(int64(v), 10)
	case traits.Mapper:
		var parts []string
		for it := v.Iterator(); it.HasNext() == types.True; {
			k := it.Next()
			parts = append(parts, showAny(k)+": "+showAny(v.Get(k)))
		}
		slices.Sort(parts)
		return "{" + cut(parts) + "}"
	case traits.Lister:
		var parts []string
		for it := v.Iterator(); it.HasNext() == types.True; {
			parts = append(parts, showAny(it.Next()))
		}
		if len(parts) == 0 {
			return "none"
		}
		return "[" + cut(parts) + "]"
	}
	switch n := v.Value().(type) {
	case result.Task:
		return showTask(&n)
	case *result.Task:
		return showTask(n)
	case result.Creation:
		return showCreation(&n)
	case *result.Creation:
		return showCreation(n)
	case result.Event:
		return showEvent(&n)
	case *result.Event:
		return showEvent(n)
	case result.Stack:
		return showStack(&n)
	case *result.Stack:
		return showStack(n)
	case result.Who:
		return fmt.Sprintf("%s-%d", n.Comm, n.TID)
	case result.Step:
		return showStep(&n)
	case *result.Step:
		return showStep(n)
	}
	return fmt.Sprint(v.Value())
}

func cut(parts []string) string {
	if n := len(parts); n > maxElements {
		parts = append(parts[:maxElements:maxElements], fmt.Sprintf("… %d more", n-maxElements))
	}
	return strings.Join(parts, ", ")
}

func showTask(t *result.Task) string {
	return fmt.Sprintf("%s(pid %d, tid %d, tgid %d, ppid %d)", t.Role, t.PID, t.TID, t.TGID, t.PPID)
}

func showCreation(c *result.Creation) string {
	flags := "flags not traced"
	if c.Flags >= 0 {
		flags = clone.Text(clone.Flags(c.Flags), clone.Signal(max(c.ExitSignal, 0)))
	}
	return fmt.Sprintf("(%s-%d makes %s-%d%s: %s)", c.Requester.Comm, c.Requester.TID, c.Child.Name, c.Child.TID, c.Way(), flags)
}

func showEvent(e *result.Event) string {
	var parts []string
	for k, v := range e.Fields {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return fmt.Sprintf("(%s-%d: %s %s)", e.Comm, e.TID, e.Name, strings.Join(parts, " "))
}

func showStack(s *result.Stack) string {
	var names []string
	for _, f := range s.Frames {
		names = append(names, f.Name)
	}
	if len(names) == 0 {
		return "no stack"
	}
	return strings.Join(names, " < ")
}

func showStep(s *result.Step) string {
	return fmt.Sprintf("step %s (exit %d, %d creations, %d events)", s.ID, s.Exit, len(s.Creations), len(s.Events))
}

// maxSaw bounds Saw, in lines.
const maxSaw = 20

// Saw is what the kernel saw a step do, in a line for each: the tasks that it made,
// those that were made alike as one, and how often each event happened that was asked
// for. It says nothing about what a check wants.
func Saw(s *result.Step, asked []string) (lines []string) {
	type kind struct {
		requester, child, via string
		flags, signal         int64
	}
	alike := map[kind]int{}
	var first []*result.Creation
	of := func(c *result.Creation) kind {
		return kind{c.Requester.Comm, c.Child.Name, c.Via, c.Flags, c.ExitSignal}
	}
	for i := range s.Creations {
		c := &s.Creations[i]
		if alike[of(c)]++; alike[of(c)] == 1 {
			first = append(first, c)
		}
	}
	for _, c := range first {
		line := strings.Trim(showCreation(c), "()")
		if n := alike[of(c)]; n > 1 {
			line += fmt.Sprintf(" (and %d more like it)", n-1)
		}
		lines = append(lines, line)
	}
	if len(first) == 0 {
		lines = append(lines, "it made no task")
	}
	for _, name := range asked {
		n := 0
		for _, e := range s.Events {
			if e.Name == name {
				n++
			}
		}
		if slices.Contains(s.NotTraced, name) {
			lines = append(lines, name+": not traced on this kernel")
		} else {
			lines = append(lines, fmt.Sprintf("%s: %d times", name, n))
		}
	}
	if len(lines) > maxSaw {
		lines = append(lines[:maxSaw-1], fmt.Sprintf("and %d more", len(lines)-maxSaw+1))
	}
	return lines
}
