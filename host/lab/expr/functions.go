package expr

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"labctl/guest/ksym"
	"labctl/host/clone"
	"labctl/host/lab/result"
	"labctl/host/nearest"
	"labctl/host/stack"
)

// maxCalls is how many functions `calls` takes.
const maxCalls = 8

// functions are those of this package. Each fails by an error that the report
// of a check prints.
func functions() []cel.EnvOption {
	str, num := cel.StringType, cel.IntType
	opts := []cel.EnvOption{
		member("config", []*cel.Type{kernelType, str}, str, func(a ...ref.Val) ref.Val {
			v, ok := get[result.Kernel](a[0]).Config[word(a[1])]
			return recorded(ok, "option "+word(a[1]), types.String(v))
		}),
		member("symbol", []*cel.Type{kernelType, str}, cel.BoolType, func(a ...ref.Val) ref.Val {
			v, ok := get[result.Kernel](a[0]).Symbols[word(a[1])]
			return recorded(ok, "symbol "+word(a[1]), types.Bool(v))
		}),
		member("member", []*cel.Type{kernelType, str}, cel.BoolType, func(a ...ref.Val) ref.Val {
			v, ok := get[result.Kernel](a[0]).Members[word(a[1])]
			return recorded(ok, "member "+word(a[1]), types.Bool(v.There))
		}),
		member("offset", []*cel.Type{kernelType, str}, num, func(a ...ref.Val) ref.Val {
			v, ok := get[result.Kernel](a[0]).Members[word(a[1])]
			if ok && !v.There {
				return types.NewErr("this kernel has no member %s", word(a[1]))
			}
			return recorded(ok, "member "+word(a[1]), types.Int(v.Offset))
		}),

		member("task", []*cel.Type{stepType, str}, taskType, func(a ...ref.Val) ref.Val {
			s := get[result.Step](a[0])
			for _, t := range s.Tasks {
				if t.Role == word(a[1]) {
					return native(t)
				}
			}
			return types.NewErr("step %s has no task of role %q", s.ID, word(a[1]))
		}),
		member("creation", []*cel.Type{stepType, num}, creationType, func(a ...ref.Val) ref.Val {
			s, tid := get[result.Step](a[0]), number(a[1])
			if c := made(&s, tid); c != nil {
				return native(*c)
			}
			return types.NewErr("in step %s the kernel made no task %d", s.ID, tid)
		}),
		member("made", []*cel.Type{stepType, num}, cel.BoolType, func(a ...ref.Val) ref.Val {
			s := get[result.Step](a[0])
			return types.Bool(made(&s, number(a[1])) != nil)
		}),
		member("on", []*cel.Type{stepType, str}, cel.ListType(eventType), func(a ...ref.Val) ref.Val {
			s := get[result.Step](a[0])
			found := []result.Event{}
			for _, e := range s.Events {
				if e.Name == word(a[1]) {
					found = append(found, e)
				}
			}
			return native(found)
		}),

		member("str", []*cel.Type{eventType, str}, str, func(a ...ref.Val) ref.Val {
			e := get[result.Event](a[0])
			if v, ok := e.Fields[word(a[1])]; ok {
				return types.String(v)
			}
			return types.NewErr("event %s has no field %s, but %s", e.Name, word(a[1]), fields(&e))
		}),
		member("num", []*cel.Type{eventType, str}, num, func(a ...ref.Val) ref.Val {
			e := get[result.Event](a[0])
			v, ok := e.Fields[word(a[1])]
			if !ok {
				return types.NewErr("event %s has no field %s, but %s", e.Name, word(a[1]), fields(&e))
			}
			n, err := strconv.ParseInt(v, 0, 64)
			if err != nil {
				u, uerr := strconv.ParseUint(v, 0, 64)
				if uerr != nil {
					return types.NewErr("field %s of event %s is %q, no number", word(a[1]), e.Name, v)
				}
				n = int64(u)
			}
			return types.Int(n)
		}),

		member("names", []*cel.Type{stackType}, cel.ListType(str), func(a ...ref.Val) ref.Val {
			names := []string{}
			for _, f := range get[result.Stack](a[0]).Frames {
				names = append(names, f.Name)
			}
			return native(names)
		}),
		member("sameCalls", []*cel.Type{stackType, stackType}, cel.BoolType, func(a ...ref.Val) ref.Val {
			x, y := get[result.Stack](a[0]).Print(), get[result.Stack](a[1]).Print()
			same, _ := stack.SameCalls(&x, &y)
			return types.Bool(same)
		}),

		global("flags", []*cel.Type{str}, num, func(a ...ref.Val) ref.Val {
			f, err := parseFlags(word(a[0]))
			return orErr(types.Int(f), err)
		}),
		global("signal", []*cel.Type{str}, num, func(a ...ref.Val) ref.Val {
			s, err := parseSignal(word(a[0]))
			return orErr(types.Int(s), err)
		}),
		global("flagText", []*cel.Type{num}, str, func(a ...ref.Val) ref.Val {
			return types.String(clone.Flags(number(a[0])).String())
		}),
		member("includes", []*cel.Type{num, str}, cel.BoolType, func(a ...ref.Val) ref.Val {
			f, err := parseFlags(word(a[1]))
			n := number(a[0])
			return orErr(types.Bool(n >= 0 && n&f == f), err)
		}),
		member("excludes", []*cel.Type{num, str}, cel.BoolType, func(a ...ref.Val) ref.Val {
			f, err := parseFlags(word(a[1]))
			n := number(a[0])
			return orErr(types.Bool(n >= 0 && n&f == 0), err)
		}),

		global("numbers", []*cel.Type{str}, cel.ListType(num), func(a ...ref.Val) ref.Val {
			found := []int64{}
			for _, s := range numberText.FindAllString(word(a[0]), -1) {
				if n, err := strconv.ParseInt(s, 10, 64); err == nil {
					found = append(found, n)
				}
			}
			return native(found)
		}),
		cel.Function("sum", cel.Overload("sum_list_int", []*cel.Type{cel.ListType(num)}, num, cel.FunctionBinding(func(a ...ref.Val) ref.Val {
			total := int64(0)
			for it := a[0].(traits.Lister).Iterator(); it.HasNext() == types.True; {
				n, ok := it.Next().(types.Int)
				if !ok {
					return types.NewErr("sum of a list that has not only whole numbers")
				}
				total += int64(n)
			}
			return types.Int(total)
		}))),
		global("lines", []*cel.Type{str}, cel.ListType(str), func(a ...ref.Val) ref.Val {
			return native(linesOf(word(a[0])))
		}),
		// Of many answers one is always right, which shows nothing: these two take
		// the one that there is.
		global("number", []*cel.Type{str}, num, func(a ...ref.Val) ref.Val {
			found := numberText.FindAllString(word(a[0]), -1)
			s, err := only(found, "whole numbers")
			if err != nil {
				return types.WrapErr(err)
			}
			n, err := strconv.ParseInt(s, 10, 64)
			return orErr(types.Int(n), err)
		}),
		global("line", []*cel.Type{str, str}, str, func(a ...ref.Val) ref.Val {
			found := slices.DeleteFunc(linesOf(word(a[0])), func(l string) bool { return !strings.HasPrefix(l, word(a[1])) })
			l, err := only(found, fmt.Sprintf("lines that begin with %q", word(a[1])))
			return orErr(types.String(l), err)
		}),
	}
	opts = append(opts, outside()...)
	var calls []cel.FunctionOpt
	args := []*cel.Type{stackType}
	for n := 1; n <= maxCalls; n++ {
		args = append(args, str)
		calls = append(calls, cel.MemberOverload(fmt.Sprintf("stack_calls_%d", n), slices.Clone(args), cel.BoolType,
			cel.FunctionBinding(func(a ...ref.Val) ref.Val {
				var names []string
				for _, v := range a[1:] {
					names = append(names, word(v))
				}
				return types.Bool(callsInOrder(get[result.Stack](a[0]).Frames, names))
			})))
	}
	return append(opts, cel.Function("calls", calls...))
}

