// Package plan plans a capture. What a user asks for, by options or by a
// preset, is held against the kernel at hand: functions and events of other
// kernels get the names that they have here, globs are counted, and everything
// that was asked for gets a line that says as what it is armed, or why it is not.
//
// It is pure: Make starts nothing. The agent's answer goes into the plan by Took.
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/trace/creation"
	"labctl/host/trace/preset"
)

// Instance is the trace instance's name in a guest.
const Instance = "labctl"

// EventExit is the probe that tells a task's exit code, which no event has: the
// field "code" is do_exit's argument, a wait status.
const EventExit = "exit"

// Request is what is asked for. The zero value traces nothing.
type Request struct {
	Preset    string // where it comes from, for the record
	Tracer    string // "function", "function_graph"; "nop" or empty for none
	Functions []string
	Graph     []string // functions whose calls are to be traced: tracer function_graph
	Events    []Event
	Wakeup    bool     // how long tasks wait from their wake-up to their run
	Hists     []string // histograms that the kernel makes of events: see parseHist
	Probes    []string // see parseProbe
	Fprobes   []string // see parseFprobe
	Entries   []Entry
	Options   []string // options/NAME
	Creations Creations
	Tasks     bool // what the tree of tasks is drawn from is asked for, and gets lines
	Stacks    bool // a stack with every event and function
	PIDOnly   bool
	Args      bool // what traced functions are called with, where the kernel records it
	Returns   bool // what those of a graph return, likewise
	BufferKB  int  // see wire.CaptureParams for these
	Overwrite bool
	Clock     string
	Max       int64
	Hold      bool
	// Exact says that events are named as this kernel names them: no other names
	// are tried, and the kernel's list of events is not wanted.
	Exact bool
}

// Creations says what is armed of the probes and events that report task
// creations.
type Creations int

const (
	// Tree is all that the tree of tasks is drawn from, exits too. What the kernel
	// lacks of it is left out.
	Tree Creations = iota
	// Joined is what creation.Join reads: a kernel that takes no probe on its
	// creation function is an error.
	Joined
	// NoCreations is nothing.
	NoCreations
)

// Entry is an event at the entry of a kernel function.
type Entry struct {
	Name string   // of the event
	Of   []string // functions, by these very names: the first that the kernel takes
	// Task is which of the functions' arguments, from 1, is a task, whose number is
	// the field "task" of the event; 0 for none. Without types (BTF) there is no such
	// field.
	Task int
	// Args are arguments, from 1, by the names of the event's fields that have them, as words.
	Args map[string]int
}

// Event is one event or system, "sched/sched_switch", "sched:sched_*", "signal"
// or "sched_switch".
type Event struct {
	Name   string
	Filter string
}

// Add puts a preset's settings beside what is asked for already.
func (r *Request) Add(p preset.Preset) {
	r.Preset = p.Name
	r.Functions = append(r.Functions, p.Functions...)
	for _, e := range p.Events {
		r.Events = append(r.Events, Event{Name: e})
	}
	r.Probes = append(r.Probes, p.Probes...)
	r.Options = append(r.Options, p.Options...)
	if p.Tracer != "" {
		r.Tracer = p.Tracer
	}
	r.Tasks, r.Stacks, r.PIDOnly = r.Tasks || p.Tasks, r.Stacks || p.Stacks, r.PIDOnly || p.PIDOnly
}

// Empty says that nothing was asked to be traced.
func (r *Request) Empty() bool {
	return len(r.Functions)+len(r.Graph)+len(r.Events)+len(r.Hists)+len(r.Probes)+len(r.Fprobes)+len(r.Entries) == 0 && !r.Tasks && !r.Wakeup
}

// NeedsFunctions reports whether Make wants to know the kernel's functions.
func (r *Request) NeedsFunctions() bool { return len(r.Functions)+len(r.Graph) > 0 }

// NeedsEvents is the same for its events.
func (r *Request) NeedsEvents() bool { return len(r.Events)+len(r.Hists) > 0 && !r.Exact }

// Kernel is the kernel at hand.
type Kernel struct {
	Arch  string // GOARCH
	Facts *kernel.Facts
	Names *Names
	// Symbol reports whether the kernel has a symbol, traceable or not; nil when
	// that is not known.
	Symbol func(name string) bool
	// Prototype returns a function's parameters; nil, or an empty list, when they
	// are not known.
	Prototype func(function string) []kernel.Param
	// NoFprobes says that the kernel has no fprobe events.
	NoFprobes bool
	// Guesses says that the kernel guesses its stacks (kernel.GuessesStacks).
	Guesses bool
	// FramePointers says that it walks them (kernel.WalksFrames).
	FramePointers bool
}

