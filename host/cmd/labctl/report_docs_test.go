package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"mvdan.cc/sh/v3/syntax"

	"labctl/host/matrix"
)

// TestRecipes: every call of labctl in the recipes for CI systems is one that
// labctl takes: the command is there, with these flags.
func TestRecipes(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "ci.md"))
	if err != nil {
		t.Fatal(err)
	}
	workflow, err := os.ReadFile(filepath.Join(root, ".github", "workflows", "labs.yml"))
	if err != nil {
		t.Fatal(err)
	}
	scripts := yamlScripts(t, string(workflow))
	for i, block := range strings.Split(string(doc), "\n```")[1:] {
		language, text, _ := strings.Cut(block, "\n")
		switch {
		case i%2 == 1: // what is between blocks
		case language == "sh":
			scripts = append(scripts, text)
		case language == "yaml":
			scripts = append(scripts, yamlScripts(t, text)...)
		case language != "dockerfile" && language != "text": // text is what labctl prints
			t.Errorf("docs/ci.md has a block of %q, which this test does not read", language)
		}
	}
	seen := map[string]int{}
	for _, s := range scripts {
		for _, args := range labctlCalls(t, s) {
			seen[strings.Join(args[:2], " ")]++
			checkCall(t, args)
		}
	}
	for name, want := range map[string]int{"matrix run": 5, "matrix merge": 5, "matrix ls": 1, "report merged": 2} {
		if seen[name] < want {
			t.Errorf("labctl %s is called %d times in the recipes, want at least %d", name, seen[name], want)
		}
	}
}

// TestCalls: so is every call of labctl in a shell's block of any page, also below a prompt, and in the
// examples of --help, those of scripts within scripts too.
func TestCalls(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	check := func(t *testing.T, script string) {
		for _, args := range labctlCalls(t, script) {
			seen[args[0]]++
			checkCall(t, args)
		}
	}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		t.Run(filepath.Base(page), func(t *testing.T) {
			doc, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for i, block := range strings.Split("\n"+string(doc), "\n```") {
				language, text, _ := strings.Cut(block, "\n")
				switch {
				case i%2 == 0: // what is between blocks
				case language == "sh":
					check(t, text)
				case language == "" || language == "text":
					for line := range strings.Lines(text) {
						if call, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok {
							check(t, call)
						}
					}
				}
			}
		})
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Example != "" {
			t.Run(c.CommandPath(), func(t *testing.T) { check(t, c.Example) })
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}).root())
	for _, name := range []string{"bisect", "kernel", "matrix", "report", "trace"} {
		if seen[name] < 5 {
			t.Errorf("labctl %s is called %d times in all pages and examples", name, seen[name])
		}
	}
}

// yamlScripts are the texts in a YAML document that could be a shell's.
func yamlScripts(t *testing.T, text string) (scripts []string) {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, w := range v {
				walk(w)
			}
		case []any:
			for _, w := range v {
				walk(w)
			}
		case string:
			if strings.Contains(v, "labctl ") {
				scripts = append(scripts, v)
			}
		}
	}
	walk(doc)
	return scripts
}

// labctlCalls are the arguments of the calls of labctl in a script, with 1 for what
// a shell would put in.
func labctlCalls(t *testing.T, script string) (calls [][]string) {
	t.Helper()
	f, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil {
		t.Errorf("%v in the script\n%s", err, script)
		return nil
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.SglQuoted:
			if strings.Contains(n.Value, "labctl ") {
				calls = append(calls, labctlCalls(t, n.Value)...)
			}
		case *syntax.Redirect:
			if n.Hdoc != nil {
				calls = append(calls, labctlCalls(t, word(n.Hdoc.Parts))...)
			}
		}
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) < 3 || filepath.Base(call.Args[0].Lit()) != "labctl" {
			return true
		}
		var args []string
		for _, w := range call.Args[1:] {
			args = append(args, word(w.Parts))
		}
		calls = append(calls, args)
		return true
	})
	return calls
}

func word(parts []syntax.WordPart) (s string) {
	for _, p := range parts {
		switch p := p.(type) {
		case *syntax.Lit:
			s += p.Value
		case *syntax.SglQuoted:
			s += p.Value
		case *syntax.DblQuoted:
			s += word(p.Parts)
		default:
			s += "1"
		}
	}
	return s
}

func checkCall(t *testing.T, args []string) {
	t.Helper()
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	c, rest, err := a.root().Find(args)
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err == nil {
		err = c.ValidateArgs(c.Flags().Args())
	}
	if err == nil && c.HasSubCommands() && c.Flags().Lookup("kernel") == nil { // that of trace runs by itself
		err = needSubcommand(c, rest)
	}
	if f := c.Flags().Lookup("shard"); err == nil && f != nil && strings.Contains(f.Value.String(), "/") {
		_, err = matrix.ParseShard(f.Value.String())
	}
	if err != nil {
		t.Errorf("labctl %s: %v", strings.Join(args, " "), err)
	}
}
