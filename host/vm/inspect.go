package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm/qemu"
	"labctl/host/vm/qmp"
)

// Inspector is what can be seen and done of a guest without its agent: by *VM in the
// process that started the guest, by *registry.Machine in any other.
type Inspector interface {
	// Memory opens the guest's memory. It may be read while the guest runs.
	Memory(context.Context) (*Memory, error)
	// Registers returns all CPUs' registers, as QEMU's "info registers -a" prints
	// them, at most 1 MiB.
	Registers(context.Context) (string, error)
	// Stop stops the guest, until cont has been called as often as Stop. A guest
	// that a debugger has stopped stays stopped.
	Stop(context.Context) (cont func() error, err error)
	// GDB connects to QEMU's gdbstub, which stops the guest. There is one connection
	// at a time. When it is closed, the breakpoints are removed and the guest runs.
	GDB(context.Context) (net.Conn, error)
}

var _ Inspector = (*VM)(nil)

// Region is a part of the guest's physical memory.
type Region struct {
	Base uint64 `json:"base"`           // the guest's physical address
	Host uint64 `json:"host"`           // its address in QEMU
	Size uint64 `json:"size"`           // bytes
	Node int    `json:"node,omitempty"` // of NUMA, whose memory it is
}

// Memory is the memory of a guest. It is that of QEMU's process: a clone maps the RAM
// of its template privately, so the file does not show what the guest has written.
type Memory struct {
	// File is /proc/PID/mem of QEMU, open for reading: offsets are Region.Host. It is nil
	// where the host forbids that.
	File    *os.File
	Regions []Region // in ascending order of Base
	// Slow says in a line, when File is nil, that QEMU has to be asked for what is read,
	// and what would help.
	Slow string

	read  func(p []byte, phys uint64) error // when File is nil: at most maxRelayed bytes
	close func() error
}

// ReadAt reads at a physical address of the guest. What is read may change meanwhile.
// An address without memory is io.EOF.
func (m *Memory) ReadAt(p []byte, phys int64) (n int, err error) {
	for n < len(p) {
		at := uint64(phys) + uint64(n)
		i, ok := slices.BinarySearchFunc(m.Regions, at, func(r Region, at uint64) int {
			switch {
			case r.Base > at:
				return 1
			case at-r.Base >= r.Size:
				return -1
			}
			return 0
		})
		if !ok {
			return n, io.EOF
		}
		r := m.Regions[i]
		end := n + int(min(uint64(len(p)-n), r.Size-(at-r.Base)))
		var k int
		var err error
		if m.File != nil {
			k, err = m.File.ReadAt(p[n:end], int64(r.Host+at-r.Base))
		} else {
			part := p[n:min(end, n+maxRelayed)]
			if err = m.read(part, at); err == nil {
				k = len(part)
			}
		}
		if n += k; err != nil {
			return n, outcome.Default(outcome.GuestCrashed, fmt.Errorf("read the guest's memory: %w", err))
		}
	}
	return n, nil
}

// Node is the NUMA node that a physical address of the guest is on, by what QEMU has
// made of its memory, and not by what the guest thinks; false where there is no memory.
func (m *Memory) Node(phys uint64) (int, bool) {
	for _, r := range m.Regions {
		if phys >= r.Base && phys-r.Base < r.Size {
			return r.Node, true
		}
	}
	return 0, false
}

// Close ends the reading.
func (m *Memory) Close() error {
	if m.File != nil {
		return m.File.Close()
	}
	return m.close()
}

// Memory opens the guest's memory.
func (v *VM) Memory(ctx context.Context) (*Memory, error) {
	if v.joined != nil {
		return v.joined.Memory(ctx)
	}
	regions, err := v.regions(ctx)
	if err != nil {
		return nil, v.Why(fmt.Errorf("find the guest's memory: %w", err))
	}
	return v.memory(ctx, v.mon, regions)
}

// layout is where the guest's memory is, once it is known.
type layout struct {
	mu      sync.Mutex
	regions []Region
}

