package collect

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/trace/capture"
	"labctl/host/trace/format"
)

// Bounds of what a guest can make the host keep, in bytes and pieces. Pages are
// bounded by CaptureParams.Max, and go to files.
const (
	maxText    = 16 << 20 // a text of the kernel, all formats together
	maxSymbols = 64 << 20
	maxFormats = 8192
	maxCPUs    = 4096
	maxHists   = 256  // events with histograms
	maxNames   = 1000 // of each list in wire.CaptureArmed
)

// capturer takes chunks. It belongs to the goroutine that reads the stream.
type capturer struct {
	image image
	max   int64 // bytes of pages

	armed   *wire.CaptureArmed
	texts   map[wire.ChunkKind][]byte
	formats map[string][]byte // "sched/sched_switch" → text
	bytes   int64             // of formats
	cpus    map[int]*spool
	stats   map[int][]byte
	pages   int64
	hists   []Hist
	histed  int // bytes

	follower Follower
	shown    map[int]int64 // bytes of each CPU that the follower has been shown
}

// Hist is the text of an event's histograms, as the kernel has it: package hist reads it.
type Hist struct {
	Event string // "sched/sched_switch"
	Text  []byte
}

// image is what is known of the guest's kernel without the guest.
type image struct {
	table   []byte // its symbols, at the addresses of the image; nil when they come from the guest
	modules func(names ...string) ([]kernel.Module, error)
}

func newCapturer(m image, max int64, f Follower) *capturer {
	if max <= 0 {
		max = wire.MaxPages
	}
	return &capturer{
		image: m, max: max,
		texts: map[wire.ChunkKind][]byte{}, formats: map[string][]byte{},
		cpus: map[int]*spool{}, stats: map[int][]byte{}, follower: f, shown: map[int]int64{},
	}
}

// take keeps what is in a chunk.
func (c *capturer) take(k wire.Chunk) (err error) {
	defer outcome.OrElse(outcome.GuestCrashed, &err) // it sends nonsense
	if k.CPU >= maxCPUs {
		return fmt.Errorf("guest: CPU %d is more than a machine has", k.CPU)
	}
	switch k.Kind {
	case wire.ChunkArmed:
		return c.begin(k.Payload)
	case wire.ChunkPages:
		return c.takePages(k)
	case wire.ChunkStats:
		if len(k.Payload) > 64<<10 {
			return fmt.Errorf("guest: the statistics of CPU %d have %d bytes", k.CPU, len(k.Payload))
		}
		c.stats[k.CPU] = bytes.Clone(k.Payload)
	case wire.ChunkRound:
		if c.follower != nil && c.armed != nil {
			c.follower.Round(c.unshown(), k.Payload)
		}
		return nil
	case wire.ChunkFormat:
		return c.takeFormat(k.Payload)
	case wire.ChunkHist:
		return c.takeHist(k.Payload)
	case wire.ChunkSymbols, wire.ChunkModules, wire.ChunkPrintk, wire.ChunkCmdlines, wire.ChunkTgids:
		c.texts[k.Kind] = append(c.texts[k.Kind], k.Payload...)
	default:
		c.texts[k.Kind] = bytes.Clone(k.Payload)
	}
	bound := maxText
	if k.Kind == wire.ChunkSymbols {
		bound = maxSymbols
	}
	if len(c.texts[k.Kind]) > bound {
		return fmt.Errorf("guest: text %d of the capture has more than %d bytes", k.Kind, bound)
	}
	return nil
}

// begin takes what was armed.
func (c *capturer) begin(p []byte) error {
	if c.armed != nil {
		return errors.New("guest: the capture began twice")
	}
	var a wire.CaptureArmed
	if err := json.Unmarshal(p, &a); err != nil {
		return fmt.Errorf("guest: decode what was armed: %w", err)
	}
	// A page is a power of two, as the kernel allocates it.
	if n := a.PageSize; n < 1<<10 || n > wire.MaxChunk || n&(n-1) != 0 || a.CPUs < 1 || a.CPUs > maxCPUs {
		return fmt.Errorf("guest: pages of %d bytes on %d CPUs: no such machine", a.PageSize, a.CPUs)
	}
	if max(len(a.Symbols), len(a.Functions), len(a.Events), len(a.Missing)) > maxNames*10 {
		return errors.New("guest: it armed more than can be")
	}
	clean(&a)
	c.armed = &a
	if c.follower == nil {
		return nil
	}
	described, err := c.capture()
	if err == nil {
		c.follower.Begin(described)
	}
	return err
}

