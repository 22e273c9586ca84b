package tracefs

import "fmt"

// Mark leaves a mark in the capture: an event "print" of the system "ftrace", at
// the time of the call.
func (r *Capture) Mark(text string) error {
	if err := r.write("trace_marker", text+"\n"); err != nil {
		return fmt.Errorf("mark the trace: %w", err)
	}
	return nil
}
