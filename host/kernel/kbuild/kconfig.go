package kbuild

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Limits on a tree's Kconfig files; 6.12 has 1,740 of them, 13 MB, nested eight
// deep.
const (
	maxKconfigFile  = 4 << 20
	maxKconfigFiles = 20_000
	maxKconfigDepth = 32
)

// rules is what a tree's Kconfig files define: what each option depends on, by
// itself and through the menus around it, and what selects it. The language is
// documented in Documentation/kbuild/kconfig-language.rst. It is parsed only to
// explain why the tree's own conf program dropped an option; macros are not
// expanded.
type rules struct {
	symbols map[string]*symbol
	vars    map[string]string
	tree    string
	files   int
}

type symbol struct {
	name     string
	defs     []*definition
	selected []selection
}

// definition is one definition of a symbol. A symbol may have several.
type definition struct {
	symbol *symbol
	where  string // "arch/x86/Kconfig:812"
	deps   []expr // of the symbol and its enclosing scopes; all must be true
	prompt bool   // the user can set it
	// automatic: it has a default, which may be y.
	automatic bool
	asked     []expr // conditions of the prompt; all must be true
	choice    *choice
}

// choice is a set of symbols, exactly one of which is y.
type choice struct{ members []*symbol }

// selection records that another symbol selects or implies a symbol.
type selection struct {
	by   *definition
	when *expr // nil: always
}

// scope is a menu, "if" or choice that encloses definitions.
type scope struct {
	kind    string // "menu", "if", "choice"
	deps    []expr
	visible []expr
	choice  *choice
}

// readRules reads the Kconfig files of a tree for an architecture, named as in the
// tree ("x86").
func readRules(tree, srcarch string) (*rules, error) {
	k := &rules{symbols: map[string]*symbol{}, tree: tree, vars: map[string]string{"SRCARCH": srcarch, "srctree": ".", "ARCH": srcarch, "HEADER_ARCH": srcarch}}
	if err := k.file("Kconfig", nil, 0); err != nil {
		return nil, err
	}
	return k, nil
}

var variable = regexp.MustCompile(`\$\(?([A-Za-z_]+)\)?`)

func (k *rules) expand(s string) string {
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		return k.vars[variable.FindStringSubmatch(v)[1]]
	})
}

// file reads one file and those that it includes, within the enclosing scopes.
func (k *rules) file(name string, around []scope, depth int) error {
	k.files++
	name = path.Clean(name)
	if depth > maxKconfigDepth || k.files > maxKconfigFiles || !filepath.IsLocal(name) {
		return fmt.Errorf("read %s: the tree's Kconfig files include each other in a loop, or a file outside the tree", name)
	}
	st, err := os.Stat(filepath.Join(k.tree, name))
	if err != nil {
		return fmt.Errorf("read Kconfig: %w", err)
	}
	if st.Size() > maxKconfigFile {
		return fmt.Errorf("read %s: %d bytes is too large for a Kconfig file", name, st.Size())
	}
	data, err := os.ReadFile(filepath.Join(k.tree, name))
	if err != nil {
		return fmt.Errorf("read Kconfig: %w", err)
	}
	r := &rulesReader{k: k, file: name, scopes: append([]scope(nil), around...), base: len(around)}
	return r.read(string(data), depth)
}

// rulesReader is the parser's state within one file.
type rulesReader struct {
	k      *rules
	file   string
	scopes []scope
	base   int         // number of scopes of the including files
	def    *definition // the current config entry
	menu   bool        // the current entry is the innermost scope
	other  bool        // the current entry is ignored, such as a comment
}

func (r *rulesReader) read(text string, depth int) error {
	helpIndent := -2 // -2: not in help text; -1: before its first line
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		start := i + 1
		raw := lines[i]
		if helpIndent > -2 {
			in := indent(raw)
			switch {
			case strings.TrimSpace(raw) == "":
				continue
			case helpIndent == -1 && in > 0:
				helpIndent = in
				continue
			case helpIndent > 0 && in >= helpIndent:
				continue
			}
			helpIndent = -2
		}
		for strings.HasSuffix(raw, `\`) && i+1 < len(lines) {
			i++
			raw = strings.TrimSuffix(raw, `\`) + " " + lines[i]
		}
		line := strings.TrimSpace(cutComment(raw))
		if line == "" {
			continue
		}
		word, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		rest = strings.TrimSpace(rest)
		if word == "help" || word == "---help---" {
			helpIndent = -1
			continue
		}
		if word == "source" || word == "osource" {
			r.end()
			name := r.k.expand(strings.Trim(rest, `"'`))
			if _, err := os.Stat(filepath.Join(r.k.tree, name)); err != nil {
				continue // for another architecture, or it contains a macro
			}
			if err := r.k.file(name, r.scopes, depth+1); err != nil {
				return err
			}
			continue
		}
		r.line(word, rest, start)
	}
	return nil
}

