package see

import (
	"strings"
	"testing"

	"labctl/host/golden"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/view"
	"labctl/labs"
)

// TestViews makes the views of labctl's own labs of what kernels showed.
func TestViews(t *testing.T) {
	for _, id := range []string{"C1", "K2", "K3", "P7"} {
		l, err := lab.One(labs.FS, id)
		if err != nil {
			t.Fatal(err)
		}
		r, err := result.Read("testdata/" + id + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, lang := range lab.Languages {
			if err := view.Terminal(&b, Views(l, r), view.Options{Lang: lang, Cells: 80, Plain: true}); err != nil {
				t.Fatal(err)
			}
		}
		golden.Check(t, "testdata/"+id+".txt", b.String())
	}
}

const head = `id: T1
topic: process
title: {en: Try, ko: 시험}
summary: {en: One., ko: 하나.}
steps:
  - {id: a, shell: "a"}
  - {id: b, shell: "b"}
checks:
  - {id: one, says: {en: A., ko: 가.}, that: a.exit == 0}
views:
  - id: v
    title: {en: T, ko: 제목}
`

// TestMissing: what cannot be seen says why, and does not hide the rest.
func TestMissing(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want, failed string }{
		{"when", `when: kernel.btf
    why_not: {en: no types, ko: 없음}
    table: {rows: [{of: "[1]"}], columns: [{head: X, cell: row}]}`, "– no types\n", ""},
		{"a step that was not run", `stacks: {of: b.creations}`, "step b was not run: this host has no gcc", ""},
		{"rows of a step that was not run", `table: {rows: [{name: A, of: a}, {name: B, of: b}], columns: [{head: EXIT, cell: row.exit}]}`, "  A  3\n  B  !\n  ! step b was not run: this host has no gcc", ""},
		{"a cell", `table: {rows: [{of: "[0, 1]"}], columns: [{head: X, cell: "[7][row]"}]}`, "  7\n  !\n  ! index out of bounds: 1", ""},
		{"an error", `compare: {sides: [{name: A, of: "a.creations[0]"}, {name: B, of: "[]"}]}`, "! index out of bounds: 0", "index out of bounds"},
		{"no stacks", `stacks: {of: "[1]"}`, "! [1] gives 1; want stacks, creations or events", "want stacks"},
		{"no tasks", `timeline: {step: a, tasks: [{of: "[7]"}]}`, "nothing was seen", ""},
		{"walk", `walk: {address: "'0x7f'", levels: "[{'n': 'PGD', 'i': 3}]", name: row.n, index: row.i, entry: "'0x67'"}`, "  PGD              3  0x67\n", ""},
		{"layout", `layout: {name: "'task_struct'", members: "[{'n': 'b', 'o': 8}, {'n': 'a', 'o': 0}]", member: row.n, offset: row.o}`, "       0        a\n       8        b\n", ""},
		{"text beside a list", `compare: {sides: [{name: A, of: a.stdout}, {name: B, of: "['x', 'y']"}]}`, "  A  B\n  x  x\n     y\n", ""},
	} {
		l, err := lab.Parse([]byte(head+"    "+tt.yaml+"\n"), "T1-try/lab.yaml")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		r := &result.Result{Lab: "T1", Steps: []*result.Step{{ID: "a", PID: 5, Exit: 3, Stdout: "x\n"}, {ID: "b", NoCompiler: "gcc"}}}
		all := Views(l, r)
		var b strings.Builder
		if err := view.Terminal(&b, all, view.Options{Lang: "en", Cells: 100, Plain: true}); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); !strings.Contains(got, tt.want) || !strings.Contains(all[0].Failed, tt.failed) || (all[0].Failed == "") != (tt.failed == "") {
			t.Errorf("%s: failed %q:\n%s\nwant %q, failed %q", tt.name, all[0].Failed, got, tt.want, tt.failed)
		}
	}
	if got := Views(&lab.Lab{Views: []lab.View{{}}}, &result.Result{Exercise: true}); got != nil {
		t.Errorf("views of an exercise: %v", got)
	}
}

// TestSay: a cell has words in both languages.
func TestSay(t *testing.T) {
	l, err := lab.Parse([]byte(head+`    table: {rows: [{of: "[1, 2]"}], columns: [{head: X, cell: 'row == 1 ? say("%d task", "태스크 %d개").format([row]) : "EPERM"'}]}`+"\n"), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	v := Views(l, &result.Result{Lab: "T1"})[0]
	if v.Table == nil || len(v.Table.Rows) != 2 {
		t.Fatalf("got %+v; want a table of two rows", v)
	}
	if got, want := v.Table.Rows[0].Cells[0], (view.Cell{Kind: view.Said, Words: view.Words{EN: "1 task", KO: "태스크 1개"}}); got != want {
		t.Errorf("got %+v; want %+v", got, want)
	}
	if got, want := v.Table.Rows[1].Cells[0], (view.Cell{Kind: view.Text, Text: "EPERM"}); got != want {
		t.Errorf("got %+v; want %+v", got, want)
	}
}

// TestSayWrong: why a cell has nothing is said in both languages.
func TestSayWrong(t *testing.T) {
	l, err := lab.Parse([]byte(head+"    table: {rows: [{name: A, of: a}, {name: B, of: b}], columns: [{head: X, cell: row.exit}]}\n"), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := Views(l, &result.Result{Lab: "T1", Steps: []*result.Step{{ID: "a"}, {ID: "b", NoCompiler: "gcc"}}})
	for lang, want := range map[string]string{"en": " step b was not run", "ko": " 단계 b를 실행하지 못했습니다"} {
		var term, page strings.Builder
		if err := view.Terminal(&term, all, view.Options{Lang: lang, Cells: 100, Plain: true}); err != nil {
			t.Fatal(err)
		}
		if err := view.Markdown(&page, all, lang); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(term.String(), want) || !strings.Contains(page.String(), want) {
			t.Errorf("%s:\n%s\n%s\nwant %q", lang, term.String(), page.String(), want)
		}
	}
}

// TestBadViews: a view that is wrong is found when the lab is loaded.
func TestBadViews(t *testing.T) {
	for _, tt := range []struct{ yaml, want string }{
		{``, "views[0]: wants exactly one of table, tree"},
		{`table: {rows: [{of: "[1]"}], columns: [{head: X, cell: rwo}]}`, "undeclared reference to 'rwo'"},
		{`table: {rows: [{of: a.tasks}], columns: [{head: X, cell: row.pidd}]}`, "undefined field 'pidd'"},
		{`table: {rows: [{of: a.nothing}], columns: [{head: X, cell: row}]}`, "undefined field 'nothing'"},
		{`tree: {steps: [c]}`, `step "c" is not known`},
		{`tree: {only: row.pidd == 1}`, "undefined field 'pidd'"},
		{`compare: {sides: [{name: A, of: a.stdout}]}`, "1; want 2 to 4"},
		{`timeline: {step: a, tasks: []}`, "whose lanes"},
		{`table: {rows: [{of: "[1]"}], columns: [{head: {en: X}, cell: row}]}`, "head.ko: missing"},
	} {
		_, err := lab.Parse([]byte(head+"    "+tt.yaml+"\n"), "T1-try/lab.yaml")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.yaml, err, tt.want)
		}
	}
}
