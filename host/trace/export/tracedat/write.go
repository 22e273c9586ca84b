package tracedat

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"labctl/host/outcome"
	"labctl/host/trace/capture"
)

// WriteFile writes c to path, all or nothing.
func WriteFile(path string, c *capture.Capture) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("write %s: %w", path, err))
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := Write(tmp, c); err != nil {
		return err
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Write writes c as a version 6 file. The same capture gives the same bytes, and
// so does what Open reads from them. Pages are copied, never held; of a capture
// that was cut, an unfinished last page is left out, as trace-cmd reads whole
// pages only.
func Write(out io.Writer, c *capture.Capture) error {
	if err := check(c); err != nil {
		return fmt.Errorf("trace.dat: %w", err)
	}
	w := &writer{out: bufio.NewWriterSize(out, 64<<10), order: binary.LittleEndian}
	order := byte(0)
	if c.Order.Uint16([]byte{0, 1}) == 1 {
		w.order, order = binary.BigEndian, 1
	}
	w.string(magic + "6\x00")
	w.bytes([]byte{order, byte(c.LongSize)})
	w.u32(uint32(c.PageSize))
	w.string("header_page\x00")
	w.text64(c.HeaderPage)
	w.string("header_event\x00")
	w.text64(c.HeaderEvent)
	w.formats(c.Formats)
	w.text32(c.Kallsyms)
	w.text32(c.Printk)
	w.text64(c.Cmdlines)

	cpus := make([]capture.CPU, cpuCount(c)) // by number, with those that recorded nothing
	for _, cpu := range c.CPUs {
		cpus[cpu.ID] = cpu
	}
	w.u32(uint32(len(cpus)))
	w.options(c, cpus)
	w.table(c, cpus)
	for _, cpu := range cpus {
		if n := wholePages(c, cpu); n > 0 {
			w.pad(c.PageSize)
			w.pages(cpu, n)
		}
	}
	if w.err == nil {
		w.err = w.out.Flush()
	}
	return w.err
}

// cpuCount is the number of rows in the table, which has one for each CPU
// from 0 up.
func cpuCount(c *capture.Capture) int {
	n := c.CPUCount
	for _, cpu := range c.CPUs {
		n = max(n, cpu.ID+1)
	}
	return n
}

func wholePages(c *capture.Capture, cpu capture.CPU) int64 {
	return cpu.Size - cpu.Size%int64(c.PageSize)
}

// check refuses what the format cannot say, or would say in a way that reads
// back as something else.
func check(c *capture.Capture) error {
	switch n := longSize(c.HeaderPage); {
	case c.Order == nil:
		return errors.New("the capture has no byte order")
	case c.LongSize != 4 && c.LongSize != 8:
		return fmt.Errorf("a long of %d bytes: known are 4 and 8", c.LongSize)
	case n != 0 && n != c.LongSize:
		return fmt.Errorf("a long of %d bytes, but %d in header_page", c.LongSize, n)
	case c.PageSize < 512 || c.PageSize > maxPage || c.PageSize&(c.PageSize-1) != 0:
		return fmt.Errorf("a page of %d bytes: it must be a power of two from 512 to %d", c.PageSize, maxPage)
	case c.Times != (capture.Times{}):
		return errors.New("its times are not those of the trace clock: the pages alone cannot say so")
	case c.CPUCount < 0 || c.CPUCount > maxCPUs:
		return fmt.Errorf("%d CPUs: %d at most", c.CPUCount, maxCPUs)
	}
	type text struct {
		name string
		b    []byte
		max  int
	}
	const option = maxOptions - textCost // leaves room for "CPU: 1" and a NUL
	texts := []text{
		{"header_page", c.HeaderPage, maxText}, {"header_event", c.HeaderEvent, maxText}, {"kallsyms", c.Kallsyms, maxText},
		{"printk_formats", c.Printk, maxText}, {"saved_cmdlines", c.Cmdlines, maxText},
		{"trace_clock", c.Clocks, option}, {"uname", []byte(c.Uname), option},
	}
	for _, f := range c.Formats {
		texts = append(texts, text{"a format of " + f.System, f.Text, maxText})
	}
	for _, cpu := range c.CPUs {
		texts = append(texts, text{fmt.Sprintf("stats of CPU %d", cpu.ID), cpu.Stats, option})
	}
	total := 0
	for _, t := range texts {
		if len(t.b) > t.max {
			return fmt.Errorf("%s has %d bytes: %d at most", t.name, len(t.b), t.max)
		}
		if total += len(t.b) + 2*textCost; total > maxTexts {
			return fmt.Errorf("the texts of the capture are more than %d MB", maxTexts>>20)
		}
	}
	for _, f := range c.Formats {
		if f.System == "" || len(f.System) > maxName || strings.ContainsRune(f.System, 0) || len(f.Text) == 0 {
			return fmt.Errorf("a format of system %.40q has %d bytes: it needs a short name and a text", f.System, len(f.Text))
		}
	}
	seen := map[int]bool{}
	for _, cpu := range c.CPUs {
		if cpu.ID < 0 || cpu.ID >= maxCPUs || seen[cpu.ID] || cpu.Size < 0 || cpu.Size > math.MaxInt64/maxCPUs {
			return fmt.Errorf("CPU %d with %d bytes: it must be there once, with a number below %d", cpu.ID, cpu.Size, maxCPUs)
		}
		seen[cpu.ID] = true
	}
	return nil
}

// writer counts what it writes and keeps the first error.
type writer struct {
	out   *bufio.Writer
	order binary.AppendByteOrder
	n     int64
	err   error
}

func (w *writer) bytes(b []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(b)
	}
	w.n += int64(len(b))
}