func indent(s string) int {
	n := 0
	for _, c := range s {
		switch c {
		case ' ':
			n++
		case '\t':
			n = (n/8 + 1) * 8
		default:
			return n
		}
	}
	return n
}

// unquoted returns the first place outside quotes where match holds of what follows,
// or -1.
func unquoted(s string, match func(rest string) bool) int {
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case match(s[i:]):
			return i
		}
	}
	return -1
}

// cutComment removes what follows a # outside quotes.
func cutComment(s string) string {
	if i := unquoted(s, func(rest string) bool { return rest[0] == '#' }); i >= 0 {
		return s[:i]
	}
	return s
}

// end ends the current entry.
func (r *rulesReader) end() { r.def, r.menu, r.other = nil, false, false }

func (r *rulesReader) push(s scope) {
	r.end()
	r.scopes = append(r.scopes, s)
	r.menu = true
}

func (r *rulesReader) pop(kind string) {
	r.end()
	if n := len(r.scopes); n > r.base && r.scopes[n-1].kind == kind {
		r.scopes = r.scopes[:n-1]
	}
}

func (r *rulesReader) line(word, rest string, at int) {
	switch word {
	case "config", "menuconfig":
		r.end()
		r.def = r.k.define(rest, fmt.Sprintf("%s:%d", r.file, at), r.scopes)
	case "menu":
		r.push(scope{kind: "menu"})
	case "endmenu":
		r.pop("menu")
	case "choice":
		r.push(scope{kind: "choice", choice: &choice{}})
	case "endchoice":
		r.pop("choice")
	case "if":
		r.push(scope{kind: "if", deps: []expr{parseExpr(rest)}})
		r.menu = false
	case "endif":
		r.pop("if")
	case "comment", "mainmenu":
		r.end()
		r.other = true
	case "depends":
		on := parseExpr(strings.TrimPrefix(rest, "on "))
		switch {
		case r.def != nil:
			r.def.deps = append(r.def.deps, on)
		case r.menu:
			s := &r.scopes[len(r.scopes)-1]
			s.deps = append(s.deps[:len(s.deps):len(s.deps)], on)
		}
	case "visible":
		if r.menu {
			s := &r.scopes[len(r.scopes)-1]
			s.visible = append(s.visible[:len(s.visible):len(s.visible)], parseExpr(strings.TrimPrefix(rest, "if ")))
		}
	case "bool", "tristate", "int", "hex", "string", "prompt":
		if r.def == nil || !strings.HasPrefix(rest, `"`) && !strings.HasPrefix(rest, "'") {
			return
		}
		r.def.prompt = true
		if _, cond, ok := cutIf(rest); ok {
			r.def.asked = append(r.def.asked, parseExpr(cond))
		}
	case "default", "def_bool", "def_tristate":
		if value, _, _ := cutIf(rest); r.def != nil && strings.TrimSpace(value) != "n" {
			r.def.automatic = true
		}
	case "select", "imply":
		if r.def == nil {
			return
		}
		name, cond, ok := cutIf(rest)
		s := selection{by: r.def}
		if ok {
			when := parseExpr(cond)
			s.when = &when
		}
		to := r.k.symbol(strings.TrimSpace(name))
		to.selected = append(to.selected, s)
	}
}

// cutIf splits `X if Y` at an "if" outside quotes.
func cutIf(s string) (before, cond string, ok bool) {
	i := unquoted(s, func(rest string) bool { return strings.HasPrefix(rest, " if ") || strings.HasPrefix(rest, " if(") })
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+3:], true
}

func (k *rules) symbol(name string) *symbol {
	s := k.symbols[name]
	if s == nil {
		s = &symbol{name: name}
		k.symbols[name] = s
	}
	return s
}

func (k *rules) define(name, where string, around []scope) *definition {
	s := k.symbol(name)
	d := &definition{symbol: s, where: where}
	for _, sc := range around {
		d.deps = append(d.deps, sc.deps...)
		d.asked = append(d.asked, sc.visible...)
		if sc.choice != nil {
			d.choice = sc.choice
		}
	}
	if d.choice != nil {
		d.choice.members = append(d.choice.members, s)
	}
	s.defs = append(s.defs, d)
	return d
}

// known reports whether the tree has an option with that name for the architecture.
func (k *rules) known(name string) bool {
	s := k.symbols[name]
	return s != nil && len(s.defs) > 0
}
