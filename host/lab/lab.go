// Package lab holds labs as they are written: a directory with lab.yaml, lessons in
// two languages and an exercise. It loads and checks them; host/lab/runner runs
// them, host/lab/judge says what came out. docs/labs.md tells how to write one.
package lab

import (
	"cmp"
	"encoding/json"
	"io/fs"
	"path"
	"slices"

	"labctl/guest/wire"
	"labctl/host/lab/expr"
)

// Files of a lab's directory, beside Config.
const (
	Config   = "lab.yaml"
	Lesson   = "README.md"
	LessonKO = "README.ko.md"
	Exercise = "exercise" // the skeleton, with Task and TaskKO
	Solution = "solution"
	Wrong    = "wrong" // programs that must fail, a directory each
	Task     = "TASK.md"
	TaskKO   = "TASK.ko.md"
)

// Languages are what every text of a lab is written in, unless the lab names fewer.
var Languages = []string{"en", "ko"}

// lessons and tasks are the files in each language.
var (
	lessons = map[string]string{"en": Lesson, "ko": LessonKO}
	tasks   = map[string]string{"en": Task, "ko": TaskKO}
)

// Text is a text in the lab's languages.
type Text struct {
	EN string `yaml:"en" json:"en,omitempty" jsonschema:"minLength=1,description=in English"`
	KO string `yaml:"ko" json:"ko,omitempty" jsonschema:"minLength=1,description=in Korean"`
}

// In is the text in a language of Languages, or in the other one if it has no text in
// that.
func (t Text) In(lang string) string {
	if lang == "ko" {
		return cmp.Or(t.KO, t.EN)
	}
	return cmp.Or(t.EN, t.KO)
}

func (t Text) only(lang string) string {
	if lang == "ko" {
		return t.KO
	}
	return t.EN
}

// languages are those that the lab is written in.
func (l *Lab) languages() []string {
	if len(l.Languages) == 0 {
		return Languages
	}
	return l.Languages
}

// LessonIn names the lesson's file in a language, or in the one that the lab has.
func (l *Lab) LessonIn(lang string) string { return lessons[l.spoken(lang)] }

// TaskIn is LessonIn for the exercise's task.
func (l *Lab) TaskIn(lang string) string { return tasks[l.spoken(lang)] }

func (l *Lab) spoken(lang string) string {
	if all := l.languages(); !slices.Contains(all, lang) {
		return all[0]
	}
	return lang
}

// Lab is lab.yaml. The tags describe its JSON Schema, labs/lab.schema.json.
type Lab struct {
	ID      string  `yaml:"id" json:"id" jsonschema:"pattern=^[A-Z][0-9]{1\\,2}$,description=short name: P1"`
	Topic   string  `yaml:"topic" json:"topic" jsonschema:"pattern=^[a-z][a-z0-9-]*$,description=labctl's own labs have process\\, clone\\, kernel\\, memory and sched"`
	Title   Text    `yaml:"title" json:"title"`
	Summary Text    `yaml:"summary" json:"summary" jsonschema:"description=one sentence"`
	Source  Source  `yaml:"source" json:"source,omitzero"`
	Needs   Needs   `yaml:"needs" json:"needs,omitzero"`
	Trace   *Trace  `yaml:"trace" json:"trace,omitempty" jsonschema:"description=what is traced; the creation of tasks when left out"`
	Steps   []Step  `yaml:"steps" json:"steps" jsonschema:"minItems=1"`
	Checks  []Check `yaml:"checks" json:"checks" jsonschema:"minItems=1"`
	Claims  []Claim `yaml:"claims" json:"claims,omitempty"`
	Views   []View  `yaml:"views" json:"views,omitempty" jsonschema:"description=what there is to see; shown between the claims and the verdicts"`

	Languages []string `yaml:"languages" json:"languages,omitempty" jsonschema:"enum=en,enum=ko,description=of a lab that is not in both"`

	Questions []Question `yaml:"questions" json:"questions,omitempty"`
	Exercise  *Graded    `yaml:"exercise" json:"exercise,omitempty"`

	// Dir is the lab's directory, SHA256 that of lab.yaml; File names it in messages.
	Dir    fs.FS  `yaml:"-" json:"-"`
	File   string `yaml:"-" json:"-"`
	SHA256 string `yaml:"-" json:"-"`

	asks, exerciseAsks expr.Asks
}

