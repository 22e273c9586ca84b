package runner

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/trace/collect"
	"labctl/host/trace/creation"
	"labctl/host/trace/decode"
	"labctl/host/trace/event"
	"labctl/host/trace/export/tracedat"
)

// Bounds on what a lab's trace can make the host keep.
const (
	maxPages  = 64 << 20 // bytes of the whole lab's
	maxEvents = 50_000   // of one step
)

// bufferKB is a CPU's buffer for a lab that traces more than creations. It is
// emptied as it fills, so it need not hold all of them.
const bufferKB = 4096

// plan is what to record, and of which events the stacks are kept: those that the
// lab asks for. A creation has the stack of its events.
type plan struct {
	wire.CaptureParams
	keep map[string]bool
}

// link is the register with a function's return address, where a stack that is
// taken at the function's entry lacks the direct caller (host/trace/creation).
var link = map[string]string{"arm64": "%x30"}

// newPlan plans the trace of a lab in a guest of a GOARCH.
func newPlan(ctx context.Context, arch string, k *kernel.Kernel, t *lab.Trace) (*plan, error) {
	facts, err := k.Facts(ctx)
	if err != nil {
		return nil, err
	}
	c, err := creation.Plan(arch, facts)
	if err != nil {
		return nil, err
	}
	p := &plan{keep: map[string]bool{}}
	p.Instance, p.Stacks, p.BufferKB, p.Max = c.Instance, true, c.BufferKB, maxPages
	if t.WithCreations() {
		p.Probes = c.Probes
		for _, e := range c.Events {
			p.Events = append(p.Events, wire.CaptureEvent{Name: e})
		}
	}
	if t == nil {
		return p, nil
	}
	p.PIDOnly = t.ProgramOnly
	for _, e := range t.Events {
		_, name, _ := strings.Cut(e.Name, "/")
		p.keep[name] = true
		if !slices.ContainsFunc(p.Events, func(have wire.CaptureEvent) bool { return have.Name == e.Name }) {
			p.Events = append(p.Events, wire.CaptureEvent{Name: e.Name, Filter: e.Filter})
		}
	}
	for _, f := range t.Functions {
		probe := wire.Kprobe{Event: f.Name, Optional: true}
		for _, symbol := range f.Of {
			if reg := link[arch]; reg != "" {
				probe.Alternatives = append(probe.Alternatives, wire.KprobeTry{Symbol: symbol, Args: []string{"lr=" + reg + ":symbol"}})
			}
			probe.Alternatives = append(probe.Alternatives, wire.KprobeTry{Symbol: symbol, Args: []string{}})
		}
		p.keep[f.Name] = true
		p.Probes = append(p.Probes, probe)
	}
	if len(t.Events)+len(t.Functions) > 0 {
		p.BufferKB = bufferKB
	}
	return p, nil
}

// mark is what the agent leaves in the recording before the step of a number.
func mark(step int) string { return fmt.Sprintf("labctl step %d", step) }

// missed says what the kernel would not trace.
func missed(armed wire.CaptureArmed) (out []string) {
	for _, m := range armed.Missing {
		out = append(out, m.What+": "+m.Why)
	}
	return out
}

// read gives steps, which ran in this order in one recording, their events and
// creations. An event belongs to the last step that had begun by then. The trace
// is kept in dir.
func (p *plan) read(res *collect.Result, steps []*result.Step, dir record.Dir) error {
	if why := res.Stopped.Truncated; why != "" {
		return outcome.Errorf(outcome.CheckFailed, "the trace is longer than %d MB: %s", maxPages>>20, why)
	}
	d, err := decode.Open(res.Capture)
	if err != nil {
		return outcome.Default(outcome.CheckFailed, err)
	}
	names := newUsed(tables.get(res.Capture.Kallsyms))
	d.SetSymbols(names.find)
	events := make([][]event.Event, len(steps))
	at, lost := -1, int64(0)
	for e, err := range d.Events() {
		switch {
		case err != nil:
			lost++ // events were there
		case e.Format.System == "ftrace": // a mark, or a stack whose event is gone
			if text, err := e.String("buf"); err == nil && at+1 < len(steps) && strings.TrimSpace(text) == mark(at+1) {
				at++
			}
		case at < 0:
		case len(events[at]) == maxEvents:
			steps[at].Lost++
		default:
			events[at] = append(events[at], d.Ftrace(e))
		}
	}
	for _, s := range d.Stats() {
		lost += s.Missing()
	}
	if lost = max(lost, res.Lost()); at+1 < len(steps) && lost == 0 {
		return outcome.Errorf(outcome.CheckFailed, "the trace has no mark of step %s", steps[at+1].ID)
	}
	for i, s := range steps {
		s.Lost += lost // which step's they were is not known
		s.NotTraced = missed(res.Armed)
		all, err := creation.Join(events[i])
		if err != nil {
			return outcome.Default(outcome.CheckFailed, fmt.Errorf("step %s: %w", s.ID, err))
		}
		s.Creations, s.Others = family(s.PID, all)
		for j := range events[i] {
			s.Events = append(s.Events, p.event(&events[i][j]))
		}
	}
	if dir.Path == "" {
		return nil
	}
	c := *res.Capture
	c.Kallsyms = names.kallsyms()
	return tracedat.WriteFile(dir.File(record.DataFile), &c)
}

