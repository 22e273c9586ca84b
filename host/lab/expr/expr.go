// Package expr is the language of a lab's checks and claims: CEL
// (https://cel.dev) over the recorded result, with functions of its own for
// stacks, clone flags and kernel facts. docs/labs.md describes it.
//
// An expression is compiled, and type-checked, when a lab is loaded. What it
// evaluates to depends on the result alone: no clock, no machine, no order.
package expr

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"

	"labctl/host/lab/result"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Bounds on one evaluation. A lab may come from anywhere.
const (
	maxCost   = 5_000_000 // CEL's own count: about one a step
	maxTime   = 30 * time.Second
	maxSource = 8 << 10 // bytes
)

// Kernel is the variable that every expression has beside its steps.
const Kernel = "kernel"

// Row is the variable of a view's cells: the row that they are in.
const Row = "row"

// korean is the variable behind say: whether the reader's language is Korean.
const korean = "korean"

// say is what an expression says in the reader's language, say("3 tasks", "태스크 3개").
var say = cel.GlobalMacro("say", 2, func(f cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
	for _, a := range args {
		if s, ok := literal(a); !ok || s == "" {
			return nil, f.NewError(a.ID(), "say has two texts in quotation marks, in English and in Korean")
		}
	}
	return f.NewCall(operators.Conditional, f.NewIdent(korean), args[1], args[0]), nil
})

// reserved are words that no step can be called, since CEL or this package has
// them.
var reserved = []string{
	Kernel, Row, korean, "say", "flags", "flagText", "signal", "numbers", "number", "lines", "line",
	"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop",
	"namespace", "null", "package", "return", "true", "var", "void", "while",
	"has", "size", "type", "dyn", "int", "uint", "double", "string", "bool", "bytes", "list", "map", "duration",
	"timestamp", "matches", "cel", "math", "lists", "sets", "strings", "base64", "result",
}

// Reserved reports whether a step cannot have this id.
func Reserved(id string) bool { return slices.Contains(reserved, id) }

// Type is what an expression must give.
type Type int

const (
	Bool   Type = iota // a check's `that`, a `when`
	String             // a claim's evidence
	Any                // a check's `seen`
)

// Env is the variables and functions of a lab's expressions.
type Env struct{ env *cel.Env }

var (
	kernelType   = cel.ObjectType("result.Kernel")
	stepType     = cel.ObjectType("result.Step")
	taskType     = cel.ObjectType("result.Task")
	creationType = cel.ObjectType("result.Creation")
	eventType    = cel.ObjectType("result.Event")
	stackType    = cel.ObjectType("result.Stack")
	lookType     = cel.ObjectType("result.Look")
	structType   = cel.ObjectType("result.OutsideStruct")
)

// nativeTypes are what expressions see, by their JSON names.
func nativeTypes() []any {
	return []any{
		reflect.TypeFor[result.Kernel](), reflect.TypeFor[result.Member](), reflect.TypeFor[result.Step](),
		reflect.TypeFor[result.Task](), reflect.TypeFor[result.Creation](), reflect.TypeFor[result.Who](),
		reflect.TypeFor[result.Event](), reflect.TypeFor[result.Stack](), reflect.TypeFor[result.Frame](),
		reflect.TypeFor[result.Look](), reflect.TypeFor[result.OutsideTask](), reflect.TypeFor[result.OutsideStack](),
		reflect.TypeFor[result.OutsideMaps](), reflect.TypeFor[result.OutsideArea](), reflect.TypeFor[result.OutsidePage](),
		reflect.TypeFor[result.OutsideEntry](), reflect.TypeFor[result.OutsideStruct](), reflect.TypeFor[result.OutsideMember](),
		ext.ParseStructTag("json"),
	}
}

// withData gives steps the field data, of a type that depends on the probe: the
// provider of native types passes over what it cannot type.
type withData struct{ types.Provider }

func (p withData) FindStructFieldType(structType, field string) (*types.FieldType, bool) {
	if structType != "result.Step" || field != "data" {
		return p.Provider.FindStructFieldType(structType, field)
	}
	data := func(v any) map[string]any {
		switch v := v.(type) {
		case result.Step:
			return v.Data
		case *result.Step:
			return v.Data
		}
		return nil
	}
	return &types.FieldType{
		Type:    types.NewMapType(types.StringType, types.DynType),
		IsSet:   func(v any) bool { return data(v) != nil },
		GetFrom: func(v any) (any, error) { return data(v), nil },
	}, true
}

