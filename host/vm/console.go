package vm

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"labctl/host/crash"
	"labctl/host/outcome"
	"labctl/host/text"
)

// tailBytes is how much of the end of the console is kept in memory.
const tailBytes = 16 << 10

// tailLines is the number of last lines that an error shows.
const tailLines = 20

// initLine is the end of the line that run_init_process (init/main.c) prints just
// before PID 1's program starts.
var initLine = []byte(" as init process")

// LogError reports that a console log could not be written, such as when the disk is
// full. The guest continues to run without it.
type LogError struct {
	Path string
	Err  error
}

func (e *LogError) Error() string { return fmt.Sprintf("write the console log %s: %v", e.Path, e.Err) }

func (e *LogError) Unwrap() error { return e.Err }

// Outcome is HostLacks.
func (e *LogError) Outcome() outcome.Kind { return outcome.HostLacks }

// console reads the guest's console. It reads to the end even if the log fails, or
// the guest would block on its UART.
type console struct {
	first    chan struct{} // closed at the first byte
	init     chan struct{} // closed when PID 1 is about to run
	panicked chan struct{} // closed at a panic's first line
	reported chan struct{} // closed at a panic's last line
	oopsed   chan struct{} // closed at the first oops
	ended    chan struct{} // closed when the console's stream has ended

	mu     sync.Mutex
	path   string
	log    io.WriteCloser // nil without one
	logErr error
	live   io.Writer
	taps   map[io.Writer]bool // get what comes from now on
	before []*crash.Report    // before the snapshot that the guest starts from was saved
	scan   crash.Scanner
	hidden *crash.Report // a panic that the console has not shown: see adopt
	last   []byte
	seen   [5]bool // which of the first five channels are closed
	reads  bool    // ended will be closed
}

func newConsole(cfg Config) (*console, error) {
	c := &console{path: cfg.ConsoleLog, live: cfg.Console}
	for _, ch := range []*chan struct{}{&c.first, &c.init, &c.panicked, &c.reported, &c.oopsed, &c.ended} {
		*ch = make(chan struct{})
	}
	// What hung then is no hang of this guest: the host was busy.
	var before crash.Scanner
	before.Write(cfg.ConsoleBefore)
	c.before = slices.DeleteFunc(before.Reports(), func(r *crash.Report) bool { return r.Kind.Hang() })
	if c.path == "" {
		return c, nil
	}
	var err error
	if c.log, err = cfg.createLog(c.path); err != nil {
		return nil, &LogError{c.path, err}
	}
	if _, err := c.log.Write(cfg.ConsoleBefore); err != nil {
		c.logErr = &LogError{c.path, err}
	}
	return c, nil
}

// start starts reading the console's socket.
func (c *console) start(r io.ReadCloser) {
	c.mu.Lock()
	c.reads = true
	c.mu.Unlock()
	go c.read(r)
}

func (c *console) read(r io.ReadCloser) {
	defer close(c.ended)
	defer r.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		c.take(buf[:n])
		if err != nil {
			return
		}
	}
}

// stray receives console text from the agent's link, if both share one UART.
func (c *console) stray(p []byte) { c.take(p) }

func (c *console) take(p []byte) {
	if len(p) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.log != nil && c.logErr == nil {
		if _, err := c.log.Write(p); err != nil {
			c.logErr = &LogError{c.path, err}
		}
	}
	if c.live != nil {
		c.live.Write(p)
	}
	for w := range c.taps {
		w.Write(p)
	}
	c.scan.Write(p)
	c.last = append(c.last, p...)
	c.mark(0, c.first, true)
	c.mark(1, c.init, bytes.Contains(c.last[max(0, len(c.last)-len(p)-len(initLine)):], initLine))
	c.mark(2, c.panicked, c.scan.Panic() != nil)
	c.mark(3, c.reported, c.scan.Ended())
	if !c.seen[4] {
		c.mark(4, c.oopsed, slices.ContainsFunc(c.scan.Reports(), func(r *crash.Report) bool { return r.Kind == crash.Oops }))
	}
	if over := len(c.last) - tailBytes; over > 0 {
		c.last = append(c.last[:0], c.last[over:]...)
	}
}

func (c *console) mark(i int, ch chan struct{}, now bool) {
	if now && !c.seen[i] {
		c.seen[i] = true
		close(ch)
	}
}

// tap has w, whose Write must not wait, get a copy of what the guest prints from now
// on, until untap is called.
func (c *console) tap(w io.Writer) (untap func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taps == nil {
		c.taps = map[io.Writer]bool{}
	}
	c.taps[w] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.taps, w)
	}
}

// spoke reports whether the guest has printed anything.
func (c *console) spoke() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[0]
}

// restarts reports whether the kernel has printed that it restarts the machine
// (kernel/reboot.c, drivers/tty/sysrq.c).
func (c *console) restarts() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.last, []byte("reboot: Restarting system")) || bytes.Contains(c.last, []byte("Resetting"))
}

// adopt takes the panic from the kernel's memory if the console has not shown one: from
// its log, or, if that cannot be read, from the stack of a CPU.
// A panicking CPU prints its first line while another may still be sending a program's
// output: serial8250_console_write (drivers/tty/serial/8250/8250_port.c) does not wait for
// the port's lock then, and what the two send is mixed or lost. A guest can also have set
// its console's level to nothing (kernel.printk).
func (c *console) adopt(found Autopsy) {
	var scan crash.Scanner
	scan.Write([]byte(found.Log))
	r := scan.Panic()
	if r == nil && found.Panicked != "" {
		r = &crash.Report{Kind: crash.Panic, Title: "by " + text.Line(found.Panicked, maxGuilty), Count: 1}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scan.Panic() == nil {
		c.hidden = r
	}
}

// report returns the panic, and whether only the kernel's memory has it.
func (c *console) report() (r *crash.Report, hidden bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.scan.Panic(); r != nil {
		return copyReport(r), false
	}
	return copyReport(c.hidden), c.hidden != nil
}

func (c *console) reports() []*crash.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*crash.Report
	for _, r := range slices.Concat(c.before, c.scan.Reports()) {
		all = append(all, copyReport(r))
	}
	if c.hidden != nil && c.scan.Panic() == nil {
		all = append(all, copyReport(c.hidden))
	}
	return all
}

// deaths returns the oopses that killed a program's task.
func (c *console) deaths() []*crash.Report {
	return slices.DeleteFunc(c.reports(), func(r *crash.Report) bool { return !userDied(r) })
}

// copyReport copies a report of the scanner, which may still add to it.
func copyReport(r *crash.Report) *crash.Report {
	if r == nil {
		return nil
	}
	cp := *r
	cp.Lines = append([]string(nil), r.Lines...)
	if r.Victim != nil {
		v := *r.Victim
		cp.Victim = &v
	}
	return &cp
}

func (c *console) tail() []string {
	c.mu.Lock()
	s := string(c.last)
	c.mu.Unlock()
	lines := strings.Split(strings.TrimRight(text.Lines(s), "\n"), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return lines
}

// close waits for the end of the stream, when QEMU ends, and closes the log.
func (c *console) close() error {
	c.mu.Lock()
	reads := c.reads
	c.mu.Unlock()
	if reads {
		<-c.ended
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.log == nil {
		return nil
	}
	err := c.logErr
	if cerr := c.log.Close(); err == nil && cerr != nil {
		err = &LogError{c.path, cerr}
	}
	c.log = nil
	return err
}
