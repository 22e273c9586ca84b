package decode

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"labctl/host/trace/capture"
	"labctl/host/trace/internal/sample"
)

func FuzzPages(f *testing.F) {
	for i, k := range kernels[:4] {
		f.Add(slices.Concat(
			k.pageOf(1000, 0, nil, k.tick(0, 1), k.extend(1<<40), k.tickIn(1, 3, HardIRQ, 7), k.stack(HardIRQ, 7, 1, 2), k.stamp(1<<50), k.discarded(7, 40)),
			k.pageOf(1, 1<<31|1<<30, k.ulong(5), k.stack(0, 7, 1), k.user(0, 7, 1), k.word(padding, 0))), uint8(i), int64(8192))
	}
	f.Add([]byte("cut"), uint8(0), int64(1)<<60)
	f.Fuzz(func(t *testing.T, pages []byte, which uint8, size int64) {
		k := kernels[which%4]
		c := k.capture(pages, pages[:len(pages)/2])
		c.CPUs[0].Size = size
		held := min(max(size, 0), int64(len(pages)))
		d, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		events, errs, last := 0, 0, int64(-1)
		for e, err := range d.Events() {
			if err != nil {
				errs++
				continue
			}
			events++
			if e.CPU == 0 {
				if e.Offset <= last || e.Offset+4+int64(len(e.Data)) > held {
					t.Errorf("record at %d of %d bytes, after %d, of %d", e.Offset, len(e.Data), last, held)
				}
				last = e.Offset
			}
			if s := d.Text(e); strings.ContainsAny(s, "\n\x1b") {
				t.Errorf("%q is not clean", s)
			}
			d.Event(e)
		}
		// A record has 12 bytes at least; a page has an error at most, and
		// each CPU one of its end.
		if total := len(pages) + len(pages)/2; events > total/12 || errs > total/k.page+4 {
			t.Errorf("%d events and %d errors of %d bytes", events, errs, total)
		}
	})
}

// FuzzCapture changes real pages and formats.
func FuzzCapture(f *testing.F) {
	s := sample.Load(f, "7.2-amd64/probes")
	pages := make([]byte, s.Capture.CPUs[1].Size)
	if _, err := s.Capture.CPUs[1].Pages.ReadAt(pages, 0); err != nil {
		f.Fatal(err)
	}
	var probe []byte
	for _, in := range s.Capture.Formats {
		if bytes.HasPrefix(in.Text, []byte("name: p_open\n")) {
			probe = in.Text
		}
	}
	if probe == nil {
		f.Fatal("no format of p_open in the sample")
	}
	f.Add(pages[:4096], probe)
	f.Fuzz(func(t *testing.T, pages, text []byte) {
		c := *s.Capture
		c.CPUs = []capture.CPU{{Pages: bytes.NewReader(pages), Size: int64(len(pages))}}
		c.Formats = nil
		for _, in := range s.Capture.Formats {
			if bytes.HasPrefix(in.Text, []byte("name: p_open\n")) {
				in.Text = text
			}
			c.Formats = append(c.Formats, in)
		}
		d, err := Open(&c)
		if err != nil {
			return
		}
		var scratch []uint64
		for e, err := range d.Events() {
			if err != nil {
				continue
			}
			d.Text(e)
			for i := range e.Format.Fields {
				name := e.Format.Fields[i].Name
				e.Int(name)
				e.String(name)
				scratch, _ = e.Array(scratch[:0], name)
			}
			d.Event(e)
		}
	})
}

func FuzzKallsyms(f *testing.F) {
	f.Add(sample.Load(f, "6.12-arm64/io").Capture.Kallsyms, uint64(0xffff800080000000))
	f.Add([]byte("ffffffffc0000000 t f\t[m]\nffffffffc0000000 t g\t[m]\n0000000000000000 T zero\n"), uint64(0xffffffffc0000010))
	f.Fuzz(func(t *testing.T, b []byte, addr uint64) {
		s, ok := ParseKallsyms(b).Find(addr)
		if ok && (s.Name == "" || addr < s.Start || s.Size > 0 && addr-s.Start >= s.Size) {
			t.Errorf("%x is in %+v", addr, s)
		}
	})
}
