package trace

import (
	"bytes"
	"context"
	"fmt"

	"labctl/guest/wire"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/trace/plan"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// scriptLog is where the guest's shell reports a script's names, and the most
// that is read of it, in bytes.
const (
	scriptLog    = "/run/labctl/script.jsonl"
	maxScriptLog = 4 << 20
)

// ScriptCommand is how the guest runs a script, by its path there, that was written
// for the tracefs of another kernel.
func ScriptCommand(script string) []string {
	return []string{"/labctl/sh", "--trace-compat", "--trace-log", scriptLog, script}
}

// Script has run run a ScriptCommand and puts what came of it into s. What the
// script leaves armed is there to be recorded, after an error of its own, too.
func Script(ctx context.Context, v *vm.VM, s *record.Script, run func() (wire.ExecResult, error)) error {
	// Scripts take names of tasks for granted. Neither setting is taken back:
	// the guest ends with the run.
	const prepare = "echo 4096 >saved_cmdlines_size; echo 1 >options/record-tgid"
	if _, err := v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/sh", "-c", prepare}, Dir: v.Hello().Tracefs}, agent.IO{}); err != nil {
		return fmt.Errorf("prepare tracefs for the script: %w", err)
	}
	exit, perr := run()
	if perr == nil {
		s.Exit = &exit
	}
	var log bytes.Buffer
	if rerr := v.Agent().ReadFile(ctx, scriptLog, maxScriptLog, &log); rerr != nil {
		if perr == nil {
			perr = fmt.Errorf("read what became of the script's names: %w", rerr)
		}
		return perr
	}
	var err error
	if s.Names, err = plan.ParseScriptLog(log.Bytes()); err != nil {
		s.Unread = text.Line(err.Error(), 400)
	}
	return perr
}
