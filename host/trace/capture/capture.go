// Package capture is what a kernel's trace ring buffers held, with all that is
// needed to read it elsewhere and later. It comes out of a guest or out of a
// trace.dat, and goes to the decoder or into a trace.dat.
package capture

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
)

// Capture is one capture. Texts are the kernel's own files, unchanged, and not
// trusted: whoever reads them bounds and checks them.
type Capture struct {
	Order    binary.ByteOrder // of the recorded kernel
	LongSize int              // bytes of its unsigned long: 4 or 8
	PageSize int              // bytes of a ring-buffer page (sub-buffer) with its header

	HeaderPage  []byte   // events/header_page
	HeaderEvent []byte   // events/header_event
	Formats     []Format // of all events that can be in the pages, "ftrace" ones first
	Kallsyms    []byte   // as /proc/kallsyms: "ffffffff81000000 T _text", modules in brackets
	Printk      []byte   // printk_formats
	Cmdlines    []byte   // saved_cmdlines: "137 labprobe"
	Tgids       []byte   // saved_tgids: "137 137"; empty when the kernel kept none
	Clocks      []byte   // trace_clock: "[local] global …"
	Uname       string   // "Linux 6.12.107+deb13-arm64 aarch64"; may be empty
	CPUCount    int      // of the machine: CPUs that recorded nothing are not in CPUs
	Times       Times    // what makes nanoseconds of the clock's times

	CPUs []CPU // of one instance after the other, by number
}

// Times turn the times of a trace clock into others, as trace-cmd keeps them with a
// clock that does not count nanoseconds (x86-tsc) or a wish of its user's. The zero
// value leaves a time as it is.
type Times struct {
	Mult, Shift uint32 // nanoseconds are time*Mult >> Shift, when Mult is not 0
	Add         int64  // nanoseconds
}

// Of is a time of the clock's in nanoseconds. Order is kept.
func (t Times) Of(time uint64) uint64 {
	if t.Mult != 0 {
		hi, lo := bits.Mul64(time, uint64(t.Mult))
		time = lo>>t.Shift | hi<<(64-t.Shift)
	}
	return time + uint64(t.Add)
}

// Format is one event's description: events/SYSTEM/EVENT/format.
type Format struct {
	System string // "ftrace", "sched", "labctl"
	Text   []byte
}

// Ticks reports whether times count something else than nanoseconds: cycles (x86-tsc,
// ppc-tb) or events (counter).
func (c *Capture) Ticks() bool {
	for _, clock := range []string{"[x86-tsc]", "[ppc-tb]", "[counter]"} {
		if c.Times.Mult == 0 && bytes.Contains(c.Clocks, []byte(clock)) {
			return true
		}
	}
	return false
}

// CPU is the pages of one CPU's buffer, oldest first.
type CPU struct {
	ID       int
	Instance string // of the tracing; "" for the top one
	Pages    io.ReaderAt
	Size     int64  // bytes of Pages, whole pages but for a capture that was cut
	Stats    []byte // per_cpu/cpuN/stats, after the end; may be empty
}