// base is what all environments have, made once: it takes milliseconds.
var base = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(append([]cel.EnvOption{
		ext.NativeTypes(nativeTypes()...),
		func(e *cel.Env) (*cel.Env, error) { return cel.CustomTypeProvider(withData{e.CELTypeProvider()})(e) },
		ext.Strings(), ext.Lists(), ext.Math(), ext.Bindings(),
		cel.EnableMacroCallTracking(),
		cel.ParserExpressionSizeLimit(maxSource),
		cel.Macros(say),
		cel.Variable(Kernel, kernelType),
		cel.Variable(korean, cel.BoolType),
	}, functions()...)...)
})

// New makes the environment of a lab with these steps.
func New(steps []string) (*Env, error) {
	env, err := base()
	if err == nil && len(steps) > 0 {
		var vars []cel.EnvOption
		for _, id := range steps {
			vars = append(vars, cel.Variable(id, stepType))
		}
		env, err = env.Extend(vars...)
	}
	if err != nil {
		return nil, fmt.Errorf("make the environment of expressions: %w", err)
	}
	return &Env{env}, nil
}

// Error is an expression that does not compile.
type Error struct {
	Line, Column int // in the expression, from 1 and 0
	Msg          string
}

func (e *Error) Error() string { return e.Msg }

// Outcome is BadInput.
func (e *Error) Outcome() outcome.Kind { return outcome.BadInput }

// Expr is a compiled expression.
type Expr struct {
	Source string
	Asks   Asks
	Names  []string // of the variables in it, sorted
	Events []string // that it asks a step for by S.on("…"), sorted
	// Says says that it has texts in both languages: its value depends on Input's Korean.
	Says bool
	// Signal says that it asks for the exit signal that a task was made with.
	Signal bool
	// Early says that it looks at nothing that comes out of the trace, which is read when
	// all steps have run: it can be evaluated when the steps that it names have.
	Early bool
	want  Type
	ast   *cel.Ast
	// Two programs of one expression: cel-go 0.31 counts no cost while it keeps
	// the values of sub-expressions.
	bounded cel.Program
	watched cel.Program
}

// Asks are the kernel facts that an expression asks for. A run records these.
type Asks struct{ Config, Symbols, Members []string }

// Add puts more facts to those that are there, each once.
func (a *Asks) Add(b Asks) {
	add := func(to *[]string, more []string) {
		*to = append(*to, more...)
		slices.Sort(*to)
		*to = slices.Compact(*to)
	}
	add(&a.Config, b.Config)
	add(&a.Symbols, b.Symbols)
	add(&a.Members, b.Members)
}

// Compile parses and type-checks an expression that must give want. The error
// is an *Error.
func (e *Env) Compile(source string, want Type) (*Expr, error) {
	if len(source) > maxSource {
		return nil, &Error{Line: 1, Msg: fmt.Sprintf("an expression of more than %d KB", maxSource>>10)}
	}
	tree, issues := e.env.Compile(source)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, &Error{Line: first.Location.Line(), Column: first.Location.Column(), Msg: readable(first.Message)}
	}
	got := tree.OutputType()
	dyn := got.IsExactType(types.DynType)
	switch {
	case want == Bool && !dyn && !got.IsExactType(types.BoolType):
		return nil, &Error{Line: 1, Msg: fmt.Sprintf("it gives %s; want true or false", typeName(got))}
	case want == String && !dyn && !got.IsExactType(types.StringType):
		return nil, &Error{Line: 1, Msg: fmt.Sprintf("it gives %s; want a string: string(…) or %q.format([…])", typeName(got), "%d")}
	}
	x := &Expr{Source: source, want: want, ast: tree}
	isStep := func(e ast.Expr) bool {
		of := tree.NativeRep().GetType(e.ID())
		return e.Kind() == ast.IdentKind && of != nil && of.TypeName() == stepType.TypeName()
	}
	steps, early := 0, 0 // how often steps are named, and how often for what they have early
	x.Early = true
	walk(tree.NativeRep().Expr(), func(e ast.Expr) {
		switch {
		case isStep(e):
			steps++
		case e.Kind() == ast.SelectKind && isStep(e.AsSelect().Operand()) && slices.Contains(earlyMembers, e.AsSelect().FieldName()),
			e.Kind() == ast.CallKind && e.AsCall().IsMemberFunction() && isStep(e.AsCall().Target()) && slices.Contains(earlyMembers, e.AsCall().FunctionName()):
			early++
		case e.Kind() == ast.SelectKind && slices.Contains(lateFacts, e.AsSelect().FieldName()):
			x.Early = false
		}
		switch {
		case e.Kind() == ast.IdentKind && e.AsIdent() == korean:
			x.Says = true
		case e.Kind() == ast.IdentKind:
			x.Names = append(x.Names, e.AsIdent())
		case e.Kind() == ast.SelectKind && e.AsSelect().FieldName() == "exit_signal":
			if of := tree.NativeRep().GetType(e.AsSelect().Operand().ID()); of != nil && of.TypeName() == creationType.TypeName() {
				x.Signal = true
			}
		case e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "on":
			if name, ok := literal(e.AsCall().Args()[0]); ok {
				x.Events = append(x.Events, name)
			}
		}
	})
	x.Early = x.Early && steps == early
	for _, l := range []*[]string{&x.Names, &x.Events} {
		slices.Sort(*l)
		*l = slices.Compact(*l)
	}
	if err := x.checkLiterals(); err != nil {
		return nil, err
	}
	var err error
	if x.bounded, err = e.env.Program(tree, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(1000)); err == nil {
		x.watched, err = e.env.Program(tree, cel.EvalOptions(cel.OptTrackState), cel.InterruptCheckFrequency(1000))
	}
	if err != nil {
		return nil, &Error{Line: 1, Msg: readable(err.Error())}
	}
	return x, nil
}

