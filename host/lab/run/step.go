package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"labctl/guest/wire"
	"labctl/host/agent"
	"labctl/host/creation"
	"labctl/host/ftrace"
	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/result"
	"labctl/host/stack"
	"labctl/host/text"
	"labctl/host/vm"
)

// Bounds on what a step can make the host keep.
const (
	maxStdout = 1 << 20 // bytes
	maxStderr = 64 << 10
	maxTrace  = 64 << 20
	maxEvents = 50_000
)

// FloodError is a program that printed more than is kept.
type FloodError struct{ Step string }

func (e *FloodError) Error() string {
	return fmt.Sprintf("step %s: it prints more than %d KB", e.Step, maxStdout>>10)
}

// runner runs steps in one machine.
type runner struct {
	v     *vm.VM
	trace *lab.Trace
	plan  wire.TraceParams
	keep  map[string]bool // events whose stacks are kept
}

// link is the register with a function's return address, where a stack that is
// taken at the function's entry lacks the direct caller (host/creation).
var link = map[string]string{"arm64": "%x30"}

// newRunner plans the trace.
func newRunner(ctx context.Context, v *vm.VM, k *kernel.Kernel, t *lab.Trace) (*runner, error) {
	r := &runner{v: v, trace: t, keep: map[string]bool{}}
	if !t.On() {
		return r, nil
	}
	facts, err := k.Facts(ctx)
	if err != nil {
		return nil, err
	}
	if r.plan, err = creation.Plan(v.Hello().Arch, facts); err != nil {
		return nil, err
	}
	if !t.WithCreations() {
		r.plan.Probes, r.plan.Events = nil, nil
	}
	if t == nil {
		return r, nil
	}
	for _, e := range t.Events {
		_, name, _ := strings.Cut(e, "/")
		r.keep[name] = true
		r.plan.Events = append(r.plan.Events, e)
	}
	r.plan.Events = unique(r.plan.Events)
	for _, f := range t.Functions {
		p := wire.TraceProbe{Event: f.Name, Optional: true}
		for _, symbol := range f.Of {
			if reg := link[v.Hello().Arch]; reg != "" {
				p.Alternatives = append(p.Alternatives, wire.KprobeSpec{Symbol: symbol, Args: []string{"lr=" + reg + ":symbol"}})
			}
			p.Alternatives = append(p.Alternatives, wire.KprobeSpec{Symbol: symbol, Args: []string{}})
		}
		r.keep[f.Name] = true
		r.plan.Probes = append(r.plan.Probes, p)
	}
	if len(t.Events)+len(t.Functions) > 0 {
		r.plan.BufferKB *= 8 // what a lab asks for may come often
	}
	return r, nil
}

