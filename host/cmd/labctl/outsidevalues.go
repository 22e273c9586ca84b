package main

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/outside/kern"
	"labctl/host/outside/page"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/outside/vma"
	"labctl/host/stack"
)

// structFlags say where a structure is.
type structFlags struct {
	outsideFlags
	at     string
	tid    int
	symbol string
	cpu    int
	list   string
}

func (a *app) structCmd() *cobra.Command {
	var o structFlags
	c := &cobra.Command{
		Use:   "struct TYPE [MEMBER…]",
		Short: "Print a structure in the memory of a running machine",
		Long: `Print a structure, or some of its members, in the memory of a running machine. Types
come from the kernel's BTF: enums are printed by name, pointers to functions by symbol,
characters as strings. A member may be a path: thread.sp, real_parent.comm,
cpus_mask.bits[0]; pointers on it are followed.

The structure is at an address (--at), it is the task_struct of a task (--pid), or a
variable of the kernel's (--symbol; of a CPU's own ones, with --cpu). --list MEMBER walks
the list that runs through that member, and prints each structure in it.`,
		Example: `  labctl struct task_struct comm pid tgid stack thread_info --pid 2
  labctl struct task_struct pid comm --symbol init_task --list tasks
  labctl struct rq nr_running curr.comm --symbol runqueues --cpu 1
  labctl struct module name --symbol modules --list list
  labctl struct mm_struct --at 0xffff888003a88000`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return outcome.Inputf("which structure? write labctl struct TYPE [MEMBER…] --pid N, --symbol S or --at ADDR")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			// The keyword may be a word of its own: struct struct task_struct.
			if len(args) > 1 && (args[0] == "struct" || args[0] == "union") {
				args = append([]string{args[0] + " " + args[1]}, args[2:]...)
			}
			return a.look(c.Context(), o.outsideFlags, func(g *outside.Guest) error { return a.structs(o, g, args[0], args[1:]) })
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.at, "at", "", "address of the structure, or a symbol+offset")
	f.IntVar(&o.tid, "pid", 0, "number of a task, whose task_struct it is")
	f.StringVar(&o.symbol, "symbol", "", "variable that it is")
	f.IntVar(&o.cpu, "cpu", 0, "whose copy of a CPU's own variable")
	f.StringVar(&o.list, "list", "", "member through which a list runs that is to be walked")
	c.MarkFlagsMutuallyExclusive("at", "pid", "symbol")
	return c
}

func (a *app) structs(o structFlags, g *outside.Guest, name string, members []string) error {
	l := g.Look()
	mods, _ := l.Modules() // without them their functions are addresses
	r, err := value.New(l, l.Finder(mods))
	if err != nil {
		return err
	}
	typ, err := r.Type(name)
	if err != nil {
		return err
	}
	addr, head, err := o.where(l)
	if err != nil {
		return err
	}
	var addrs []uint64
	if o.list == "" {
		addrs = []uint64{addr}
	} else if addrs, err = r.List(typ, addr, o.list, head); err != nil {
		if len(addrs) == 0 {
			return err
		}
		a.torn(err.Error(), o.outsideFlags)
	}
	out := []value.Value{}
	for _, at := range addrs {
		if len(members) == 0 {
			out = append(out, r.At(typ, at))
			continue
		}
		v := value.Value{Type: r.At(typ, at).Type, Addr: at}
		for _, m := range members {
			one, err := r.Path(typ, at, m)
			if err != nil {
				return err
			}
			v.Members = append(v.Members, one)
		}
		out = append(out, v)
	}
	if len(out) == 1 {
		if why := out[0].Unread(); why != "" {
			return outcome.Inputf("%s at 0x%x: %s", out[0].Type, out[0].Addr, why)
		}
	}
	if o.json {
		return a.printJSON(out)
	}
	for _, v := range out {
		fmt.Fprintf(a.stdout, "%s at 0x%x = %s\n", v.Type, v.Addr, v)
	}
	return nil
}

// where returns the address that the flags say, and whether it is the head of a list
// rather than a structure in it.
func (o structFlags) where(l *kern.Look) (addr uint64, head bool, err error) {
	switch {
	case o.at != "":
		addr, err = l.ParseAddress(o.at)
		return addr, false, err
	case o.tid > 0:
		tasks, err := task.Read(l.K, nil)
		if err != nil {
			return 0, false, err
		}
		one := tasks.Find(o.tid)
		if one == nil {
			return 0, false, outcome.Inputf("there is no task %d (labctl ps lists them)", o.tid)
		}
		return one.Addr, false, nil
	case o.symbol != "":
		addr, err := l.Variable(o.symbol, o.cpu)
		return addr, kern.IsListHead(o.symbol), err
	}
	return 0, false, outcome.Inputf("where is it? give --pid N, --symbol NAME or --at ADDRESS")
}