// unshown are the pages that the follower has not been shown.
func (c *capturer) unshown() (pages []capture.CPU) {
	for _, id := range slices.Sorted(maps.Keys(c.cpus)) {
		s, from := c.cpus[id], c.shown[id]
		if s.size > from {
			pages = append(pages, capture.CPU{ID: id, Pages: io.NewSectionReader(s.file, from, s.size-from), Size: s.size - from})
			c.shown[id] = s.size
		}
	}
	return pages
}

// ended shows the follower the rest.
func (c *capturer) ended() {
	if c.follower != nil && c.armed != nil {
		c.follower.End(c.unshown())
	}
}

// clean makes all texts fit for a terminal.
func clean(a *wire.CaptureArmed) {
	for event, symbol := range a.Symbols {
		delete(a.Symbols, event)
		a.Symbols[text.Line(event, 100)] = text.Line(symbol, 200)
	}
	for _, list := range [][]string{a.Functions, a.Events} {
		for i := range list {
			list[i] = text.Line(list[i], 200)
		}
	}
	for i, m := range a.Missing {
		a.Missing[i] = wire.CaptureMissing{What: text.Line(m.What, 200), Why: text.Line(m.Why, 400)}
	}
	a.Tracer, a.Clock, a.Uname = text.Line(a.Tracer, 64), text.Line(a.Clock, 64), text.Line(a.Uname, 200)
}

func (c *capturer) takePages(k wire.Chunk) error {
	if c.armed == nil || len(k.Payload)%c.armed.PageSize != 0 {
		return fmt.Errorf("guest: %d bytes of CPU %d are no whole pages", len(k.Payload), k.CPU)
	}
	if c.pages += int64(len(k.Payload)); c.pages > c.max {
		return fmt.Errorf("guest: it sent more than the %d bytes of pages that were asked for", c.max)
	}
	s := c.cpus[k.CPU]
	if s == nil {
		var err error
		if s, err = newSpool(); err != nil {
			return err
		}
		c.cpus[k.CPU] = s
	}
	return s.append(k.Payload)
}

// eventOf takes the name of an event off.
func eventOf(p []byte) (name string, rest []byte, err error) {
	b, rest, ok := bytes.Cut(p, []byte{0})
	name = string(b)
	system, event, ok2 := strings.Cut(name, "/")
	if !ok || !ok2 || system == "" || event == "" || len(name) > 200 || text.Clean(name) != name {
		return "", nil, fmt.Errorf("guest: %.80q is no event", name)
	}
	return name, rest, nil
}

func (c *capturer) takeHist(p []byte) error {
	name, piece, err := eventOf(p)
	if err != nil {
		return err
	}
	if c.histed += len(piece); c.histed > maxText {
		return fmt.Errorf("guest: histograms of more than %d bytes", maxText)
	}
	i := slices.IndexFunc(c.hists, func(h Hist) bool { return h.Event == name })
	if i < 0 {
		if i = len(c.hists); i == maxHists {
			return fmt.Errorf("guest: histograms of more than %d events", maxHists)
		}
		c.hists = append(c.hists, Hist{Event: name})
	}
	c.hists[i].Text = append(c.hists[i].Text, piece...)
	return nil
}

func (c *capturer) takeFormat(p []byte) error {
	name, format, err := eventOf(p)
	if err != nil {
		return err
	}
	c.bytes += int64(len(format))
	if c.bytes > maxText || len(c.formats) >= maxFormats {
		return fmt.Errorf("guest: more than %d formats of %d bytes together", maxFormats, maxText)
	}
	c.formats[name] = bytes.Clone(format)
	return nil
}

