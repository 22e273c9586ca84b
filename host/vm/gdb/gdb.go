// Package gdb is a client of QEMU's gdbstub (gdb's manual, "Remote Serial Protocol"): it
// stops a guest at instructions and at accesses to memory, steps its CPUs, and reads and
// writes their registers.
//
//	c, err := gdb.New(ctx, conn)         // the guest stands still
//	err = c.Insert(ctx, gdb.Point{Kind: gdb.Execute, Addr: addr})
//	err = c.Continue(ctx)
//	stop, err := c.Wait(ctx)             // stop.CPU has come there
//
// A breakpoint of QEMU's emulator is no instruction in memory, but is looked up where code
// is translated, so that all CPUs have it at all times. A CPU that stands at one leaves it
// by Step, during which the other CPUs stand still: none can slip past. Two CPUs may come
// to breakpoints before the guest stops: Wait tells of one, and of the other after the
// next Continue, since it has not moved.
package gdb

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"labctl/host/outcome"
)

// Client is a connection to a stub. Its methods are not safe for concurrent use, but for
// Interrupt.
type Client struct {
	conn net.Conn

	packets chan []byte
	ended   chan struct{} // closed when nothing more comes
	why     error         // before ended is closed

	writing sync.Mutex
	running bool
	thread  int // whose registers "g" reads, 0 if none was chosen
	threads []int
	regs    []Register
	byName  map[string]*Register
}

// replyWait is how long the stub may take to reply. It replies within a millisecond unless
// the host has no time for it.
const replyWait = 60 * time.Second

// New takes a connection to a stub that has just been opened, which has stopped the
// guest. It does not close conn, from which Release must have been called before others
// read.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, packets: make(chan []byte, 16), ended: make(chan struct{}), byName: map[string]*Register{}}
	go c.read()
	if err := c.open(ctx); err != nil {
		c.Release()
		return nil, fmt.Errorf("QEMU's gdbstub: %w", err)
	}
	return c, nil
}

func (c *Client) open(ctx context.Context) error {
	// The stop that the connection has caused may be told first.
	if err := c.send([]byte("qSupported:swbreak+;hwbreak+;vContSupported+")); err != nil {
		return err
	}
	for {
		reply, err := c.receive(ctx)
		if err != nil {
			return err
		}
		if bytes.Contains(reply, []byte("PacketSize=")) {
			break
		}
	}
	d := description{includes: []string{"target.xml"}}
	for size := 0; len(d.includes) > 0; {
		part, err := c.transfer(ctx, d.includes[0])
		if err != nil {
			return err
		}
		if size += len(part); size > maxDescription {
			return outcome.Hostf("target description of more than %d bytes", maxDescription)
		}
		if d.includes = d.includes[1:]; len(d.includes) > 64 {
			return outcome.Hostf("target description of more than 64 parts")
		}
		if err := d.add(part); err != nil {
			return err
		}
	}
	c.regs = d.registers
	for i := range c.regs {
		if name := c.regs[i].Name; c.byName[name] == nil {
			c.byName[name] = &c.regs[i]
		}
	}
	reply, err := c.ask(ctx, "g")
	if err != nil {
		return err
	}
	place(c.regs, len(reply)/2)
	return c.listThreads(ctx)
}

// read reads packets until the connection ends.
func (c *Client) read() {
	defer close(c.ended)
	r := bufio.NewReader(c.conn)
	for {
		p, err := readPacket(r)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
				err = ErrEnded
			}
			c.why = outcome.Default(outcome.HostLacks, err)
			return
		}
		c.packets <- p
	}
}

// Release ends the client's use of its connection.
func (c *Client) Release() {
	c.conn.SetReadDeadline(time.Unix(1, 0))
	for {
		select {
		case <-c.packets:
			continue
		case <-c.ended:
		}
		break
	}
	c.conn.SetReadDeadline(time.Time{})
}

