package vm

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"labctl/host/outcome"
)

// stream writes a migration stream as QEMU does.
type stream struct{ bytes.Buffer }

func (s *stream) u64(v uint64) { s.Write(binary.BigEndian.AppendUint64(nil, v)) }
func (s *stream) u32(v uint32) { s.Write(binary.BigEndian.AppendUint32(nil, v)) }
func (s *stream) name(n string) {
	s.WriteByte(byte(len(n)))
	s.WriteString(n)
}

func (s *stream) start() {
	s.WriteString("QEVM")
	s.u32(3)
	s.WriteString("\x07\x00\x00\x00\x08some-pc1") // the machine's configuration
	s.WriteByte(sectionStart)
	s.u32(2)
	s.name("ram")
	s.u32(0)
	s.u32(ramVersion)
}

func (s *stream) page(block string, at uint64, content string) {
	flags := uint64(flagPage)
	if len(content) == 1 {
		flags = flagZero
	}
	if block == "" {
		flags |= flagContinue
	}
	s.u64(at | flags)
	if block != "" {
		s.name(block)
	}
	s.WriteString(content)
}

func (s *stream) end(kind byte) {
	s.u64(flagEOS)
	s.WriteByte(sectionFooter)
	s.u32(2)
	if kind != 0 {
		s.WriteByte(kind)
		s.u32(2)
	}
}

// devices are what follows RAM, of a machine in a state.
func devices(state string) string {
	var s stream
	s.WriteString("\x04\x00\x00\x00\x09")
	s.name("globalstate")
	s.u32(0)
	s.u32(1)
	s.u32(uint32(len(state) + 1))
	s.WriteString(state + strings.Repeat("\x00", runstateBytes-len(state)))
	s.WriteString("\x7e\x00\x00\x00\x09the other devices")
	return s.String()
}

// fill is a page.
func fill(b byte) string { return strings.Repeat(string([]byte{b}), pageSize) }

func TestThin(t *testing.T) {
	// The template's memory: pages of a, b, zeros, and d.
	base := strings.NewReader(fill('a') + fill('b') + fill(0) + fill('d'))
	var in, want stream
	in.start()
	in.u64(5*pageSize | flagMemSize)
	in.name("/objects/ram")
	in.u64(4 * pageSize)
	in.name("rom")
	in.u64(pageSize)
	want.Write(in.Bytes())
	in.end(sectionPart)
	want.end(sectionPart)

	in.page("/objects/ram", 0, fill('a')) // the same
	in.page("", pageSize, fill('B'))
	in.page("", 2*pageSize, "\x00") // the same
	in.page("", 3*pageSize, "\x00")
	in.page("rom", 0, fill('a'))
	in.page("window", 0, fill('w'))
	in.page("", pageSize, "\x00")
	in.page("/objects/ram", 3*pageSize, fill('d')) // the same
	in.end(sectionEnd)
	want.page("/objects/ram", pageSize, fill('B'))
	want.page("", 3*pageSize, "\x00")
	want.page("rom", 0, fill('a'))
	want.end(sectionEnd)

	in.page("ram", pageSize, fill('b'))
	in.page("", 2*pageSize, fill('C'))
	in.end(0)
	want.page("ram", 2*pageSize, fill('C'))
	want.end(0)
	in.WriteString(devices("debug"))
	want.WriteString(devices("paused"))

	var got bytes.Buffer
	pages, err := thin(&got, bytes.NewReader(in.Bytes()), base)
	if err != nil || pages != 4 {
		t.Fatalf("thin = %d pages, %v; want 4", pages, err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("thin wrote %d bytes, want %d; they differ from %d on", got.Len(), want.Len(), differ(got.Bytes(), want.Bytes()))
	}
	// Thinned once more it is the same.
	var again bytes.Buffer
	if _, err := thin(&again, bytes.NewReader(got.Bytes()), base); err != nil || !bytes.Equal(again.Bytes(), got.Bytes()) {
		t.Errorf("thin of what is thin = %d bytes, %v; want the same %d", again.Len(), err, got.Len())
	}
	// Cut short anywhere before the devices it is an error.
	whole := in.Bytes()
	for n := 0; n < len(whole)-len(devices("")); n += 1 + n/16 {
		if _, err := thin(io.Discard, bytes.NewReader(whole[:n]), base); err == nil || outcome.Of(err) != outcome.HostLacks {
			t.Errorf("thin of the first %d bytes = %v, want an error", n, err)
		}
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestThinRefuses(t *testing.T) {
	base := strings.NewReader(fill('a'))
	for name, write := range map[string]func(*stream){
		"no stream":     func(s *stream) { s.WriteString("not a stream, by far") },
		"no RAM":        func(s *stream) { s.WriteString("QEVM"); s.Write(make([]byte, maxStreamHead)) },
		"other flags":   func(s *stream) { s.start(); s.u64(0x200) },
		"nameless page": func(s *stream) { s.start(); s.page("", 0, fill('a')) },
		"too many blocks": func(s *stream) {
			s.start()
			s.u64(1<<40 | flagMemSize)
			for range maxBlocks + 1 {
				s.name("x")
				s.u64(1)
			}
		},
		"blocks larger than all": func(s *stream) { s.start(); s.u64(pageSize | flagMemSize); s.name("x"); s.u64(2 * pageSize) },
		"no run state":           func(s *stream) { s.start(); s.end(0); s.WriteString("\x04\x00\x00\x00\x09some devices") },
		"beyond the template":    func(s *stream) { s.start(); s.page("ram", 8*pageSize, fill('a')) },
	} {
		var in stream
		write(&in)
		if _, err := thin(io.Discard, &in, base); err == nil || outcome.Of(err) != outcome.HostLacks || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: thin = %v, want one line", name, err)
		}
	}
}

func FuzzThin(f *testing.F) {
	var s stream
	s.start()
	s.u64(pageSize | flagMemSize)
	s.name("ram")
	s.u64(pageSize)
	s.page("ram", 0, fill('x'))
	s.end(sectionEnd)
	s.page("ram", 0, "\x00")
	s.end(0)
	s.WriteString(devices("running"))
	f.Add(s.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if _, err := thin(&out, bytes.NewReader(in), strings.NewReader(fill('a')+fill(0))); err != nil {
			return
		}
		// A page that stays may have to name its block again.
		if out.Len() > 300*len(in) {
			t.Errorf("%d bytes of %d", out.Len(), len(in))
		}
		var again bytes.Buffer
		if _, err := thin(&again, bytes.NewReader(out.Bytes()), strings.NewReader(fill('a')+fill(0))); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
			t.Errorf("thin of what is thin: %v", err)
		}
	})
}
