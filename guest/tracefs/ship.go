package tracefs

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// layout is what has to be known of a ring-buffer page to carry it.
type layout struct {
	page   int // bytes, header and all
	commit int // place of the length of the data
	long   int // bytes of that
	data   int // place of the data
}

// parseLayout reads the fields of events/header_page:
//
//	field: local_t commit;	offset:8;	size:8;	signed:1;
//	field: char data;	offset:16;	size:4080;	signed:1;
//
// By hand: what runs first in a guest that was restored is translated for it, and a
// regular expression is as much code as all the rest of arming.
func parseLayout(header string) (l layout, err error) {
	for line := range strings.Lines(header) {
		field, rest, _ := strings.Cut(line, ";")
		offset, rest, _ := strings.Cut(rest, ";")
		size, _, _ := strings.Cut(rest, ";")
		at, aerr := fieldNumber(offset, "offset:")
		n, nerr := fieldNumber(size, "size:")
		if aerr != nil || nerr != nil {
			continue
		}
		switch field[strings.LastIndexByte(field, ' ')+1:] {
		case "commit":
			l.commit, l.long = at, n
		case "data":
			l.data, l.page = at, at+n
		}
	}
	if l.long != 4 && l.long != 8 || l.commit+l.long > l.data || l.data >= l.page || l.page > wire.MaxChunk {
		return layout{}, errors.New("header_page does not tell the layout of a page")
	}
	return l, nil
}

// fieldNumber reads "\toffset:8".
func fieldNumber(s, name string) (int, error) {
	digits, ok := strings.CutPrefix(strings.TrimSpace(s), name)
	if !ok || len(digits) > 7 {
		return 0, errors.New("no " + name)
	}
	return strconv.Atoi(digits)
}

// scrub clears what is behind the data of a page that is not full: old events
// that nobody must read, and that do not compress. The eight bytes after the data
// can be a count of lost events (RB_MISSED_STORED in kernel/trace/ring_buffer.c).
func (l layout) scrub(page []byte) {
	n := int(binary.NativeEndian.Uint32(page[l.commit:])) & 0xfffff
	if bigEndian && l.long == 8 {
		n = int(binary.NativeEndian.Uint32(page[l.commit+4:])) & 0xfffff
	}
	if end := l.data + n + 8; end < len(page) {
		clear(page[end:])
	}
}

// stamp is the time of a page's first event.
func stamp(page []byte) uint64 { return binary.NativeEndian.Uint64(page) }

// Run begins the capture and ships it until stop is closed; max bounds the bytes
// of pages. It sends first what is needed to read pages, then ChunkArmed when the
// kernel records, then pages as the buffers fill, and after the end the rest. The
// error is that of the stream, or of a kernel that cannot be read.
func (r *Capture) Run(stop <-chan struct{}, w *wire.ChunkWriter, max int64) (st wire.CaptureStopped, err error) {
	if err := r.sendLayout(w); err != nil {
		return st, err
	}
	s := &shipment{r: r, w: w, max: max, end: make(chan struct{}), begun: make(chan struct{}), quit: make(chan struct{})}
	defer s.close()
	if err := s.open(); err != nil {
		return st, err
	}
	switch {
	case r.params.Live:
		s.startLive()
	case !r.params.Hold:
		s.start()
	}
	if !r.params.Keep {
		if err := r.write("tracing_on", "1"); err != nil {
			s.finish()
			return st, fmt.Errorf("start trace: %w", err)
		}
	}
	if err := r.setHists("continue"); err != nil {
		s.finish()
		return st, err
	}
	if err := r.sendArmed(w); err != nil {
		s.finish()
		return st, err
	}
	close(s.begun)
	select {
	case <-stop:
	case <-s.end:
	}
	if err := r.setHists("pause"); err != nil {
		s.fail(err)
	}
	if err := r.write("tracing_on", "0"); err != nil {
		s.fail(fmt.Errorf("stop trace: %w", err))
	}
	s.finish()
	s.drain()
	if s.failed != nil {
		return st, s.failed
	}
	st, err = s.account()
	return st, errors.Join(err, r.sendHists(w), r.sendNames(w), w.Flush())
}

func (r *Capture) sendArmed(w *wire.ChunkWriter) error {
	armed, err := json.Marshal(r.armed)
	if err != nil {
		return fmt.Errorf("encode what is armed: %w", err)
	}
	return errors.Join(w.Write(wire.ChunkArmed, 0, armed), w.Flush())
}

