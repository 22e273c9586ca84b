// Package strictyaml parses YAML that somebody else wrote, without letting it cost more
// than its size suggests. Whoever reads a file bounds its size first.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"labctl/host/outcome"
	"labctl/host/text"
)

// Error is where text is no YAML that is taken.
type Error struct {
	Line int // from 1
	Msg  string
}

func (e *Error) Error() string { return e.Msg }

// Outcome is BadInput.
func (e *Error) Outcome() outcome.Kind { return outcome.BadInput }

// Parse parses one document, which may be empty. The error is an *Error.
func Parse(data []byte) (*ast.File, error) {
	if line := nesting(data); line > 0 {
		return nil, &Error{line, "nested too deep"}
	}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		out := &Error{1, text.Line(err.Error(), 200)}
		var y yaml.Error
		if errors.As(err, &y) {
			out.Msg = text.Line(y.GetMessage(), 200)
			if t := y.GetToken(); t != nil {
				out.Line = t.Position.Line
			}
		}
		return nil, out
	}
	if len(tree.Docs) != 1 {
		return nil, &Error{1, fmt.Sprintf("%d YAML documents; want one", len(tree.Docs))}
	}
	if body := tree.Docs[0].Body; body != nil {
		e := expansion{anchors: map[string]int{}}
		if e.nodes(body) > maxNodes {
			return nil, &Error{max(1, e.line), "its aliases stand for too much"}
		}
	}
	return tree, nil
}

// maxNodes bounds a document with each alias counted as what it stands for: nine
// aliases, each of a list of nine of the one before, stand for a billion values.
const maxNodes = 100_000

// expansion counts nodes.
type expansion struct {
	anchors map[string]int // nodes
	line    int            // of the last alias
}

func (e *expansion) nodes(n ast.Node) (sum int) {
	add := func(all ...ast.Node) {
		for _, n := range all {
			if n != nil && sum <= maxNodes {
				sum += e.nodes(n)
			}
		}
	}
	sum = 1
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			add(v)
		}
	case *ast.MappingValueNode:
		add(n.Key, n.Value)
	case *ast.MappingKeyNode:
		add(n.Value)
	case *ast.SequenceNode:
		add(n.Values...)
	case *ast.TagNode:
		add(n.Value)
	case *ast.AnchorNode:
		name := n.Name.String()
		e.anchors[name] = maxNodes + 1 // within itself it has no end
		add(n.Value)
		e.anchors[name] = sum
	case *ast.AliasNode:
		e.line = n.GetToken().Position.Line
		sum += e.anchors[n.Value.String()]
	}
	return sum
}

// maxNesting bounds how deep brackets may stand in each other, those in texts
// included, and how many dashes may begin a line: "- - - a" is a list in a list in a
// list.
const maxNesting = 500

// nesting returns the line, from 1, on which YAML or JSON is nested too deep to be
// given to a parser; 0 if it is not. github.com/goccy/go-yaml takes 15 GB for 200,000
// brackets, and the square of their number in time. Indentation needs no bound of its
// own: n levels of it take n*n/2 bytes.
func nesting(data []byte) (line int) {
	depth := 0
	for text := range bytes.Lines(data) {
		line++
		text = bytes.TrimLeft(text, " ")
		for dashes := 0; bytes.HasPrefix(text, []byte("- ")); dashes++ {
			if dashes == maxNesting {
				return line
			}
			text = bytes.TrimLeft(text[1:], " ")
		}
		for _, c := range text {
			switch c {
			case '[', '{':
				if depth++; depth > maxNesting {
					return line
				}
			case ']', '}':
				depth = max(0, depth-1)
			}
		}
	}
	return 0
}