// Line says what became of one thing that was asked for. It is part of the run
// record, schema labctl/run/v2.
type Line struct {
	// Kind is "function", "graph", "event", "probe", "hist" or "wakeup"; "tracer", "option" and the
	// like for what these need and did not get; "filter" for a function that a
	// preset names only to trace nothing.
	Kind string `json:"kind"`
	Name string `json:"name"` // as it was asked for
	// Armed is what it came to in this kernel, at most maxArmed names of Count;
	// empty when it is missing.
	Armed []string `json:"armed,omitempty"`
	Count int      `json:"count,omitempty"`
	// Why says why it has another name here, or why it is missing.
	Why string `json:"why,omitempty"`
	// Idle is how many of Count the trace has no event of, after it was read: armed, and
	// never hit. Never are their names, at most MaxNever.
	Idle  int      `json:"idle,omitempty"`
	Never []string `json:"never_hit,omitempty"`

	// All is what Armed has the beginning of, nil where that has all. It is not kept.
	All []string `json:"-"`
}

// MaxNever bounds the names of one line's functions and events that were never hit.
const MaxNever = 10_000

// Names are all that the line came to, as far as it is known.
func (l *Line) Names() []string {
	if l.All != nil {
		return l.All
	}
	return l.Armed
}

// take has the line come to these names.
func (l *Line) take(names []string) {
	l.Armed, l.All, l.Count = names, nil, len(names)
	if len(names) > maxArmed {
		l.Armed, l.All = slices.Clone(names[:maxArmed]), names
	}
}

// Asked says that the line is for something to be traced.
func (l *Line) Asked() bool {
	switch l.Kind {
	case "function", "graph", "event", "probe", "hist", "wakeup":
		return true
	}
	return false
}

// Missing says that nothing was armed for the line.
func (l *Line) Missing() bool { return l.Count == 0 }

// maxArmed bounds the names of one line that are kept.
const maxArmed = 20

// Plan is what to tell the agent, and what becomes of what was asked for.
type Plan struct {
	Params wire.CaptureParams
	Lines  []Line
}

// Make plans a request on a kernel. The error is a request that no kernel could
// take; what this one lacks is a line.
func Make(r Request, k Kernel) (*Plan, error) {
	m := maker{k: k, armed: map[string]bool{}, exact: r.Exact}
	p := &m.plan.Params
	*p = wire.CaptureParams{
		Instance: Instance, Stacks: r.Stacks, PIDOnly: r.PIDOnly,
		BufferKB: r.BufferKB, Overwrite: r.Overwrite, Clock: r.Clock, Max: r.Max, Hold: r.Hold,
	}
	if err := m.request(r); err != nil {
		return nil, outcome.Default(outcome.BadInput, err)
	}
	if err := m.creations(r); err != nil {
		return nil, err
	}
	return &m.plan, nil
}

// Nothing is the error of a request by hand of which this kernel has nothing: a run
// would show what was not asked for. nil if there is something, or a preset names what
// some kernels have.
func (p *Plan) Nothing(r Request, k *Names) error {
	if r.Preset != "" {
		return nil
	}
	var why []string
	for _, l := range p.Lines {
		switch {
		case !l.Asked():
			continue
		case !l.Missing():
			return nil
		}
		hint := ""
		if k != nil {
			known := k.functions
			if l.Kind == "event" || l.Kind == "hist" {
				known = k.events
			}
			name, _, _ := strings.Cut(l.Name, " ") // of a histogram its event
			hint = nearest.Hint(name, known)
		}
		why = append(why, fmt.Sprintf("%s %s: %s%s", l.Kind, text.Line(l.Name, 80), l.Why, hint))
	}
	if why == nil {
		return nil
	}
	return outcome.Inputf("nothing to trace: %s", strings.Join(why, "; "))
}

// CreationsKB is a CPU's buffer where nothing but creations is asked for. It holds
// about a thousand events with their stacks; a probe leaves a hundred. Lost ones are
// counted. Clearing more memory than needed is what arming spends its time on under
// emulation.
const CreationsKB = 1024

