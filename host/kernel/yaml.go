package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"labctl/host/outcome"
	"labctl/host/strictyaml"
	"labctl/host/text"
)

// YAMLError is an error in a list of kernel sources.
type YAMLError struct {
	File  string
	Line  int    // starting at 1
	Field string // "sources[2].series"; "" if the file is not YAML
	Msg   string
}

func (e *YAMLError) Error() string {
	where := fmt.Sprintf("%s:%d", e.File, e.Line)
	if e.Field != "" {
		where += ": " + e.Field
	}
	return where + ": " + e.Msg
}

// Outcome is BadInput.
func (e *YAMLError) Outcome() outcome.Kind { return outcome.BadInput }

// document is a YAML file, used to locate errors in it.
type document struct {
	file string
	tree *ast.File
}

// decodeYAML decodes data into v; an unknown or duplicate field is an error.
func decodeYAML(file string, data []byte, v any) (*document, error) {
	doc := &document{file: file}
	tree, err := strictyaml.Parse(data)
	if err != nil {
		return nil, doc.located(err)
	}
	doc.tree = tree
	if err := yaml.UnmarshalWithOptions(data, v, yaml.Strict()); err != nil {
		return nil, doc.located(err)
	}
	return doc, nil
}

// located condenses the parser's errors to one line with a location.
func (d *document) located(err error) error {
	out := &YAMLError{File: d.file, Line: 1, Msg: text.Line(err.Error(), 200)}
	var s *strictyaml.Error
	if errors.As(err, &s) {
		out.Line = s.Line
	}
	var y yaml.Error
	if errors.As(err, &y) {
		out.Msg = text.Line(y.GetMessage(), 200)
		if t := y.GetToken(); t != nil {
			out.Line = t.Position.Line
			if d.tree != nil {
				f := fieldFinder{offset: t.Position.Offset}
				for _, doc := range d.tree.Docs {
					ast.Walk(&f, doc)
				}
				out.Field = strings.TrimPrefix(strings.TrimPrefix(f.path, "$"), ".")
			}
		}
	}
	return out
}

// fieldFinder finds the innermost field at an offset.
type fieldFinder struct {
	offset int
	path   string
}

func (f *fieldFinder) Visit(n ast.Node) ast.Visitor {
	if t := n.GetToken(); t != nil && t.Position.Offset == f.offset && len(n.GetPath()) > len(f.path) {
		f.path = n.GetPath()
	}
	return f
}

// fail returns an error about a field. If the field is missing, the error refers
// to the line of the enclosing one.
func (d *document) fail(field, format string, args ...any) error {
	return &YAMLError{File: d.file, Line: d.line(field), Field: field, Msg: fmt.Sprintf(format, args...)}
}

func (d *document) line(field string) int {
	for field != "" {
		if p, err := yaml.PathString("$." + field); err == nil {
			if n, err := p.FilterFile(d.tree); err == nil && n != nil {
				return n.GetToken().Position.Line
			}
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			break
		}
		field = field[:cut]
	}
	return 1
}
