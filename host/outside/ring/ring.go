// Package ring reads the kernel's log from the memory of a guest, without asking the
// guest: what a machine said that answers no more.
package ring

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/text"
)

// Record is one record of the log.
type Record struct {
	Seq      uint64 `json:"seq"`
	Nanos    uint64 `json:"ts_nsec"` // since the boot
	Level    int    `json:"level"`   // 0, emergency, to 7, debug
	Facility int    `json:"facility"`
	Text     string `json:"text"` // cleaned; lines are separated by \n
	// Device and Subsystem are those of the device that it is about.
	Device    string `json:"device,omitempty"`
	Subsystem string `json:"subsystem,omitempty"`
}

// Limits on what a guest says of its log: the largest that CONFIG_LOG_BUF_SHIFT allows.
const (
	maxDescriptors = 1 << 20
	maxBytes       = 1 << 25
	maxText        = 1 << 16
)

// States of a descriptor (kernel/printk/printk_ringbuffer.h), in the two highest bits of
// its state variable.
const (
	stateCommitted = 1
	stateFinalized = 2
)

// Log is the kernel's log.
type Log struct {
	Records []Record
	Lost    int // records that were overwritten while they were read, or are damaged
}

// Read reads the log from the kernel's ring buffer, as the kernel's own script for gdb
// does (scripts/gdb/linux/dmesg.py).
func Read(l *kern.Look) (*Log, error) {
	k := l.K
	at, err := k.MustAddr("prb")
	if err != nil {
		return nil, fmt.Errorf("the kernel's log: %w", err)
	}
	ring, err := l.Pointer(at)
	if err != nil {
		return nil, fmt.Errorf("the kernel's log: %w", err)
	}
	rb := l.Object("printk_ringbuffer", ring)
	desc := l.Object("prb_desc_ring", rb.At("desc_ring"))
	data := l.Object("prb_data_ring", rb.At("text_data_ring"))
	r := reader{
		l: l, descs: desc.Uint("descs"), infos: desc.Uint("infos"), text: data.Uint("data"),
		countBits: desc.Uint("count_bits"), sizeBits: data.Uint("size_bits"),
	}
	tail, head := desc.Uint("tail_id.counter"), desc.Uint("head_id.counter")
	for _, o := range []*kern.Object{rb, desc, data} {
		if o.Err() != nil {
			return nil, fmt.Errorf("the kernel's log: %w", o.Err())
		}
	}
	if r.descSize, err = k.Size("prb_desc"); err != nil {
		return nil, err
	}
	if r.infoSize, err = k.Size("printk_info"); err != nil {
		return nil, err
	}
	if r.countBits >= 64 || 1<<r.countBits > maxDescriptors || r.sizeBits >= 64 || 1<<r.sizeBits > maxBytes {
		return nil, outcome.Inputf("the kernel's log: 2^%d records in 2^%d bytes: it is damaged, or not one", r.countBits, r.sizeBits)
	}
	log := &Log{}
	mask := r.idMask()
	for id, n := tail&mask, 0; n < 1<<r.countBits; id, n = (id+1)&mask, n+1 {
		rec, state := r.record(id)
		switch state {
		case good:
			log.Records = append(log.Records, rec)
		case lost:
			log.Lost++
		}
		if id == head&mask {
			break
		}
	}
	return log, nil
}

type reader struct {
	l                   *kern.Look
	descs, infos, text  uint64
	countBits, sizeBits uint64
	descSize, infoSize  int
}

// idMask are the bits of an ID: all but the two of the state.
func (r *reader) idMask() uint64 { return 1<<(8*r.l.K.Word()-2) - 1 }

type state int

const (
	good state = iota
	none       // not written yet
	lost
)

func (r *reader) record(id uint64) (rec Record, s state) {
	l := r.l
	index := id & (1<<r.countBits - 1)
	d := l.Object("prb_desc", r.descs+index*uint64(r.descSize))
	v := d.Uint("state_var.counter")
	begin, next := d.Uint("text_blk_lpos.begin"), d.Uint("text_blk_lpos.next")
	if d.Err() != nil || v&r.idMask() != id {
		return rec, lost
	}
	if st := v >> (8*l.K.Word() - 2) & 3; st != stateCommitted && st != stateFinalized {
		return rec, none
	}
	info := l.Object("printk_info", r.infos+index*uint64(r.infoSize))
	rec = Record{
		Seq: info.Uint("seq"), Nanos: info.Uint("ts_nsec"),
		Level: int(info.Uint("level")), Facility: int(info.Uint("facility")),
	}
	n := info.Uint("text_len")
	if info.Err() != nil || n > maxText {
		return rec, lost
	}
	if info.Has("dev_info") {
		dev := l.Object("dev_printk_info", info.At("dev_info"))
		rec.Device, rec.Subsystem = text.Line(dev.String("device"), 64), text.Line(dev.String("subsystem"), 64)
	}
	if begin&1 != 0 || n == 0 { // without text
		return rec, good
	}
	// The text follows the ID; a block that does not fit before the buffer's end is
	// at its start.
	size := uint64(1) << r.sizeBits
	start, end := begin%size, next%size
	if start > end {
		start = 0
	}
	word := uint64(l.K.Word())
	if end < start+word {
		return rec, lost
	}
	owner, err := l.Pointer(r.text + start)
	if err != nil || owner&r.idMask() != id {
		return rec, lost
	}
	b := make([]byte, min(n, end-start-word))
	if l.Read(b, r.text+start+word) != nil {
		return rec, lost
	}
	rec.Text = strings.TrimSuffix(text.Lines(string(b)), "\n")
	return rec, good
}

// Time is the time of a record as dmesg prints it.
func (r Record) Time() string {
	return fmt.Sprintf("[%5d.%06d]", r.Nanos/1e9, r.Nanos%1e9/1e3)
}

// Kernel returns the records that the kernel itself has written: those of programs, which
// come by /dev/kmsg, have a facility (kernel/printk/printk.c, devkmsg_write).
func (l *Log) Kernel() *Log {
	own := *l
	own.Records = slices.DeleteFunc(slices.Clone(l.Records), func(r Record) bool { return r.Facility != 0 })
	return &own
}

// String is the log as WriteTo writes it.
func (l *Log) String() string {
	var b strings.Builder
	_, _ = l.WriteTo(&b) // to memory
	return b.String()
}

// WriteTo writes the log as dmesg does.
func (l *Log) WriteTo(w io.Writer) (n int64, err error) {
	for _, r := range l.Records {
		for line := range strings.Lines(r.Text + "\n") {
			m, err := fmt.Fprintf(w, "%s %s", r.Time(), line)
			if n += int64(m); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}
