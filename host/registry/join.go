package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"strings"
	"time"

	"labctl/guest/wire"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
	"labctl/host/vm/qemu"
)

// joinReply describes a guest to one that joins it.
type joinReply struct {
	Started time.Time `json:"started"`
	Pace    Seconds   `json:"pace_seconds"` // how long it took to boot
	Tainted uint64    `json:"tainted"`
	Window  int64     `json:"window,omitempty"` // size, if the third file is the window
}

// joined joins a client to the guest.
// dir is the client's workspace in the guest, removed when it has left.
func (s *served) joined(dir string) (value any, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
			files = nil
		}
	}()
	if !goodName.MatchString(dir) || len(dir) > maxName {
		return nil, nil, outcome.Inputf("a workspace called %q", text.Line(dir, 60))
	}
	var ours [2]net.Conn
	admitted := 0
	for i, name := range []string{"agent", "console"} {
		var theirs *os.File
		if ours[i], theirs, err = qemu.SocketPair(name); err != nil {
			break
		}
		files = append(files, theirs)
	}
	window, size, werr := s.vm.OpenWindow()
	if window != nil {
		files = append(files, window)
	}
	if err = errors.Join(err, werr); err == nil {
		for admitted < len(ours) && s.admit(ours[admitted]) {
			admitted++
		}
		if admitted < len(ours) || !s.talk() {
			err = outcome.Hostf("machine %s has too many connections", s.info.Name)
		}
	}
	if err != nil {
		for i, c := range ours {
			if c != nil {
				s.dismiss(c)
			}
			if i < admitted {
				s.wg.Done()
			}
		}
		return nil, files, outcome.Default(outcome.HostLacks, err)
	}
	out := s.vm.Outlet()
	go s.bridge(ours[0], out.Hello, path.Join(wire.WorkspaceDir, dir))
	go s.console(ours[1])
	return joinReply{Started: out.Started, Pace: Seconds(out.Pace.Seconds()), Tainted: out.Tainted, Window: size}, files, nil
}

// removeWait is how long a guest may take to remove a workspace.
const removeWait = time.Minute

// bridge serves the agent to a client until that has left and nothing of it runs.
func (e *Entry) bridge(conn net.Conn, hello wire.Hello, dir string) {
	defer e.wg.Done()
	b := e.vm.Agent().NewBridge(conn, hello, e.touch)
	e.mu.Lock()
	e.joins[b] = true
	e.mu.Unlock()
	b.Run(e.ctx) // a client that breaks the protocol is told by the end of it
	e.dismiss(conn)
	e.mu.Lock()
	delete(e.joins, b)
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, removeWait)
	defer cancel()
	e.vm.Agent().Remove(ctx, dir) // else it stays until the machine ends
}

// console sends a client the guest's console until the client has had enough. What was
// printed until then is sent before the connection ends.
func (e *Entry) console(conn net.Conn) {
	defer e.wg.Done()
	defer e.dismiss(conn)
	out := agent.NewOutbox(conn, func() int { return maxConsole })
	defer e.vm.TapConsole(out)()
	left := make(chan struct{})
	go func() {
		io.Copy(io.Discard, conn)
		close(left)
	}()
	select {
	case <-left:
	case <-e.gone:
	}
	out.Finish()
	e.talks.Done()
}

// maxConsole is how much of the console may wait for a client, in bytes.
const maxConsole = 8 << 20

// Workspace is a directory in the guest for what is started by Join. It is not there
// yet, and is removed after this process has left.
func (m *Machine) Workspace() string { return path.Join(wire.WorkspaceDir, m.workspace) }

// newWorkspace names a workspace.
func newWorkspace() string { return strings.ToLower(rand.Text()[:10]) }

// Join makes a VM of the machine. cfg has the logs, Spool, Console and Patience.
// What is started by the VM ends with it; the machine goes on.
func (m *Machine) Join(ctx context.Context, cfg vm.Config) (*vm.VM, error) {
	r, conn, files, err := m.call(ctx, request{Op: opJoin, Dir: m.workspace})
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", m.Name, err)
	}
	conn.Close()
	defer closeFiles(files[:min(2, len(files))])
	var v joinReply
	if err := decodeValue(r, &v); err != nil {
		closeFiles(files)
		return nil, fmt.Errorf("join %s: %w", m.Name, err)
	}
	if want := map[bool]int{false: 2, true: 3}[v.Window > 0]; len(files) != want {
		closeFiles(files)
		return nil, outcome.Hostf("join %s: %d files, want %d", m.Name, len(files), want)
	}
	j := &vm.Joined{
		Inspector: m, Started: v.Started, Pace: v.Pace.Duration(), Tainted: v.Tainted, QEMU: m.QEMU,
		Alone: m.alone, WindowSize: v.Window,
	}
	if v.Window > 0 {
		j.Window = files[2]
	}
	if j.Agent, err = net.FileConn(files[0]); err == nil {
		j.Console, err = net.FileConn(files[1])
	}
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("join %s: %w", m.Name, err))
	}
	waiting, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	j.Ended = ended
	var how error
	go func() {
		defer close(ended)
		how = m.Wait(waiting)
		if how == nil {
			how = &EndedError{m.Name}
		}
	}()
	j.Wait = func() error {
		<-ended
		return how
	}
	joined, err := vm.Join(ctx, cfg, j)
	if err != nil {
		cancel()
		return nil, err
	}
	context.AfterFunc(joined.Context(), cancel)
	return joined, nil
}

// alone reports whether at most one program of other commands runs in the machine.
func (m *Machine) alone(ctx context.Context) bool {
	info, err := m.dir.info(ctx, m.Name)
	return err == nil && info.Programs <= 1
}
