package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/machine"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/page"
	"labctl/host/record"
	"labctl/host/session"
	"labctl/host/targets"
	"labctl/host/ui/progress"
	"labctl/host/ui/table"
)

// version is set by the Makefile.
var version string

func versionString() string {
	if version != "" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}

// app is what commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	progress progress.Line
	// runsProgram says that the exit status is a guest program's (see
	// programCommand).
	runsProgram bool
	// labs is where the command's labs are, by which pages of its runs are made.
	labs *labFlags
}

func (a *app) root() *cobra.Command {
	a.progress.W, a.progress.Terminal = a.stderr, isTerminal(a.stderr)
	root := &cobra.Command{
		Use:   "labctl",
		Short: "Boot real kernels in QEMU and see how they create tasks",
		Long: `labctl boots a real Linux kernel in QEMU, with no KVM and no hardware, runs
probes in it that create processes, threads and kernel threads, and shows the
kernel's own call stacks of their creation, printed the way TRACE32 prints them.

Exit status: 0 all checks hold; 1 a check fails; 2 usage or bad input; 3 this
host lacks something; 4 the guest crashed, or its kernel reported an oops; 5
deadline; 70 a defect of labctl; 128+N ended by signal N.
boot and exec pass a program's own status on; see labctl exec --help.`,
		Example: `  labctl doctor
  labctl probe run fork --arch arm64
  labctl boot --arch arm64 --cmd 'cat /proc/version'
  labctl exec --arch arm64 -- ./cmd/x
  labctl boot --board raspi3b`,
		Version:           versionString(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE:              needSubcommand,
	}
	root.SetFlagErrorFunc(badFlag)
	root.PersistentFlags().BoolVarP(&a.progress.Quiet, "quiet", "q", false, "no progress on standard error")
	root.AddCommand(a.doctorCmd(), a.kernelCmd(), a.bootCmd(), a.execCmd(), a.traceCmd(), a.probeCmd(), a.upCmd(), a.shCmd(), a.downCmd(), a.vmCmd(), a.labCmd(), a.matrixCmd(), a.bisectCmd(), a.reportCmd(),
		a.psCmd(), a.stackCmd(), a.structCmd(), a.dmesgCmd(), a.modulesCmd(), a.mapsCmd(), a.pteCmd(), a.findSymbolCmd(), a.symbolCmd(), a.debugCmd(), a.gdbCmd(), a.serveCmd())
	return root
}

// needSubcommand is the RunE of commands that only hold others.
func needSubcommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var known []string
	for _, s := range c.Commands() {
		if s.IsAvailableCommand() {
			known = append(known, s.Name())
		}
	}
	return nearest.Unknown("command", args[0], known)
}

// noArgs refuses arguments in one line.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return outcome.Inputf("%s takes no arguments, got %q", c.CommandPath(), args[0])
	}
	return nil
}

// env opens the caches and wires progress to standard error.
func (a *app) env() (session.Env, error) {
	cache, err := kernel.Open("")
	if err != nil {
		return session.Env{}, outcome.Default(outcome.HostLacks, err)
	}
	cache.Say = a.warn
	return session.Env{
		Env:     machine.Env{Cache: cache, Say: a.say, Pull: a.progress.Pull},
		Version: versionString(), Command: os.Args,
		Warn: a.report, Page: a.page,
	}, nil
}

// page makes the page of a record.
func (a *app) page(dir string) error {
	o := a.labs
	if o == nil {
		o = &labFlags{}
	}
	if err := page.Write(dir, "", a.pageLang(o), func(id string) (*lab.Lab, error) { return a.find(o, id) }); err != nil {
		return fmt.Errorf("%s of %s: %w", record.PageFile, dir, err)
	}
	return nil
}

// warn prints a line that is not progress: what was damaged and is made again, a default
// that has changed.
func (a *app) warn(line string) {
	a.progress.Above(func() { fmt.Fprintf(a.stderr, "labctl: %s\n", line) })
}

// say prints one line of progress.
func (a *app) say(line string) { a.progress.Say(line) }

// stream is a standard stream. It remembers the first write that failed: what prints
// line by line does not look at each.
type stream struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Writer.Write(b)
	if err != nil {
		s.mu.Lock()
		s.err = cmp.Or(s.err, outcome.Default(outcome.HostLacks, err))
		s.mu.Unlock()
	}
	return n, err
}

func (s *stream) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// file is the file that a stream goes to, if it is one.
func file(v any) (*os.File, bool) {
	if s, ok := v.(*stream); ok {
		v = s.Writer
	}
	f, ok := v.(*os.File)
	return f, ok
}

func isTerminal(v any) bool {
	f, ok := file(v)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is the width in cells of the terminal that standard output is, 0 for none.
func (a *app) width() int {
	if f, ok := file(a.stdout); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			return w
		}
	}
	return 0
}

// table is a table for standard output. It is wrapped on a terminal alone.
func (a *app) table(head ...string) *table.Table { return table.New(a.width(), head...) }

// printJSON writes v to standard output.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// boards are the names that --board takes.
func boards() (names []string) {
	for _, t := range targets.All {
		if t.Board {
			names = append(names, t.Name)
		}
	}
	return names
}

// failOnFlag says which reports of the kernel make a command fail.
func failOnFlag(c *cobra.Command, o *record.FailOn) {
	c.Flags().Var(o, "fail-on", "least report of the kernel that makes this fail: warn (WARNING, OOM kill), bug (no task died: hangs and the like), oops, none")
}

// machineFlags are the flags that choose a machine.
func machineFlags(c *cobra.Command, s *machine.Spec) {
	f := c.Flags()
	f.StringVar(&s.Arch, "arch", "", "architecture: amd64, arm64, arm (default: the host's)")
	f.StringVar(&s.Board, "board", "", "board: "+strings.Join(boards(), ", ")+"; it implies the architecture")
	f.StringVar(&s.Kernel, "kernel", "", "kernel: 6.12, debian:trixie, gomod:MODULE, oci:IMAGE, build:NAME, deb:DIR, a path with a slash (default: the newest cached long-term series)")
	sizeFlags(f, &s.CPUs, &s.MemoryMB)
	intFlag(f, &s.Nodes, "numa", 1, 8, "NUMA nodes, which share CPUs and memory equally (default 1)")
	f.StringArrayVar(&s.Append, "append", nil, "more kernel arguments; may be given again")
	f.StringSliceVar(&s.Modules, "module", nil, "modules of the kernel's to insert, with what they depend on: dummy,ext4,loop; may be given again")
	f.BoolVar(&s.Cold, "cold", false, "boot from the kernel on, instead of from a saved machine")
	f.StringVar(&s.From, "from", "", "start from this checkpoint, which labctl vm save has made")
	c.RegisterFlagCompletionFunc("from", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return checkpointNames(), cobra.ShellCompDirectiveNoFileComp
	})
	patienceFlag(f, &s.Patience)
}