// member is a function that is called on its first argument.
func member(name string, args []*cel.Type, out *cel.Type, f func(...ref.Val) ref.Val) cel.EnvOption {
	id := name
	for _, a := range args {
		id += "_" + strings.ReplaceAll(a.String(), ".", "_")
	}
	return cel.Function(name, cel.MemberOverload(id, args, out, cel.FunctionBinding(f)))
}

// global is a function that is called by its name alone.
func global(name string, args []*cel.Type, out *cel.Type, f func(...ref.Val) ref.Val) cel.EnvOption {
	return cel.Function(name, cel.Overload(name+"_"+args[0].String(), args, out, cel.FunctionBinding(f)))
}

func linesOf(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
}

// only is what a list has, however often it has it. what it is a list of is for the
// error.
func only(found []string, what string) (string, error) {
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) == 1 {
		return found[0], nil
	}
	return "", fmt.Errorf("it prints %d different %s; want one", len(found), what)
}

var numberText = regexp.MustCompile(`-?\b[0-9]+\b`)

// get is a native value out of CEL's hands.
func get[T any](v ref.Val) T {
	switch v := v.Value().(type) {
	case T:
		return v
	case *T:
		return *v
	}
	var zero T
	return zero
}

func word(v ref.Val) string  { s, _ := v.Value().(string); return s }
func number(v ref.Val) int64 { n, _ := v.Value().(int64); return n }

// adapter knows the native types; it is that of an environment without steps.
var adapter = func() types.Adapter {
	_, a, err := types.ComposeTypes(types.NewEmptyRegistry(), types.DefaultTypeAdapter, nativeTypes()...)
	if err != nil {
		panic(err)
	}
	return a
}()

func native(v any) ref.Val { return adapter.NativeToValue(v) }

func orErr(v ref.Val, err error) ref.Val {
	if err != nil {
		return types.NewErr("%v", err)
	}
	return v
}

func recorded(ok bool, what string, v ref.Val) ref.Val {
	if !ok {
		return types.NewErr("%s of the kernel is not in this record: run the lab again", what)
	}
	return v
}