// request plans what was asked for.
func (m *maker) request(r Request) error {
	if err := m.functions(r); err != nil {
		return err
	}
	for _, e := range r.Events {
		if err := m.event(e); err != nil {
			return err
		}
	}
	if r.Wakeup {
		if err := m.wakeup(); err != nil {
			return err
		}
	}
	for _, h := range r.Hists {
		if err := m.hist(h); err != nil {
			return err
		}
	}
	if err := m.probes(r); err != nil {
		return err
	}
	return m.fprobes(r)
}

// Check is the error of a request that no kernel could take.
func Check(r Request) error {
	switch {
	case r.Returns && len(r.Graph) == 0:
		return outcome.Inputf("return values are those of a graph's functions: --returns needs --graph")
	case r.Args && !r.NeedsFunctions():
		return outcome.Inputf("arguments are those of traced functions: --args needs --func or --graph")
	}
	for _, spec := range r.Probes {
		// Names of arguments are for the kernel's BTF to know.
		if _, _, _, _, err := splitProbe(spec); err != nil {
			return outcome.Inputf("probe %q: %w", spec, err)
		}
	}
	for _, spec := range r.Fprobes {
		if _, _, _, err := splitFprobe(spec); err != nil {
			return outcome.Inputf("fprobe %q: %w", spec, err)
		}
	}
	r.Probes, r.Fprobes = nil, nil
	_, err := Make(r, Kernel{Arch: "amd64"})
	return err
}

type maker struct {
	k     Kernel
	plan  Plan
	armed map[string]bool // events and probes that are in the plan
	exact bool            // see Request
}

// wakeup plans the kernel's measure of wake-ups, and the events that it is of, from which
// labctl reckons the same.
func (m *maker) wakeup() error {
	p := &m.plan.Params
	p.Wakeup = true
	for _, name := range WakeupEvents {
		if !m.armed[name] {
			m.armed[name] = true
			p.Events = append(p.Events, wire.CaptureEvent{Name: name})
		}
	}
	for _, e := range p.Events {
		if e.Filter != "" && slices.Contains(WakeupEvents, e.Name) {
			return outcome.Inputf("--wakeup is reckoned from all of %s: leave out its --filter", e.Name)
		}
	}
	m.line(Line{Kind: "wakeup", Name: wire.WakeupEvent, Armed: []string{"a synthetic event of " + strings.Join(WakeupEvents, " and ")}})
	return nil
}

// WakeupEvents are those that a wake-up begins and ends with.
var WakeupEvents = []string{"sched/sched_waking", "sched/sched_switch"}

func (m *maker) line(l Line) {
	l.take(l.Armed)
	m.plan.Lines = append(m.plan.Lines, l)
}

// functions plans the tracer.
func (m *maker) functions(r Request) error {
	p := &m.plan.Params
	tracer := r.Tracer
	switch {
	case len(r.Graph) > 0:
		tracer = "function_graph"
	case tracer == "" && len(r.Functions) > 0:
		tracer = "function"
	}
	if tracer == "nop" || tracer == "" {
		// Scripts set a filter without a tracer so as to trace nothing by it.
		for _, f := range r.Functions {
			m.line(Line{Kind: "filter", Name: f, Why: "not needed: the tracer is nop, and a filter alone traces nothing"})
		}
		return nil
	}
	var err error
	if p.Functions, err = m.resolve("function", r.Functions); err != nil {
		return err
	}
	if p.Graph, err = m.resolve("graph", r.Graph); err != nil {
		return err
	}
	switch {
	case len(r.Graph) > 0 && len(p.Graph) == 0, len(p.Functions)+len(p.Graph) == 0:
		// Without a filter it would trace every function.
		m.line(Line{Kind: "tracer", Name: tracer, Why: "not started: this kernel has none of its functions"})
		p.Functions, p.Graph = nil, nil
		return nil
	case len(p.Functions) > 0:
		// A function that the filter leaves out starts no graph either.
		for _, g := range p.Graph {
			if !slices.Contains(p.Functions, g) {
				p.Functions = append(p.Functions, g)
			}
		}
	}
	p.Tracer = tracer
	for _, o := range r.Options {
		if o == "func_stack_trace" && tracer == "function" {
			m.option(o)
		}
	}
	if r.Stacks && tracer == "function" {
		m.option("func_stack_trace")
	}
	// CONFIG_FUNCTION_TRACE_ARGS and CONFIG_FUNCTION_GRAPH_RETVAL; elsewhere a line says
	// that there is no such option.
	if r.Args {
		m.option(map[string]string{"function": "func-args", "function_graph": "funcgraph-args"}[tracer])
	}
	if r.Returns {
		m.option("funcgraph-retval")
	}
	return nil
}

