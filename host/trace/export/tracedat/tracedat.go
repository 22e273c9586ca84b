// Package tracedat reads and writes trace.dat, the file of trace-cmd(1) and
// KernelShark: the ring buffer's pages as they were, behind the texts that
// explain them. Write makes version 6, which every trace-cmd reads. Open reads
// version 6 and version 7, what trace-cmd record writes since 3.0, compressed or
// not. Both are described in trace-cmd.dat.v6(5) and trace-cmd.dat.v7(5).
//
// A version 6 file, numbers in the byte order of the recorded kernel:
//
//	17 08 44 "tracing6" 00, order, size of long, page size
//	"header_page" 00, size, events/header_page, the same for header_event
//	formats of the ftrace events; formats of the others by system
//	kallsyms, printk_formats, saved_cmdlines
//	number of CPUs, "options  " 00, options, 00 00
//	"flyrecord" 00, offset and size of each CPU's pages, the clock
//	pages of each CPU, at a multiple of the page size
//
// The format has no place for saved_tgids: they are not kept.
package tracedat

import (
	"fmt"
	"os"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/trace/capture"
)

const magic = "\x17\x08\x44tracing"

// Options, and in version 7 sections: TRACECMD_OPTION_* of trace-cmd's
// trace-cmd-private.h.
const (
	optDone         = 0
	optDate         = 1
	optStats        = 2
	optBuffer       = 3
	optClock        = 4
	optUname        = 5
	optOffset       = 7
	optCPUCount     = 8
	optTimeShift    = 12
	optTSC          = 14
	optHeaderInfo   = 16
	optFtraceEvents = 17
	optEventFormats = 18
	optKallsyms     = 19
	optPrintk       = 20
	optCmdlines     = 21
	optBufferText   = 22
)

// Bounds on what a file can make Read keep in memory. The largest text of a
// real kernel is kallsyms, some 10 MB; its formats are 5 MB in all.
const (
	maxTexts   = 128 << 20 // all texts together, and a little for each
	maxText    = 64 << 20  // one text, or one compressed section
	maxOptions = 16 << 20  // one option
	maxName    = 256       // a system's, an instance's or a clock's
	maxCPUs    = 1 << 14   // NR_CPUS is 8192 at most
	maxChunk   = 16 << 20  // of compressed pages; trace-cmd makes them of ten
	maxPage    = 1 << 20   // a sub-buffer; the kernel's largest is 128 KiB
	textCost   = 64        // what an empty text still costs
)

// BadFile is a trace.dat that is not what it should be.
type BadFile struct {
	Section string // "kallsyms", "CPU 1"
	Offset  int64  // in the file; in the section's content when that is compressed
	Problem string
}

func (e *BadFile) Error() string {
	return fmt.Sprintf("trace.dat: %s at offset %d: %s", e.Section, e.Offset, e.Problem)
}

// Outcome is BadInput.
func (e *BadFile) Outcome() outcome.Kind { return outcome.BadInput }

// File is an open trace.dat. Its CPUs' pages are read when they are asked for,
// at any time before Close, and from several goroutines at once.
type File struct {
	capture.Capture
	Version int
	Notes   []string // what is missing, or not as recorded: a line each, clean

	file *os.File
}

// Close closes the file that Open opened.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}

// Open reads all of the trace.dat at path but its pages.
func Open(path string) (_ *File, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	file, err := bounded.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	f, err := Read(file, info.Size())
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	f.file = file
	return f, nil
}