func unique(all []string) (out []string) {
	seen := map[string]bool{}
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// step runs one program under the trace. The step is filled as far as the run
// came; text is the kernel's own of the trace.
func (r *runner) step(ctx context.Context, id string, argv []string) (s *result.Step, trace []byte, err error) {
	s = &result.Step{ID: id, Argv: argv}
	if r.trace.On() {
		armed, err := r.v.Agent().TraceStart(ctx, r.plan)
		if err != nil {
			return s, nil, fmt.Errorf("step %s: arm the trace: %w", id, err)
		}
		for _, m := range armed.Missing {
			s.NotTraced = append(s.NotTraced, text.Line(m, 300))
		}
	}
	if err := r.exec(ctx, s, argv); err != nil {
		return s, nil, err
	}
	if !r.trace.On() {
		return s, nil, nil
	}
	raw := bounded{max: maxTrace}
	stopped, err := r.v.Agent().TraceStop(ctx, &raw)
	if err != nil {
		return s, raw.Bytes(), fmt.Errorf("step %s: read the trace: %w", id, err)
	}
	if raw.over {
		return s, raw.Bytes(), fmt.Errorf("step %s: the trace is longer than %d MB", id, maxTrace>>20)
	}
	parsed, err := ftrace.Parse(bytes.NewReader(raw.Bytes()))
	if err != nil {
		return s, raw.Bytes(), fmt.Errorf("step %s: %w", id, err)
	}
	s.Lost = parsed.Lost + stopped.Overrun + int64(parsed.BadLines)
	all, err := creation.Join(parsed.Events)
	if err != nil {
		return s, raw.Bytes(), fmt.Errorf("step %s: %w", id, err)
	}
	s.Creations, s.Others = family(s.PID, all)
	for i := range parsed.Events {
		if len(s.Events) == maxEvents {
			s.Lost += int64(len(parsed.Events) - i)
			break
		}
		s.Events = append(s.Events, r.event(&parsed.Events[i]))
	}
	return s, raw.Bytes(), nil
}

// exec runs the program and keeps what it says. One that says too much is ended.
func (r *runner) exec(ctx context.Context, s *result.Step, argv []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	flood := &FloodError{s.ID}
	stdout := bounded{max: maxStdout, full: func() { cancel(flood) }}
	stderr := bounded{max: maxStderr, full: func() {}}
	exit, err := r.v.Agent().Exec(ctx, wire.ExecParams{Argv: argv, Dir: "/"}, agent.IO{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return fmt.Errorf("step %s: %w", s.ID, err)
	}
	if stdout.over {
		return flood
	}
	s.PID, s.Exit = int64(exit.PID), int64(exit.Code)
	if exit.Signaled {
		s.Signal, s.Exit = int64(exit.Signal), 128+int64(exit.Signal)
	}
	s.Stdout, s.Stderr = text.Clean(stdout.String()), text.Clean(stderr.String())
	return nil
}

// event takes an event over: what stands above a probed function goes, and its
// direct caller comes in.
func (r *runner) event(e *ftrace.Event) result.Event {
	if e.Stack != nil && !r.keep[e.Name] {
		cp := *e
		cp.Stack = nil // of a creation, which has it
		return result.FromEvent(&cp)
	}
	if e.Stack != nil && e.At != "" {
		s := *e.Stack
		s.Frames = append([]stack.Frame(nil), s.Frames...)
		s.Trim(func(f stack.Frame) bool { return f.Base() == stack.Strip(e.Symbol()) })
		if v, ok := e.Field("lr"); ok {
			if f, ok := stack.ParseFrame(v); ok {
				s.InsertCaller(f)
			}
		}
		cp := *e
		cp.Stack = &s
		return result.FromEvent(&cp)
	}
	return result.FromEvent(e)
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

// programData makes a program's standard output the step's data when it is one
// JSON object.
func programData(s *result.Step) {
	d := json.NewDecoder(strings.NewReader(s.Stdout))
	d.UseNumber()
	var data map[string]any
	if err := d.Decode(&data); err != nil {
		return
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return
	}
	for k, v := range data {
		data[k] = result.Plain(v)
	}
	s.Data = data
}

// probeResult reads a probe's standard output, which the guest could have
// written otherwise than labprobe does.
func probeResult(s *result.Step, probe string) error {
	bad := func(why string) error {
		return fmt.Errorf("step %s: probe %s: its result is no result: %s", s.ID, probe, text.Line(why, 300))
	}
	var p wire.ProbeResult
	d := json.NewDecoder(strings.NewReader(s.Stdout))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		return bad(err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad("bytes after the document")
	}
	if p.Probe != probe || len(p.Tasks) == 0 || p.Tasks[0].Role != "self" {
		return bad("it does not name the probe and itself first")
	}
	for _, t := range p.Tasks {
		out := result.Task{Role: t.Role, Comm: t.Comm, PID: int64(t.PID), TID: int64(t.TID), TGID: int64(t.TGID), PPID: int64(t.PPID)}
		if t.Status != nil {
			out.Reaped, out.Status = true, int64(*t.Status)
		}
		if a := t.Asked; a != nil && !a.Unknown {
			out.Syscall, out.Flags, out.ExitSignal = a.Syscall, int64(a.Flags), int64(a.ExitSignal)
		}
		s.Tasks = append(s.Tasks, out)
	}
	s.Data = map[string]any{}
	for k, v := range p.Data {
		s.Data[k] = result.Plain(v)
	}
	s.Stdout = "" // it is all in the tasks and the data
	return nil
}

// bounded is a buffer that drops what goes beyond its bound, and says so once.
type bounded struct {
	bytes.Buffer
	max  int
	over bool
	full func()
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.max - b.Len()
	if len(p) <= room {
		return b.Buffer.Write(p)
	}
	b.Buffer.Write(p[:room])
	if !b.over && b.full != nil {
		b.full()
	}
	b.over = true
	return len(p), nil
}
