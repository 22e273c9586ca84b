package show

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"labctl/host/text"
	"labctl/host/ui/table"
)

// TestMarkdown keeps lines within a terminal's width, by its cells.
func TestMarkdown(t *testing.T) {
	out := Markdown("# 제목\n\n"+strings.Repeat("프로세스와 스레드는 같은 함수에서 ", 20)+"\n\n| a | 나 |\n|---|---|\n| 1 | 둘 |\n", 60, true)
	for line := range strings.Lines(out) {
		if n := table.Width(strings.TrimRight(line, "\n")); n > 60 {
			t.Errorf("a line of %d cells: %q", n, line)
		}
	}
	if strings.Contains(out, "\x1b") || !strings.Contains(out, "둘") {
		t.Errorf("Markdown =\n%s", out)
	}
}

// TestTables: a cell that does not fit is wrapped and nothing of it is lost, and
// its markup is shown by the terminal's means or not at all.
func TestTables(t *testing.T) {
	const source = "before\n\n| 이름 | what `x` | n |\n|---|:-:|--:|\n" +
		"| **프로세스와 스레드는 같은 함수에서** | `CLONE_VM\\|CLONE_FS` and *more* of [it](http://x) | 1 |\n| a | 2 \\* 3 | 22 |\n\nafter\n\n```\n| no | table |\n|---|---|\n```\n"
	for _, tt := range []struct {
		cells int
		plain bool
		want  string
	}{
		{80, true, `  before

  이름                              │ what x                           │  n
  ──────────────────────────────────┼──────────────────────────────────┼───
  프로세스와 스레드는 같은 함수에서 │ CLONE_VM|CLONE_FS and more of it │  1
  a                                 │ 2 * 3                            │ 22

  after

    | no | table |
    |---|---|
`},
		{44, true, `  before

  이름              │ what x            │  n
  ──────────────────┼───────────────────┼───
  프로세스와        │ CLONE_VM|CLONE_FS │  1
  스레드는 같은     │ and more of it    │
  함수에서          │                   │
  a                 │ 2 * 3             │ 22

  after

    | no | table |
    |---|---|
`},
		{24, true, `  before

  이름    │ what x  │  n
  ────────┼─────────┼───
  프로세  │ CLONE_V │  1
  스와    │ M|CLONE │
  스레드  │ _FS and │
  는 같은 │ more of │
  함수에  │ it      │
  서      │         │
  a       │ 2 * 3   │ 22

  after

    | no | table |
    |---|---|
`},
		{80, false, "\x1b[1m프로세스와\x1b[0m \x1b[1m스레드는\x1b[0m \x1b[1m같은\x1b[0m \x1b[1m함수에서\x1b[0m │ \x1b[38;5;203mCLONE_VM|CLONE_FS\x1b[0m and \x1b[3mmore\x1b[0m of it │  1"},
	} {
		got := Markdown(source, tt.cells, tt.plain)
		if tt.plain && got != tt.want || !strings.Contains(got, tt.want) {
			t.Errorf("Markdown in %d cells =\n%s\nwant\n%s", tt.cells, got, tt.want)
		}
	}
}

// TestParts: items and code are laid out as tables are.
func TestParts(t *testing.T) {
	const source = "see [x](x/main.go):\n\n- an *item* whose\n  lines are joined, and `code`에서 wrapped\n  1. inner\n\n10. ten\n\n    behind ten\n\nend\n\n```\na < bb < ccc < dddd < eeeee < ffffff < ggggggg\n\n  | x |\n                        +-+\n                         far and wide\n```\n- last"
	const want = `  see x:

  • an item whose lines are joined,
    and code에서 wrapped
    1. inner
  10. ten
      behind ten

  end

    a < bb < ccc < dddd < eeeee <
        ffffff < ggggggg

      | x |
                            +-+
             far and wide

  • last
`
	if got := Markdown(source, 36, true); got != want {
		t.Errorf("Markdown =\n%s\nwant\n%s", got, want)
	}
}

