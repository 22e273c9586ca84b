package preset

import (
	"strings"
	"testing"
)

// TestBook holds the file to what is known of the book's settings as a whole.
func TestBook(t *testing.T) {
	tracers, stacks, functions, events := map[string]int{}, 0, map[string]bool{}, map[string]bool{}
	for _, p := range All().Presets {
		if !strings.HasPrefix(p.Name, "book/") {
			if p.Script != "" {
				t.Errorf("%s has a script of the book's", p.Name)
			}
			continue
		}
		tracers[p.Tracer]++
		if !strings.HasSuffix(p.Script, ".sh") {
			t.Errorf("%s: script %q", p.Name, p.Script)
		}
		for _, f := range p.Functions {
			functions[f] = true
		}
		for _, e := range p.Events {
			events[e] = true
		}
		for _, o := range p.Options {
			if o == "func_stack_trace" {
				stacks++
			}
		}
	}
	if tracers["function"] != 27 || tracers["nop"] != 10 || tracers["function_graph"] != 1 || len(tracers) != 3 {
		t.Errorf("tracers of the book's presets: %v; want 27 function, 10 nop, 1 function_graph", tracers)
	}
	if len(functions) != 45 || len(events) != 27 || stacks != 26 {
		t.Errorf("%d functions, %d events, %d with func_stack_trace; want 45, 27, 26", len(functions), len(events), stacks)
	}
	for _, f := range All().Added {
		if !functions[f] {
			t.Errorf("added function %s is in no preset", f)
		}
	}
}

func TestFind(t *testing.T) {
	p, ok := All().Find("book/4.4.1")
	if !ok || p.Script != "clone_process_debug.sh" || len(p.Functions) != 4 || p.Tracer != "function" {
		t.Errorf(`Find("book/4.4.1") = %+v, %v`, p, ok)
	}
	if _, ok := All().Find(Default); !ok {
		t.Errorf("the default %s is not there", Default)
	}
	if _, ok := All().Find("book/4.4"); ok {
		t.Error(`Find("book/4.4") = true`)
	}
	if n := len(All().Names()); n != len(All().Presets) {
		t.Errorf("%d names", n)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"presets:\n- {name: A, en: a, ko: b}":                                "no name for a preset",
		"presets:\n- {name: a, en: a, ko: b}\n- {name: a, en: a, ko: b}":     "there twice",
		"presets:\n- {name: a, en: a}":                                       "lacks a title",
		"presets:\n- {name: a, en: a, ko: b, tracer: x}":                     "no tracer",
		"presets:\n- {name: a, en: a, ko: b, functions: [\"a b\"]}":          "no function",
		"presets:\n- {name: a, en: a, ko: b, events: [\"a/b/c\"]}":           "no event",
		"presets:\n- {name: a, en: a, ko: b, nosuch: 1}":                     "nosuch",
		strings.Replace(string(file), "- name: sched\n", "- name: Sch\n", 1): "no name",
	} {
		if _, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse(%.60q) = %v; want %q", text, err, want)
		}
	}
}
