package lab

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

// good is a small lab; each case spoils one thing.
const good = `id: T1
topic: process
title: {en: Try, ko: 시험}
summary: {en: One., ko: 하나.}
source: {seed: "seed0: a"}
trace:
  events: [sched/sched_switch]
  functions:
    - {name: leave, of: [do_exit]}
steps:
  - id: fork
    probe: fork
    args: {flags: 0}
checks:
  - id: one
    says: {en: A., ko: 가.}
    when: kernel.config("KCMP") == "y"
    why_not: {en: no, ko: 아니오}
    that: |
      fork.exit == 0 &&
      fork.pid > 1
claims:
  - id: said
    says: {en: A., ko: 가.}
    source: seed0
    confirmed: fork.exit == 0
    evidence: string(fork.exit)
    why: {en: So., ko: 그래서.}
questions:
  - ask: {en: "Why?", ko: "왜?"}
    answer: {en: So., ko: 그래서.}
exercise:
  checks:
    - id: made
      says: {en: A., ko: 가.}
      that: program.creations.size() > 0
  hints:
    - {en: Look., ko: 보라.}
  fails:
    exercise: [made]
    wrong/prints: [made]
`

func TestParse(t *testing.T) {
	l, err := Parse([]byte(good), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if a := l.Asks(); len(a.Config) != 1 || a.Config[0] != "KCMP" {
		t.Errorf("Asks = %+v; want KCMP", a)
	}
	if !l.Trace.On() || !l.Trace.WithCreations() || l.Commands() || l.Exercise.Seconds != 10 {
		t.Errorf("lab = %+v", l)
	}
}

// TestEvents: an event is a name, or a name and a filter, here and in JSON.
func TestEvents(t *testing.T) {
	text := strings.Replace(good, "[sched/sched_switch]", `[sched/sched_wakeup, {name: sched/sched_switch, filter: prev_pid == 1}]`, 1)
	l, err := Parse([]byte(text), "T1-try/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(l.Trace.Events)
	if want := `["sched/sched_wakeup",{"name":"sched/sched_switch","filter":"prev_pid == 1"}]`; err != nil || string(got) != want {
		t.Errorf("events are %s, %v; want %s", got, err, want)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"point without a name", "args: {flags: 0}", "outside: [{ps: true}]", "T1-try/lab.yaml:13: steps[0].outside[0].at: missing; write it as shared"},
		{"point that reads nothing", "args: {flags: 0}", "outside: [{at: a}]", "steps[0].outside[0]: reads nothing"},
		{"two points of a name", "args: {flags: 0}", "outside: [{at: a, ps: true}, {at: a, ps: true}]", "steps[0].outside[1].at: a is another point's name"},
		{"point's task", "args: {flags: 0}", "outside: [{at: a, stacks: [A]}]", `steps[0].outside[0].stacks[0]: "A"; write it as child`},
		{"point's page", "args: {flags: 0}", "outside: [{at: a, pages: [{task: child}]}]", "steps[0].outside[0].pages[0].address: missing"},
		{"point's structure nowhere", "args: {flags: 0}", "outside: [{at: a, structs: [{type: rq, members: [curr]}]}]", "steps[0].outside[0].structs[0]: wants exactly one of task and symbol"},
		{"point's structure without members", "args: {flags: 0}", "outside: [{at: a, structs: [{type: rq, symbol: runqueues}]}]", "members: 0 members; want 1 to"},
		{"point's function", "args: {flags: 0}", "outside: [{at: a, ps: true, reaches: [do-exit]}]", `steps[0].outside[0].reaches[0]: "do-exit"; write it as wake_up_new_task`},
		{"point's times without a function", "args: {flags: 0}", "outside: [{at: a, ps: true, times: 2}]", "steps[0].outside[0]: tasks and times are for a point with reaches"},
		{"point's times", "args: {flags: 0}", "outside: [{at: a, ps: true, reaches: [do_exit], times: 33}]", "steps[0].outside[0].times: 33; want 1 to 32"},
		{"point's argument", "args: {flags: 0}", "outside: [{at: a, ps: true, reaches: [do_exit], tasks: {child: 0}}]", "steps[0].outside[0].tasks.child: argument 0; want 1 to 4"},
		{"point that waits twice", "args: {flags: 0}", "outside: [{at: a, ps: true, reaches: [do_exit], asleep: [child]}]", "steps[0].outside[0]: reaches goes with neither"},
		{"point of an exercise", "exercise:", "exercise:\n  outside: [{at: a}]", "exercise.outside[0]: reads nothing"},
		{"unknown field", "topic:", "topick:", `T1-try/lab.yaml:2: topick: unknown field "topick"`},
		{"unknown field deep", "    why_not:", "    whynot:", `T1-try/lab.yaml:18: checks[0].whynot: unknown field "whynot"`},
		{"wrong type", "flags: 0", "flags: [1", "T1-try/lab.yaml:1"},
		{"list for text", "id: T1", "id: [a]", "T1-try/lab.yaml:1: id: cannot unmarshal"},
		{"missing id", "id: T1\n", "", "T1-try/lab.yaml:1: id: missing; write it as P1"},
		{"bad topic", "topic: process", "topic: Cook ing", `T1-try/lab.yaml:2: topic: "Cook ing"; write it as process`},
		{"missing translation", "title: {en: Try, ko: 시험}", "title: {en: Try}", "T1-try/lab.yaml:3: title.ko: missing: every text is in en and ko"},
		{"empty translation", "answer: {en: So., ko: 그래서.}", `answer: {en: So., ko: ""}`, "T1-try/lab.yaml:31: questions[0].answer.ko: missing"},
		{"unknown language", "topic:", "languages: [fr]\ntopic:", `T1-try/lab.yaml:2: languages[0]: language "fr" is not known`},
		{"event", "sched/sched_switch", "sched_switch", `T1-try/lab.yaml:7: trace.events[0]: "sched_switch"; write it as sched/sched_switch`},
		{"event without a name", "[sched/sched_switch]", "[{filter: prev_pid == 1}]", `T1-try/lab.yaml:7: trace.events[0]: missing; write it as sched/sched_switch`},
		{"event of a strange kind", "[sched/sched_switch]", "[{nome: x}]", `T1-try/lab.yaml:7: trace.events[0].nome: unknown field "nome"`},
		{"event's filter", "[sched/sched_switch]", `[{name: sched/sched_switch, filter: "a\nb"}]`, `T1-try/lab.yaml:7: trace.events[0].filter: want one line`},
		{"filter on a creation's event", "[sched/sched_switch]", "[{name: task/task_rename, filter: pid == 1}]", `T1-try/lab.yaml:7: trace.events[0].filter: creations are told by all of task/task_rename`},
		{"function's task", "of: [do_exit]", "of: [do_exit], task: 5", "T1-try/lab.yaml:9: trace.functions[0].task: 5; want 1 to 4"},
		{"unknown privilege", "trace:\n", "needs: {privileges: [real_time]}\ntrace:\n", `T1-try/lab.yaml:6: needs.privileges[0]: privilege "real_time" is not known, did you mean realtime?`},
		{"privilege twice", "trace:\n", "needs: {privileges: [realtime, realtime]}\ntrace:\n", "needs.privileges[1]: realtime is there twice"},
		{"root and more", "trace:\n", "needs: {privileges: [realtime, root]}\ntrace:\n", "needs.privileges[1]: root goes with no other privilege"},
		{"a namespace and more", "trace:\n", "needs: {privileges: [namespaces, pid_max]}\ntrace:\n", "needs.privileges[0]: namespaces goes with no other privilege"},
		{"a probe's privileges", "    probe: fork", "    probe: fork\n    privileges: [root]", "steps[0].privileges: are a program's"},
		{"after what is not", "      that: program", "      after: [mode]\n      that: program", `T1-try/lab.yaml:36: exercise.checks[0].after[0]: "mode" is not the id of a check before this one`},
		{"function twice", "name: leave", "name: clone", "T1-try/lab.yaml:9: trace.functions[0].name: clone is taken"},
		{"unknown probe", "probe: fork", "probe: frok", `T1-try/lab.yaml:12: steps[0].probe: probe "frok" is not known, did you mean fork?`},
		{"unknown parameter", "{flags: 0}", "{flag: 0}", "T1-try/lab.yaml:13: steps[0].args.flag: parameter \"flag\" is not known, did you mean flags? (known: flags, syscall)"},
		{"two kinds", "probe: fork", "probe: fork\n    shell: ls", "steps[0]: wants exactly one of"},
		{"reserved step", "- id: fork", "- id: kernel", "T1-try/lab.yaml:11: steps[0].id: kernel is a word of expressions"},
		{"duplicate key", "topic: process", "topic: process\ntopic: clone", `T1-try/lab.yaml:3: mapping key "topic" already defined`},
		{"duplicate check", "claims:", "  - id: one\n    says: {en: A., ko: 가.}\n    that: \"true\"\nclaims:", "T1-try/lab.yaml:22: checks[1].id: one is another one's id"},
		{"expression", "fork.pid > 1", "fork.pidd > 1", "T1-try/lab.yaml:21: checks[0].that: undefined field 'pidd'"},
		{"other step", "fork.exit == 0 &&", "spoon.exit == 0 &&", "T1-try/lab.yaml:20: checks[0].that: undeclared reference to 'spoon'"},
		{"when on a step", `kernel.config("KCMP") == "y"`, "fork.exit == 0", "T1-try/lab.yaml:17: checks[0].when: undeclared reference to 'fork'"},
		{"no reason", "    why_not: {en: no, ko: 아니오}\n", "", "checks[0].why_not: missing"},
		{"claim without verdict", "    confirmed: fork.exit == 0\n", "", "claims[0].confirmed: missing"},
		{"rule without risk", "    confirmed: fork.exit == 0\n", "    not_enforced: fork.exit == 0\n", "claims[0].risk: missing"},
		{"risk without rule", "    confirmed: fork.exit == 0\n", "    confirmed: fork.exit == 0\n    risk: {en: a, ko: 가}\n", "claims[0].risk: it goes with not_enforced"},
		{"test of nobody", "    confirmed: fork.exit == 0\n", "    confirmed: fork.exit == 0\n    tests: [mm/cow.c]\n", "claims[0].tests[0]: \"mm/cow.c\" is neither"},
		{"evidence no string", "evidence: string(fork.exit)", "evidence: fork.exit", "T1-try/lab.yaml:27: claims[0].evidence: it gives int; want a string"},
		{"exercise sees steps", "program.creations", "fork.creations", "T1-try/lab.yaml:36: exercise.checks[0].that: undeclared reference to 'fork'"},
		{"no hints", "  hints:\n    - {en: Look., ko: 보라.}\n", "  hints: []\n", "exercise.hints: an exercise has at least one hint"},
		{"fails nothing", "wrong/prints: [made]", "wrong/prints: []", "T1-try/lab.yaml:41: exercise.fails.wrong/prints: names no check"},
		{"fails what is not", "exercise: [made]", "exercise: [mad]", `T1-try/lab.yaml:40: exercise.fails.exercise[0]: check "mad" is not known, did you mean made? (known: made)`},
		{"fails twice", "exercise: [made]", "exercise: [made, made]", "T1-try/lab.yaml:40: exercise.fails.exercise[1]: made is named twice"},
		{"two documents", "id: T1", "id: T1\n---\nid: T2", "2 YAML documents"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("the good lab has no %q", tt.old)
			}
			_, err := Parse([]byte(strings.Replace(good, tt.old, tt.new, 1)), "T1-try/lab.yaml")
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Parse = %v; want one line with %q", err, tt.want)
			}
		})
	}
}

