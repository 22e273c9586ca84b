package vm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm/qmp"
)

// Where a host lets nobody read the memory of QEMU's process, QEMU reads it itself: its
// command pmemsave writes guest-physical memory to a file, which QEMU is given by
// descriptor, so that there is none on a disk. The guest goes on running, and the gdbstub
// stays free. Each read is a round trip.

// Limits of a relayed read.
const (
	maxRelayed = 1 << 20 // bytes at once, during which QEMU does nothing else
	relayWait  = 10 * time.Second
)

// relay has QEMU read the guest's memory.
type relay struct {
	mon  *qmp.Monitor
	mu   sync.Mutex // of the file
	file *os.File   // what QEMU writes to
	path string     // of the file, for QEMU
	set  int64      // by which QEMU knows the descriptor
}

func newRelay(ctx context.Context, mon *qmp.Monitor) (*relay, error) {
	fd, err := unix.MemfdCreate("labctl-guest-memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	r := &relay{mon: mon, file: os.NewFile(uintptr(fd), "guest-memory")}
	var number int64
	if r.set, number, err = mon.AddFile(ctx, r.file); err != nil {
		r.file.Close()
		return nil, err
	}
	r.path = fmt.Sprintf("/proc/self/fd/%d", number)
	return r, nil
}

// read fills p, of at most maxRelayed bytes, from a guest-physical address on.
func (r *relay) read(p []byte, phys uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.Background(), relayWait, outcome.Hostf("QEMU has not read the guest's memory in %v", relayWait))
	defer cancel()
	err := r.mon.Execute(ctx, "pmemsave", map[string]any{"val": phys, "size": len(p), "filename": r.path}, nil)
	if err != nil {
		return err
	}
	_, err = r.file.ReadAt(p, 0)
	return err
}

func (r *relay) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), relayWait)
	defer cancel()
	err := r.mon.Execute(ctx, "remove-fd", map[string]any{"fdset-id": r.set}, nil)
	if r.mon.Err() != nil { // QEMU is gone, and its descriptor with it
		err = nil
	}
	return outcome.Default(outcome.HostLacks, errors.Join(err, r.file.Close()))
}

// Serve answers a RemoteMemory's requests until conn ends, which is no error. It closes
// neither.
func (m *Memory) Serve(conn net.Conn) error {
	var q [12]byte
	buf := make([]byte, 1+maxRelayed)
	for {
		if _, err := io.ReadFull(conn, q[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return err
		}
		n := binary.LittleEndian.Uint32(q[8:])
		if n > maxRelayed {
			return outcome.Inputf("a read of %d bytes of a guest's memory, want at most %d", n, maxRelayed)
		}
		reply := buf[:1+n]
		reply[0] = 0
		if k, err := m.ReadAt(reply[1:], int64(binary.LittleEndian.Uint64(q[:]))); k < int(n) {
			why := text.Line(err.Error(), maxRelayError-1)
			reply = append(append(reply[:0], 1, byte(len(why))), why...)
		}
		if _, err := conn.Write(reply); err != nil {
			return nil // it has left
		}
	}
}

// maxRelayError limits the text of an error, in bytes.
const maxRelayError = 255

// remote reads the memory by a connection to Serve.
type remote struct {
	mu   sync.Mutex
	conn net.Conn
}

// RemoteMemory is the memory that the other end of a connection serves. Close closes the
// connection.
func RemoteMemory(conn net.Conn, regions []Region, slow string) *Memory {
	r := &remote{conn: conn}
	return &Memory{Regions: regions, Slow: slow, read: r.read, close: conn.Close}
}

func (r *remote) read(p []byte, phys uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.conn.SetDeadline(time.Now().Add(relayWait + 5*time.Second)); err != nil {
		return err
	}
	var q [12]byte
	binary.LittleEndian.PutUint64(q[:], phys)
	binary.LittleEndian.PutUint32(q[8:], uint32(len(p)))
	_, err := r.conn.Write(q[:])
	var status [1]byte
	if err == nil {
		_, err = io.ReadFull(r.conn, status[:])
	}
	if err == nil && status[0] == 0 {
		_, err = io.ReadFull(r.conn, p)
	}
	if err == nil && status[0] != 0 {
		why := make([]byte, maxRelayError)
		if _, err = io.ReadFull(r.conn, status[:]); err == nil {
			if _, err = io.ReadFull(r.conn, why[:status[0]]); err == nil {
				return errors.New(text.Line(string(why[:status[0]]), maxRelayError))
			}
		}
	}
	if err != nil {
		r.conn.Close() // what comes next would not be the reply to what is asked next
		return fmt.Errorf("the machine's labctl: %w", err)
	}
	return nil
}

// memory opens the guest's memory in the way that this host permits.
func (v *VM) memory(ctx context.Context, mon *qmp.Monitor, regions []Region) (*Memory, error) {
	f, err := openMemory(v.proc.PID())
	if err == nil {
		return &Memory{File: f, Regions: regions}, nil
	}
	why := forbidden(err, hostRules(v.proc.Program()))
	r, rerr := newRelay(ctx, mon)
	if rerr == nil {
		// A first read, so that what does not work is known here.
		if rerr = r.read(make([]byte, 1), regions[0].Base); rerr == nil {
			return &Memory{Regions: regions, read: r.read, close: r.close, Slow: "QEMU reads the guest's memory for labctl, which is slow: " + why}, nil
		}
		r.close()
	}
	return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("open the guest's memory: %s; and by QEMU itself: %w", why, rerr))
}

// openMemory opens the memory of QEMU's process. Since QEMU is a child of this process,
// Yama's usual setting permits it (Documentation/admin-guide/LSM/Yama.rst); access is
// checked when the file is opened, not when it is read.
func openMemory(pid int) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/mem", pid)) }

// rules are what on a host may keep a process from reading the memory of its child
// (ptrace(2), "Ptrace access mode checking").
type rules struct {
	program  string // QEMU's
	scope    string // of Yama: with 2 or 3 not even a parent may
	readable bool   // the program: of one that may not be read, nobody may read the memory
	raised   bool   // the program gets rights that its caller lacks
}

// hostRules asks this host.
func hostRules(program string) rules {
	r := rules{program: program}
	scope, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope") // none without Yama
	r.scope = strings.TrimSpace(string(scope))
	if f, err := os.Open(program); err == nil {
		r.readable = true
		if st, err := f.Stat(); err == nil {
			r.raised = st.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0
		}
		if n, err := unix.Fgetxattr(int(f.Fd()), "security.capability", nil); err == nil && n > 0 {
			r.raised = true
		}
		f.Close()
	}
	return r
}

// forbidden says in a line why openMemory has failed, and what would help.
func forbidden(err error, r rules) string {
	help := "; permit labctl to ptrace its children (in a container: --cap-add SYS_PTRACE)"
	switch {
	case !errors.Is(err, fs.ErrPermission):
		help = ""
	case r.scope == "2":
		help = ": this host forbids ptrace (kernel.yama.ptrace_scope = 2); permit it with: sysctl kernel.yama.ptrace_scope=1"
	case r.scope == "3":
		help = ": this host forbids ptrace until its next boot (kernel.yama.ptrace_scope = 3)"
	case !r.readable:
		help = fmt.Sprintf(": this user may not read %s; permit it with: chmod a+r %[1]s", r.program)
	case r.raised:
		help = fmt.Sprintf(": %s has rights of its own (setuid or setcap); use one without", r.program)
	}
	return err.Error() + help
}
