package outcome_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module  = "labctl"
	outcome = module + "/host/outcome"
)

// TestErrorsAreClassified finds the errors of this module that do not say which
// outcome they are: exported types that are errors, and sentinels.
func TestErrorsAreClassified(t *testing.T) {
	types, sentinels := 0, 0
	for _, p := range list(t) {
		if !strings.HasPrefix(p.ImportPath, module+"/host/") {
			continue // errors of the guest come to the host as text
		}
		if p.Export == "" {
			continue // tests alone
		}
		pkg, err := packages.Import(p.ImportPath)
		if err != nil {
			t.Fatal(err)
		}
		bad, n := unclassified(t, pkg)
		for _, name := range bad {
			t.Errorf("%s is an error, and has no method Outcome() outcome.Kind", name)
		}
		types += n
		bad, n = plainSentinels(t, p)
		for _, name := range bad {
			t.Errorf("%s is an error without an outcome: make it by outcome.New", name)
		}
		sentinels += n
	}
	if types < 20 || sentinels < 10 {
		t.Errorf("%d types of errors and %d sentinels looked at; are they found at all?", types, sentinels)
	}
}

// listed is a package as go list sees it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

var exports = map[string]string{} // export data, by the package's path

// list compiles the module and returns its packages.
func list(t *testing.T) (own []listed) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return own
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath, module+"/") {
			own = append(own, p)
		}
	}
}

var set = token.NewFileSet()

var packages = importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) {
	if exports[path] == "" {
		return nil, fmt.Errorf("no export data of %s", path)
	}
	return os.Open(exports[path])
})

// unclassified looks at the exported types of a package that are errors.
func unclassified(t *testing.T, pkg *types.Package) (bad []string, looked int) {
	t.Helper()
	known, err := packages.Import(outcome)
	if err != nil {
		t.Fatal(err)
	}
	isError := types.Universe.Lookup("error").Type().Underlying().(*types.Interface)
	isClassified := known.Scope().Lookup("Classified").Type().Underlying().(*types.Interface)
	for _, name := range pkg.Scope().Names() {
		obj, ok := pkg.Scope().Lookup(name).(*types.TypeName)
		if !ok || !obj.Exported() || types.IsInterface(obj.Type()) {
			continue
		}
		for _, typ := range []types.Type{obj.Type(), types.NewPointer(obj.Type())} {
			if !types.Implements(typ, isError) {
				continue
			}
			looked++
			if !types.Implements(typ, isClassified) {
				bad = append(bad, types.TypeString(typ, nil))
			}
			break
		}
	}
	return bad, looked
}

// TestUnclassified shows that the rule for types can be broken.
func TestUnclassified(t *testing.T) {
	list(t)
	file, err := parser.ParseFile(set, "x.go", `package x

import "labctl/host/outcome"

type Good struct{}

func (*Good) Error() string         { return "" }
func (*Good) Outcome() outcome.Kind { return outcome.OK }

type Bad struct{}

func (*Bad) Error() string { return "" }

type Half struct{} // a Half is an error, and only a *Half is classified

func (Half) Error() string          { return "" }
func (*Half) Outcome() outcome.Kind { return outcome.OK }

type none struct{}

func (none) Error() string { return "" }

type Other struct{}
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := (&types.Config{Importer: packages}).Check("x", set, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	bad, looked := unclassified(t, pkg)
	if want := []string{"*x.Bad", "x.Half"}; !slices.Equal(bad, want) || looked != 3 {
		t.Errorf("unclassified = %q of %d, want %q of 3", bad, looked, want)
	}
}

// plainSentinels looks at the exported variables of a package that are called Err…
func plainSentinels(t *testing.T, p listed) (bad []string, looked int) {
	t.Helper()
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, spec := range vars.Specs {
				v := spec.(*ast.ValueSpec)
				for i, id := range v.Names {
					if !strings.HasPrefix(id.Name, "Err") || i >= len(v.Values) {
						continue
					}
					looked++
					if isPlain(v.Values[i]) {
						bad = append(bad, p.ImportPath+"."+id.Name)
					}
				}
			}
		}
	}
	return bad, looked
}

// isPlain reports whether an error is made by a function of the standard library from
// a text alone.
func isPlain(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := f.X.(*ast.Ident)
	if !ok {
		return false
	}
	if pkg.Name == "errors" && f.Sel.Name == "New" {
		return true
	}
	return pkg.Name == "fmt" && f.Sel.Name == "Errorf" && len(call.Args) > 0 && !wraps(call.Args[0])
}

func wraps(format ast.Expr) bool {
	lit, ok := format.(*ast.BasicLit)
	return ok && strings.Contains(lit.Value, "%w")
}

// TestIsPlain shows that the rule for sentinels can be broken.
func TestIsPlain(t *testing.T) {
	var plain []string
	for _, src := range []string{`errors.New("x")`, `fmt.Errorf("x")`, `fmt.Errorf("x: %w", ErrY)`, `outcome.New(outcome.BadInput, "x")`, `&gone{}`, `other.ErrX`} {
		e, err := parser.ParseExpr(src)
		if err != nil {
			t.Fatal(err)
		}
		if isPlain(e) {
			plain = append(plain, src)
		}
	}
	if want := []string{`errors.New("x")`, `fmt.Errorf("x")`}; !slices.Equal(plain, want) {
		t.Errorf("plain are %q, want %q", plain, want)
	}
}