// Source is where a lab comes from.
type Source struct {
	Seed string   `yaml:"seed" json:"seed,omitempty" jsonschema:"description=document and section: seed0 PID vs TID vs TGID"`
	Book []string `yaml:"book" json:"book,omitempty" jsonschema:"description=sections of the book: 4.4.1"`
	Text string   `yaml:"text" json:"text,omitempty" jsonschema:"description=anything else: Operating Systems\\, week 3"`
}

// Needs is what a lab cannot do without. Where a need is not met the lab is not
// run, which is neither a pass nor a failure.
type Needs struct {
	Config    []string `yaml:"config" json:"config,omitempty" jsonschema:"description=kernel options without CONFIG_: KCMP\\, or TRANSPARENT_HUGEPAGE=y"`
	Symbols   []string `yaml:"symbols" json:"symbols,omitempty" jsonschema:"description=kernel symbols"`
	Members   []string `yaml:"members" json:"members,omitempty" jsonschema:"description=members of kernel structures: task_struct.__state"`
	Files     []string `yaml:"files" json:"files,omitempty" jsonschema:"description=files of the guest: /proc/pressure/cpu"`
	CPUs      int      `yaml:"cpus" json:"cpus,omitempty" jsonschema:"minimum=1,description=at least so many"`
	MemoryMB  int      `yaml:"memory_mb" json:"memory_mb,omitempty" jsonschema:"minimum=1"`
	NUMANodes int      `yaml:"numa_nodes" json:"numa_nodes,omitempty" jsonschema:"minimum=1"`
	NotOn     []string `yaml:"not_on" json:"not_on,omitempty" jsonschema:"description=boards that it cannot run on: raspi3b"`
	Append    []string `yaml:"append" json:"append,omitempty" jsonschema:"description=kernel arguments: psi=1"`
	// Privileges are what the programs of steps and of the exercise may do beyond an
	// ordinary user in a sandbox.
	Privileges []string `yaml:"privileges" json:"privileges,omitempty" jsonschema:"enum=namespaces,enum=kernel_stacks,enum=realtime,enum=pid_max,enum=workqueues,enum=cpu_hotplug,enum=root,description=what the lab's and the learner's programs may do beyond an ordinary user in a sandbox"`
	// When is for needs that the others have no words for.
	When   string `yaml:"when" json:"when,omitempty" jsonschema:"description=CEL over kernel alone; where it is false the lab cannot run"`
	WhyNot *Text  `yaml:"why_not" json:"why_not,omitempty" jsonschema:"description=with when: the reason why it cannot run"`

	when *expr.Expr
}

// Exprs is the compiled When; nil where there is none.
func (n *Needs) Exprs() (when *expr.Expr) { return n.when }

// Trace is what is traced while a step runs, beside the creation of tasks.
type Trace struct {
	// Creations can be turned off for a lab that traces nothing.
	Creations *bool      `yaml:"creations" json:"creations,omitempty" jsonschema:"default=true"`
	Events    []Event    `yaml:"events" json:"events,omitempty" jsonschema:"description=events of the kernel: sched/sched_switch; one that a kernel lacks is reported and left out"`
	Functions []Function `yaml:"functions" json:"functions,omitempty" jsonschema:"description=kernel functions whose calls are events\\, with the caller's stack"`
	// ProgramOnly leaves out what other tasks do, kernel threads included.
	ProgramOnly bool `yaml:"program_only" json:"program_only,omitempty" jsonschema:"description=record what the step's program and its descendants do\\, and nothing else"`
}

// Event is an event of the kernel. Without a filter it is written as its name alone.
type Event struct {
	Name   string `yaml:"name" json:"name" jsonschema:"description=sched/sched_switch"`
	Filter string `yaml:"filter" json:"filter,omitempty" jsonschema:"description=record it only when this holds\\, in the kernel's words: prev_state == 2"`
}

// UnmarshalYAML reads a name, or a name and a filter.
func (e *Event) UnmarshalYAML(read func(any) error) error {
	if read(&e.Name) == nil {
		return nil
	}
	type plain Event
	return read((*plain)(e))
}

// MarshalJSON writes an event as it is written in lab.yaml.
func (e Event) MarshalJSON() ([]byte, error) {
	if e.Filter == "" {
		return json.Marshal(e.Name)
	}
	type plain Event
	return json.Marshal(plain(e))
}

