package lint

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// kernelOf has two systems, sched with two events, a system call and two functions.
func kernelOf() *Kernels {
	return &Kernels{tables: [][]byte{[]byte(`ffff800080000000 T _text
ffff800080001000 T kernel_clone
ffff800080002000 t copy_process
ffff800080f911c0 d str__sched__trace_system_name
ffff800080f911d0 d str__task__trace_system_name
ffff8000820667a8 d event_enter__clone
ffff8000820667b8 d event_exit__clone
ffff8000823a5070 D __tracepoint_sched_switch
ffff8000823a5080 D __tracepoint_sched_process_exit
`)}}
}

const head = `id: W1
topic: process
languages: [en]
title: {en: A}
summary: {en: B}
steps:
  - {id: fork, probe: fork}
checks:
  - {id: one, says: {en: C}, that: fork.exit == 0}
`

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name, more string
		kernels    *Kernels
		want       []string
	}{
		{"good", "trace: {events: [sched/sched_switch, syscalls/sys_enter_clone], functions: [{name: f, of: [_do_fork, kernel_clone]}]}\n", kernelOf(), nil},
		{"misspelt event", "trace: {events: [sched/sched_swich]}\n", kernelOf(),
			[]string{"W1-x/lab.yaml:10: trace.events[0]: no kernel at hand has the event sched/sched_swich, did you mean sched_switch?"}},
		{"a module's", "trace: {events: [kvm/kvm_entry]}\n", kernelOf(),
			[]string{"W1-x/lab.yaml:10: trace.events[0]: warning: no kernel at hand has events of kvm; they can be a module's"}},
		{"misspelt system", "trace: {events: [shed/sched_switch]}\n", kernelOf(),
			[]string{"W1-x/lab.yaml:10: trace.events[0]: warning: no kernel at hand has events of shed, did you mean sched?; they can be a module's"}},
		{"no such call", "trace: {events: [syscalls/sys_enter_clone9]}\n", kernelOf(),
			[]string{"W1-x/lab.yaml:10: trace.events[0]: no kernel at hand has the event syscalls/sys_enter_clone9, did you mean sys_enter_clone?"}},
		{"misspelt function", "trace: {functions: [{name: f, of: [kernel_clon]}]}\n", kernelOf(),
			[]string{"W1-x/lab.yaml:10: trace.functions[0].of: no kernel at hand has kernel_clon, did you mean kernel_clone?"}},
		{"a symbol", "needs: {symbols: [kernel_clone, wake_up]}\n", kernelOf(),
			[]string{"W1-x/lab.yaml:10: needs.symbols[1]: warning: no kernel at hand has wake_up"}},
		{"no kernels", "trace: {events: [sched/sched_swich]}\n", &Kernels{}, nil},
		{"a kernel without data", "trace: {events: [sched/sched_swich]}\n", &Kernels{tables: [][]byte{[]byte("ffff800080001000 T kernel_clone\n")}},
			[]string{"W1-x/lab.yaml:10: trace.events[0]: warning: not checked: no kernel at hand lists its events (it takes KALLSYMS_ALL)"}},
	} {
		root := fstest.MapFS{
			"W1-x/lab.yaml":  {Data: []byte(head + tt.more)},
			"W1-x/README.md": {Data: []byte("x")},
		}
		found, n, err := Labs(root, nil, tt.kernels)
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		var got []string
		for _, e := range found {
			got = append(got, e.Error())
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
	}
}

func TestTwice(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	root := fstest.MapFS{
		"W1-x/lab.yaml": file(head), "W1-x/README.md": file("x"),
		"W1-y/lab.yaml": file(head), "W1-y/README.md": file("x"),
	}
	found, _, err := Labs(root, nil, nil)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Error(), "W1-y/lab.yaml:1: id: W1 is the id of W1-x, too") {
		t.Errorf("two of one id: %v, %v", found, err)
	}
	if found, n, err := Labs(root, []string{"W1-y"}, nil); len(found) != 0 || n != 1 || err != nil {
		t.Errorf("one of them: %v, %d, %v", found, n, err)
	}
}