// TestProse: headings keep their marks where weight cannot tell them.
func TestProse(t *testing.T) {
	const source = "# P1. *Title* #\nat `once`\nand **more** of [it](x.md)\n\n\n## Below\n"
	for _, tt := range []struct {
		plain bool
		want  string
	}{
		{true, "  # P1. Title\n\n  at once and more\n  of it\n\n  ## Below\n"},
		{false, "  \x1b[1mP1.\x1b[0m \x1b[1;3mTitle\x1b[0m\n\n  at \x1b[38;5;203monce\x1b[0m and \x1b[1mmore\x1b[0m\n  of it\n\n  \x1b[1mBelow\x1b[0m\n"},
	} {
		if got := Markdown(source, 20, tt.plain); got != tt.want {
			t.Errorf("Markdown, plain %t =\n%q\nwant\n%q", tt.plain, got, tt.want)
		}
	}
}

// FuzzParts: no line that is laid out here is longer than the terminal.
func FuzzParts(f *testing.F) {
	f.Add("| a | 나 |\n|---|--:|\n| `x y` **z** | \\| [t](u) 프로세스 |", 30)
	f.Add("|||\n|-|-|\n|\\", 20)
	f.Add("- a\n  b\n\n  c\n1. `d\n\n```\n\tx\n", 20)
	f.Fuzz(func(t *testing.T, source string, cells int) {
		if cells < least || cells > 120 || len(source) > 2000 {
			return
		}
		for _, p := range parts(text.Clean(source)) {
			var out string
			switch {
			case p.table != nil:
				if columns := len(cellsOf(p.table[0])); columns*(narrowest+3) > cells {
					continue // there is no room for so many
				}
				out = markdownTable(p.table, cells, true)
			case p.list != nil:
				out = list(p.list, cells, true)
			case p.code != nil:
				out = listing(p.code, cells)
			default:
				out = prose(p.prose, cells, true)
			}
			for line := range strings.Lines(out) {
				if n := table.Width(strings.TrimRight(line, "\n")); n > cells {
					t.Errorf("%q in %d cells has a line of %d: %q", source, cells, n, line)
				}
			}
		}
	})
}

func TestLang(t *testing.T) {
	for _, tt := range []struct{ all, lang, want string }{
		{"", "ko_KR.UTF-8", "ko"}, {"", "en_US.UTF-8", "en"}, {"C", "ko_KR.UTF-8", "en"}, {"", "", "en"},
	} {
		t.Setenv("LC_ALL", tt.all)
		t.Setenv("LC_MESSAGES", "")
		t.Setenv("LANG", tt.lang)
		if got := Lang(); got != tt.want {
			t.Errorf("Lang with LC_ALL=%q LANG=%q = %q; want %q", tt.all, tt.lang, got, tt.want)
		}
	}
}

// TestOutcomeWords: each way in which a run can end has a Korean word.
func TestOutcomeWords(t *testing.T) {
	words := constants(t, "../../outcome/outcome.go", "Kind", "How")
	words = append(words, constants(t, "../../crash/crash.go", "Kind")...)
	if len(words) < 30 {
		t.Errorf("%d words: %q; are they found at all?", len(words), words)
	}
	for _, w := range words {
		if Word("ko", w) == w {
			t.Errorf("%q has no Korean word", w)
		}
		if Word("en", w) != w {
			t.Errorf("%q is %q in English", w, Word("en", w))
		}
	}
}

// constants are the values of a file's string constants of some types.
func constants(t *testing.T, file string, of ...string) (values []string) {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		typ, ok := v.Type.(*ast.Ident)
		if !ok || !slices.Contains(of, typ.Name) {
			return true
		}
		for _, e := range v.Values {
			if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				word, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, word)
			}
		}
		return true
	})
	return values
}