// shipment takes pages from the kernel to the wire.
type shipment struct {
	r    *Capture
	w    *wire.ChunkWriter
	max  int64
	cpus []*cpu

	readers sync.WaitGroup
	begun   chan struct{} // closed when pages may be sent
	quit    chan struct{} // closed by finish
	end     chan struct{} // closed when full or failed

	mu      sync.Mutex
	shipped int64
	left    int64 // bytes that did not fit
	full    bool
	failed  error
}

// cpu is one CPU's buffer.
type cpu struct {
	id      int
	raw     int          // per_cpu/cpuN/trace_pipe_raw
	pipe    [2]int       // pages go through it without a copy
	thread  atomic.Int32 // that waits for pages, 0 for none
	buf     []byte       // what is sent next
	page    []byte       // read ahead by drain
	shipped int64
}

// pipeBytes is what a pipe of pages is to hold: as much as any user may have.
const pipeBytes = 1 << 20

// batchBytes is how much is sent at a time.
const batchBytes = 256 << 10

func (s *shipment) open() error {
	for _, id := range s.r.cpus {
		path := filepath.Join(s.r.dir, "per_cpu/cpu"+strconv.Itoa(id), "trace_pipe_raw")
		raw, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open pages of CPU %d: %w", id, err)
		}
		c := &cpu{id: id, raw: raw, pipe: [2]int{-1, -1}}
		s.cpus = append(s.cpus, c)
		if s.r.params.Hold || s.r.params.Live {
			continue
		}
		// Blocking: a pipe that does not would keep splice from waiting, too.
		if err := unix.Pipe2(c.pipe[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("open a pipe for pages: %w", err)
		}
		unix.FcntlInt(uintptr(c.pipe[0]), unix.F_SETPIPE_SZ, pipeBytes) // a smaller one is only slower
	}
	return nil
}

func (s *shipment) close() {
	for _, c := range s.cpus {
		for _, fd := range []int{c.raw, c.pipe[0], c.pipe[1]} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
}

// start makes the readers' threads, which is not to be in the capture: they wait
// for begun.
func (s *shipment) start() {
	var made sync.WaitGroup
	made.Add(len(s.cpus))
	for _, c := range s.cpus {
		s.readers.Go(func() {
			runtime.LockOSThread() // for finish, which signals the thread
			defer runtime.UnlockOSThread()
			c.thread.Store(int32(unix.Gettid()))
			defer c.thread.Store(0)
			made.Done()
			select {
			case <-s.begun:
				s.read(c)
			case <-s.quit:
			}
		})
	}
	made.Wait()
}

// A reader sleeps in the kernel until its buffer is filled to wakePercent, which
// disturbs a quiet guest not at all, and leaves a burst the rest of the buffer.
// While the kernel records a lot there always is a page; then it sleeps between
// two looks, as long as the buffer does not fill more than that meanwhile.
const (
	wakePercent = 25
	leastPause  = 2 * time.Millisecond
	mostPause   = 500 * time.Millisecond
)

// read ships a CPU's pages until quit.
func (s *shipment) read(c *cpu) {
	enough := int64(s.r.armed.BufferKB) << 10 * wakePercent / 100
	pause := leastPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		moved, err := unix.Splice(c.raw, nil, c.pipe[1], nil, pipeBytes, unix.SPLICE_F_MOVE)
		n := int64(moved) // an int on 32-bit machines
		switch {
		case errors.Is(err, unix.EINTR): // finish, or Go's own signals
			n = enough
		case errors.Is(err, unix.ENODEV): // a CPU that was never online
			n = 0
		case err != nil:
			s.fail(fmt.Errorf("read pages of CPU %d: %w", c.id, err))
			return
		}
		if err == nil && !s.forward(c, int(n)) {
			return
		}
		switch {
		case n > enough:
			pause = max(pause/2, leastPause)
		case n < enough/2:
			pause = min(pause*2, mostPause)
		}
		timer.Reset(pause)
		select {
		case <-s.quit:
			return
		case <-timer.C:
		}
	}
}

// forward sends n bytes of pages that are in the pipe.
func (s *shipment) forward(c *cpu, n int) bool {
	if c.buf == nil {
		c.buf = make([]byte, batchBytes/s.r.layout.page*s.r.layout.page)
	}
	for n > 0 {
		got, err := unix.Read(c.pipe[0], c.buf[:min(n, len(c.buf))])
		if err == nil && got == 0 {
			err = unix.EPIPE
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			s.fail(fmt.Errorf("read pages of CPU %d: %w", c.id, err))
			return false
		}
		if !s.send(c, c.buf[:got]) {
			return false
		}
		n -= got
	}
	if err := s.w.Flush(); err != nil {
		s.fail(err)
		return false
	}
	return true
}

