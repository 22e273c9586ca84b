package expr

import (
	"fmt"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"labctl/host/lab/result"
	"labctl/host/text"
)

// Item is a value of an expression, as views take it.
type Item struct{ v ref.Val }

// WithRow is an environment for the cells of a row. The row is one of what these
// expressions give: of a list one of its elements, of anything else that itself.
// Where they are not all of one type nothing is known of the row's.
func (e *Env) WithRow(of ...*Expr) (*Env, error) {
	row := types.DynType
	for i, x := range of {
		t := x.ast.OutputType()
		if t.Kind() == types.ListKind && len(t.Parameters()) == 1 {
			t = t.Parameters()[0]
		}
		if i > 0 && !t.IsExactType(row) {
			row = types.DynType
			break
		}
		row = t
	}
	env, err := e.env.Extend(cel.Variable(Row, row))
	if err != nil {
		return nil, fmt.Errorf("make the environment of a view: %w", err)
	}
	return &Env{env}, nil
}

// Item evaluates the expression. The error is that of Eval.
func (x *Expr) Item(in Input) (Item, error) {
	out, _, err := run(x.bounded, in)
	return Item{out}, err
}

// List is the elements of a list, no more than most of them and how many there are;
// of anything else that itself.
func (i Item) List(most int) (all []Item, n int) {
	l, ok := i.v.(traits.Lister)
	if !ok {
		return []Item{i}, 1
	}
	for it := l.Iterator(); it.HasNext() == types.True; n++ {
		if v := it.Next(); n < most {
			all = append(all, Item{v})
		}
	}
	return all, n
}

// IsList reports whether it is a list.
func (i Item) IsList() bool { _, ok := i.v.(traits.Lister); return ok }

// Bool is a truth value.
func (i Item) Bool() (value, ok bool) {
	b, ok := i.v.(types.Bool)
	return bool(b), ok
}

// Int is a whole number.
func (i Item) Int() (int64, bool) {
	switch n := i.v.(type) {
	case types.Int:
		return int64(n), true
	case types.Uint:
		return int64(n), true
	}
	return 0, false
}

// Number reports whether it is a number of any kind.
func (i Item) Number() bool {
	switch i.v.(type) {
	case types.Int, types.Uint, types.Double:
		return true
	}
	return false
}

// Null reports whether it is no value.
func (i Item) Null() bool { _, ok := i.v.(types.Null); return ok }

// Native is the value that the record has, of one of package result's types: where
// there is such a value.
func Native[T any](i Item) (T, bool) {
	switch v := i.v.Value().(type) {
	case T:
		return v, true
	case *T:
		return *v, true
	}
	var zero T
	return zero, false
}

// ItemOf is a value of one of package result's types.
func ItemOf(v any) Item { return Item{native(v)} }

// Raw is a string as it is, not cleaned; anything else as Text.
func (i Item) Raw() string {
	if s, ok := i.v.(types.String); ok {
		return string(s)
	}
	return i.Text()
}

// maxText bounds what a view shows of one value, in bytes.
const maxText = 2000

// Text is the value in one line, cleaned: a string as it is, a list with commas.
func (i Item) Text() string {
	switch v := i.v.(type) {
	case types.String:
		return text.Line(string(v), maxText)
	case types.Int:
		return fmt.Sprint(int64(v))
	case types.Uint:
		return fmt.Sprint(uint64(v))
	case types.Double:
		return fmt.Sprintf("%.4g", float64(v))
	case traits.Lister:
		var parts []string
		all, n := i.List(maxElements * 4)
		for _, e := range all {
			parts = append(parts, e.Text())
		}
		if n > len(all) {
			parts = append(parts, fmt.Sprintf("… %d more", n-len(all)))
		}
		return text.Line(join(parts), maxText)
	}
	if c, ok := Native[result.Creation](i); ok {
		return text.Line(showCreation(&c), maxText)
	}
	return text.Line(showAny(i.v), maxText)
}

func join(parts []string) (s string) {
	for i, p := range slices.DeleteFunc(parts, func(p string) bool { return p == "" }) {
		if i > 0 {
			s += ", "
		}
		s += p
	}
	return s
}