func (a *app) mapsCmd() *cobra.Command {
	var o outsideFlags
	c := &cobra.Command{
		Use:     "maps PID",
		Short:   "List the memory areas of a process of a running machine from outside",
		Long:    "List the memory areas of a process in the form of /proc/PID/maps, read from the memory of\na running machine.",
		Example: "  labctl maps 1\n  labctl maps 140 --in lab",
		Args:    cobra.MatchAll(wantArgs(1, "a process's number")),
		RunE: func(c *cobra.Command, args []string) error {
			return a.lookAtTask(c.Context(), o, args[0], func(g *outside.Guest, one *task.Task) error {
				areas, torn, err := vma.Read(g.Look(), one.Addr)
				if err != nil {
					return fmt.Errorf("task %d, %s: %w", one.TID, one.Name(), err)
				}
				a.torn(torn, o)
				if o.json {
					return a.printJSON(areas)
				}
				for _, area := range areas {
					fmt.Fprintln(a.stdout, area)
				}
				return nil
			})
		},
	}
	o.flags(c)
	return c
}

// wantArgs is Args of a command that takes so many arguments.
func wantArgs(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return outcome.Inputf("%s takes %s, got %q", c.CommandPath(), what, strings.Join(args, " "))
		}
		return nil
	}
}

// lookAtTask is look with one task.
func (a *app) lookAtTask(ctx context.Context, o outsideFlags, tid string, f func(*outside.Guest, *task.Task) error) error {
	n, err := strconv.Atoi(tid)
	if err != nil || n < 0 {
		return outcome.Inputf("task %q: want a number, as labctl ps shows it", tid)
	}
	return a.look(ctx, o, func(g *outside.Guest) error {
		tasks, err := task.Read(g.Kernel, nil)
		if err != nil {
			return err
		}
		one := tasks.Find(n)
		if n == 0 {
			one = tasks.ByTID()[0]
		}
		if one == nil {
			return outcome.Inputf("there is no task %d (labctl ps lists them)", n)
		}
		return f(g, one)
	})
}

func (a *app) pteCmd() *cobra.Command {
	var o outsideFlags
	c := &cobra.Command{
		Use:   "pte PID ADDRESS",
		Short: "Follow an address of a running machine through its page tables",
		Long: `Follow an address of a process through the page tables: each level's entry with its bits
by name, the guest-physical address, and what the kernel keeps of the page frame: how
often it is used and mapped. With PID 0 the tables are the kernel's own; ADDRESS may be a
symbol then, or at any time.`,
		Example: "  labctl pte 1 0x400000\n  labctl pte 0 init_task --in lab",
		Args:    wantArgs(2, "a process's number and an address"),
		RunE: func(c *cobra.Command, args []string) error {
			show := func(g *outside.Guest, one *task.Task) error {
				l := g.Look()
				addr, err := l.ParseAddress(args[1])
				if err != nil {
					return err
				}
				table, err := page.Table(l, one.Addr, addr)
				if err != nil {
					return err
				}
				r, err := page.Walk(l, table, addr)
				if err != nil {
					return err
				}
				if o.json {
					return a.printJSON(r)
				}
				return a.printPTE(r, one)
			}
			if args[0] == "0" { // no task is needed, and a kernel without types has none
				return a.look(c.Context(), o, func(g *outside.Guest) error { return show(g, &task.Task{}) })
			}
			return a.lookAtTask(c.Context(), o, args[0], show)
		},
	}
	o.flags(c)
	return c
}