// spools lists the files that hold the pages.
func (c *capturer) spools() []*spool { return slices.Collect(maps.Values(c.cpus)) }

func (c *capturer) close() {
	for _, s := range c.cpus {
		s.close()
	}
}

// capture puts together what came. Without what was armed and the layout of a
// page nothing can be read.
func (c *capturer) capture() (_ *capture.Capture, err error) {
	defer outcome.OrElse(outcome.GuestCrashed, &err)
	if c.armed == nil {
		return nil, errors.New("guest: the capture has not begun")
	}
	page, err := format.ParsePage(c.texts[wire.ChunkHeaderPage])
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	if page.Size != c.armed.PageSize {
		return nil, fmt.Errorf("guest: header_page tells of pages of %d bytes, what it armed of %d", page.Size, c.armed.PageSize)
	}
	capt := &capture.Capture{
		Order: binary.LittleEndian, LongSize: page.CommitSize, PageSize: page.Size,
		HeaderPage: c.texts[wire.ChunkHeaderPage], HeaderEvent: c.texts[wire.ChunkHeaderEvent],
		Formats:  c.sortedFormats(),
		Kallsyms: c.symbols(),
		Printk:   c.texts[wire.ChunkPrintk], Cmdlines: c.texts[wire.ChunkCmdlines], Tgids: c.texts[wire.ChunkTgids],
		Clocks: c.texts[wire.ChunkClock], Uname: c.armed.Uname, CPUCount: c.armed.CPUs,
	}
	if c.armed.BigEndian {
		capt.Order = binary.BigEndian
	}
	for _, id := range slices.Sorted(maps.Keys(c.cpus)) {
		s := c.cpus[id]
		capt.CPUs = append(capt.CPUs, capture.CPU{ID: id, Pages: s.file, Size: s.size, Stats: c.stats[id]})
	}
	return capt, nil
}

// symbols puts the kernel's symbols together, and those of its modules.
func (c *capturer) symbols() []byte {
	if c.image.table == nil {
		return c.texts[wire.ChunkSymbols]
	}
	out, ok := moved(c.image.table, c.texts[wire.ChunkSymbols])
	if !ok {
		c.armed.Missing = append(c.armed.Missing, wire.CaptureMissing{What: "symbols", Why: "the guest's kernel does not begin as its image does"})
		return nil
	}
	return append(out, moduleSymbols(c.image.modules, c.texts[wire.ChunkModules])...)
}

// sortedFormats has those of "ftrace" first and the others by name.
func (c *capturer) sortedFormats() []capture.Format {
	var out []capture.Format
	for _, own := range []bool{true, false} {
		for _, name := range slices.Sorted(maps.Keys(c.formats)) {
			if system, _, _ := strings.Cut(name, "/"); (system == "ftrace") == own {
				out = append(out, capture.Format{System: system, Text: c.formats[name]})
			}
		}
	}
	return out
}

// checked makes the guest's own account fit for use: counts are not negative,
// and bytes are what came.
func (c *capturer) checked(st wire.CaptureStopped) wire.CaptureStopped {
	out := wire.CaptureStopped{Bytes: c.pages, Truncated: text.Line(st.Truncated, 400), Left: max(0, st.Left)}
	by := map[int]wire.CaptureCPU{}
	for id, s := range c.cpus {
		by[id] = wire.CaptureCPU{CPU: id, Bytes: s.size}
	}
	for _, cpu := range st.CPUs {
		if cpu.CPU < 0 || cpu.CPU >= maxCPUs {
			continue
		}
		by[cpu.CPU] = wire.CaptureCPU{
			CPU: cpu.CPU, Bytes: by[cpu.CPU].Bytes,
			Overrun: max(0, cpu.Overrun), Commit: max(0, cpu.Commit), Dropped: max(0, cpu.Dropped),
		}
	}
	for _, id := range slices.Sorted(maps.Keys(by)) {
		out.CPUs = append(out.CPUs, by[id])
	}
	return out
}