// Function is a stop at a kernel function's entry.
type Function struct {
	Name string         `yaml:"name" json:"name" jsonschema:"pattern=^[a-z][a-z0-9_]*$,description=of the event"`
	Of   []string       `yaml:"of" json:"of" jsonschema:"minItems=1,description=the function's names over time: the first that the kernel has is taken"`
	Task int            `yaml:"task" json:"task,omitempty" jsonschema:"minimum=1,maximum=4,description=which of its arguments is a task\\, whose number is the field task of the event; there is none without BTF"`
	Args map[string]int `yaml:"args" json:"args,omitempty" jsonschema:"maxProperties=4,description=arguments of it by the names of the event's fields that they become: numbers and addresses\\, as 1 to 4"`
}

// Sandbox is what a program with these privileges runs in; nil for one that runs as
// the guest's root.
func Sandbox(privileges []string) *wire.Sandbox {
	if slices.Contains(privileges, wire.RootPrivilege) {
		return nil
	}
	return &wire.Sandbox{Privileges: privileges}
}

// On reports whether anything is traced.
func (t *Trace) On() bool { return t.WithCreations() || len(t.Events)+len(t.Functions) > 0 }

// WithCreations reports whether the creation of tasks is traced.
func (t *Trace) WithCreations() bool { return t == nil || t.Creations == nil || *t.Creations }

// Step is one thing to run in the guest. It has exactly one of Probe, Program
// and Shell.
type Step struct {
	ID      string         `yaml:"id" json:"id" jsonschema:"pattern=^[a-z][a-z0-9_]*$,description=its name in expressions"`
	Probe   string         `yaml:"probe" json:"probe,omitempty" jsonschema:"description=a probe of labctl probe ls"`
	Args    map[string]any `yaml:"args" json:"args,omitempty" jsonschema:"description=the probe's parameters"`
	Program string         `yaml:"program" json:"program,omitempty" jsonschema:"description=a folder of the lab's with Go source\\, or with C"`
	Argv    []string       `yaml:"argv" json:"argv,omitempty" jsonschema:"description=the program's arguments"`
	// Privileges are a program's own, in place of those of needs.
	Privileges []string `yaml:"privileges" json:"privileges,omitempty" jsonschema:"enum=namespaces,enum=kernel_stacks,enum=realtime,enum=pid_max,enum=workqueues,enum=cpu_hotplug,enum=root,description=what this program may do\\, in place of needs.privileges"`
	Shell      string   `yaml:"shell" json:"shell,omitempty" jsonschema:"description=a line for the guest's shell"`
	Outside    []Point  `yaml:"outside" json:"outside,omitempty" jsonschema:"description=what is read from outside the guest while the program stands at a point"`
}

// Point is a point of a step, or of a learner's program, at which the guest's kernel is
// looked at from outside: one that the program marks by a line "@look NAME", or one that
// is seen from outside: that a task sleeps somewhere, or comes to a function. The guest
// stands still meanwhile.
type Point struct {
	At string `yaml:"at" json:"at" jsonschema:"pattern=^[a-z][a-z0-9_]*$,description=its name: that of the program's mark"`
	// SleepsIn has no mark waited for, but a task of the program that sleeps in one of
	// these functions; it is called "task".
	SleepsIn []string `yaml:"sleeps_in" json:"sleeps_in,omitempty" jsonschema:"description=not at a mark\\, but when a task of the program sleeps in one of these kernel functions; it is called task"`
	// Reaches has a task of the program waited for that comes to one of these functions:
	// the first that the kernel has, at its first instruction; it is called "task".
	Reaches []string       `yaml:"reaches" json:"reaches,omitempty" jsonschema:"description=not at a mark\\, but when a task of the program comes to this kernel function\\, the first of these that the kernel has; it is called task"`
	Tasks   map[string]int `yaml:"tasks" json:"tasks,omitempty" jsonschema:"description=with reaches: names for tasks that the function has as arguments\\, and the arguments' numbers from 1 on: {child: 1}"`
	Times   int            `yaml:"times" json:"times,omitempty" jsonschema:"minimum=1,maximum=32,default=1,description=with reaches: at how many of the times to look"`
	// Asleep are tasks that must have gone to sleep first.
	Asleep  []string      `yaml:"asleep" json:"asleep,omitempty" jsonschema:"description=tasks that are waited for until they sleep"`
	PS      bool          `yaml:"ps" json:"ps,omitempty" jsonschema:"description=list all tasks; those that are named are listed anyhow"`
	Stacks  []string      `yaml:"stacks" json:"stacks,omitempty" jsonschema:"description=the kernel stacks of these tasks"`
	Maps    []string      `yaml:"maps" json:"maps,omitempty" jsonschema:"description=the memory areas of these tasks"`
	Pages   []PointPage   `yaml:"pages" json:"pages,omitempty" jsonschema:"description=addresses through the page tables"`
	Structs []PointStruct `yaml:"structs" json:"structs,omitempty" jsonschema:"description=members of structures"`
}

