package trace

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"slices"

	"labctl/host/text"
	"labctl/host/trace/capture"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/tracedat"
)

// maxDamage bounds the places that a record names, and their length.
const (
	maxDamage     = 20
	maxDamageText = 300
)

// Reader reads the events of a capture: those of all CPUs, in the order of time.
type Reader struct {
	*decode.Decoder
	capture *capture.Capture

	damaged int64
	damage  []string
}

// NewReader checks the descriptions in a capture; Events reads its pages.
func NewReader(c *capture.Capture) (*Reader, error) {
	d, err := decode.Open(c)
	if err != nil {
		return nil, err
	}
	return &Reader{Decoder: d, capture: c}, nil
}

// Events goes through the events. What cannot be read is left out and counted; see
// Damage. An event is valid until the next iteration.
func (r *Reader) Events() iter.Seq[*decode.Event] {
	return func(yield func(*decode.Event) bool) {
		r.damaged, r.damage = 0, nil
		for e, err := range r.Decoder.Events() {
			if err != nil {
				r.damaged++
				if len(r.damage) < maxDamage {
					r.damage = append(r.damage, text.Line(err.Error(), maxDamageText))
				}
				continue
			}
			if !yield(e) {
				return
			}
		}
	}
}

// Damage is how many places of the pages the latest run of Events could not read,
// and what is wrong with the first ones.
func (r *Reader) Damage() (places int64, first []string) { return r.damaged, r.damage }

// Lost is how many events the pages and the kernel's counts say are missing.
func (r *Reader) Lost() (n int64) {
	for _, s := range r.Stats() {
		n += s.Missing()
	}
	return n
}

// used remembers the symbols that were looked up, so that a capture can be kept
// with these alone: all of a kernel's are megabytes.
type used struct {
	syms  decode.Lookup
	found map[uint64]decode.Symbol // by their start
}

// useSymbols has the reader remember the symbols that it looks up.
func (r *Reader) useSymbols() *used {
	u := &used{decode.SymbolsOf(r.capture.Kallsyms).Find, map[uint64]decode.Symbol{}}
	r.SetSymbols(u.find)
	return u
}

func (u *used) find(addr uint64) (decode.Symbol, bool) {
	s, ok := u.syms(addr)
	if ok {
		u.found[s.Start] = s
	}
	return s, ok
}

// kallsyms has the symbols that were found, and those behind them, which end them.
func (u *used) kallsyms() []byte {
	for _, s := range slices.Collect(maps.Values(u.found)) {
		u.find(s.Start + s.Size)
	}
	var b bytes.Buffer
	for _, start := range slices.Sorted(maps.Keys(u.found)) {
		s := u.found[start]
		fmt.Fprintf(&b, "%016x t %s", start, text.Line(s.Name, 512))
		if s.Module != "" {
			fmt.Fprintf(&b, "\t[%s]", text.Line(s.Module, 64))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// writeFile keeps the capture as a trace.dat, with the symbols that were used.
func (u *used) writeFile(path string, c *capture.Capture) error {
	kept := *c
	kept.Kallsyms = u.kallsyms()
	return tracedat.WriteFile(path, &kept)
}
