package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"labctl/host/arch"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/tracedat"
)

// trace measures what a recording costs: the program that is recorded, and who
// reads it afterwards.
func (b *bench) trace() error {
	for _, arch := range b.arches {
		if err := b.disturbance(arch); err != nil {
			return err
		}
	}
	return b.decode(b.arches[0])
}

// forks is a fork-heavy program. It prints how long its forks took in the guest.
// With "text" it traces itself, as `labctl trace --event sched:sched_switch` with
// the task-creation preset does, and reads the text of trace_pipe meanwhile. ARG
// stands for the register of a function's first argument. With a number it forks that
// many times over, and tells each time.
const forks = `package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const dir = "/sys/kernel/tracing/instances/bench/"

func put(file, text string, flag int) {
	f, err := os.OpenFile(file, os.O_WRONLY|flag, 0)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func text() {
	if err := os.Mkdir(filepath.Clean(dir), 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	put(dir+"options/stacktrace", "1", 0)
	put("/sys/kernel/tracing/kprobe_events", "p:bench/clone kernel_clone flags=+0(ARG):x64", os.O_APPEND)
	put("/sys/kernel/tracing/kprobe_events", "p:bench/exit do_exit code=ARG:x64", os.O_APPEND)
	for _, e := range strings.Fields("sched/sched_switch sched/sched_process_fork sched/sched_process_exec sched/sched_process_exit task/task_newtask task/task_rename bench/clone bench/exit") {
		put(dir+"events/"+e+"/enable", "1", 0)
	}
	pipe, err := os.Open(dir + "trace_pipe")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go io.Copy(os.Stdout, pipe)
}

func main() {
	rounds := 1
	if len(os.Args) > 1 {
		if n, err := strconv.Atoi(os.Args[1]); err == nil {
			rounds = n
		} else {
			text()
		}
	}
	for i := 0; i < rounds; i++ {
		round()
	}
}

func round() {
	start := time.Now()
	for i := 0; i < 400; i++ {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			fmt.Fprintln(os.Stderr, errno)
			os.Exit(1)
		}
		if pid == 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		syscall.Wait4(int(pid), nil, 0, nil)
	}
	fmt.Fprintf(os.Stderr, "forks took %d us\n", time.Since(start).Microseconds())
}
`

var tookLine = regexp.MustCompile(`forks took (\d+) us`)

// seconds runs labctl and reads the program's own time.
func (b *bench) seconds(args ...string) (float64, error) {
	cmd := exec.CommandContext(b.ctx, b.labctl, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("labctl %v: %w\n%s", args, err, stderr.String())
	}
	m := tookLine.FindSubmatch(stderr.Bytes())
	if m == nil {
		return 0, fmt.Errorf("labctl %v: no time in its output\n%s", args, stderr.String())
	}
	us, err := strconv.ParseFloat(string(m[1]), 64)
	return us / 1e6, err
}

// disturbance compares what two ways of reading the same trace cost a program.
func (b *bench) disturbance(goarch string) error {
	abi, ok := arch.Find(goarch)
	if !ok {
		return fmt.Errorf("measure what recording costs: %q is no architecture of labctl's", goarch)
	}
	prog, err := b.program("forks", strings.ReplaceAll(forks, "ARG", abi.Entry.Args[0]), goarch)
	if err != nil {
		return err
	}
	machine := []string{"-q", "--arch", goarch, "--kernel", b.kernel}
	line := func(command string, more ...string) []string {
		return append(append([]string{command}, machine...), more...)
	}
	r := row{what: goarch + ": what recording adds to 400 forks", baseline: "what reading trace_pipe adds", bound: "0.50", unit: "s", digits: 2}
	for i := range b.pairs + 1 {
		alone, err := b.seconds(line("exec", "--", prog)...)
		if err != nil {
			return err
		}
		recorded, err := b.seconds(line("trace", "--preset", "task-creation", "--event", "sched:sched_switch", "--stacks", "--out", b.folder(), "--", prog)...)
		if err != nil {
			return err
		}
		text, err := b.seconds(line("exec", "--", prog, "text")...)
		if err != nil {
			return err
		}
		if i == 0 {
			continue // for the caches
		}
		r.got, r.base, r.ratios = append(r.got, recorded-alone), append(r.base, text-alone), append(r.ratios, (recorded-alone)/(text-alone))
		b.say("  %s: 400 forks %.2f s, recorded %.2f s, with trace_pipe read %.2f s", goarch, alone, recorded, text)
	}
	b.table.add(r)
	return nil
}

// calls is a program that makes many events in little time.
const calls = `package main

import "syscall"

func main() {
	for i := 0; i < 300000; i++ {
		syscall.Getppid()
	}
}
`

// decode compares reading a trace.dat with what the field's own tool takes for
// the same file.
func (b *bench) decode(arch string) error {
	const tool = "trace-cmd"
	if _, err := exec.LookPath(tool); err != nil {
		return fmt.Errorf("%s is not installed: apt-get install %s", tool, tool)
	}
	prog, err := b.program("calls", calls, arch)
	if err != nil {
		return err
	}
	out := b.folder()
	if err := b.labctlRun("trace", "-q", "--arch", arch, "--kernel", b.kernel, "--event", "raw_syscalls", "--buffer", "64M", "--hold", "--out", out, "--", prog); err != nil {
		return err
	}
	path := filepath.Join(out, "trace.dat")
	events, err := readAll(path, nil)
	if err != nil {
		return err
	}
	report := func() error { return discard(b.ctx, tool, "report", "-i", path) }
	what := fmt.Sprintf("decode %d events", events)
	if err := b.compare(what, tool+" report", "0.20", func() error { _, err := readAll(path, nil); return err }, report); err != nil {
		return err
	}
	return b.compare(what+" and print each", tool+" report", "", func() error { _, err := readAll(path, io.Discard); return err }, report)
}

// readAll decodes a trace.dat and prints its events to w, if there is one.
func readAll(path string, w io.Writer) (events int, err error) {
	f, err := tracedat.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	d, err := decode.Open(&f.Capture)
	if err != nil {
		return 0, err
	}
	for e, err := range d.Events() {
		if err != nil {
			return events, err
		}
		events++
		if w != nil {
			fmt.Fprintf(w, "%16s-%-5d [%03d] %s %d.%06d: %s: %s\n", d.Comm(e.PID), e.PID, e.CPU, e.Columns(), e.Time/1e9, e.Time%1e9/1e3, e.Name(), d.Text(e))
		}
	}
	if events == 0 {
		return 0, errors.New("no events in " + path)
	}
	return events, nil
}

func discard(ctx context.Context, name string, args ...string) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.WaitDelay = null, time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, stderr.String())
	}
	return nil
}