func (a *app) printPTE(r page.Result, one *task.Task) error {
	of := "the kernel"
	if one.Addr != 0 {
		of = fmt.Sprintf("%s, pid %d", one.Name(), one.PID)
	}
	fmt.Fprintf(a.stdout, "0x%x of %s; %s\n", r.Addr, of, r.Format)
	w := a.table("LEVEL", "INDEX", "AT", "ENTRY", "BITS")
	w.Columns[1].Right = true
	for _, e := range r.Entries {
		w.Row(e.Level, e.Index, fmt.Sprintf("0x%x", e.At), fmt.Sprintf("0x%016x", e.Entry), strings.Join(e.Flags, " "))
	}
	if err := w.Write(a.stdout); err != nil {
		return err
	}
	if !r.Mapped {
		fmt.Fprintln(a.stdout, r.Why)
		return nil
	}
	fmt.Fprintf(a.stdout, "physical 0x%x, in a page of %s\n", r.Phys, humanize.IBytes(r.Size))
	if r.Frame == nil {
		fmt.Fprintf(a.stdout, "its struct page is not known: %s\n", r.NoFrame)
		return nil
	}
	f := r.Frame
	fmt.Fprintf(a.stdout, "page frame 0x%x, struct page at 0x%x: refcount %d", f.PFN, f.Addr, f.RefCount)
	if f.Typed {
		fmt.Fprint(a.stdout, ", not counted by how often it is mapped")
	} else {
		fmt.Fprintf(a.stdout, ", mapcount %d", f.MapCount)
	}
	if f.Head != 0 {
		fmt.Fprintf(a.stdout, ", part of the compound page at 0x%x", f.Head)
	}
	fmt.Fprintf(a.stdout, "; %s\n", strings.Join(f.Flags, " "))
	return nil
}

// symbolRow is a symbol in a listing.
type symbolRow struct {
	Addr   string `json:"addr"`
	Type   string `json:"type"`
	Name   string `json:"name"`
	Module string `json:"module,omitempty"`
}

func (a *app) findSymbolCmd() *cobra.Command {
	var o outsideFlags
	c := &cobra.Command{
		Use:     "find-symbol PATTERN",
		Short:   "Find symbols of a running machine's kernel by name",
		Long:    "Find the symbols whose name matches a pattern of a shell, such as 'kernel_cl*', or, without\none of *?[, has the text in it. Addresses are those at which the kernel runs.",
		Example: "  labctl find-symbol kernel_clone\n  labctl find-symbol '*_fork' --in lab",
		Args:    wantArgs(1, "a pattern"),
		RunE: func(c *cobra.Command, args []string) error {
			pattern := args[0]
			if !strings.ContainsAny(pattern, "*?[") {
				pattern = "*" + pattern + "*"
			}
			if _, err := path.Match(pattern, ""); err != nil {
				return outcome.Inputf("pattern %q: %w", args[0], err)
			}
			return a.look(c.Context(), o, func(g *outside.Guest) error {
				rows := []symbolRow{}
				for s := range g.Look().AllSymbols() {
					if ok, _ := path.Match(pattern, s.Name); ok {
						rows = append(rows, symbolRow{fmt.Sprintf("0x%x", s.Addr), string(rune(s.Type)), stack.Sanitise(s.Name), s.Module})
					}
				}
				if o.json {
					return a.printJSON(rows)
				}
				if len(rows) == 0 {
					return outcome.Inputf("the kernel has no symbol %s%s", args[0], nearest.Hint(args[0], g.SymbolNames()))
				}
				w := a.table("ADDRESS", "TYPE", "NAME", "MODULE")
				for _, r := range rows {
					w.Row(r.Addr, r.Type, r.Name, r.Module)
				}
				return w.Write(a.stdout)
			})
		},
	}
	o.flags(c)
	return c
}

func (a *app) symbolCmd() *cobra.Command {
	var o outsideFlags
	c := &cobra.Command{
		Use:     "symbol ADDRESS",
		Short:   "Name what is at an address of a running machine's kernel",
		Example: "  labctl symbol 0xffffffff81095c40\n  labctl symbol kernel_clone+0x10",
		Args:    wantArgs(1, "an address"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.look(c.Context(), o, func(g *outside.Guest) error {
				l := g.Look()
				addr, err := l.ParseAddress(args[0])
				if err != nil {
					return err
				}
				mods, _ := l.Modules() // without them an address of theirs has no name
				s, ok := l.Finder(mods)(addr)
				if o.json {
					return a.printJSON(struct {
						Addr   string `json:"addr"`
						Name   string `json:"name"`
						Module string `json:"module,omitempty"`
						Offset uint64 `json:"offset"`
						Size   uint64 `json:"size"`
						Known  bool   `json:"known"`
					}{fmt.Sprintf("0x%x", addr), stack.Sanitise(s.Name), s.Module, addr - s.Start, s.Size, ok})
				}
				if !ok {
					return outcome.Inputf("0x%x is in no symbol of the kernel or of its modules", addr)
				}
				f := stack.At(l.Finder(mods), addr, true)
				fmt.Fprintf(a.stdout, "0x%x %s\n", addr, f)
				return nil
			})
		},
	}
	o.flags(c)
	return c
}