func (m *maker) option(name string) {
	if m.plan.Params.Options == nil {
		m.plan.Params.Options = map[string]bool{}
	}
	m.plan.Params.Options[name] = true
}

// resolve finds what functions are called here.
func (m *maker) resolve(kind string, asked []string) (take []string, err error) {
	for _, name := range asked {
		if !isGlob(name) {
			return nil, fmt.Errorf("function %q: want a kernel function's name, * and ? in it for several", name)
		}
		l := Line{Kind: kind, Name: name}
		var sent []string
		if strings.ContainsAny(name, "*?[") {
			// As a glob to the kernel too: it may stand for tens of thousands.
			if l.Armed = m.match(name); len(l.Armed) > 0 {
				sent = []string{name}
			} else {
				l.Why = "no function of this kernel matches"
			}
		} else {
			l.Armed, l.Why = m.find(name)
			sent = l.Armed
		}
		for _, s := range sent {
			if !slices.Contains(take, s) {
				take = append(take, s)
			}
		}
		m.line(l)
	}
	return take, nil
}

func (m *maker) match(glob string) []string {
	if m.k.Names == nil {
		return []string{glob}
	}
	return match(m.k.Names.functions, glob)
}

func (m *maker) has(name string) bool { return m.k.Names != nil && len(m.match(name)) > 0 }

// find takes the first of a function's names that can be traced here, or says
// why there is none.
func (m *maker) find(name string) (found []string, why string) {
	for _, c := range ksym.FunctionCandidates(name) {
		// A function that never runs is what a shell's filter needs, not what
		// was asked for.
		if slices.Contains(ksym.StandIns, c.Name) {
			continue
		}
		if found := m.match(c.Name); len(found) > 0 {
			return found, cmp.Or(c.Why, ksym.Idle(c.Name, m.has))
		}
	}
	return nil, m.absent(name)
}

// absent says why the kernel has no function of a name to trace.
func (m *maker) absent(name string) string {
	if slices.Contains(preset.All().Added, name) {
		return "the book adds it to its own kernel"
	}
	if m.k.Symbol != nil {
		for _, c := range ksym.FunctionCandidates(name) {
			if !slices.Contains(ksym.StandIns, c.Name) && m.k.Symbol(c.Name) {
				return c.Name + " is there, but may not be traced (notrace, or code of the boot)"
			}
		}
	}
	if why := ksym.Absent(name); why != "" {
		return why
	}
	return "no such function here: inlined, not built in, or in a module that is not loaded"
}

// event plans one event, a system, or a glob of events.
func (m *maker) event(e Event) error {
	name := strings.Replace(e.Name, ":", "/", 1)
	system, event, both := strings.Cut(name, "/")
	if !isEvent(system) || both && !isEvent(event) {
		return fmt.Errorf("event %q: want SYSTEM:EVENT or SYSTEM, * in them for several", e.Name)
	}
	if system == "labctl" {
		return fmt.Errorf("event %q: the system labctl is for probes: use --kprobe", e.Name)
	}
	l := Line{Kind: "event", Name: name}
	add := func(names []string) {
		for _, n := range names {
			if !m.armed[n] {
				m.armed[n] = true
				m.plan.Params.Events = append(m.plan.Params.Events, wire.CaptureEvent{Name: n, Filter: e.Filter})
			}
		}
		l.Armed = append(l.Armed, names...)
	}
	names := m.k.Names
	switch {
	case names == nil, m.exact:
		add([]string{name})
	case both:
		for _, c := range ksym.EventCandidates(name) {
			if found := match(names.events, c.Name); len(found) > 0 {
				add(found)
				l.Why = c.Why
				break
			}
		}
	case len(match(names.systems, name)) > 0:
		for _, s := range match(names.systems, name) {
			add(match(names.events, s+"/*"))
		}
	default:
		add(match(names.events, "*/"+name)) // as set_event takes it
	}
	if len(l.Armed) == 0 {
		l.Why = "this kernel has no such event"
	}
	m.line(l)
	return nil
}

