package command

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	none := map[string]string{}
	for _, c := range []struct {
		line string
		name string
		args []string
		opts map[string]string
	}{
		{"break kernel_clone", "break", []string{"kernel_clone"}, none},
		{"b kernel_clone task sh count 3", "break", []string{"kernel_clone"}, map[string]string{"task": "sh", "count": "3"}},
		{`Break.Set kernel_clone /TASK "sh" /COUNT 3`, "break", []string{"kernel_clone"}, map[string]string{"task": "sh", "count": "3"}},
		{`b.s kernel_clone /task "sh"`, "break", []string{"kernel_clone"}, map[string]string{"task": "sh"}},
		{`break f if args->flags & CLONE_VM != 0 && comm == "sh"`, "break", []string{"f"}, map[string]string{"if": `args->flags & CLONE_VM != 0 && comm == "sh"`}},
		{"break task", "break", []string{"task"}, none},
		{"watch task_struct.__state of 152", "watch", []string{"task_struct.__state"}, map[string]string{"of": "152"}},
		{"Break.Set 0x10 /Write", "break", []string{"0x10"}, map[string]string{"write": "yes"}},
		{"Go", "go", nil, none},
		{"g", "go", nil, none},
		{"GO.UP", "finish", nil, none},
		{"Step", "step", nil, none},
		{"s 3", "step", []string{"3"}, none},
		{"Step.Over", "next", nil, none},
		{"Frame.view", "stack", nil, none},
		{"f", "stack", nil, none},
		{"f.v", "stack", nil, none},
		{`v.f /task "sh"`, "stack", nil, map[string]string{"task": "sh"}},
		{"Var.View current->comm", "print", []string{"current->comm"}, none},
		{"v.v init_task.pid", "print", []string{"init_task.pid"}, none},
		{"Data.dump 0x10 64", "dump", []string{"0x10", "64"}, none},
		{"d.dump 0x10", "dump", []string{"0x10"}, none},
		{"Data.List", "list", nil, none},
		{"Register.view", "registers", nil, none},
		{"r", "registers", nil, none},
		{"TASK.DTask", "ps", nil, none},
		{"task.dt", "ps", nil, none},
		{"TASK.PS", "ps", nil, none},
		{"sYmbol.INFO kernel_clone", "symbol", []string{"kernel_clone"}, none},
		{"y.info kernel_clone", "symbol", []string{"kernel_clone"}, none},
		{"Break", "stop", nil, none},
		{"Break.Delete 1 2", "delete", []string{"1", "2"}, none},
		{"b.l", "breaks", nil, none},
		{`print "a b"`, "print", []string{`"a b"`}, none},
		{"?", "help", nil, none},
	} {
		got, err := Parse(c.line)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.line, err)
			continue
		}
		want := &Command{Name: c.name, Args: c.args, Options: c.opts, Line: c.line}
		if len(want.Args) == 0 && len(got.Args) == 0 {
			got.Args = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Parse(%q): %s", c.line, diff)
		}
	}
	for _, line := range []string{"", "  ", "# x", "// x", "; x"} {
		if c, err := Parse(line); c != nil || err != nil {
			t.Errorf("Parse(%q) = %v, %v; want nothing", line, c, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		"brek kernel_clone":           `command "brek" is not known, did you mean break?; help lists them`,
		"Brek.Set kernel_clone":       `command "Brek.Set" is not known, did you mean Break.Set?; help lists them`,
		"TASK.DTaks":                  `command "TASK.DTaks" is not known, did you mean TASK.DTask?; help lists them`,
		"zzzzz":                       `command "zzzzz" is not known; help lists them`,
		"break f /TASK":               `break: /TASK wants the name of a task`,
		"break f task a task b":       `break: task is given twice`,
		`break "f`:                    `command: a quote is not closed: "f`,
		"break f /COUT 3":             `option of break "/COUT" is not known, did you mean /COUNT? (known: /TASK, /COUNT, /Write, /Read, /ReadWrite, /CONDition)`,
		strings.Repeat("x", 5000):     `command: want a line of text of at most 4096 bytes`,
		strings.Repeat("break ", 300): `command: more than 256 words`,
	} {
		if _, err := Parse(line); err == nil || err.Error() != want {
			t.Errorf("Parse(%.40q): %v; want %s", line, err, want)
		}
	}
}

// Every command has one meaning: no name of one is that of another.
func TestWords(t *testing.T) {
	for _, w := range Words {
		for _, name := range append(append([]string{w.Name}, w.Short...), w.Lauterbach...) {
			if got := Find(name); got == nil || got.Name != w.Name {
				t.Errorf("Find(%q) = %+v, want %s", name, got, w.Name)
			}
		}
		if w.Help == "" {
			t.Errorf("%s has no help", w.Name)
		}
	}
}

func TestSplitLine(t *testing.T) {
	want := []string{"break f if comm == \"a;b\"", " go", " stack"}
	if got := SplitLine(`break f if comm == "a;b"; go; stack`); !cmp.Equal(got, want) {
		t.Errorf("SplitLine: %q, want %q", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`b.s kernel_clone /TASK "sh"`, "watch task_struct.__state of 152", "Data.dump 0x10", `break f if a & 1 == "x"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := Parse(line)
		if err == nil && c != nil && (Find(c.Name) == nil || len(c.Args) > maxWords) {
			t.Fatalf("Parse(%q) = %+v", line, c)
		}
		SplitLine(line)
	})
}
