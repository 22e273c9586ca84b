package live

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"labctl/host/stack"
	"labctl/host/trace/capture"
	"labctl/host/trace/decode"
	"labctl/host/trace/export/jsonl"
	"labctl/host/trace/internal/sample"
	"labctl/host/trace/listing"
)

// page is a page of a real capture, and the times of its first and its last event.
type page struct {
	cpu         int
	first, last uint64
	b           []byte
}

// pause is between two rounds, nanoseconds: a fifth of what it is in a guest.
const pause = 20e6

// rounds are a capture's pages as a guest would send them, some at a time: each round begins
// after the last event of the one before, and has all pages that had begun by then.
func rounds(t *testing.T, c *capture.Capture) (out [][]capture.CPU) {
	t.Helper()
	var pages []page
	for _, cpu := range c.CPUs {
		b := make([]byte, cpu.Size)
		if _, err := cpu.Pages.ReadAt(b, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		for one := range slices.Chunk(b, c.PageSize) {
			p := page{cpu.ID, binary.LittleEndian.Uint64(one), 0, one}
			alone := *c
			alone.CPUs = []capture.CPU{{ID: cpu.ID, Pages: bytes.NewReader(one), Size: int64(len(one))}}
			d, err := decode.Open(&alone)
			if err != nil {
				t.Fatal(err)
			}
			for e, err := range d.Events() {
				if err != nil {
					t.Fatal(err)
				}
				p.last = e.Time
			}
			pages = append(pages, p)
		}
	}
	slices.SortStableFunc(pages, func(a, b page) int { return cmp.Compare(a.first, b.first) })
	last := uint64(0) // event of the rounds so far
	for len(pages) > 0 {
		begins := max(pages[0].first, last+pause)
		n := 0
		by := map[int][]byte{}
		for ; n < len(pages) && pages[n].first <= begins; n++ {
			by[pages[n].cpu] = append(by[pages[n].cpu], pages[n].b...)
			last = max(last, pages[n].last)
		}
		pages = pages[n:]
		var round []capture.CPU
		for _, cpu := range c.CPUs {
			if b := by[cpu.ID]; b != nil {
				round = append(round, capture.CPU{ID: cpu.ID, Pages: bytes.NewReader(b), Size: int64(len(b))})
			}
		}
		out = append(out, round)
	}
	return out
}

// TestStream: what is shown while captures of real kernels come in is what they are when
// they are whole, in the order of time.
func TestStream(t *testing.T) {
	style, _ := stack.FindStyle("ftrace")
	never := func(err error) { t.Errorf("failed: %v", err) }
	for _, s := range sample.All(t) {
		for form, show := range map[string]func(io.Writer) *Stream{
			"text": func(w io.Writer) *Stream { return Text(w, style, never) },
			"json": func(w io.Writer) *Stream { return JSON(w, never) },
		} {
			var want, got bytes.Buffer
			d, err := decode.Open(s.Capture)
			if err != nil {
				t.Fatal(err)
			}
			if form == "text" {
				err = listing.Write(&want, d, style)
			} else {
				err = jsonl.Write(&want, d)
			}
			if err != nil {
				t.Fatal(err)
			}
			sent := rounds(t, s.Capture)
			begun := *s.Capture
			stream := show(&got)
			stream.Begin(&begun)
			early := 0
			for _, r := range sent {
				stream.Round(r, nil)
				if early == 0 {
					early = got.Len()
				}
			}
			stream.End(nil)
			if a, b := strings.Split(want.String(), "\n"), strings.Split(got.String(), "\n"); !slices.Equal(a, b) {
				i := 0
				for i < min(len(a), len(b)) && a[i] == b[i] {
					i++
				}
				t.Errorf("%s as %s: %d lines, want %d; line %d is\n%s\nwant\n%s", s.Name, form, len(b), len(a), i+1, at(b, i), at(a, i))
			}
			if len(sent) > 2 && (early == 0 || early == want.Len()) {
				t.Errorf("%s as %s: %d of %d bytes were shown before the end; want some", s.Name, form, early, want.Len())
			}
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(no line)"
}

// Names that come with a round are those that are printed from then on.
func TestNames(t *testing.T) {
	s := sample.Load(t, "6.12-amd64/sched")
	cmdlines := s.Capture.Cmdlines
	s.Capture.Cmdlines = nil
	sent := rounds(t, s.Capture)
	style, _ := stack.FindStyle("ftrace")
	var out bytes.Buffer
	stream := Text(&out, style, func(err error) { t.Error(err) })
	stream.Begin(s.Capture)
	for i, r := range sent {
		if i > 0 {
			cmdlines = nil
		}
		stream.Round(r, cmdlines)
	}
	stream.End(nil)
	if got := out.String(); strings.Contains(got, "<...>") || !strings.Contains(got, "record-") {
		t.Errorf("names are missing: %.300s", got)
	}
}

// A reader that has left is told of once, and nothing is held any more.
func TestReaderLeaves(t *testing.T) {
	s := sample.Load(t, "6.12-amd64/sched")
	sent := rounds(t, s.Capture)
	gone := errors.New("gone")
	told := 0
	stream := JSON(failing{gone}, func(err error) {
		if told++; err != gone {
			t.Errorf("told of %v; want %v", err, gone)
		}
	})
	stream.Begin(s.Capture)
	for _, r := range sent {
		stream.Round(r, nil)
	}
	stream.End(nil)
	if told != 1 || len(stream.held) > 0 {
		t.Errorf("told %d times, %d events held; want 1, 0", told, len(stream.held))
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