// send sends pages as far as the bound allows, and reports whether there may be more.
func (s *shipment) send(c *cpu, pages []byte) bool {
	s.mu.Lock()
	page := int64(s.r.layout.page)
	n := min(int64(len(pages)), (s.max-s.shipped)/page*page)
	s.shipped += n
	c.shipped += n
	s.left += int64(len(pages)) - n
	if n < int64(len(pages)) && !s.full {
		s.full = true
		s.over()
	}
	s.mu.Unlock()
	if n > 0 {
		if err := s.w.Write(wire.ChunkPages, c.id, pages[:n]); err != nil {
			s.fail(err)
			return false
		}
	}
	return n == int64(len(pages))
}

func (s *shipment) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
		s.over()
	}
}

// over tells Run to end. s.mu is held.
func (s *shipment) over() {
	select {
	case <-s.end:
	default:
		close(s.end)
	}
}

// finish ends the readers. One that waits for pages is woken by a signal, on newer
// kernels by an ioctl, after which it goes back to waiting unless it knows that it
// should end. Both can come just before the wait begins, hence the repetition.
func (s *shipment) finish() {
	close(s.quit)
	done := make(chan struct{})
	go func() {
		s.readers.Wait()
		close(done)
	}()
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		for _, c := range s.cpus {
			if tid := c.thread.Load(); tid != 0 {
				unix.IoctlSetInt(c.raw, 0, 0)
				unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG)
			}
		}
		select {
		case <-done:
			return
		case <-time.After(pause):
		}
	}
}

// drain ships what is left in the buffers, the oldest page of all CPUs first, so
// that a bound cuts all of them at one time.
func (s *shipment) drain() {
	for _, c := range s.cpus {
		if err := unix.SetNonblock(c.raw, true); err != nil {
			s.fail(fmt.Errorf("read pages of CPU %d: %w", c.id, err))
		}
		c.buf, c.page = make([]byte, 0, batchBytes/4), make([]byte, s.r.layout.page)
		s.next(c)
	}
	for room := s.max - s.shipped; s.failed == nil && !s.full; room -= int64(s.r.layout.page) {
		var oldest *cpu
		for _, c := range s.cpus {
			if c.page != nil && (oldest == nil || stamp(c.page) < stamp(oldest.page)) {
				oldest = c
			}
		}
		if oldest == nil {
			break
		}
		if room < int64(s.r.layout.page) {
			s.full = true
			break
		}
		if len(oldest.buf)+len(oldest.page) > cap(oldest.buf) {
			s.send(oldest, oldest.buf)
			oldest.buf = oldest.buf[:0]
		}
		oldest.buf = append(oldest.buf, oldest.page...)
		s.next(oldest)
	}
	for _, c := range s.cpus {
		s.send(c, c.buf)
		s.left += int64(len(c.page))
	}
}

// next reads a CPU's next page ahead, nil when there is none.
func (s *shipment) next(c *cpu) {
	n, err := unix.Read(c.raw, c.page)
	switch {
	case errors.Is(err, unix.EINTR):
		s.next(c)
	case n == len(c.page):
		s.r.layout.scrub(c.page)
	case err == nil && n > 0:
		s.fail(fmt.Errorf("read pages of CPU %d: %d bytes, want a page of %d", c.id, n, len(c.page)))
		c.page = nil
	default: // nothing (EAGAIN), or a CPU that was never online
		c.page = nil
	}
}

// account tells what became of the events.
func (s *shipment) account() (wire.CaptureStopped, error) {
	st := wire.CaptureStopped{Bytes: s.shipped, Left: s.left, CPUs: []wire.CaptureCPU{}}
	if s.full {
		st.Truncated = fmt.Sprintf("its bound of %d bytes was reached", s.max)
	}
	for _, c := range s.cpus {
		text, err := readHead(filepath.Join(s.r.dir, "per_cpu/cpu"+strconv.Itoa(c.id), "stats"), 4<<10)
		if err != nil {
			return st, fmt.Errorf("read statistics of CPU %d: %w", c.id, err)
		}
		if err := s.w.Write(wire.ChunkStats, c.id, []byte(text)); err != nil {
			return st, err
		}
		v := statValues(text)
		if s.full {
			st.Left += v["bytes"]
		}
		one := wire.CaptureCPU{CPU: c.id, Bytes: c.shipped, Overrun: v["overrun"], Commit: v["commit overrun"], Dropped: v["dropped events"]}
		if one.Bytes > 0 || one.Lost() > 0 {
			st.CPUs = append(st.CPUs, one)
		}
	}
	return st, nil
}

