package agent

import (
	"fmt"
	"strconv"
	"strings"

	"labctl/guest/tracefs"
	"labctl/guest/wire"
)

// watch looks for signs that a program bends the capture that it is in. Its
// methods do nothing on nil.
type watch struct {
	capture *tracefs.Capture
	proc    string
	forks   int64
}

func (r *captures) watch(name, proc string) (*watch, error) {
	c, err := r.find(name)
	if err != nil {
		return nil, err
	}
	// The first of a capture's programs cannot have changed anything yet.
	return &watch{capture: c, proc: proc}, c.Remember()
}

// begin is called when the mark is in the capture.
func (w *watch) begin() (err error) {
	if w != nil {
		w.forks, err = forks(w.proc)
	}
	return err
}

// end leaves the end mark and says what was seen.
func (w *watch) end(mark string) (*wire.Watched, error) {
	if w == nil {
		return nil, nil
	}
	n, err := forks(w.proc)
	if err != nil {
		return nil, err
	}
	var changed []string
	if err := w.capture.Mark(wire.EndMark(mark)); err != nil { // as when tracing_on is 0
		changed = append(changed, err.Error())
	}
	changed = append(changed, w.capture.Changed()...)
	return &wire.Watched{Changed: changed, Forks: n - w.forks}, nil
}

// forks is how many tasks the kernel has made since it came up.
func forks(proc string) (int64, error) {
	text, err := readSome(proc+"/stat", 1<<20)
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(text, "\nprocesses ")
	if !ok {
		return 0, fmt.Errorf("%s/stat does not count processes", proc)
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseInt(line, 10, 64)
}
