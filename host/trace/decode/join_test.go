package decode_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"labctl/host/stack"
	"labctl/host/trace/creation"
	"labctl/host/trace/decode"
	"labctl/host/trace/event"
	"labctl/host/trace/internal/kerneltext"
	"labctl/host/trace/internal/sample"
)

// TestJoin shows that task creations are the same, told by the pages and by the
// kernel's text of them.
func TestJoin(t *testing.T) {
	for _, boot := range sample.Boots(t) {
		s := sample.Load(t, boot+"/creation")
		d, err := decode.Open(s.Capture)
		if err != nil {
			t.Fatal(err)
		}
		var got []event.Event
		for e, err := range d.Events() {
			if err != nil {
				t.Fatalf("%s: %v", s.Name, err)
			}
			got = append(got, d.Event(e))
			// The text has microseconds.
			got[len(got)-1].Time = (got[len(got)-1].Time + 500) / 1000 * 1000
		}
		var entries, lost int64
		for _, st := range d.Stats() {
			entries, lost = entries+st.Events, lost+st.Missing()
		}
		want, err := kerneltext.Parse(bytes.NewReader(s.Text))
		if err != nil || want.BadLines > 0 {
			t.Fatalf("%s: %v, %v", s.Name, err, want.Bad)
		}
		if entries != want.Entries || entries+lost != want.Written || s.Capture.CPUCount != want.CPUs {
			t.Errorf("%s: %d entries and %d lost on %d CPUs, the text has %d of %d on %d", s.Name, entries, lost, s.Capture.CPUCount, want.Entries, want.Written, want.CPUs)
		}
		a, err := creation.Join(got)
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		b, err := creation.Join(want.Events)
		if err != nil {
			t.Fatal(err)
		}
		if len(a) < 5 {
			t.Errorf("%s: %d creations, want more", s.Name, len(a))
		}
		// The text has no addresses.
		if d := cmp.Diff(b, a, cmpopts.IgnoreFields(stack.Frame{}, "PC")); d != "" {
			t.Errorf("%s: -text +raw\n%s", s.Name, d)
		}
		if d := cmp.Diff(creation.Text(b), creation.Text(a)); d != "" {
			t.Errorf("%s: -text +raw\n%s", s.Name, d)
		}
	}
}

// TestDamage flips bytes of real pages: whatever is there now, decoding ends, and
// events of other pages are kept.
func TestDamage(t *testing.T) {
	for _, name := range []string{"5.10-amd64/sched", "7.2-arm64/io"} {
		s := sample.Load(t, name)
		r := rand.New(rand.NewPCG(1, 2))
		for range 100 {
			c := *s.Capture
			c.CPUs = nil
			var pages int64
			for _, cpu := range s.Capture.CPUs {
				b := make([]byte, cpu.Size)
				if _, err := cpu.Pages.ReadAt(b, 0); err != nil {
					t.Fatal(err)
				}
				pages += cpu.Size / int64(c.PageSize)
				for range 3 {
					b[r.IntN(c.PageSize)] = byte(r.Uint32()) // of the first page alone
				}
				cpu.Pages = bytes.NewReader(b)
				c.CPUs = append(c.CPUs, cpu)
			}
			d, err := decode.Open(&c)
			if err != nil {
				t.Fatal(err)
			}
			errs, events, late := 0, 0, 0
			for e, err := range d.Events() {
				if err != nil {
					errs++
					continue
				}
				events++
				if e.Offset >= int64(c.PageSize) {
					late++
				}
				d.Text(e)
			}
			var damaged int64
			for _, st := range d.Stats() {
				damaged += st.Damaged
			}
			if int64(errs) != damaged || int64(errs) > pages {
				t.Fatalf("%s: %d errors, %d counted, of %d pages", name, errs, damaged, pages)
			}
			if late < 30 {
				t.Fatalf("%s: %d events of undamaged pages, want more", name, late)
			}
		}
	}
}