func (v *VM) regions(ctx context.Context) ([]Region, error) {
	v.layout.mu.Lock()
	defer v.layout.mu.Unlock()
	if v.layout.regions != nil {
		return v.layout.regions, nil
	}
	tree, err := v.ask(ctx, "info mtree -f")
	if err != nil {
		return nil, err
	}
	ranges := parseTree(tree)
	if len(ranges) == 0 {
		return nil, outcome.New(outcome.HostLacks, "QEMU's memory tree has no RAM")
	}
	starts := map[int]uint64{} // of the nodes' memory in QEMU
	var regions []Region
	for _, r := range ranges {
		start, ok := starts[r.node]
		if !ok {
			reply, err := v.ask(ctx, fmt.Sprintf("gpa2hva %#x", r.base))
			if err != nil {
				return nil, err
			}
			host, err := parseHost(reply)
			if err != nil {
				return nil, err
			}
			start = host - r.offset
			starts[r.node] = start
		}
		regions = append(regions, Region{Base: r.base, Host: start + r.offset, Size: r.size, Node: r.node})
	}
	v.layout.regions = regions
	return regions, nil
}

// ask runs a command of QEMU's monitor for people.
func (v *VM) ask(ctx context.Context, command string) (string, error) {
	return v.mon.Commands(ctx).HumanMonitorCommand(command, nil)
}

// ramRange is a range of guest-physical addresses and where it is in the block of RAM.
type ramRange struct {
	base, size, offset uint64
	node               int
}

// A line of a flat view (QEMU: softmmu/memory.c, mtree_print_flatview), without the
// name's suffixes for KVM and for who owns it.
var treeLine = regexp.MustCompile(`^\s+([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (ram|rom)\): (\S+)(?: @([0-9a-f]{16}))?`)

// parseTree returns the machine's RAM in ascending order: of the blocks that the CPUs
// see in the address space "memory", the largest, and those of all nodes, if there are
// several. The others are firmware, video memory and labctl's window. A PC's RAM has a hole below 4 GB, and below 1 MB it may be
// write-protected.
func parseTree(tree string) []ramRange {
	blocks, sizes := map[string][]ramRange{}, map[string]uint64{}
	inView, largest := false, ""
	for line := range strings.Lines(tree) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "FlatView"):
			inView = false
		case strings.HasPrefix(line, ` AS "memory"`):
			inView = true
		case inView:
			m := treeLine.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			var r ramRange
			r.base, _ = strconv.ParseUint(m[1], 16, 64)
			end, _ := strconv.ParseUint(m[2], 16, 64)
			r.offset, _ = strconv.ParseUint("0"+m[5], 16, 64)
			if r.size = end - r.base + 1; end < r.base || r.size == 0 {
				continue
			}
			name := m[4]
			if blocks[name] = append(blocks[name], r); m[3] == "ram" {
				sizes[name] += r.size
			}
			if largest == "" || sizes[name] > sizes[largest] {
				largest = name
			}
		}
	}
	found := blocks[largest]
	if _, nodes := blocks[qemu.NodeRAM(0)]; nodes {
		found = nil
		for node := 0; blocks[qemu.NodeRAM(node)] != nil; node++ {
			for _, r := range blocks[qemu.NodeRAM(node)] {
				r.node = node
				found = append(found, r)
			}
		}
	}
	slices.SortFunc(found, func(a, b ramRange) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	return found
}

var hostAddress = regexp.MustCompile(`^Host virtual address for \S+ \(.*\) is (0x[0-9a-f]+)`)

// parseHost parses the reply to gpa2hva (QEMU: monitor/misc.c).
func parseHost(reply string) (uint64, error) {
	m := hostAddress.FindStringSubmatch(reply)
	if m == nil {
		return 0, outcome.Hostf("QEMU does not say where the guest's memory is: %s", text.Line(reply, 200))
	}
	return strconv.ParseUint(m[1], 0, 64)
}

// Registers returns all CPUs' registers.
func (v *VM) Registers(ctx context.Context) (string, error) {
	if v.joined != nil {
		return v.joined.Registers(ctx)
	}
	out, err := registers(ctx, v.mon)
	if err != nil {
		return "", fmt.Errorf("read the registers: %w", v.Why(err))
	}
	return out, nil
}

// holds counts who has stopped the guest.
type holds struct {
	mu       sync.Mutex
	n        int
	ours     bool // it ran when it was stopped
	debugged bool // the gdbstub has a connection
}

// contWait is for commands that put the guest back to work, whoever gave up on it.
const contWait = 10 * time.Second

// Stop stops the guest.
func (v *VM) Stop(ctx context.Context) (cont func() error, err error) {
	if v.joined != nil {
		return v.joined.Stop(ctx)
	}
	release, err := v.hold(ctx, v.mon)
	if err != nil {
		return nil, fmt.Errorf("stop the guest: %w", v.Why(err))
	}
	return sync.OnceValue(func() error {
		if err := release(); err != nil {
			return fmt.Errorf("resume the guest: %w", v.Why(err))
		}
		return nil
	}), nil
}