// PointPage is an address of a task, both as the program's mark names them.
type PointPage struct {
	Task    string `yaml:"task" json:"task" jsonschema:"description=name of a task in the program's mark"`
	Address string `yaml:"address" json:"address" jsonschema:"description=name of an address in the program's mark\\, or of several"`
}

// PointStruct is members of a structure: a task's task_struct, what that leads to, or a
// variable.
type PointStruct struct {
	Type    string   `yaml:"type" json:"type" jsonschema:"description=task_struct"`
	Task    string   `yaml:"task" json:"task,omitempty" jsonschema:"description=the task whose task_struct it is"`
	Through string   `yaml:"through" json:"through,omitempty" jsonschema:"description=member of that task_struct that points to the structure: mm"`
	Symbol  string   `yaml:"symbol" json:"symbol,omitempty" jsonschema:"description=the variable that it is"`
	Members []string `yaml:"members" json:"members" jsonschema:"minItems=1,description=members or paths of them: thread_info.flags; one that the kernel lacks is no error"`
}

// Tasks that can be named without a program's saying: those that every machine has.
var KnownTasks = map[string]int64{"init": 1, "kthreadd": 2}

// SleeperName is what the task of a point with SleepsIn or Reaches is called.
const SleeperName = "task"

// MaxTimes bounds Point.Times.
const MaxTimes = 32

// Marked reports whether the program marks the point.
func (p *Point) Marked() bool { return len(p.SleepsIn)+len(p.Reaches) == 0 }

// Params are the probe's parameters as it takes them; nil for none.
func (s Step) Params() json.RawMessage {
	if len(s.Args) == 0 {
		return nil
	}
	b, err := json.Marshal(s.Args)
	if err != nil {
		panic(err) // YAML gave it
	}
	return b
}

// Check is one thing that must hold.
type Check struct {
	ID   string `yaml:"id" json:"id" jsonschema:"pattern=^[a-z][a-z0-9-]*$"`
	Says Text   `yaml:"says" json:"says" jsonschema:"description=the sentence that must hold"`
	// When reports whether it applies to this kernel, WhyNot why it does not.
	When   string `yaml:"when" json:"when,omitempty" jsonschema:"description=CEL over kernel alone; where it is false the check does not apply"`
	WhyNot *Text  `yaml:"why_not" json:"why_not,omitempty" jsonschema:"description=with when: the reason why it does not apply"`
	// After are checks before this one in the list, without which it would show
	// nothing: it fails when one of them does not hold.
	After []string `yaml:"after" json:"after,omitempty" jsonschema:"description=checks before this one that must hold\\, or it would show nothing: it fails with them"`
	That  string   `yaml:"that" json:"that" jsonschema:"description=CEL; true when the sentence holds"`
	Seen  string   `yaml:"seen" json:"seen,omitempty" jsonschema:"description=CEL; what to show when it fails\\, beside the values of that"`
	Hint  *Text    `yaml:"hint" json:"hint,omitempty" jsonschema:"description=of an exercise's check: what to look at\\, without the answer"`

	when, that, seen *expr.Expr
}

