package main

import (
	"path"
	"path/filepath"

	"labctl/guest/wire"
	"labctl/host/image/program"
	"labctl/host/kernel"
	"labctl/host/record"
	"labctl/host/trace"
	"labctl/host/trace/plan"
	"labctl/host/vm"
)

// onlyScript says that nothing beside --script asks for something to be traced, or
// for another buffer than the script's.
func (o *traceOptions) onlyScript() bool {
	r := o.request
	return r.Empty() && len(o.presets)+len(o.events) == 0 && !r.Stacks && !r.PIDOnly && !r.Overwrite && o.bufferKB == 0 && r.Clock == ""
}

// setScript has a script run before the program, or alone.
func (r *traceRun) setScript(script *program.Program, alone bool) error {
	t := r.run.Trace
	t.Script = &record.Script{Name: filepath.Base(r.o.script)}
	if alone {
		r.script = r.job
		r.job.params.Argv, t.Argv = trace.ScriptCommand(script.Argv0), []string{t.Script.Name}
		return nil
	}
	// The program may be called the same.
	script.Argv0 = path.Join(path.Dir(script.Argv0), "script", path.Base(script.Argv0))
	command := trace.ScriptCommand(script.Argv0)
	r.script = &job{name: r.o.script, noInput: true, params: wire.ExecParams{Argv: command, Dir: r.job.params.Dir, Env: r.job.params.Env}}
	return r.job.bundle.AddProgram(script)
}

// runScript runs the script and plans the recording of what it has armed. failed
// is why it did not come to its end.
func (r *traceRun) runScript(v *vm.VM, k *kernel.Kernel) (p *plan.Plan, failed, err error) {
	t := r.run.Trace
	failed = trace.Script(v.Context(), v, t.Script, func() (wire.ExecResult, error) {
		ctx, cancel := r.limit.of(v.Context(), v.Patient(traceGrace))
		defer cancel(nil)
		stdout, stderr := r.streams()
		return r.a.runSent(ctx, v, r.script, r.signals, stdout, stderr)
	})
	if failed != nil && v.Context().Err() != nil {
		return nil, nil, failed
	}
	look, err := trace.Look(v.Context(), v, k, plan.Request{})
	if err != nil {
		return nil, nil, err
	}
	if p, err = plan.Scripted(t.Script.Names, look); err != nil {
		return nil, nil, err
	}
	p.Params.Max = r.request.Max
	p.Params.Hold = r.request.Hold
	if r.script == r.job {
		// It has recorded what it was to record: all is in the buffers.
		p.Params.Hold, p.Params.Probes, p.Params.Events = true, nil, nil
	}
	return p, failed, nil
}