// hold stops the guest, if it runs, until all who did have released it.
func (v *VM) hold(ctx context.Context, mon *qmp.Monitor) (release func() error, err error) {
	h := &v.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == 0 {
		st, err := mon.Commands(ctx).QueryStatus()
		if err == nil && st.Running {
			err = mon.Commands(ctx).Stop()
		}
		if err != nil {
			return nil, err
		}
		h.ours = st.Running
	}
	h.n++
	return func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.n--; h.n > 0 || !h.ours {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), contWait)
		defer cancel()
		return mon.Commands(ctx).Cont()
	}, nil
}

// ErrDebugged means that the gdbstub is in use.
var ErrDebugged = outcome.New(outcome.BadInput, "a debugger is connected to this guest already; end it first")

// stubConn is the gdbstub's connection.
type stubConn struct {
	net.Conn
	close func() error
}

func (c *stubConn) Close() error { return c.close() }

// gdbChardev is the id of the gdbstub's character device.
const gdbChardev = "gdb"

// GDB connects to QEMU's gdbstub, which is opened for it.
func (v *VM) GDB(ctx context.Context) (net.Conn, error) {
	if v.joined != nil {
		return v.joined.GDB(ctx)
	}
	v.holds.mu.Lock()
	defer v.holds.mu.Unlock()
	if v.holds.debugged {
		return nil, ErrDebugged
	}
	conn, err := v.openStub(ctx)
	if err != nil {
		return nil, fmt.Errorf("open QEMU's gdbstub: %w", v.Why(err))
	}
	v.holds.debugged = true
	return &stubConn{conn, sync.OnceValue(func() error { return v.closeStub(conn) })}, nil
}

func (v *VM) openStub(ctx context.Context) (net.Conn, error) {
	conn, theirs, err := qemu.SocketPair(gdbChardev)
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	err = v.mon.GiveFile(ctx, gdbChardev, theirs)
	theirs.Close()
	if err == nil {
		err = v.mon.Execute(ctx, "chardev-add", map[string]any{
			"id": gdbChardev,
			"backend": map[string]any{"type": "socket", "data": map[string]any{
				"server": false,
				"addr":   map[string]any{"type": "fd", "data": map[string]any{"str": gdbChardev}},
			}},
		}, nil)
	}
	var said string
	if err == nil {
		said, err = v.ask(ctx, "gdbserver chardev:"+gdbChardev)
	}
	if err == nil && strings.HasPrefix(said, "Could not") {
		err = outcome.Hostf("QEMU: %s", text.Line(said, 200))
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// detachWait is how long the stub may take to remove the breakpoints.
const detachWait = 5 * time.Second

// closeStub has the stub remove the breakpoints, which it does not do when its
// connection ends (QEMU: gdbstub.c, gdb_chr_event), closes it, and lets the guest run.
func (v *VM) closeStub(conn net.Conn) error {
	select {
	case <-v.proc.Done():
		return conn.Close()
	default:
	}
	conn.SetDeadline(time.Now().Add(detachWait))
	// A first byte stops a guest that runs and is dropped; an interrupt of one that is
	// stopped does nothing.
	_, err := conn.Write([]byte("\x03"))
	if err == nil {
		// The stub acts on its input only after the stop.
		time.Sleep(10 * time.Millisecond)
		_, err = conn.Write([]byte("+$D#44"))
	}
	if err == nil {
		err = awaitOK(conn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), contWait)
	defer cancel()
	_, noneErr := v.ask(ctx, "gdbserver none")
	err = errors.Join(err, noneErr, conn.Close())

	h := &v.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	h.debugged = false
	if h.n == 0 {
		err = errors.Join(err, v.mon.Commands(ctx).Cont())
	} else {
		h.ours = true // resumed by the last one
	}
	if err != nil {
		err = fmt.Errorf("close QEMU's gdbstub: %w", v.Why(err))
	}
	return outcome.Default(outcome.HostLacks, err)
}

// awaitOK reads the stub's packets up to its OK.
func awaitOK(conn net.Conn) error {
	var got []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buf)
		if got = append(got, buf[:n]...); strings.Contains(string(got), "$OK#9a") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("detach: %w", err)
		}
		got = got[max(0, len(got)-16):]
	}
}
