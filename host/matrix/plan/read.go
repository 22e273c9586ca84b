package plan

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"labctl/host/bounded"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/strictyaml"
	"labctl/host/targets"
	"labctl/host/text"
)

// maxFile bounds a plan file, in bytes.
const maxFile = 256 << 10

// file is a plan file as it is written.
type file struct {
	Name    string    `yaml:"name"`
	Kernels words     `yaml:"kernels"`
	Targets words     `yaml:"targets"`
	Work    []work    `yaml:"work"`
	Exclude []exclude `yaml:"exclude"`
	SMP     int       `yaml:"smp"`
	Mem     int       `yaml:"mem"`
	Timeout word      `yaml:"timeout"`
	FailOn  word      `yaml:"fail-on"`
}

type work struct {
	Labs    words `yaml:"labs"`
	Program word  `yaml:"program"`
	GoTest  words `yaml:"gotest"`
	Args    words `yaml:"args"`
	Files   words `yaml:"files"`
}

type exclude struct {
	Kernels words `yaml:"kernels"`
	Targets words `yaml:"targets"`
	Work    words `yaml:"work"`
}

// word is a scalar as it is spelt: to YAML 5.10 is the number 5.1.
type word struct {
	text string
	line int
}

func (w *word) UnmarshalYAML(n ast.Node) error {
	s, ok := n.(ast.ScalarNode)
	if _, null := n.(*ast.NullNode); !ok || null {
		return &lineError{n.GetToken().Position.Line, "want one word"}
	}
	w.line = n.GetToken().Position.Line
	w.text = n.GetToken().Value
	if text, ok := s.GetValue().(string); ok {
		w.text = text
	}
	return nil
}

// words are a list of them, or one.
type words []word

func (ws *words) UnmarshalYAML(n ast.Node) error {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		var one word
		if err := one.UnmarshalYAML(n); err != nil {
			return &lineError{n.GetToken().Position.Line, "want a list of words"}
		}
		*ws = words{one}
		return nil
	}
	for _, v := range seq.Values {
		var one word
		if err := one.UnmarshalYAML(v); err != nil {
			return err
		}
		*ws = append(*ws, one)
	}
	return nil
}

type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string { return e.msg }

// Read reads a plan file. The error names the file and the line.
func Read(name string) (_ *Spec, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	data, err := bounded.ReadFile(name, maxFile)
	if err != nil {
		return nil, err
	}
	return Parse(data, name)
}

// Parse reads the bytes of a plan file; name is what it is called in messages.
func Parse(data []byte, name string) (*Spec, error) {
	if len(data) > maxFile {
		return nil, bad(name, "more than %d KB", maxFile>>10)
	}
	tree, err := strictyaml.Parse(data)
	var s *strictyaml.Error
	if errors.As(err, &s) {
		return nil, bad(fmt.Sprintf("%s:%d", name, s.Line), "%s", s.Msg)
	}
	if tree.Docs[0].Body == nil {
		return nil, bad(name, "want one YAML document")
	}
	var plain plainWords
	ast.Walk(&plain, tree.Docs[0].Body)
	if plain.line > 0 {
		return nil, bad(fmt.Sprintf("%s:%d", name, plain.line), "a word that begins with *, & or ! is put in quotes: '*'")
	}
	var f file
	if err := yaml.NodeToValue(tree.Docs[0].Body, &f, yaml.Strict()); err != nil {
		return nil, yamlError(err, name)
	}
	return f.spec(name)
}

// plainWords finds the first line with one of YAML's aliases, anchors or tags. No
// plan needs them, a glob may look like one, and the reader stumbles over some.
type plainWords struct{ line int }

func (p *plainWords) Visit(n ast.Node) ast.Visitor {
	switch n.(type) {
	case *ast.AliasNode, *ast.AnchorNode, *ast.TagNode, *ast.MergeKeyNode:
		if t := n.GetToken(); p.line == 0 && t != nil {
			p.line = t.Position.Line
		}
	}
	return p
}