func made(s *result.Step, tid int64) *result.Creation {
	for _, list := range [][]result.Creation{s.Creations, s.Others} {
		for i := range list {
			if list[i].Child.TID == tid {
				return &list[i]
			}
		}
	}
	return nil
}

func fields(e *result.Event) string {
	var names []string
	for k := range e.Fields {
		names = append(names, k)
	}
	slices.Sort(names)
	return cmp.Or(strings.Join(names, ", "), "none")
}

// callsInOrder reports whether the frames hold all names in this order, the first
// innermost, others in between allowed. "@clone" is any symbol of a family.
func callsInOrder(frames []result.Frame, names []string) bool {
	for _, f := range frames {
		if len(names) == 0 {
			break
		}
		if matchesName(f, names[0]) {
			names = names[1:]
		}
	}
	return len(names) == 0
}

func matchesName(f result.Frame, name string) bool {
	family, is := strings.CutPrefix(name, "@")
	if !is {
		return f.Name == ksym.Strip(name)
	}
	sym, ok := ksym.Family(f.Name)
	return ok && (sym.Family == family || family == ksym.FamilyEntry && f.Entry)
}

// families are the names that stand for all symbols of a family.
var families = func() (names []string) {
	for _, f := range append(slices.Clone(ksym.CreationFamilies), ksym.FamilyEntry) {
		names = append(names, "@"+f)
	}
	return names
}()

// flagNames and signalNames are those of host/clone, by name.
var flagNames, signalNames = func() (map[string]int64, map[string]int64) {
	f, s := map[string]int64{}, map[string]int64{}
	for bit := range 63 {
		if name := clone.Flags(1 << bit).String(); strings.HasPrefix(name, "CLONE_") {
			f[name] = 1 << bit
		}
	}
	for n := 1; n < 65; n++ {
		if name := clone.Signal(n).String(); strings.HasPrefix(name, "SIG") {
			s[name] = int64(n)
		}
	}
	return f, s
}()

// parseFlags reads "CLONE_VM|CLONE_FS", or "0".
func parseFlags(s string) (all int64, err error) {
	for _, name := range strings.Split(s, "|") {
		name = strings.TrimSpace(name)
		if name == "0" {
			continue
		}
		bit, ok := flagNames[name]
		if !ok {
			return 0, fmt.Errorf("%q is no clone flag: write CLONE_VM, or CLONE_VM|CLONE_FS", name)
		}
		all |= bit
	}
	return all, nil
}

func parseSignal(s string) (int64, error) {
	n, ok := signalNames[s]
	if !ok {
		return 0, fmt.Errorf("%q is no signal: write SIGCHLD", s)
	}
	return n, nil
}

// literal is the text of an expression that is nothing but a text.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().Value().(string)
	return s, ok
}

var (
	optionName = regexp.MustCompile(`^[A-Z0-9][A-Za-z0-9_]*$`)
	symbolName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.$]*$`)
	memberName = regexp.MustCompile(`^[A-Za-z_]\w*\.[A-Za-z_]\w*$`)
)

// checkLiterals looks at the words that expressions pass to functions: facts
// must be known before the run, and a slip of the pen is found before it too.
func (x *Expr) checkLiterals() (err error) {
	info := x.ast.NativeRep().SourceInfo()
	fail := func(e ast.Expr, format string, args ...any) {
		if err == nil {
			at := info.GetStartLocation(e.ID())
			err = &Error{Line: at.Line(), Column: at.Column(), Msg: fmt.Sprintf(format, args...)}
		}
	}
	walk(x.ast.NativeRep().Expr(), func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		args := call.Args()
		literal := func(i int) (string, bool) {
			if i >= len(args) {
				return "", false
			}
			return literal(args[i])
		}
		fact := func(form *regexp.Regexp, like string, to *[]string) {
			s, ok := literal(0)
			switch {
			case !ok:
				fail(e, "%s(…) wants its name as plain text: %s", call.FunctionName(), like)
			case !form.MatchString(s):
				fail(e, "%s(%q): write it as %s", call.FunctionName(), s, like)
			default:
				*to = append(*to, s)
			}
		}
		switch call.FunctionName() {
		case "config":
			if s, _ := literal(0); strings.HasPrefix(s, "CONFIG_") {
				fail(e, "config(%q): leave CONFIG_ out", s)
				return
			}
			fact(optionName, `config("KCMP")`, &x.Asks.Config)
		case "symbol":
			fact(symbolName, `symbol("kernel_clone")`, &x.Asks.Symbols)
		case "member", "offset":
			fact(memberName, `member("task_struct.__state")`, &x.Asks.Members)
		case "flags", "includes", "excludes":
			if s, ok := literal(0); ok {
				if _, bad := parseFlags(s); bad != nil {
					fail(e, "%v", bad)
				}
			}
		case "signal":
			if s, ok := literal(0); ok {
				if _, bad := parseSignal(s); bad != nil {
					fail(e, "%v", bad)
				}
			}
		case "calls":
			for i := range args {
				if s, ok := literal(i); ok && strings.HasPrefix(s, "@") && !slices.Contains(families, s) {
					fail(e, "%v", nearest.Unknown("family of symbols", s, families))
				}
			}
		}
	})
	return err
}