// Claim is what a source says, and how to tell whether this kernel agrees.
type Claim struct {
	ID     string `yaml:"id" json:"id" jsonschema:"pattern=^[a-z][a-z0-9-]*$"`
	Says   Text   `yaml:"says" json:"says" jsonschema:"description=the claim"`
	Source string `yaml:"source" json:"source" jsonschema:"minLength=1,description=seed and section\\, or book and page"`
	When   string `yaml:"when" json:"when,omitempty"`
	WhyNot *Text  `yaml:"why_not" json:"why_not,omitempty"`
	// At most one of the three is true; where none is "it depends".
	Confirmed string `yaml:"confirmed" json:"confirmed,omitempty" jsonschema:"description=CEL; true when this kernel shows the claim to be right"`
	Refuted   string `yaml:"refuted" json:"refuted,omitempty" jsonschema:"description=CEL; true when this kernel shows it to be wrong"`
	// NotEnforced is of a rule, a source's "must" or "must not": true when this kernel
	// lets a program break it. That makes the rule neither right nor wrong; Risk says
	// what whoever breaks it has to fear.
	NotEnforced string `yaml:"not_enforced" json:"not_enforced,omitempty" jsonschema:"description=of a rule: CEL; true when this kernel allows what the source forbids"`
	Risk        *Text  `yaml:"risk" json:"risk,omitempty" jsonschema:"description=with not_enforced: what is at risk when the rule is broken all the same"`
	Evidence    string `yaml:"evidence" json:"evidence" jsonschema:"minLength=1,description=CEL of type string: what was seen; say(\"…\"\\, \"…\") has words in English and in Korean"`
	Why         Text   `yaml:"why" json:"why" jsonschema:"description=what is so\\, and on what it depends"`
	// Tests are others' tests that assert the same, so that one can look them up:
	// selftests/mm/cow.c in the kernel's tools/testing, ltp/vfork01 in LTP.
	Tests []string `yaml:"tests" json:"tests,omitempty" jsonschema:"description=tests of others that assert the same: selftests/DIR/FILE of the kernel's tools/testing\\, or ltp/CASE"`

	when, confirmed, refuted, notEnforced, evidence *expr.Expr
}

// Question is for the learner to think about.
type Question struct {
	Ask    Text `yaml:"ask" json:"ask"`
	Answer Text `yaml:"answer" json:"answer"`
}

// Graded is the exercise: the learner's program is the one step "program".
type Graded struct {
	Trace *Trace `yaml:"trace" json:"trace,omitempty"`
	// When reports whether it can be done on this kernel, WhyNot why it cannot.
	When   string `yaml:"when" json:"when,omitempty" jsonschema:"description=CEL over kernel alone; where it is false the exercise cannot be graded"`
	WhyNot *Text  `yaml:"why_not" json:"why_not,omitempty"`
	// Withheld says that the copy of the lab that learners get has no solution.
	Withheld bool    `yaml:"withheld" json:"withheld,omitempty" jsonschema:"description=there is no solution in this copy of the lab"`
	Outside  []Point `yaml:"outside" json:"outside,omitempty" jsonschema:"description=what is read from outside the guest while the program stands at a point"`
	Seconds  int     `yaml:"seconds" json:"seconds,omitempty" jsonschema:"minimum=1,maximum=120,default=10,description=how long the program may run"`
	Checks   []Check `yaml:"checks" json:"checks" jsonschema:"minItems=1"`
	Hints    []Text  `yaml:"hints" json:"hints" jsonschema:"minItems=1,description=from a nudge to all but the answer"`
	// Fails names, for the skeleton and each wrong program by its directory, the
	// checks that fail for it; all others hold.
	Fails map[string][]string `yaml:"fails" json:"fails" jsonschema:"description=which checks the skeleton (exercise) and each wrong program (wrong/NAME) fail\\, and no others"`

	when *expr.Expr
}

// Asked are the names of the events that the exercise's trace asks for, functions
// included.
func (x *Graded) Asked() (names []string) {
	if x.Trace == nil {
		return nil
	}
	for _, e := range x.Trace.Events {
		names = append(names, path.Base(e.Name))
	}
	for _, f := range x.Trace.Functions {
		names = append(names, f.Name)
	}
	return names
}

// ProgramStep is the id of an exercise's step.
const ProgramStep = "program"

// Asks are the kernel facts that a run of the lab has to record.
func (l *Lab) Asks() expr.Asks { return l.asks }

// ExerciseAsks are those of the exercise.
func (l *Lab) ExerciseAsks() expr.Asks { return l.exerciseAsks }

// Exprs returns the compiled When, nil if there is none.
func (x *Graded) Exprs() (when *expr.Expr) { return x.when }

// Commands reports whether the guest needs a shell and commands.
func (l *Lab) Commands() bool {
	for _, s := range l.Steps {
		if s.Shell != "" {
			return true
		}
	}
	return false
}

// Exprs are a check's expressions: nil where it has none.
func (c *Check) Exprs() (when, that, seen *expr.Expr) { return c.when, c.that, c.seen }

// Exprs are a claim's expressions: nil where it has none.
func (c *Claim) Exprs() (when, confirmed, refuted, notEnforced, evidence *expr.Expr) {
	return c.when, c.confirmed, c.refuted, c.notEnforced, c.evidence
}
