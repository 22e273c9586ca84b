package outside

import (
	"context"
	"fmt"
	"strings"
	"time"

	"labctl/host/kernel"
	"labctl/host/outside/kern"
	"labctl/host/outside/ring"
	"labctl/host/outside/task"
	"labctl/host/stack"
	"labctl/host/ui/table"
	"labctl/host/vm"
)

// between is the time between the two looks of an Autopsy: a task that sleeps and works
// runs at least once in a tick or two.
const between = 150 * time.Millisecond

// maxText limits the text of an Autopsy, in bytes.
const maxText = 4 << 20

// Autopsy looks at a guest that is about to be ended because it hangs: what each CPU runs,
// all tasks, and their stacks. Guilty names the task that keeps it from going on, if that
// can be told.
func Autopsy(ctx context.Context, i vm.Inspector, image *kernel.Kernel, known *kern.Anchor) (vm.Autopsy, error) {
	var a vm.Autopsy
	g, err := Open(ctx, i, image, known)
	if err != nil {
		return a, err
	}
	defer g.Close()
	// First, as the tasks of a kernel that is broken may be, too.
	if log, err := ring.Read(g.Look()); err == nil {
		a.Log = log.Kernel().String()
	}
	var first *task.Tasks
	err = settled(ctx, g, func(t *task.Tasks) { first = t })
	if err != nil {
		return a, err
	}
	select {
	case <-time.After(between):
	case <-ctx.Done():
		return a, context.Cause(ctx)
	}
	err = settled(ctx, g, func(t *task.Tasks) {
		a.Guilty, a.Panicked = task.Blame(first, t), t.Panicked()
		a.Text = report(image.String(), a.Guilty, t)
	})
	return a, err
}

// settled looks this often, with so much time between: a guest that is put back to work
// takes a timer's interrupt first.
const (
	looks = 20
	pause = 20 * time.Millisecond
)

// settled looks at the tasks, and hands them on while the guest stands still. It looks
// again when a CPU is just entering the kernel: what an interrupt has stopped there is in
// no register that QEMU prints, and not on the stack yet.
func settled(ctx context.Context, g *Guest, use func(*task.Tasks)) error {
	for n := 1; ; n++ {
		entering := false
		err := g.Stopped(ctx, func() error {
			t, err := g.Tasks(ctx)
			if err != nil {
				return err
			}
			for _, c := range t.CPUs {
				entering = entering || t.Entering(c)
			}
			if entering = entering && n < looks && ctx.Err() == nil; !entering {
				t.KeepRunning()
				use(t)
			}
			return nil
		})
		if err != nil || !entering {
			return err
		}
		time.Sleep(pause)
	}
}

// report is the text of tasks.txt.
func report(kernel, guilty string, tasks *task.Tasks) string {
	style := stack.Styles[0]
	var b strings.Builder
	fmt.Fprintf(&b, "%d tasks of kernel %s, read from its memory\n", len(tasks.List), kernel)
	if tasks.Torn != "" {
		fmt.Fprintf(&b, "the list is not whole: %s\n", tasks.Torn)
	}
	if guilty != "" {
		fmt.Fprintf(&b, "what it waits for: %s\n", guilty)
	}
	b.WriteString("\n== what the CPUs run\n\n")
	if err := tasks.WriteCPUs(&b, style); err != nil {
		fmt.Fprintf(&b, "%v\n", err)
	}
	b.WriteString("\n== tasks\n\n")
	w := table.New(0, task.Columns...)
	for _, one := range tasks.ByTID() {
		w.Row(one.Row()...)
	}
	_ = w.Write(&b) // to memory
	b.WriteString("\n== stacks\n")
	for _, one := range tasks.ByTID() {
		if b.Len() > maxText {
			b.WriteString("\nand so on\n")
			break
		}
		b.WriteString("\n")
		if err := tasks.WriteStack(&b, one, style); err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			break
		}
	}
	return b.String()
}