// folderOf is a whole lab on disk.
func folderOf(name string) fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		name + "/lab.yaml": file(good), name + "/README.md": file("x"), name + "/README.ko.md": file("x"),
		name + "/exercise/main.go": file("package main"), name + "/exercise/TASK.md": file("x"), name + "/exercise/TASK.ko.md": file("x"),
		name + "/solution/main.go": file("package main"), name + "/wrong/prints/main.go": file("package main"),
	}
}

func TestLoad(t *testing.T) {
	root := folderOf("T1-try")
	set, err := Load(root)
	if err != nil || len(set.Labs) != 1 || len(set.Broken) != 0 {
		t.Fatalf("Load = %+v, %v", set, err)
	}
	if l, err := set.Find("t1"); err != nil || l.ID != "T1" {
		t.Errorf("Find(t1) = %v, %v", l, err)
	}
	if l, err := One(root, "t1"); err != nil || l.ID != "T1" {
		t.Errorf("One(t1) = %v, %v", l, err)
	}
	if _, err := One(root, "T9"); err == nil || !strings.Contains(err.Error(), "known: T1") {
		t.Errorf("One(T9) = %v", err)
	}
	if _, err := set.Find("T9"); err == nil || !strings.Contains(err.Error(), "known: T1") {
		t.Errorf("Find(T9) = %v", err)
	}
	for name, f := range folderOf("T1-again") {
		root[name] = f
	}
	if set, _ = Load(root); len(set.Labs) != 1 || len(set.Broken) != 1 || !strings.Contains(set.Broken[0].Error(), "id: T1 is the id of T1-again/lab.yaml, too") {
		t.Errorf("Load of a duplicate id = %+v, broken %v", set.Labs, set.Broken)
	}
	if _, err := One(root, "T1"); err != nil {
		t.Errorf("One(T1) of two = %v", err)
	}
	for _, tt := range []struct{ gone, want string }{
		{"README.ko.md", "T1-try/README.ko.md: missing or empty"},
		{"exercise/TASK.ko.md", "T1-try/exercise/TASK.ko.md: missing or empty"},
		{"solution/main.go", "T1-try/solution: there is no Go source in it"},
	} {
		root := folderOf("T1-try")
		delete(root, "T1-try/"+tt.gone)
		if set, _ := Load(root); len(set.Broken) != 1 || set.Broken[0].Error() != tt.want {
			t.Errorf("Load without %s: broken %v; want %q", tt.gone, set.Broken, tt.want)
		}
	}
	root = folderOf("T1-try")
	root["T1-try/wrong/other/main.go"] = root["T1-try/wrong/prints/main.go"]
	if set, _ := Load(root); len(set.Broken) != 1 || set.Broken[0].Error() != "T1-try/wrong/other: exercise.fails does not say which checks it fails" {
		t.Errorf("Load with a wrong program more: broken %v", set.Broken)
	}
	root = folderOf("T1-try")
	delete(root, "T1-try/wrong/prints/main.go")
	if set, _ := Load(root); len(set.Broken) != 1 || set.Broken[0].Error() != "T1-try/lab.yaml: exercise.fails.wrong/prints: there is no such directory" {
		t.Errorf("Load without a wrong program: broken %v", set.Broken)
	}
	if set, _ := Load(folderOf("try")); len(set.Broken) != 1 || !strings.Contains(set.Broken[0].Error(), "is called T1-…") {
		t.Errorf("Load of a folder of another name: %v", set.Broken)
	}
}

func TestCompareIDs(t *testing.T) {
	order := []string{"P1", "P2", "P10", "C1", "K1", "M1", "S1", "A1"}
	for i := range order {
		for j := range order {
			if got := compareIDs(order[i], order[j]); got < 0 != (i < j) || got == 0 != (i == j) {
				t.Errorf("compareIDs(%s, %s) = %d", order[i], order[j], got)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	real, _ := fs.Glob(os.DirFS(folder), "*/"+Config)
	for _, name := range real {
		if b, err := os.ReadFile(filepath.Join(folder, name)); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Parse(data, "x/lab.yaml"); err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("Parse = %q: more than one clean line", err)
		}
	})
}

// TestPipe: a lab.yaml that is a pipe is an error, and is not waited for.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "T1-try"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "T1-try", Config), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := Load(os.DirFS(dir))
	if err != nil || len(set.Broken) != 1 || set.Broken[0].Error() != "T1-try/lab.yaml: not a regular file" {
		t.Errorf("Load = %+v, %v; want that it is not a regular file", set, err)
	}
}