// ErrEnded means that the stub is gone, and most likely QEMU with it.
var ErrEnded = outcome.New(outcome.GuestCrashed, "the guest is gone: the connection to QEMU's gdbstub has ended")

// send sends a packet. None of the stub's is acknowledged: it takes the start of the next
// request for that (QEMU: gdbstub.c, gdb_read_byte), and an acknowledgement that comes
// when the guest runs again would stop it.
func (c *Client) send(payload []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.conn.Write(encode(payload))
	if err != nil {
		return outcome.Default(outcome.GuestCrashed, err)
	}
	return nil
}

// next returns the next packet.
func (c *Client) next(ctx context.Context) ([]byte, error) {
	select {
	case p := <-c.packets:
		return p, nil
	default:
	}
	select {
	case p := <-c.packets:
		return p, nil
	case <-c.ended:
		select {
		case p := <-c.packets:
			return p, nil
		default:
		}
		return nil, c.why
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// receive returns a reply.
func (c *Client) receive(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, replyWait, outcome.Hostf("no reply in %v", replyWait))
	defer cancel()
	return c.next(ctx)
}

// ErrRunning means that the guest runs: the stub replies when it is stopped.
var ErrRunning = outcome.New(outcome.BadInput, "the guest runs; stop it first")

// ask sends a request and returns the reply.
func (c *Client) ask(ctx context.Context, request string) ([]byte, error) {
	if c.running {
		return nil, ErrRunning
	}
	if err := c.send([]byte(request)); err != nil {
		return nil, err
	}
	reply, err := c.receive(ctx)
	if err != nil {
		return nil, err
	}
	return reply, failure(reply)
}

// do sends a request whose reply is OK.
func (c *Client) do(ctx context.Context, request string) error {
	reply, err := c.ask(ctx, request)
	switch {
	case err != nil:
		return err
	case len(reply) == 0:
		return outcome.Hostf("QEMU's gdbstub does not know %q", request)
	case string(reply) != "OK":
		return outcome.Hostf("QEMU's gdbstub replies %.40q to %q", reply, request)
	}
	return nil
}

// transfer reads a part of the target description.
func (c *Client) transfer(ctx context.Context, name string) ([]byte, error) {
	var all []byte
	for {
		reply, err := c.ask(ctx, fmt.Sprintf("qXfer:features:read:%s:%x,ffb", name, len(all)))
		if err != nil {
			return nil, err
		}
		if len(reply) == 0 || reply[0] != 'm' && reply[0] != 'l' || reply[0] == 'm' && len(reply) == 1 {
			return nil, outcome.Hostf("target description %.80q: reply %.40q", name, reply)
		}
		if all = append(all, reply[1:]...); len(all) > maxDescription {
			return nil, outcome.Hostf("target description of more than %d bytes", maxDescription)
		}
		if reply[0] == 'l' {
			return all, nil
		}
	}
}

// listThreads asks for the threads, which are the CPUs.
func (c *Client) listThreads(ctx context.Context) error {
	for request := "qfThreadInfo"; ; request = "qsThreadInfo" {
		reply, err := c.ask(ctx, request)
		if err != nil {
			return err
		}
		list, more := strings.CutPrefix(string(reply), "m")
		if !more {
			break
		}
		for id := range strings.SplitSeq(list, ",") {
			n, err := parseThread(id)
			if err != nil || n == 0 || len(c.threads) >= 1024 {
				return outcome.Hostf("thread %.40q", id)
			}
			c.threads = append(c.threads, n)
		}
	}
	if len(c.threads) == 0 {
		return outcome.Hostf("it names no CPU")
	}
	return nil
}

// parseThread parses "02", or "p01.02": the stub goes on to name a process, too, when a
// debugger before this one has asked for that.
func parseThread(id string) (int, error) {
	if strings.HasPrefix(id, "p") {
		_, id, _ = strings.Cut(id, ".")
	}
	n, err := strconv.ParseUint(id, 16, 16)
	return int(n), err
}

// CPUs is how many CPUs the guest has. They are numbered from 0.
func (c *Client) CPUs() int { return len(c.threads) }

// Known lists the registers.
func (c *Client) Known() []Register { return c.regs }

// choose has the following requests be about a CPU.
func (c *Client) choose(ctx context.Context, cpu int) error {
	if cpu < 0 || cpu >= len(c.threads) {
		return outcome.Inputf("there is no CPU %d: the guest has %d", cpu, len(c.threads))
	}
	id := c.threads[cpu]
	if c.thread == id {
		return nil
	}
	if err := c.do(ctx, fmt.Sprintf("Hg%x", id)); err != nil {
		return err
	}
	c.thread = id
	return nil
}

// Registers returns the general registers of a CPU.
func (c *Client) Registers(ctx context.Context, cpu int) (Values, error) {
	if err := c.choose(ctx, cpu); err != nil {
		return nil, err
	}
	reply, err := c.ask(ctx, "g")
	if err != nil {
		return nil, err
	}
	return decode(c.regs, reply)
}

// find finds a register.
func (c *Client) find(name string) (*Register, error) {
	r := c.byName[strings.ToLower(name)]
	if r == nil || r.Bits > 64 {
		return nil, outcome.Inputf("there is no register %q of at most 64 bits", name)
	}
	return r, nil
}

// Register returns one register of a CPU, also one that Registers leaves out: a system
// register of Arm, such as "sp_el0".
func (c *Client) Register(ctx context.Context, cpu int, name string) (uint64, error) {
	r, err := c.find(name)
	if err != nil {
		return 0, err
	}
	if err := c.choose(ctx, cpu); err != nil {
		return 0, err
	}
	reply, err := c.ask(ctx, fmt.Sprintf("p%x", r.Number))
	if err != nil {
		return 0, err
	}
	b, err := hex.DecodeString(string(reply))
	if err != nil || len(b) == 0 || len(b) > 8 {
		return 0, outcome.Hostf("register %s from QEMU's gdbstub: %.40q", name, reply)
	}
	return little(b), nil
}

// SetRegister writes a register of a CPU.
func (c *Client) SetRegister(ctx context.Context, cpu int, name string, v uint64) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	if err := c.choose(ctx, cpu); err != nil {
		return err
	}
	return c.do(ctx, fmt.Sprintf("P%x=%x", r.Number, word(v, r.Bits/8)))
}

