// Package outside looks at a running guest's kernel from outside the guest: its tasks and
// their stacks, its structures, its log, its modules and its memory. The guest does not
// help, need not be well, and goes on running.
//
//	g, err := outside.Open(ctx, inspector, image, nil)
//	defer g.Close()
//	tasks, err := g.Tasks(ctx)
//	stack, err := tasks.Stack(tasks.Find(2))
//
// The packages below:
//
//	mmu     page tables of all architectures, as rows of data
//	kern    a running kernel: memory by virtual addresses, symbols, layouts, modules
//	unwind  stacks by frame records, ORC and the Arm EHABI
//	task    tasks and their stacks
//	value   typed values, printed
//	ring    the kernel's log
//	vma     memory areas of a process
//	page    an address through the page tables to its page frame
package outside

import (
	"context"
	"errors"

	"labctl/host/kernel"
	"labctl/host/outside/kern"
	"labctl/host/outside/task"
	"labctl/host/vm"
)

// Guest is a guest that is looked at.
type Guest struct {
	*kern.Kernel

	inspector vm.Inspector
	memory    *vm.Memory
}

// Open opens a guest's memory and finds its kernel there. known is as for kern.Open.
func Open(ctx context.Context, i vm.Inspector, image *kernel.Kernel, known *kern.Anchor) (*Guest, error) {
	memory, err := i.Memory(ctx)
	if err != nil {
		return nil, err
	}
	k, err := kern.Open(ctx, image, memory, known)
	if err != nil {
		memory.Close()
		return nil, err
	}
	return &Guest{Kernel: k, inspector: i, memory: memory}, nil
}

// Close closes the guest's memory.
func (g *Guest) Close() error { return g.memory.Close() }

// Slow says why the guest's memory is read slowly, and what would help; "" if it is not.
func (g *Guest) Slow() string { return g.memory.Slow }

// Node is the NUMA node that QEMU has a physical address on, false where there is no
// memory.
func (g *Guest) Node(phys uint64) (int, bool) { return g.memory.Node(phys) }

// CPUs reads the registers of all CPUs.
func (g *Guest) CPUs(ctx context.Context) ([]vm.CPU, error) {
	text, err := g.inspector.Registers(ctx)
	if err != nil {
		return nil, err
	}
	return vm.ParseRegisters(text), nil
}

// Tasks reads the tasks and the registers of the CPUs that run some of them.
func (g *Guest) Tasks(ctx context.Context) (*task.Tasks, error) {
	cpus, err := g.CPUs(ctx)
	if err != nil {
		return nil, err
	}
	return task.Read(g.Kernel, cpus)
}

// CPUTasks is Tasks, of a kernel without types what the CPUs run alone: their stacks need
// none everywhere.
func (g *Guest) CPUTasks(ctx context.Context) (*task.Tasks, error) {
	t, err := g.Tasks(ctx)
	var none *kern.NoTypesError
	if !errors.As(err, &none) {
		return t, err
	}
	cpus, err := g.CPUs(ctx)
	if err != nil {
		return nil, err
	}
	return task.Untyped(g.Kernel, cpus), nil
}

// Stopped calls f while the guest stands still, so that everything that f reads is of one
// moment.
func (g *Guest) Stopped(ctx context.Context, f func() error) error {
	cont, err := g.inspector.Stop(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(), cont())
}
