package tracefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"labctl/guest/wire"
)

// keep makes a capture of the top instance as somebody else has armed it.
func (r *Capture) keep() (_ *Capture, err error) {
	// What an ordinary capture sets there it gives back when it ends.
	for _, file := range []string{"current_tracer", "tracing_on"} {
		if err := r.claim(file); err != nil {
			r.freeName()
			return nil, fmt.Errorf("keep the top trace instance: %w", err)
		}
	}
	r.dir, r.top, r.armed.Top = r.fs.root, true, true
	defer func() {
		if err != nil {
			err = errors.Join(err, r.remove())
		}
	}()
	if r.armed.Tracer, err = r.fs.content("current_tracer"); err != nil {
		return nil, fmt.Errorf("read current_tracer: %w", bare(err))
	}
	on, err := r.fs.content("tracing_on")
	if err != nil {
		return nil, fmt.Errorf("read tracing_on: %w", bare(err))
	}
	r.armed.Off = on == "0"
	if r.armed.Tracer != "nop" {
		r.matched()
	}
	if err := r.found(); err != nil {
		return nil, err
	}
	if err := r.armBeside(); err != nil {
		return nil, err
	}
	for _, e := range r.params.Formats {
		names := []string{e}
		if !strings.Contains(e, "/") {
			names = r.eventsOf(e)
		}
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(r.dir, "events", name, "format")); err == nil {
				r.addEvent(name)
			}
		}
	}
	return r, r.describe()
}

// armBeside arms what is not armed already, and would be disarmed with the
// capture's end if it were armed again.
func (r *Capture) armBeside() error {
	stacks, err := r.fs.content("options/stacktrace")
	if err != nil {
		return fmt.Errorf("read options/stacktrace: %w", bare(err))
	}
	var events []wire.CaptureEvent
	for _, e := range r.params.Events {
		e.Stack = e.Stack && stacks == "0"
		switch {
		case !slices.Contains(r.armed.Found, e.Name):
			events = append(events, e)
		case e.Stack:
			r.armStack(e.Name)
		}
	}
	r.params.Events = events
	return r.armEvents()
}

// found reads which events are enabled.
func (r *Capture) found() error {
	text, err := readHead(filepath.Join(r.dir, "set_event"), 1<<20)
	if err != nil {
		return fmt.Errorf("read set_event: %w", bare(err))
	}
	for line := range strings.Lines(text) {
		system, event, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || checkEvent(system+"/"+event) != nil {
			continue
		}
		r.addEvent(system + "/" + event)
		if len(r.armed.Found) < wire.MaxArmedNames {
			r.armed.Found = append(r.armed.Found, system+"/"+event)
		}
	}
	return nil
}

// addEvent has the format of an event sent, once.
func (r *Capture) addEvent(name string) {
	if !slices.Contains(r.events, name) {
		r.events = append(r.events, name)
	}
}