// earlyMembers are the members and methods of a step that are known when it has ended;
// lateFacts are those of the kernel that come out of the trace.
var (
	earlyMembers = []string{"id", "argv", "no_compiler", "no_call", "pid", "exit", "signal", "stdout", "stderr", "tasks", "task", "data", "looks", "look"}
	lateFacts    = []string{"skipped_frames", "wrong_states"}
)

// readable takes the names of Go's packages out of CEL's words.
func readable(msg string) string {
	msg = strings.NewReplacer("result.", "", " (in container '')", "").Replace(msg)
	return text.Line(msg, 300)
}

func typeName(t *types.Type) string { return readable(t.String()) }

// Input is what an expression is evaluated over.
type Input struct {
	Kernel *result.Kernel
	Steps  []*result.Step
	Row    *Item // where the environment has one
	Korean bool  // the language of what the expression says
}

// Value is what came out.
type Value struct {
	True bool   // of a Bool
	Text string // of any other, one line, cleaned
}

// Seen is one sub-expression and its value.
type Seen struct {
	Expr  string `json:"expr"`
	Value string `json:"value"`
}

func (s Seen) String() string { return s.Expr + " = " + s.Value }

// ErrWork is an expression that is too much work.
var ErrWork = outcome.New(outcome.BadInput, "it is too much work: look at fewer events, or without a loop in a loop")

// errNothing is the error of an expression over a list that the evidence does not have.
var errNothing = errors.New("the list that it looks at is not there")

// errTime is the cause when an evaluation took too long.
var errTime = fmt.Errorf("%w (time)", ErrWork)

// Eval evaluates the expression. The error is one of the expression's: an index
// out of range, a fact that is not recorded, too much work.
func (x *Expr) Eval(in Input) (Value, error) {
	var v Value
	out, _, err := run(x.bounded, in)
	if err != nil {
		return v, err
	}
	if b, ok := out.(types.Bool); ok {
		v.True = bool(b)
	} else if x.want == Bool {
		// The types of what a probe reports are known only now.
		return v, fmt.Errorf("it gives %s; want true or false", show(out))
	}
	if s, ok := out.(types.String); ok {
		v.Text = text.Line(string(s), maxShown)
	} else {
		v.Text = show(out)
	}
	return v, nil
}

// Seen evaluates the expression again, after Eval has shown that it can be, and
// gives the values of the sub-expressions that decide, in their order.
func (x *Expr) Seen(in Input) []Seen {
	_, details, err := run(x.watched, in)
	if details == nil || errors.Is(err, errTime) {
		return nil
	}
	return x.seen(details.State())
}

func run(p cel.Program, in Input) (ref.Val, *cel.EvalDetails, error) {
	vars := map[string]any{Kernel: in.Kernel, korean: in.Korean}
	for _, s := range in.Steps {
		vars[s.ID] = s
	}
	if in.Row != nil {
		vars[Row] = in.Row.v
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), maxTime, errTime)
	defer cancel()
	out, details, err := p.ContextEval(ctx, vars)
	switch {
	case ctx.Err() != nil:
		return nil, details, errTime
	case err != nil && strings.Contains(err.Error(), "cost limit exceeded"):
		return nil, details, ErrWork
	case err != nil && strings.Contains(err.Error(), "*types.Err is not"):
		// cel-go reckons the cost of a list without a look at whether it is one
		// (trackListSelfCompare in ext/lists.go), and tells of its own panic.
		return nil, details, errNothing
	case err != nil:
		return nil, details, errors.New(readable(err.Error()))
	}
	return out, details, nil
}

// walk visits e and all below it.
func walk(e ast.Expr, visit func(ast.Expr)) {
	ast.PostOrderVisit(e, ast.NewExprVisitor(visit))
}
