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

// maxHist bounds the text of one event's histograms, in bytes.
const maxHist = 4 << 20

// histogram is one that the kernel has taken.
type histogram struct {
	event   string // as CaptureParams has it
	trigger string // "hist:keys=…"
	filter  string // " if …", or nothing
}

// armHists has the kernel make histograms. They stand still until the capture begins: a
// trigger works whether tracing_on is set or not.
func (r *Capture) armHists() {
	for _, h := range r.params.Hists {
		if err := r.armHist(h); err != nil {
			r.miss("hist "+h.Name, err)
		}
	}
}

func (r *Capture) armHist(h wire.CaptureHist) error {
	dir := filepath.Join(r.dir, "events", r.system(h.Event))
	if _, err := os.Stat(dir); err != nil {
		return bare(err)
	}
	filter := ""
	if h.Filter != "" {
		filter = " if " + h.Filter
	}
	var refusal error
	for _, spec := range h.Specs {
		one := histogram{h.Event, "hist:" + spec, filter}
		err := explained(r.dir, func() error { return r.trigger(one.event, one.trigger+":pause"+filter) }, r.fs.files)
		if err == nil {
			r.hists = append(r.hists, one)
			r.undo = append(r.undo, func() error { return r.trigger(one.event, "!"+one.trigger+filter) })
			return nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "hist")); err != nil {
		return errors.New("this kernel makes no histograms: it is built without HIST_TRIGGERS")
	}
	return refusal
}

// trigger adds a trigger to an event, or takes one away. Opened to truncate the file
// would lose those that it has.
func (r *Capture) trigger(event, command string) error {
	return bare(r.fs.files.Write(filepath.Join(r.dir, "events", r.system(event), "trigger"), command, os.O_APPEND))
}

// setHists has the histograms go on, or stand still.
func (r *Capture) setHists(command string) error {
	for _, h := range r.hists {
		if err := r.trigger(h.event, h.trigger+":"+command+h.filter); err != nil {
			return fmt.Errorf("%s the histogram of %s: %w", command, h.event, err)
		}
	}
	return nil
}

// sendHists sends the histograms, those of one event together.
func (r *Capture) sendHists(w *wire.ChunkWriter) error {
	var sent []string
	for _, h := range r.hists {
		if slices.Contains(sent, h.event) {
			continue
		}
		sent = append(sent, h.event)
		text, err := readHead(filepath.Join(r.dir, "events", r.system(h.event), "hist"), maxHist)
		if err != nil {
			return fmt.Errorf("read the histogram of %s: %w", h.event, bare(err))
		}
		for piece := range slices.Chunk([]byte(text), 256<<10) {
			if err := w.Write(wire.ChunkHist, 0, slices.Concat([]byte(h.event), []byte{0}, piece)); err != nil {
				return fmt.Errorf("send the histogram of %s: %w", h.event, err)
			}
		}
	}
	return nil
}

// checkHists refuses what would be another command.
func checkHists(hists []wire.CaptureHist) error {
	for _, h := range hists {
		if err := checkEvent(h.Event); err != nil {
			return err
		}
		if strings.ContainsAny(h.Filter, "\n\x00") || len(h.Specs) == 0 {
			return fmt.Errorf("histogram of %s: want keys, and a filter of one line", h.Event)
		}
		for _, spec := range h.Specs {
			if err := checkWord(spec); err != nil {
				return fmt.Errorf("histogram of %s: %w", h.Event, err)
			}
		}
	}
	return nil
}
