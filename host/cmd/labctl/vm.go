package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"labctl/host/machine"
	"labctl/host/outcome"
	"labctl/host/registry"
	"labctl/host/targets"
	"labctl/host/vm/warm"
)

func (a *app) vmCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "vm",
		Short: "List running machines, and manage warm-start templates",
		Long: `vm ls lists the machines that run, those of boot, exec, trace and labs included, and
the templates that machines start from.

A machine is booted once and saved as a template; later starts restore it in a
fifth of a second instead of booting for seconds. Each start has its own copy of
the memory, the correct time and its own random numbers. --cold boots the kernel
instead.`,
		Args: cobra.ArbitraryArgs,
		RunE: needSubcommand,
	}
	c.AddCommand(a.vmLs(), a.vmSave(), a.vmRm(), a.vmWarm(), a.vmGC())
	return c
}

func (a *app) vmLs() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List running machines, and templates, most recently used first",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			running, err := registry.List(c.Context())
			if err != nil {
				return err
			}
			store, err := warm.Open("", 0)
			if err != nil {
				return err
			}
			all, err := store.List()
			if err != nil {
				return err
			}
			checkpoints, err := warm.OpenCheckpoints()
			if err != nil {
				return err
			}
			saved, err := checkpoints.List()
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(struct {
					Machines    []registry.Info    `json:"machines"`
					Checkpoints []*warm.Checkpoint `json:"checkpoints"`
					Templates   []*warm.Template   `json:"templates"`
				}{running, saved, append([]*warm.Template{}, all...)})
			}
			if err := errors.Join(a.listRunning(running), a.listSaved(saved)); err != nil {
				return err
			}
			w := a.table("MACHINE", "KERNEL", "CPUS", "MEMORY", "COMMANDS", "DISK", "BOOT", "STARTS", "MADE", "USED", "KEY")
			w.Columns[10].Wrap = false // a key is one word
			var sum int64
			for _, t := range all {
				sum += t.Disk
				commands := "no"
				if t.Commands {
					commands = "yes"
				}
				w.Row(t.Target, t.Kernel, t.CPUs, fmt.Sprintf("%d MB", t.MemoryMB), commands, fmt.Sprintf("%d MB", t.Disk>>20),
					fmt.Sprintf("%.1f s", t.BootSeconds), t.Hits, humanize.Time(t.Made), humanize.Time(t.Used), t.Key)
			}
			if err := w.Write(a.stdout); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%d templates, %d MB of at most %d MB\n", len(all), sum>>20, warm.DefaultLimit>>20)
			var never []string
			for _, t := range targets.All {
				if !t.Snapshot {
					never = append(never, t.Name)
				}
			}
			if len(never) > 0 {
				fmt.Fprintf(a.stdout, "always booted cold, because QEMU cannot restore them: %s\n", strings.Join(never, ", "))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// listRunning lists the machines that run.
func (a *app) listRunning(all []registry.Info) error {
	if len(all) == 0 {
		return nil
	}
	w := a.table("NAME", "MACHINE", "KERNEL", "CPUS", "MEMORY", "START", "UP", "IDLE", "PROGRAMS", "PID", "COMMAND")
	var troubled []registry.Info
	for _, i := range all {
		if i.Trouble != "" {
			troubled = append(troubled, i)
			continue
		}
		start, idle := "cold", "-"
		if i.Template != "" {
			start = "warm"
		}
		if i.Named {
			idle = span(i.Idle.Duration())
			if i.IdleLimit > 0 {
				idle += " of " + span(i.IdleLimit.Duration())
			}
		}
		w.Row(i.Name, i.Target, i.Kernel.Release, i.CPUs, fmt.Sprintf("%d MB", i.MemoryMB), start, span(time.Since(i.Started)), idle, i.Programs, i.PID, i.Run)
	}
	if len(troubled) < len(all) {
		if err := w.Write(a.stdout); err != nil {
			return err
		}
	}
	for _, i := range troubled {
		fmt.Fprintf(a.stdout, "%s: %s\n", i.Name, i.Trouble)
	}
	_, err := fmt.Fprintln(a.stdout)
	return err
}

// listSaved lists checkpoints.
func (a *app) listSaved(all []*warm.Checkpoint) error {
	if len(all) == 0 {
		return nil
	}
	w := a.table("CHECKPOINT", "MACHINE", "KERNEL", "CPUS", "MEMORY", "DISK", "MADE")
	for _, c := range all {
		w.Row(c.Name, c.Target, c.Kernel, c.CPUs, fmt.Sprintf("%d MB", c.MemoryMB), fmt.Sprintf("%d MB", c.Disk>>20), humanize.Time(c.Made))
	}
	if err := w.Write(a.stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.stdout)
	return err
}

// checkpointNames are for completion.
func checkpointNames() (names []string) {
	store, err := warm.OpenCheckpoints()
	if err != nil {
		return nil
	}
	all, _ := store.List() // none is none to complete
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

func (a *app) vmSave() *cobra.Command {
	return &cobra.Command{
		Use:   "save NAME AS",
		Short: "Save a running machine as it is now",
		Long: `Save a machine that runs, with all that is in its memory, as a checkpoint: up --from AS,
exec --from AS and others start from there as often as wished. The machine stands still
meanwhile and goes on. A checkpoint has what differs from the template that the machine
was started from; one of the same name is replaced.

Programs that ran are in the checkpoint, too, and go on when it is started; nobody
listens to them any more.`,
		Example:           "  labctl vm save lab before\n  labctl exec --from before -- ./prog",
		ValidArgsFunction: machineNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return outcome.Inputf("vm save: want the name of a machine, and one for the checkpoint")
			}
			if err := registry.CheckName(args[1]); err != nil {
				return err
			}
			m, err := registry.Find(c.Context(), args[0])
			if err != nil {
				return err
			}
			defer m.Close()
			start := time.Now()
			if err := m.Save(c.Context(), args[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s is saved as %s, in %.1f s\n", m.Name, args[1], time.Since(start).Seconds())
			return err
		},
	}
}

func (a *app) vmRm() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Remove checkpoints",
		Example: "  labctl vm rm before",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return checkpointNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return outcome.Inputf("vm rm: which checkpoint?")
			}
			store, err := warm.OpenCheckpoints()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := registry.CheckName(name); err != nil {
					return err
				}
				if err := store.Remove(name); err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "removed %s\n", name)
			}
			return nil
		},
	}
}

