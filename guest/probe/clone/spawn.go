package clone

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"labctl/guest/probe"
	"labctl/guest/wire"
)

// maxAnswer bounds what the child may print, in bytes.
const maxAnswer = 64 << 10

// spawn runs the probe "ids" in a second process of the same program.
func spawn(ctx context.Context, params json.RawMessage) (*wire.ProbeResult, error) {
	if err := probe.Params(params, &struct{}{}); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := probe.Self()

	answer, childOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	proc, err := os.StartProcess("/proc/self/exe", []string{"labprobe", "ids"}, &os.ProcAttr{Files: []*os.File{nil, childOut, os.Stderr}})
	childOut.Close()
	if err != nil {
		return nil, fmt.Errorf("start /proc/self/exe: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { proc.Kill() })
	defer stop()
	text, readErr := io.ReadAll(io.LimitReader(answer, maxAnswer))
	answer.Close() // a child that prints more takes SIGPIPE, and Wait ends
	state, err := proc.Wait()
	if err != nil {
		return nil, fmt.Errorf("wait for process %d: %w", proc.Pid, err)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("process %d: %w", proc.Pid, context.Cause(ctx))
	}
	if readErr != nil {
		return nil, fmt.Errorf("read the answer of process %d: %w", proc.Pid, readErr)
	}
	var ids wire.ProbeResult
	if err := json.Unmarshal(text, &ids); err != nil || len(ids.Tasks) != 1 {
		return nil, fmt.Errorf("process %d (%v) printed %.80q, not the ids of one task", proc.Pid, state, text)
	}
	task := ids.Tasks[0]
	task.Role = "child"
	task.Asked = &wire.Asked{Syscall: "os.StartProcess", Unknown: true}
	raw := int(state.Sys().(syscall.WaitStatus))
	task.Status = &raw
	return &wire.ProbeResult{
		Probe:  "spawn",
		Method: "os.StartProcess of /proc/self/exe, wait",
		Tasks:  []wire.Task{self, task},
		Data: map[string]any{
			"returned": proc.Pid,
			"note":     "Go's os package first clones once to try pidfds (flags 0x5100, exit signal 0), then for real; the runtime may add threads",
		},
	}, nil
}