func word(v uint64, size int) []byte {
	b := make([]byte, max(size, 1))
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

// Write writes memory at a virtual address of a CPU: by the page tables that it uses now.
func (c *Client) Write(ctx context.Context, cpu int, addr uint64, data []byte) error {
	if err := c.choose(ctx, cpu); err != nil {
		return err
	}
	const most = 1024 // a packet has room for 4 KB
	for len(data) > 0 {
		part := data[:min(len(data), most)]
		if err := c.do(ctx, fmt.Sprintf("M%x,%x:%x", addr, len(part), part)); err != nil {
			return fmt.Errorf("write memory at %#x: %w", addr, err)
		}
		data, addr = data[len(part):], addr+uint64(len(part))
	}
	return nil
}

// Kind is what a Point stops at. The values are those of the packets Z and z.
type Kind int

// Kinds.
const (
	Execute  Kind = 1 // an instruction, before it runs
	OnWrite  Kind = 2 // after a write
	OnRead   Kind = 3 // after a read
	OnAccess Kind = 4 // after either
)

// Point is where CPUs are to stop. Addresses are virtual, and are compared in all address
// spaces.
type Point struct {
	Kind Kind
	Addr uint64
	Size int // bytes, of memory; 0 for Execute
}

func (p Point) packet(letter string) string {
	return fmt.Sprintf("%s%d,%x,%x", letter, p.Kind, p.Addr, cmp.Or(p.Size, 1))
}

// Insert has all CPUs stop at a point.
func (c *Client) Insert(ctx context.Context, p Point) error { return c.do(ctx, p.packet("Z")) }

// Remove undoes one Insert.
func (c *Client) Remove(ctx context.Context, p Point) error { return c.do(ctx, p.packet("z")) }

// Continue lets the guest run. Wait must follow.
func (c *Client) Continue(context.Context) error { return c.resume("vCont;c") }

// Step has one CPU run one instruction, with interrupts held back, while the others stand
// still. Wait must follow.
func (c *Client) Step(_ context.Context, cpu int) error {
	if cpu < 0 || cpu >= len(c.threads) {
		return outcome.Inputf("there is no CPU %d: the guest has %d", cpu, len(c.threads))
	}
	return c.resume(fmt.Sprintf("vCont;s:%x", c.threads[cpu]))
}

func (c *Client) resume(request string) error {
	if c.running {
		return ErrRunning
	}
	if err := c.send([]byte(request)); err != nil {
		return err
	}
	c.running = true
	return nil
}

// Running reports whether the guest was last told to run and has not been seen to stop.
func (c *Client) Running() bool { return c.running }

// Interrupt asks a guest that runs to stop, which Wait then reports.
func (c *Client) Interrupt() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if _, err := c.conn.Write([]byte{3}); err != nil {
		return outcome.Default(outcome.GuestCrashed, err)
	}
	return nil
}