// yamlError is the reader's error on one line.
func yamlError(err error, name string) error {
	var own *lineError
	if errors.As(err, &own) {
		return bad(fmt.Sprintf("%s:%d", name, own.line), "%s", own.msg)
	}
	var y yaml.Error
	if !errors.As(err, &y) {
		return bad(name, "%s", text.Line(err.Error(), 200))
	}
	where := name
	if t := y.GetToken(); t != nil {
		where = fmt.Sprintf("%s:%d", name, t.Position.Line)
	}
	return bad(where, "%s", text.Line(y.GetMessage(), 200))
}

func (f *file) spec(name string) (*Spec, error) {
	at := func(line int) string {
		if line == 0 {
			return name
		}
		return fmt.Sprintf("%s:%d", name, line)
	}
	items := func(ws words) (out []Item) {
		for _, w := range ws {
			out = append(out, Item{w.text, at(w.line)})
		}
		return out
	}
	s := &Spec{Name: f.Name, Kernels: items(f.Kernels), Targets: items(f.Targets), CPUs: f.SMP, MemoryMB: f.Mem}
	switch {
	case text.Line(f.Name, 100) != f.Name:
		return nil, bad(name, "name: want one line of at most 100 bytes")
	case len(f.Kernels) == 0:
		return nil, bad(name, "kernels: missing; write kernels: [5.10, 6.12], or kernels: %s", Cached)
	case len(f.Work) == 0:
		return nil, bad(name, "work: missing; write a list of labs:, program: and gotest:")
	}
	if err := targets.CheckSize(f.SMP, f.Mem); err != nil {
		return nil, bad(name, "%v", err)
	}
	if f.Timeout.text != "" {
		d, err := time.ParseDuration(f.Timeout.text)
		if err != nil || d <= 0 {
			return nil, bad(at(f.Timeout.line), "timeout %q: write it as 90s or 5m", text.Line(f.Timeout.text, 40))
		}
		s.Timeout = d
	}
	if f.FailOn.text != "" {
		if err := s.FailOn.Set(f.FailOn.text); err != nil {
			return nil, bad(at(f.FailOn.line), "fail-on: %v", err)
		}
	}
	for i, w := range f.Work {
		one := Work{Files: items(w.Files)}
		for _, a := range w.Args {
			one.Args = append(one.Args, a.text)
		}
		kinds := 0
		if len(w.Labs) > 0 {
			kinds++
			one.Kind, one.Names = matrix.Lab, items(w.Labs)
		}
		if len(w.GoTest) > 0 {
			kinds++
			one.Kind, one.Names = matrix.GoTest, items(w.GoTest)
		}
		if w.Program.text != "" {
			kinds++
			one.Kind, one.Names = matrix.Program, items(words{w.Program})
		}
		where := at(w.line())
		switch {
		case kinds != 1:
			return nil, bad(where, "work[%d]: want exactly one of labs, program and gotest", i)
		case one.Kind == matrix.Lab && len(one.Args) > 0:
			return nil, bad(where, "work[%d]: labs take no args", i)
		case one.Kind == matrix.Lab && len(one.Files) > 0:
			return nil, bad(where, "work[%d]: labs take no files", i)
		}
		s.Work = append(s.Work, one)
	}
	for i, x := range f.Exclude {
		all := append(append(append(words(nil), x.Kernels...), x.Targets...), x.Work...)
		if len(all) == 0 {
			return nil, bad(name, "exclude[%d]: it would take all; write kernels, targets or work", i)
		}
		for _, w := range all {
			if _, err := path.Match(w.text, ""); err != nil {
				return nil, bad(at(w.line), "exclude[%d]: %q: %v", i, text.Line(w.text, 40), err)
			}
		}
		s.Exclude = append(s.Exclude, Exclude{at(all[0].line), items(x.Kernels), items(x.Targets), items(x.Work)})
	}
	return s, nil
}

// line is the first that something of it is on, 0 when nothing is.
func (w *work) line() int {
	for _, ws := range []words{w.Labs, w.GoTest, {w.Program}, w.Args, w.Files} {
		if len(ws) > 0 && ws[0].line > 0 {
			return ws[0].line
		}
	}
	return 0
}

// FromFlags is a list of words as a flag gives it.
func FromFlags(flag string, words []string) (items []Item) {
	for _, w := range words {
		items = append(items, Item{strings.TrimSpace(w), flag})
	}
	return items
}