// creations adds what task creations are joined from, and for a tree of tasks the
// probe on exits: rare events and probes, which disturb no capture. They get a line
// only where they are what was asked for.
func (m *maker) creations(r Request) error {
	p := &m.plan.Params
	if r.Creations == NoCreations {
		return nil
	}
	probes, err := creation.Probes(m.k.Arch, m.k.Facts, m.k.FramePointers)
	if err != nil {
		return err
	}
	if r.Creations == Tree {
		row, _ := arch.Find(m.k.Arch) // as Probes did
		probes = append(probes, wire.Kprobe{Event: EventExit, Alternatives: []wire.KprobeTry{{Symbol: "do_exit", Args: []string{"code=" + row.Entry.Args[0] + ":s32"}}}})
	}
	for _, probe := range probes {
		if r.Creations == Tree {
			probe.Optional = true // a line says so, and the rest is worth having
		}
		p.Probes = append(p.Probes, probe)
		if r.Tasks {
			m.line(Line{Kind: "probe", Name: probe.Event, Armed: []string{probe.Alternatives[0].Symbol}})
		}
	}
	if m.k.Guesses {
		m.line(Line{Kind: "stacks", Name: "unwinder", Why: "this kernel guesses: it has no frame pointers and no ORC, so functions are among the frames that nothing has called"})
	}
	for _, e := range creation.Events {
		if !m.armed[e] {
			m.armed[e] = true
			p.Events = append(p.Events, wire.CaptureEvent{Name: e})
		}
	}
	if r.Creations == Joined && r.Empty() && p.BufferKB == 0 {
		p.BufferKB = CreationsKB
	}
	// The way into the creation function is the stack of this event. Where all
	// events have theirs a trigger's would be a second one, and where the event is
	// filtered one without an event.
	for i := range p.Events {
		if e := &p.Events[i]; e.Name == forkEvent && e.Filter == "" {
			e.Stack = !r.Stacks
		}
	}
	return nil
}

const forkEvent = "sched/sched_process_fork"

// configOf is what a kernel has to be configured with for an option.
var configOf = map[string]string{
	"func-args": "FUNCTION_TRACE_ARGS", "funcgraph-args": "FUNCTION_TRACE_ARGS", "funcgraph-retval": "FUNCTION_GRAPH_RETVAL",
}

// Took puts the agent's answer into the lines: what the kernel has made of the
// functions and probes, and what it has refused.
func (p *Plan) Took(armed wire.CaptureArmed) {
	if p.Params.Keep {
		p.found(armed)
	} else {
		p.matched(armed)
	}
	for i := range p.Lines {
		l := &p.Lines[i]
		if s, ok := armed.Symbols[l.Name]; ok && l.Kind == "probe" {
			l.Armed, l.Count = []string{s}, 1
		}
	}
	for _, miss := range armed.Missing {
		if !p.refuse(miss) {
			kind, name, _ := strings.Cut(miss.What, " ")
			if config := configOf[name]; kind == "option" && config != "" {
				miss.Why = "this kernel has no such option: it is built without " + config
			}
			p.Lines = append(p.Lines, Line{Kind: kind, Name: name, Why: miss.Why})
		}
	}
	if p.Params.Tracer == "" || armed.Tracer == p.Params.Tracer {
		return
	}
	for i := range p.Lines {
		if l := &p.Lines[i]; (l.Kind == "function" || l.Kind == "graph") && !l.Missing() {
			l.take(nil)
			l.Why = "the tracer was not started"
		}
	}
}

// matched leaves in the lines the functions that the kernel's filter has: what is known
// beforehand may be what an image has, and not all of that can be traced.
func (p *Plan) matched(armed wire.CaptureArmed) {
	if armed.Matched == 0 || armed.Matched != len(armed.Functions) {
		return
	}
	has := map[string]bool{}
	for _, f := range armed.Functions {
		has[f] = true
	}
	for i := range p.Lines {
		l := &p.Lines[i]
		if l.Kind != "function" || l.Missing() {
			continue
		}
		l.take(slices.DeleteFunc(slices.Clone(l.Names()), func(f string) bool { return !has[f] }))
		if l.Missing() {
			l.Why = "the kernel's filter took none of it"
		}
	}
}

// refuse takes something out of the lines that it is armed in.
func (p *Plan) refuse(miss wire.CaptureMissing) (known bool) {
	kind, name, _ := strings.Cut(miss.What, " ")
	for i := range p.Lines {
		l := &p.Lines[i]
		if l.Kind != kind {
			continue
		}
		if l.Name == name {
			l.take(nil)
			l.Why, known = miss.Why, true
			continue
		}
		if at := slices.Index(l.Names(), name); at >= 0 {
			l.take(slices.Delete(slices.Clone(l.Names()), at, at+1))
			l.Why, known = name+": "+miss.Why, true
		}
	}
	return known
}