// Stop is why a guest has stopped.
type Stop struct {
	CPU    int
	Signal int
	// Watch says that memory was accessed at Addr, which a Point of that kind
	// covers; 0 for other stops.
	Watch Kind
	Addr  uint64
}

// Signals of stops.
const (
	SignalInt  = 2 // Interrupt, or somebody else who stopped the guest
	SignalTrap = 5 // a Point, or a step
)

// Wait waits until the guest has stopped. When ctx ends first the guest goes on running,
// and Wait may be called again.
func (c *Client) Wait(ctx context.Context) (Stop, error) {
	for {
		p, err := c.next(ctx)
		if err != nil {
			return Stop{}, err
		}
		switch {
		case len(p) > 0 && (p[0] == 'T' || p[0] == 'S'):
			s, err := c.parseStop(string(p))
			c.running = false
			if err == nil && s.CPU >= 0 {
				c.thread = 0 // the stub has chosen the CPU that stopped
			}
			return s, err
		case len(p) > 0 && (p[0] == 'W' || p[0] == 'X'):
			return Stop{}, ErrEnded
		}
		if err := failure(p); err != nil {
			c.running = false
			return Stop{}, err
		}
		// "O" has output, and is not for this.
	}
}

// parseStop parses "T05thread:01;watch:ffff888003a80018;".
func (c *Client) parseStop(p string) (Stop, error) {
	bad := outcome.Hostf("QEMU's gdbstub: stop %.80q", p)
	if len(p) < 3 {
		return Stop{}, bad
	}
	signal, err := strconv.ParseUint(p[1:3], 16, 8)
	if err != nil {
		return Stop{}, bad
	}
	s := Stop{Signal: int(signal)}
	for pair := range strings.SplitSeq(p[3:], ";") {
		key, value, _ := strings.Cut(pair, ":")
		kind := map[string]Kind{"watch": OnWrite, "rwatch": OnRead, "awatch": OnAccess}[key]
		switch {
		case kind != 0:
			if s.Addr, err = strconv.ParseUint(value, 16, 64); err != nil {
				return Stop{}, bad
			}
			s.Watch = kind
		case key == "thread":
			id, err := parseThread(value)
			found := false
			for i, t := range c.threads {
				if t == id {
					s.CPU, found = i, true
				}
			}
			if err != nil || !found {
				return Stop{}, bad
			}
		}
	}
	return s, nil
}
