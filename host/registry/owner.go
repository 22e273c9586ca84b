package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
	"labctl/host/vm/qemu"
)

// maxConns limits the connections to one owner.
const maxConns = 128

// Entry is a machine of this process's that others can find.
type Entry struct {
	info Info
	vm   *vm.VM
	save Saver
	dir  *directory
	l    *net.UnixListener

	down chan struct{} // closed when somebody asks for the end
	once sync.Once     // closes down
	gone chan struct{} // closed by Close

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	why    error // how the machine ended, before gone is closed

	mu      sync.Mutex
	conns   map[net.Conn]bool
	joins   map[*agent.Bridge]bool
	closing bool
	used    time.Time      // last use by a connection
	gdb     int            // connections to the gdbstub, 1 at most but for a moment
	wg      sync.WaitGroup // of connections
	talks   sync.WaitGroup // of those that have something to say at the end
}

// Saver stores a checkpoint of a machine under a name.
type Saver func(ctx context.Context, name string) error

// Register makes a machine known. With info.Named its name is info.Name, which must be
// free; else a name is made of info.Run. PID, QEMU, ID and Started are set here.
func Register(v *vm.VM, info Info, save Saver) (*Entry, error) {
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	e := &Entry{
		info: info, vm: v, dir: d, save: save,
		down: make(chan struct{}), gone: make(chan struct{}),
		conns: map[net.Conn]bool{}, joins: map[*agent.Bridge]bool{}, used: time.Now(),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.info.PID, e.info.QEMU, e.info.ID, e.info.Started = os.Getpid(), v.PID(), rand.Text(), time.Now()
	if err := e.listen(v.Context()); err != nil {
		d.Close()
		return nil, err
	}
	go e.accept()
	return e, nil
}

func (e *Entry) listen(ctx context.Context) (err error) {
	if e.info.Named {
		if err := CheckName(e.info.Name); err != nil {
			return err
		}
		e.l, err = e.dir.listen(ctx, e.info.Name)
		return err
	}
	for range 10 {
		e.info.Name = autoName(e.info.Run)
		var taken *TakenError
		if e.l, err = e.dir.listen(ctx, e.info.Name); !errors.As(err, &taken) {
			break
		}
	}
	return err
}

// CheckFree reports whether a name can be given to a machine now, so that no boot is in
// vain.
func CheckFree(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	d, err := openDir()
	if err != nil {
		return err
	}
	defer d.Close()
	conn, err := d.dial(ctx, name)
	switch {
	case errors.Is(err, errNone):
		return nil
	case err != nil:
		return fmt.Errorf("machine %s: %w", name, err)
	}
	conn.Close()
	return &TakenError{name}
}

// Info describes the machine as it is now.
func (e *Entry) Info() Info {
	e.mu.Lock()
	defer e.mu.Unlock()
	info := e.info
	info.Idle = Seconds(e.idle().Seconds())
	info.Debugger = e.gdb > 0
	for b := range e.joins {
		info.Programs += b.Programs()
	}
	return info
}

// Asked is closed when somebody has asked for the machine's end.
func (e *Entry) Asked() <-chan struct{} { return e.down }

// Idle is how long no connection has used the machine.
func (e *Entry) Idle() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.idle()
}

func (e *Entry) idle() time.Duration {
	for b := range e.joins {
		if b.Busy() {
			return 0
		}
	}
	return time.Since(e.used)
}

func (e *Entry) touch() {
	e.mu.Lock()
	e.used = time.Now()
	e.mu.Unlock()
}

// Close makes the machine unknown and ends the connections to it; why is how it ended,
// nil if it is no longer wanted. It is called before the VM is closed, and after the
// guest's console has ended if the guest has.
func (e *Entry) Close(why error) error {
	err := os.Remove(e.dir.file(e.info.Name, sockSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	e.l.Close()
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	e.why = why
	close(e.gone)
	e.talks.Wait() // takes a moment, or as long as an Outbox waits
	e.cancel()
	e.mu.Lock()
	for c := range e.conns {
		c.Close()
	}
	e.conns = nil
	e.mu.Unlock()
	e.wg.Wait()
	e.dir.Close()
	return outcome.Default(outcome.HostLacks, err)
}

func (e *Entry) accept() {
	for {
		conn, err := e.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, for one
			continue
		}
		if samePeer(conn) != nil || !e.admit(conn) {
			conn.Close()
			continue
		}
		go func() {
			defer e.wg.Done()
			e.serve(conn)
			e.dismiss(conn)
		}()
	}
}

// admit notes a connection, so that Close can end it.
func (e *Entry) admit(c net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil || len(e.conns) >= maxConns {
		return false
	}
	e.conns[c] = true
	e.wg.Add(1)
	return true
}

func (e *Entry) dismiss(c net.Conn) {
	c.Close()
	e.mu.Lock()
	delete(e.conns, c)
	e.mu.Unlock()
}

// served is one connection.
type served struct {
	*Entry
	conn *net.UnixConn
	cont []func() error  // what it has stopped
	gdbs []chan struct{} // closed when a gdbstub that it was given is no longer in use
}

// askWait limits what QEMU is asked for a client.
const askWait = 10 * time.Second

// serve answers requests until the connection ends.
func (e *Entry) serve(conn *net.UnixConn) {
	s := &served{Entry: e, conn: conn}
	defer s.resume()
	for {
		line, files, err := receive(conn, maxRequest)
		closeFiles(files) // there is no use for any
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			return
		default:
			if outcome.Of(err) == outcome.BadInput {
				s.reply(nil, err)
			}
			return
		}
		q, err := decodeRequest(line)
		if err == nil && q.Machine != "" && q.Machine != e.info.ID {
			err = outcome.Errorf(outcome.GuestCrashed, "machine %s has ended, and this is another one", e.info.Name)
		}
		var value any
		if err == nil {
			value, files, err = s.do(q)
		}
		err = s.reply(value, err, files...)
		closeFiles(files)
		if err != nil {
			return
		}
	}
}