// event takes an event over: what stands above a probed function goes, and its
// direct caller comes in.
func (p *plan) event(e *event.Event) result.Event {
	if e.Stack == nil {
		return result.FromEvent(e)
	}
	cp := *e
	cp.Stack = nil
	if p.keep[e.Name] {
		s := *e.Stack
		s.Frames = slices.Clone(s.Frames)
		cp.Stack = &s
		if e.At != "" {
			s.Trim(func(f stack.Frame) bool { return f.Base() == ksym.Strip(e.Symbol()) })
			if v, ok := e.Field("lr"); ok {
				if f, ok := stack.ParseFrame(v); ok {
					s.InsertCaller(f)
				}
			}
		}
	}
	return result.FromEvent(&cp)
}

// family parts the creations by whether the task with this pid, or one that
// descends from it, made them or asked kthreadd for them.
func family(pid int64, all []creation.Creation) (own, others []result.Creation) {
	tree := map[int64]bool{pid: true}
	for i := range all {
		c := result.FromCreation(&all[i])
		switch {
		case tree[c.Requester.TID]:
			tree[c.Child.TID] = true
			own = append(own, c)
		case c.Asked && tree[c.AskedBy.TID]:
			own = append(own, c)
		default:
			others = append(others, c)
		}
	}
	return own, others
}

// tables are the symbols of the kernels that ran last: clones of one template have
// the same, and reading a hundred thousand takes longer than a step of a lab.
var tables symbolTables

type symbolTables struct {
	mu   sync.Mutex
	last []symbolTable
}

type symbolTable struct {
	text []byte
	syms *decode.Symbols
}

const maxTables = 4

func (t *symbolTables) get(kallsyms []byte) *decode.Symbols {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.last, func(s symbolTable) bool { return bytes.Equal(s.text, kallsyms) })
	s := symbolTable{text: kallsyms}
	if i >= 0 {
		s = t.last[i]
		t.last = slices.Delete(t.last, i, i+1)
	} else {
		s.syms = decode.ParseKallsyms(kallsyms)
	}
	t.last = append(t.last, s)
	if len(t.last) > maxTables {
		t.last = slices.Delete(t.last, 0, 1)
	}
	return s.syms
}

// used remembers the symbols that were found, so that a trace is kept with these
// alone: a kernel's are megabytes.
type used struct {
	syms  *decode.Symbols
	found map[uint64]decode.Symbol // by their start
}

func newUsed(s *decode.Symbols) *used { return &used{s, map[uint64]decode.Symbol{}} }

func (u *used) find(addr uint64) (decode.Symbol, bool) {
	s, ok := u.syms.Find(addr)
	if ok {
		u.found[s.Start] = s
	}
	return s, ok
}

// kallsyms has the symbols that were found, and those behind them, which end them.
func (u *used) kallsyms() []byte {
	for _, s := range slices.Collect(maps.Values(u.found)) {
		u.find(s.Start + s.Size)
	}
	var b bytes.Buffer
	for _, start := range slices.Sorted(maps.Keys(u.found)) {
		s := u.found[start]
		fmt.Fprintf(&b, "%016x t %s", start, text.Line(s.Name, 512))
		if s.Module != "" {
			fmt.Fprintf(&b, "\t[%s]", text.Line(s.Module, 64))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