func (w *writer) string(s string) { w.bytes([]byte(s)) }
func (w *writer) u16(v uint16)    { w.bytes(w.order.AppendUint16(nil, v)) }
func (w *writer) u32(v uint32)    { w.bytes(w.order.AppendUint32(nil, v)) }
func (w *writer) u64(v uint64)    { w.bytes(w.order.AppendUint64(nil, v)) }

func (w *writer) text32(b []byte) {
	w.u32(uint32(len(b)))
	w.bytes(b)
}

func (w *writer) text64(b []byte) {
	w.u64(uint64(len(b)))
	w.bytes(b)
}

// formats writes the ftrace ones, then the others by system, each in the order
// that it has in the capture.
func (w *writer) formats(formats []capture.Format) {
	bySystem := map[string][]capture.Format{}
	var systems []string
	for _, f := range formats {
		if bySystem[f.System] == nil && f.System != "ftrace" {
			systems = append(systems, f.System)
		}
		bySystem[f.System] = append(bySystem[f.System], f)
	}
	system := func(name string) {
		w.u32(uint32(len(bySystem[name])))
		for _, f := range bySystem[name] {
			w.text64(f.Text)
		}
	}
	system("ftrace")
	w.u32(uint32(len(systems)))
	for _, name := range systems {
		w.string(name + "\x00")
		system(name)
	}
}

func (w *writer) options(c *capture.Capture, cpus []capture.CPU) {
	option := func(id uint16, b []byte) {
		w.u16(id)
		w.text32(b)
	}
	w.string("options  \x00")
	for id, cpu := range cpus {
		if len(cpu.Stats) > 0 {
			option(optStats, fmt.Appendf(nil, "CPU: %d\n%s\x00", id, cpu.Stats))
		}
	}
	if len(c.Clocks) > 0 {
		option(optClock, slices.Concat(c.Clocks, []byte{0}))
	}
	if c.Uname != "" {
		option(optUname, []byte(c.Uname+"\x00"))
	}
	option(optCPUCount, w.order.AppendUint32(nil, uint32(len(cpus))))
	w.u16(optDone)
}

// table writes where the pages will be. The clock behind it is what trace-cmd
// looks for when it has seen the option.
func (w *writer) table(c *capture.Capture, cpus []capture.CPU) {
	w.string("flyrecord\x00")
	at := w.n + int64(len(cpus))*16
	if len(c.Clocks) > 0 {
		at += 8 + int64(len(c.Clocks))
	}
	page := int64(c.PageSize)
	at = (at + page - 1) / page * page
	for _, cpu := range cpus {
		w.u64(uint64(at))
		w.u64(uint64(wholePages(c, cpu)))
		at += wholePages(c, cpu)
	}
	if len(c.Clocks) > 0 {
		w.text64(c.Clocks)
	}
}

func (w *writer) pad(page int) {
	w.bytes(make([]byte, (page-int(w.n%int64(page)))%page))
}

func (w *writer) pages(cpu capture.CPU, size int64) {
	if w.err != nil {
		return
	}
	n, err := io.Copy(w.out, io.NewSectionReader(cpu.Pages, 0, size))
	w.n += n
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		w.err = fmt.Errorf("read the pages of CPU %d at %d of %d bytes: %w", cpu.ID, n, size, err)
	}
}
