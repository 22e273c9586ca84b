package trace

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"labctl/guest/wire"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/vm/agent"
)

// Bounds of what is kept.
const (
	maxSleepers   = 4096 // tasks of one look
	maxPlaces     = 2000
	maxPlaceTasks = 20
)

// places collects where tasks sleep.
type places struct {
	samples int
	moved   int64
	list    []record.Place
	at      map[string]int
}

// look takes one sample of all tasks.
func (p *places) look(ctx context.Context, c *agent.Client) error {
	tasks, _, err := c.Sleepers(ctx, maxSleepers)
	for i := range tasks {
		p.add(&tasks[i])
	}
	p.samples++
	return err
}

func (p *places) add(t *wire.Sleeper) {
	if t.Moved {
		p.moved++
	}
	var st stack.Stack
	st.Origin = "/proc/PID/stack"
	for _, line := range t.Stack {
		if f, ok := stack.ParseFrame(line); ok {
			st.Frames = append(st.Frames, f)
		}
	}
	st.Classify()
	if len(st.Frames) == 0 {
		return // it runs, or its kernel tells no stacks
	}
	state := stack.Sanitise(t.State)
	if len(state) > 2 {
		state = state[:2]
	}
	var key strings.Builder
	fmt.Fprintf(&key, "%s %v", state, t.Kernel)
	for _, f := range st.Frames {
		key.WriteString(" " + f.Base())
	}
	i, ok := p.at[key.String()]
	if !ok {
		if len(p.list) == maxPlaces {
			return
		}
		if p.at == nil {
			p.at = map[string]int{}
		}
		i = len(p.list)
		p.at[key.String()] = i
		p.list = append(p.list, record.Place{State: state, Kernel: t.Kernel, Stack: st})
	}
	place := &p.list[i]
	place.Count++
	task := creation.Task{TID: t.TID, Comm: t.Comm}
	if len(place.Tasks) < maxPlaceTasks && !slices.Contains(place.Tasks, task) {
		place.Tasks = append(place.Tasks, task)
	}
}

// sleepers returns the places of programs first, the most seen ahead.
func (p *places) sleepers() *record.Sleepers {
	slices.SortStableFunc(p.list, func(a, b record.Place) int {
		switch {
		case a.Kernel != b.Kernel && b.Kernel:
			return -1
		case a.Kernel != b.Kernel:
			return 1
		}
		return int(b.Count - a.Count)
	})
	return &record.Sleepers{Samples: p.samples, Places: p.list, Moved: p.moved}
}