// span is a time to the second, or to the minute when it is long.
func span(d time.Duration) string {
	if d >= 10*time.Minute {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return d.Round(time.Second).String()
}

func (a *app) vmWarm() *cobra.Command {
	var spec machine.Spec
	c := &cobra.Command{
		Use:     "warm",
		Short:   "Create the template of a machine now",
		Example: "  labctl vm warm --arch arm64 --kernel 5.10\n  labctl vm warm --arch amd64 --commands",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			env, err := a.env()
			if err != nil {
				return err
			}
			// Probes require a kernel that supports tracing.
			spec.Features = []string{"trace"}
			m, err := machine.Prepare(c.Context(), env.Env, spec)
			if err != nil {
				return err
			}
			if !m.Warm() {
				return outcome.Inputf("vm warm: QEMU cannot restore %s; it is always booted cold", m.Target.Name)
			}
			start := time.Now()
			t, err := m.Template(c.Context(), env.Env)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s on %s: template %s, %d MB, in %.1f s\n", t.Kernel, t.Target, t.Key, t.Disk>>20, time.Since(start).Seconds())
			return nil
		},
	}
	machineFlags(c, &spec)
	c.Flags().Lookup("cold").Hidden = true
	c.Flags().BoolVar(&spec.Commands, "commands", false, "include the guest's commands, as for `labctl boot`; probes do not need them")
	return c
}

func (a *app) vmGC() *cobra.Command {
	var all bool
	var limit int64
	c := &cobra.Command{
		Use:     "gc",
		Short:   "Remove the least recently used templates",
		Example: "  labctl vm gc\n  labctl vm gc --limit 1024\n  labctl vm gc --all",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if limit < 0 {
				return outcome.Inputf("vm gc: --limit %d: want a number of MB", limit)
			}
			store, err := warm.Open("", 0)
			if err != nil {
				return err
			}
			if all {
				limit = 0
			}
			gone, err := store.GC(limit << 20)
			for _, t := range gone {
				fmt.Fprintf(a.stdout, "removed %s on %s (%d MB, last used %s)\n", t.Kernel, t.Target, t.Disk>>20, humanize.Time(t.Used))
			}
			return err
		},
	}
	c.Flags().BoolVar(&all, "all", false, "remove every template")
	c.Flags().Int64Var(&limit, "limit", warm.DefaultLimit>>20, "keep at most this many MB")
	return c
}
