// Package trace runs a program, or the steps of a lab, under the kernel's tracing, and
// reads what came back. It is the only road from a guest's ring buffer to events.
//
// # Terms
//
//   - A tracepoint is a call that the kernel's sources have at an interesting place
//     (TRACE_EVENT); a kprobe event is one put at an instruction at run time, with
//     arguments fetched from registers and memory; the function and function_graph
//     tracers are calls that the compiler put at the entry of every function.
//     (Documentation/trace/{tracepoints,kprobetrace,ftrace}.rst)
//   - An event is one entry that any of these writes: package event. Its layout is its
//     format, "events/SYSTEM/EVENT/format" in tracefs: package format. How the kernel
//     prints it, its "print fmt", is a C expression: package printfmt.
//   - The ring buffer is per CPU and made of sub-buffers, by default of one page each,
//     hence page here. A page has the time of its first event; each event has a delta.
//     (Documentation/trace/ring-buffer-design.rst, kernel/trace/ring_buffer.c)
//   - An instance is a ring buffer with settings of its own, "instances/NAME". labctl
//     uses one called labctl, and the top one for what only that can do: function_graph,
//     and what a script has armed.
//   - A plan says what to arm on the kernel at hand, under the names that things have
//     there, and what became of each thing that was asked for: package plan. A preset is
//     a request by a name: package preset.
//   - To collect is to have the agent arm an instance and ship its pages, while they
//     fill or afterwards: package collect. What was collected is a capture: package
//     capture. A trace.dat file is a capture, too (trace-cmd.dat(5)): export/tracedat.
//   - To decode is to walk the pages of a capture: package decode. The stack that the
//     kernel writes behind an event ("kernel_stack") is joined to it there.
//   - A creation is a task that came to be: who asked, by which path, with which flags,
//     joined from several events: package creation. The tree of tasks with their lives
//     is made from creations, exits and execs: package tasks.
//   - A record is the directory that a run leaves (host/record), never a capture; a
//     probe is one of labprobe's (host/probe), never a kprobe event.
//
// # What to know of the kernel
//
//   - A stack begins where the tracer takes it. How many of its own frames it skips
//     differs by kernel and architecture, so everything above the function that is asked
//     about is trimmed; on 32-bit arm up to 6.1 the function itself is skipped as well,
//     and comes from the kprobe event (creation.startsOutside).
//   - On arm64 a stack taken at a function's first instruction lacks the direct caller,
//     whose frame record is not written yet: the probe fetches the link register, and
//     the frame says so.
//   - A return address after a call that does not return lies in the next function:
//     callers are looked up by the address before (decode.Frames).
//   - A return probe on the creation function damages the stacks of other events (5.10,
//     arm), even from another instance. None is ever planned.
//   - Times of events may be equal; 5.10 gives a burst of events one time.
//   - The kernel counts events that it had no room for, per CPU: overrun when it
//     overwrites, dropped when it does not. A page says how many are missing before it.
//     A capture with losses is readable, and what reads it reports them.
//   - What lies behind a page's data is old: the guest clears it before it ships.
//   - Steps of one capture are told apart by marks that the agent writes to trace_marker
//     just before each; an event belongs to the last step that had begun.
//   - The kernel's own text of a trace is parsed by tests alone (internal/kerneltext): a
//     witness of the decoder that shares no code with it.
package trace