// sendLayout sends what is needed to read pages, for a guest may die before the
// end: the layout of pages and events, and where the kernel is.
func (r *Capture) sendLayout(w *wire.ChunkWriter) error {
	event, err := os.ReadFile(filepath.Join(r.dir, "events/header_event"))
	if err != nil {
		return fmt.Errorf("read header_event: %w", err)
	}
	for _, t := range []struct {
		kind wire.ChunkKind
		text []byte
	}{
		{wire.ChunkHeaderPage, []byte(r.header)},
		{wire.ChunkHeaderEvent, event},
		{wire.ChunkClock, []byte(r.clocks)},
	} {
		if err := w.Write(t.kind, 0, t.text); err != nil {
			return fmt.Errorf("send the layout of pages: %w", err)
		}
	}
	// Of the ring buffer's own events any can occur: stacks, trace_printk, marks.
	for _, name := range slices.Concat(r.eventsOf("ftrace"), r.events) {
		text, err := os.ReadFile(filepath.Join(r.dir, "events", r.system(name), "format"))
		if err == nil {
			err = w.Write(wire.ChunkFormat, 0, slices.Concat([]byte(name), []byte{0}, text))
		}
		if err != nil {
			return fmt.Errorf("send format of %s: %w", name, err)
		}
	}
	if r.params.Live {
		if err := w.Write(wire.ChunkModules, 0, r.modules()); err != nil {
			return err
		}
	}
	if r.params.Symbols {
		if r.params.Live {
			return sendFile(w, wire.ChunkSymbols, filepath.Join(r.fs.proc, "kallsyms"))
		}
		return nil
	}
	line, err := r.anchor()
	if err != nil {
		r.miss("symbols", err)
		return nil
	}
	return w.Write(wire.ChunkSymbols, 0, []byte(line))
}

// anchor is the first line of kallsyms that tells an address of the kernel: in the
// upper half, for the per-CPU symbols before it do not.
func (r *Capture) anchor() (string, error) {
	f, err := os.Open(filepath.Join(r.fs.proc, "kallsyms"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	// All of it would take seconds.
	lines := bufio.NewReaderSize(io.LimitReader(f, 1<<20), 4<<10)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", errors.New("kallsyms has no address of the kernel")
		}
		if line[0] >= '8' {
			return line, nil
		}
	}
}

// sendNames sends what gives numbers and addresses their names. It is read after
// the end, when it is complete and disturbs nobody.
func (r *Capture) sendNames(w *wire.ChunkWriter) error {
	texts := []struct {
		kind wire.ChunkKind
		path string
	}{
		{wire.ChunkCmdlines, filepath.Join(r.fs.root, "saved_cmdlines")},
		{wire.ChunkTgids, filepath.Join(r.fs.root, "saved_tgids")},
		{wire.ChunkPrintk, filepath.Join(r.fs.root, "printk_formats")},
	}
	if r.params.Symbols && !r.params.Live {
		texts = append(texts, struct {
			kind wire.ChunkKind
			path string
		}{wire.ChunkSymbols, filepath.Join(r.fs.proc, "kallsyms")})
	}
	for _, t := range texts {
		if err := sendFile(w, t.kind, t.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("send %s: %w", filepath.Base(t.path), err)
		}
	}
	if r.params.Symbols {
		return nil
	}
	return w.Write(wire.ChunkModules, 0, r.modules())
}

// sendFile sends a text in pieces.
func sendFile(w *wire.ChunkWriter, kind wire.ChunkKind, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 128<<10)
	for {
		// The kernel gives out a page or less at a time.
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if err := w.Write(kind, 0, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// modules lists where the code of each loaded module is.
func (r *Capture) modules() []byte {
	var out []byte
	loaded, _ := readHead(filepath.Join(r.fs.proc, "modules"), 1<<20)
	for line := range strings.Lines(loaded) {
		name, _, _ := strings.Cut(line, " ")
		sections, _ := filepath.Glob(filepath.Join(r.fs.modules, name, "sections/.*text*"))
		for _, f := range sections {
			addr, err := readHead(f, 64)
			if err == nil && len(out) < wire.MaxChunk-1024 {
				out = fmt.Appendf(out, "%s %s %s\n", name, filepath.Base(f), strings.TrimSpace(addr))
			}
		}
	}
	return out
}
