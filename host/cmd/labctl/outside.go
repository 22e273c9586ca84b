package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/machine"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/outside/kern"
	"labctl/host/outside/ring"
	"labctl/host/outside/task"
	"labctl/host/registry"
	"labctl/host/session"
	"labctl/host/stack"
)

// outsideFlags are those of commands that look at a running machine from outside.
type outsideFlags struct {
	in        string
	stop      bool
	json      bool
	debuginfo string
}

const stopUsage = "stop the guest meanwhile, so that everything is of one moment"

func (o *outsideFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.in, "in", "", "the running machine (default: the only one)")
	f.BoolVar(&o.stop, "stop", false, stopUsage)
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringVar(&o.debuginfo, "debuginfo", "", "vmlinux with BTF or DWARF of a kernel that was built without BTF")
}

// name takes a machine's name as an argument, too.
func (o *outsideFlags) name(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if o.in != "" && o.in != args[0] {
		return outcome.Inputf("two machines are named: %s and --in %s", args[0], o.in)
	}
	o.in = args[0]
	return nil
}

// look opens the guest of a running machine and calls f.
func (a *app) look(ctx context.Context, o outsideFlags, f func(g *outside.Guest) error) error {
	m, err := registry.Find(ctx, o.in)
	if err != nil {
		return err
	}
	defer m.Close()
	g, err := a.guest(ctx, m, o.debuginfo)
	if err != nil {
		return err
	}
	defer g.Close()
	if o.stop {
		return g.Stopped(ctx, func() error { return f(g) })
	}
	return f(g)
}

// guest finds the kernel of a running machine.
func (a *app) guest(ctx context.Context, m *registry.Machine, debuginfo string) (*outside.Guest, error) {
	env, err := a.env()
	if err != nil {
		return nil, err
	}
	return machine.Outside(ctx, env.Env, m, debuginfo)
}

// ownGuest is the guest of a session's own machine.
func (a *app) ownGuest(ctx context.Context, s *session.Session) (*outside.Guest, error) {
	g, err := outside.Open(ctx, s.VM, s.Machine.Kernel, nil)
	if err == nil && g.Slow() != "" {
		a.say(g.Slow())
	}
	return g, err
}

// torn says on standard error that what was read did not fit together.
func (a *app) torn(what string, o outsideFlags) {
	if what == "" {
		return
	}
	advice := "; --stop stops the guest meanwhile"
	if o.stop {
		advice = ", though the guest stands still: it is damaged"
	}
	a.report(outcome.Inputf("%s%s", what, advice))
}

func (a *app) psCmd() *cobra.Command {
	var o outsideFlags
	var tree, watch bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "ps [NAME]",
		Short: "List the tasks of a running machine from outside",
		Long: `List the tasks of a running machine, read from its memory: the guest does not help,
and goes on running. A "+" marks the tasks that CPUs run. PID is the process, which
the kernel calls TGID, TID the thread, which it calls pid. STACK is how much of its kernel stack a
sleeping task uses, in bytes. Kernel threads are in brackets.`,
		Example: `  labctl ps lab
  labctl ps lab -H
  labctl ps lab --watch
  labctl ps lab --stop --json`,
		Args: atMostOne("a machine's name"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.name(args); err != nil {
				return err
			}
			show := func(g *outside.Guest) error { return a.ps(c.Context(), o, g, tree) }
			if watch {
				return a.watch(c.Context(), o, every, show)
			}
			return a.look(c.Context(), o, show)
		},
	}
	o.flags(c)
	f := c.Flags()
	f.BoolVarP(&tree, "tree", "H", false, "show which task created which")
	f.BoolVar(&watch, "watch", false, "list again and again, in place on a terminal, until Ctrl-C")
	f.DurationVar(&every, "every", time.Second, "how often --watch lists")
	return c
}

func (a *app) ps(ctx context.Context, o outsideFlags, g *outside.Guest, tree bool) error {
	tasks, err := task.Read(g.Kernel, nil)
	if err != nil {
		return err
	}
	defer a.torn(tasks.Torn, o)
	if o.json {
		return a.printJSON(tasks.List)
	}
	w := a.table(task.Columns...)
	for i := range w.Columns {
		w.Columns[i].Right = i < 4 || i == 5 || i == 7 || i == 8
	}
	if tree {
		order, depth := tasks.Tree()
		for i, one := range order {
			row := one.Row()
			row[len(row)-1] = one.TreeName(depth[i])
			w.Row(row...)
		}
		return w.Write(a.stdout)
	}
	for _, one := range tasks.ByTID() {
		w.Row(one.Row()...)
	}
	return w.Write(a.stdout)
}