// reply sends a value or an error.
func (s *served) reply(value any, failed error, files ...*os.File) error {
	r := reply{Schema: schema, Files: len(files)}
	if failed != nil {
		r = reply{Schema: schema, Error: newRemote(failed)}
		files = nil
	} else if value != nil {
		b, err := json.Marshal(value)
		if err != nil {
			return err
		}
		r.Value = b
	}
	line, err := encode(r)
	if err != nil {
		return err
	}
	return send(s.conn, line, files...)
}

// resume lets the guest go on that this connection has stopped.
func (s *served) resume() {
	for _, cont := range s.cont {
		cont() // what fails here has ended the guest
	}
	s.cont = nil
}

// do performs a request.
func (s *served) do(q request) (value any, files []*os.File, err error) {
	ctx, cancel := context.WithTimeout(s.vm.Context(), askWait)
	defer cancel()
	if q.Op != opInfo && q.Op != opWait {
		s.touch()
	}
	switch q.Op {
	case opInfo:
		return s.Info(), nil, nil
	case opMemory:
		m, err := s.vm.Memory(ctx)
		if err != nil {
			return nil, nil, err
		}
		f := m.File
		if f == nil {
			if f, err = s.memoryFor(m); err != nil {
				return nil, nil, errors.Join(err, m.Close())
			}
		}
		return memoryReply{m.Regions, m.Slow}, []*os.File{f}, nil
	case opRegisters:
		regs, err := s.vm.Registers(ctx)
		return regs, nil, err
	case opStop:
		cont, err := s.vm.Stop(ctx)
		if err == nil {
			s.cont = append(s.cont, cont)
		}
		return nil, nil, err
	case opCont:
		n := len(s.cont)
		if n == 0 {
			return nil, nil, outcome.Inputf("cont: this connection has stopped nothing")
		}
		cont := s.cont[n-1]
		s.cont = s.cont[:n-1]
		return nil, nil, cont()
	case opGDB:
		f, err := s.gdbFor(ctx)
		if err != nil {
			return nil, nil, err
		}
		return nil, []*os.File{f}, nil
	case opSave:
		if err := CheckName(q.As); err != nil {
			return nil, nil, err
		}
		return nil, nil, s.save(s.vm.Context(), q.As)
	case opDetached:
		for _, end := range s.gdbs {
			<-end
		}
		s.gdbs = nil
		return nil, nil, nil
	case opJoin:
		return s.joined(q.Dir)
	case opWait:
		s.wait()
		return nil, nil, net.ErrClosed
	case opDown:
		if !s.info.Named {
			return nil, nil, outcome.Inputf("machine %s ends with the command that runs it (pid %d)", s.info.Name, s.info.PID)
		}
		s.once.Do(func() { close(s.down) })
		return nil, nil, nil
	}
	return nil, nil, outcome.Inputf("unknown operation %q of a request: another version of labctl?", text.Line(string(q.Op), 40))
}

// wait waits for the end of the machine, and tells, or of the connection, on which
// nothing may come before the reply.
func (s *served) wait() {
	if !s.talk() {
		return
	}
	defer s.talks.Done()
	left := make(chan struct{})
	go func() {
		s.conn.Read(make([]byte, 1))
		close(left)
	}()
	select {
	case <-s.gone:
		s.reply(nil, s.why)
	case <-left:
	}
	s.conn.Close()
}

// talk notes one who has something to say at the end, unless that is now.
func (e *Entry) talk() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.talks.Add(1)
	return true
}

// gdbFor opens the gdbstub and returns an end of a socket that is joined to it.
func (s *served) gdbFor(ctx context.Context) (*os.File, error) {
	stub, err := s.vm.GDB(ctx)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := qemu.SocketPair("gdb")
	if err != nil {
		stub.Close()
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	if !s.admit(ours) {
		stub.Close()
		ours.Close()
		theirs.Close()
		return nil, outcome.Hostf("machine %s has too many connections", s.info.Name)
	}
	s.mu.Lock()
	s.gdb++
	s.mu.Unlock()
	end := make(chan struct{})
	s.gdbs = append(s.gdbs, end)
	go func() {
		defer close(end)
		defer s.wg.Done()
		s.join(ours, stub)
		stub.Close()
		s.dismiss(ours)
		s.mu.Lock()
		s.gdb--
		s.mu.Unlock()
	}()
	return theirs, nil
}

// memoryFor returns an end of a socket on which memory is served that has to be asked for.
func (s *served) memoryFor(m *vm.Memory) (*os.File, error) {
	ours, theirs, err := qemu.SocketPair("memory")
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	if !s.admit(ours) {
		ours.Close()
		theirs.Close()
		return nil, outcome.Hostf("machine %s has too many connections", s.info.Name)
	}
	go func() {
		defer s.wg.Done()
		_ = m.Serve(ours) // a client that breaks the protocol is told by the end of it
		s.dismiss(ours)
		m.Close()
	}()
	return theirs, nil
}

// join copies between a client and the gdbstub until the client has left, or QEMU has.
func (s *served) join(client, stub net.Conn) {
	go func() {
		io.Copy(client, stub)
		client.Close()
	}()
	buf := make([]byte, 4<<10)
	for {
		n, err := client.Read(buf)
		if n > 0 {
			s.touch()
			if _, werr := stub.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
