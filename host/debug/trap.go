package debug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"labctl/host/outside"
	"labctl/host/vm"
	"labctl/host/vm/gdb"
)

// Trap stops a guest at functions without anybody at a prompt:
//
//	t, err := debug.Set(ctx, inspector, guest, functions)   // the guest stands still
//	err = t.Run(ctx, func(ctx context.Context, h debug.Hit) (bool, error) { …; return true, nil })
//
// It has the guest's gdbstub until Run has returned.
type Trap struct {
	// Missing says, for each list that was given to Set, why it is nowhere; nil where it is.
	Missing []error

	s     *Session
	names []string
	addrs [][]uint64
}

// Hit is a CPU that has come to a function, at its first instruction.
type Hit struct {
	Lists    []int  // that were given to Set and mean it
	Function string // as the kernel calls it
	CPU      int
	Task     uint64   // address of the task_struct of the task that the CPU runs
	TID      int      // its number
	Args     []uint64 // what the registers for arguments have
}

// Set has a guest stop at the first that the kernel has of each list of functions, by any
// of their names. The guest stands still until Run, which must follow when there is no
// error: also where none is found.
func Set(ctx context.Context, i vm.Inspector, g *outside.Guest, functions [][]string) (t *Trap, err error) {
	s, err := Open(ctx, i, g, Options{Out: io.Discard})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	t = &Trap{s: s}
	for _, names := range functions {
		var name string
		var addrs []uint64
		for _, n := range names {
			if name, addrs, err = s.resolve(n); err == nil {
				break
			}
		}
		t.Missing, t.names, t.addrs = append(t.Missing, err), append(t.names, name), append(t.addrs, addrs)
		err = nil
	}
	return t, nil
}

// Run lets the guest run, and calls f at each hit, while the guest stands still, until f
// reports that it has seen enough, or ctx ends, which is no error. Then the guest runs on.
func (t *Trap) Run(ctx context.Context, f func(context.Context, Hit) (done bool, err error)) error {
	// A hit is handled to its end, also when ctx ends meanwhile.
	kept := context.WithoutCancel(ctx)
	reached := func(context.Context) (bool, error) {
		h, err := t.hit(kept)
		if err != nil {
			return true, err
		}
		return f(kept, h)
	}
	all := slices.Concat(t.addrs...)
	slices.Sort(all)
	all = slices.Compact(all)
	var err error
	if len(all) > 0 {
		err = t.s.run(ctx, &goal{addrs: all, reached: reached})
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		// It was stopped because of that, perhaps where it was to stop anyhow.
		if err = nil; slices.Contains(all, t.s.place.pc) {
			_, err = reached(ctx)
		}
	}
	if errors.Is(err, gdb.ErrEnded) {
		t.s.ended = true
	}
	if cerr := t.s.Close(); !t.s.ended {
		err = errors.Join(err, cerr)
	}
	return err
}

// hit describes where the guest stands.
func (t *Trap) hit(ctx context.Context) (Hit, error) {
	p := t.s.place
	who, err := p.task(ctx)
	if err != nil {
		return Hit{}, fmt.Errorf("the task that comes to a function: %w", err)
	}
	h := Hit{CPU: p.cpu, Task: who.addr, TID: who.tid}
	for i, addrs := range t.addrs {
		if slices.Contains(addrs, p.pc) {
			h.Lists, h.Function = append(h.Lists, i), t.names[i]
		}
	}
	for _, reg := range t.s.row.args {
		h.Args = append(h.Args, p.regs[reg])
	}
	return h, nil
}