// watch calls show again and again, and clears the terminal in between.
func (a *app) watch(ctx context.Context, o outsideFlags, every time.Duration, show func(*outside.Guest) error) error {
	if every < 100*time.Millisecond {
		return outcome.Inputf("--every %v: want at least 100ms", every)
	}
	stopped := o.stop
	o.stop = false // each listing by itself
	return a.look(ctx, o, func(g *outside.Guest) error {
		for {
			if isTerminal(a.stdout) {
				fmt.Fprint(a.stdout, "\x1b[H\x1b[2J")
			}
			one := func() error { return show(g) }
			var err error
			if stopped {
				err = g.Stopped(ctx, one)
			} else {
				err = one()
			}
			if err != nil {
				return err
			}
			select {
			case <-time.After(every):
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func (a *app) stackCmd() *cobra.Command {
	var o outsideFlags
	var all bool
	var style string
	c := &cobra.Command{
		Use:   "stack [NAME] [TID | --all]",
		Short: "Show kernel stacks of a running machine from outside",
		Long: `Show the kernel stack of a task, or of all with --all, read from the memory of a
running machine. Without either the stacks of what the CPUs run are shown. A task that
does not run is unwound from where it stopped, one that runs by its CPU's registers: by
ORC tables, frame records or the tables of the Arm EHABI, as the kernel itself does.`,
		Example: `  labctl stack lab 2
  labctl stack lab --all --stop
  labctl stack lab --style crash
  labctl stack 1 --json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 2 {
				return outcome.Inputf("%s takes a machine's name and a task's number, got %q", c.CommandPath(), strings.Join(args, " "))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			tid := -1
			if n := len(args); n > 0 {
				if v, err := strconv.Atoi(args[n-1]); err == nil || n == 2 {
					if err != nil || v < 0 {
						return outcome.Inputf("task %q: want a number, as labctl ps shows it", args[n-1])
					}
					tid, args = v, args[:n-1]
				}
			}
			if err := o.name(args); err != nil {
				return err
			}
			if all && tid >= 0 {
				return outcome.Inputf("--all and task %d: choose one", tid)
			}
			st, ok := stack.FindStyle(style)
			if !ok && style != "json" {
				return nearest.Unknown("--style", style, styleNames())
			}
			o.json = o.json || style == "json"
			return a.look(c.Context(), o, func(g *outside.Guest) error { return a.stacks(c.Context(), o, g, tid, all, st) })
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&all, "all", false, "of all tasks")
	c.Flags().StringVar(&style, "style", "trace32", "form: "+strings.Join(styleNames(), ", "))
	return c
}

func styleNames() (names []string) {
	for _, s := range stack.Styles {
		names = append(names, s.Name)
	}
	return append(names, "json")
}

// taskStack is a task with its stack, in JSON.
type taskStack struct {
	*task.Task
	CPU   int         `json:"cpu"`
	Stack stack.Stack `json:"stack"`
}

func (a *app) stacks(ctx context.Context, o outsideFlags, g *outside.Guest, tid int, all bool, style stack.Style) error {
	read := g.Tasks
	if !all && tid < 0 {
		read = g.CPUTasks
	}
	tasks, err := read(ctx)
	if err != nil {
		return err
	}
	defer a.torn(tasks.Torn, o)
	var chosen []*task.Task
	switch {
	case all:
		chosen = tasks.ByTID()
	case tid >= 0:
		one := tasks.Find(tid)
		if one == nil {
			return outcome.Inputf("there is no task %d (labctl ps lists them)", tid)
		}
		chosen = []*task.Task{one}
	case !o.json:
		return tasks.WriteCPUs(a.stdout, style)
	}
	if !o.json {
		for i, one := range chosen {
			if i > 0 {
				fmt.Fprintln(a.stdout)
			}
			if err := tasks.WriteStack(a.stdout, one, style); err != nil {
				return err
			}
		}
		return nil
	}
	out := []taskStack{}
	for _, one := range chosen {
		s, err := tasks.Stack(one)
		if err != nil {
			return err
		}
		out = append(out, taskStack{one, one.CPU, s})
	}
	if chosen == nil {
		for _, c := range tasks.CPUs {
			s, err := tasks.CPUStack(c.ID)
			if err != nil {
				return err
			}
			out = append(out, taskStack{tasks.Current(c.ID), c.ID, s})
		}
	}
	return a.printJSON(out)
}

func (a *app) dmesgCmd() *cobra.Command {
	var o outsideFlags
	c := &cobra.Command{
		Use:   "dmesg [NAME]",
		Short: "Print the kernel's log of a running machine from outside",
		Long: `Print the kernel's log, read from its ring buffer in the memory of a running machine:
also of one that answers no more, and what never reached the console.`,
		Example: "  labctl dmesg lab\n  labctl dmesg lab --json",
		Args:    atMostOne("a machine's name"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.name(args); err != nil {
				return err
			}
			return a.look(c.Context(), o, func(g *outside.Guest) error {
				log, err := ring.Read(g.Look())
				if err != nil {
					return err
				}
				if log.Lost > 0 {
					a.torn(fmt.Sprintf("%d records of the log could not be read", log.Lost), o)
				}
				if o.json {
					return a.printJSON(log.Records)
				}
				_, err = log.WriteTo(a.stdout)
				return err
			})
		},
	}
	o.flags(c)
	return c
}

func (a *app) modulesCmd() *cobra.Command {
	var o outsideFlags
	c := &cobra.Command{
		Use:     "modules [NAME]",
		Short:   "List the loaded modules of a running machine from outside",
		Example: "  labctl modules lab",
		Args:    atMostOne("a machine's name"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.name(args); err != nil {
				return err
			}
			return a.look(c.Context(), o, func(g *outside.Guest) error {
				mods, err := g.Look().Modules()
				if err != nil {
					return err
				}
				if o.json {
					if mods == nil {
						mods = []*kern.Module{}
					}
					return a.printJSON(mods)
				}
				w := a.table("MODULE", "SIZE", "USED", "BY", "STATE", "ADDRESS")
				w.Columns[1].Right, w.Columns[2].Right = true, true
				for _, m := range mods {
					start := uint64(0)
					if len(m.Ranges) > 0 {
						start = m.Ranges[0].Start
					}
					w.Row(m.Name, m.Size, m.Refs, strings.Join(m.Users, ","), m.State, fmt.Sprintf("0x%x", start))
				}
				return w.Write(a.stdout)
			})
		},
	}
	o.flags(c)
	return c
}
