package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"labctl/guest/wire"
	"labctl/host/text"
)

// Limits on a sleeping task: bytes of its line and frames of its stack.
const (
	maxSleeper = 64 << 10
	maxFrames  = 256
)

// Sleepers returns at most max sleeping tasks of the guest with their kernel stacks.
// Texts are the kernel's, cleaned, each one line.
func (c *Client) Sleepers(ctx context.Context, max int) ([]wire.Sleeper, wire.Slept, error) {
	var done wire.Slept
	r, w := io.Pipe()
	type result struct {
		tasks []wire.Sleeper
		err   error
	}
	read := make(chan result, 1)
	go func() {
		tasks, err := readSleepers(r, max)
		r.CloseWithError(err) // the rest is dropped
		read <- result{tasks, err}
	}()
	err := c.do(ctx, wire.OpSleepers, wire.SleepersParams{Max: max}, &done, (*Call).Extra, w)
	w.Close()
	got := <-read
	if got.err != nil {
		return got.tasks, done, got.err
	}
	return got.tasks, done, err
}

// readSleepers reads JSON documents, one per line.
func readSleepers(r io.Reader, max int) (tasks []wire.Sleeper, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxSleeper)
	for s.Scan() {
		t, err := wire.Decode[wire.Sleeper](s.Bytes())
		if err != nil {
			return tasks, nonsense(fmt.Errorf("guest: sleepers: %w", err))
		}
		if len(tasks) == max || len(t.Stack) > maxFrames {
			return tasks, nonsense(errors.New("guest: sleepers: more than requested"))
		}
		for _, field := range []*string{&t.Comm, &t.State, &t.Wchan, &t.Syscall} {
			*field = text.Line(*field, 256)
		}
		for i := range t.Stack {
			t.Stack[i] = text.Line(t.Stack[i], 256)
		}
		tasks = append(tasks, t)
	}
	if err := s.Err(); err != nil {
		return tasks, nonsense(fmt.Errorf("guest: sleepers: %w", err))
	}
	return tasks, nil
}
