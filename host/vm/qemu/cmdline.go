// Package qemu turns typed devices into a QEMU command line, starts QEMU and
// supervises it. Each QEMU concept is a small type that contributes options and, if
// applicable, kernel arguments and inherited file descriptors. What runs in the
// guest and what is sent over QMP is up to the caller.
package qemu

import (
	"fmt"
	"os"
	"strings"

	"labctl/host/outcome"
)

// Device contributes one QEMU concept to a command line.
type Device interface {
	Args(*Cmdline) error
}

// Cmdline collects the devices' contributions, in the devices' order.
type Cmdline struct {
	binary    string
	args      []string
	kernel    []string
	hasKernel bool
	slots     []slot
	ids       map[string]bool
}

// slot is one inherited file descriptor: one end of a socket pair, or the caller's
// file.
type slot struct {
	name string   // for a socket
	file *os.File // nil for a socket
}

// firstFD is the number of the first inherited descriptor in the child, after
// standard input, output and error.
const firstFD = 3

// Add appends options verbatim. Values from outside must be escaped with Value.
func (c *Cmdline) Add(args ...string) { c.args = append(c.args, args...) }

// KernelArgs appends to the kernel's command line. It is dropped if no kernel is
// booted: QEMU rejects -append without -kernel.
func (c *Cmdline) KernelArgs(args ...string) { c.kernel = append(c.kernel, args...) }

// File makes QEMU inherit f and returns its descriptor number in QEMU. The caller
// must keep f open until Start returns.
func (c *Cmdline) File(f *os.File) int {
	c.slots = append(c.slots, slot{file: f})
	return firstFD + len(c.slots) - 1
}

// ID registers an identifier that must be unique on the command line.
func (c *Cmdline) ID(id string) error {
	if !validID(id) {
		return fmt.Errorf("QEMU id %q: want a letter, then letters, digits, '-', '.' or '_'", id)
	}
	if c.ids[id] {
		return fmt.Errorf("QEMU id %q: used twice", id)
	}
	if c.ids == nil {
		c.ids = map[string]bool{}
	}
	c.ids[id] = true
	return nil
}

// Chardev adds a character device over a socket pair, whose other end is
// [Process.Conn] of the same name.
//
// QEMU accepts a connected socket with fd= as a client chardev (7.2 does so with
// and without server=off). So there is no listening socket, no path that another
// user could access or that could be left behind, and no race between QEMU's start
// and connecting: bytes written before QEMU runs wait in the socket, and QEMU's exit
// is seen as end of file.
func (c *Cmdline) Chardev(name string) error {
	if err := c.ID(name); err != nil {
		return err
	}
	c.slots = append(c.slots, slot{name: name})
	c.Add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d,server=off", name, firstFD+len(c.slots)-1))
	return nil
}

// Value escapes s for use inside a comma-separated QEMU option.
func Value(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// validID is id_wellformed of QEMU's util/id.c.
func validID(id string) bool {
	for i, r := range id {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || !(r >= '0' && r <= '9' || strings.ContainsRune("-._", r))) {
			return false
		}
	}
	return id != ""
}

// Command is a complete command line. It is plain data and can be started any number
// of times, as long as its inherited files stay open.
type Command struct {
	Binary string   // a name to look up in PATH, or a path
	Args   []string // without the binary
	slots  []slot
}

// New builds the command line for binary from devices, in order.
func New(binary string, devices ...Device) (*Command, error) {
	c := &Cmdline{binary: binary}
	for _, d := range devices {
		if err := d.Args(c); err != nil {
			return nil, fmt.Errorf("QEMU %T: %w", d, err)
		}
	}
	if c.hasKernel && len(c.kernel) > 0 {
		c.Add("-append", strings.Join(c.kernel, " "))
	}
	for _, a := range append([]string{binary}, c.args...) {
		if strings.ContainsRune(a, 0) {
			return nil, outcome.Inputf("QEMU argument %q: contains a NUL", a)
		}
	}
	return &Command{Binary: binary, Args: c.args, slots: c.slots}, nil
}

// Argv returns the whole command line, binary first.
func (c *Command) Argv() []string { return append([]string{c.Binary}, c.Args...) }

// String returns the command as one line for a POSIX shell. Options with fd= refer
// to descriptors that only Start provides.
func (c *Command) String() string {
	q := make([]string, 0, len(c.Args)+1)
	for _, a := range c.Argv() {
		q = append(q, quote(a))
	}
	return strings.Join(q, " ")
}

func quote(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_@%+=:,./-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
