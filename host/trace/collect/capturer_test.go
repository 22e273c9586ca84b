package collect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/trace/capture"
)

const headerPage = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n" +
	"\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n" +
	"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n" +
	"\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n"

func armed(t testing.TB, a wire.CaptureArmed) []byte {
	t.Helper()
	p, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func chunk(kind wire.ChunkKind, cpu int, payload string) wire.Chunk {
	return wire.Chunk{Kind: kind, CPU: cpu, Payload: []byte(payload)}
}

func TestCapturer(t *testing.T) {
	page := func(b byte) string { return strings.Repeat(string(b), 4096) }
	c := newCapturer(image{}, 1<<20, nil)
	t.Cleanup(c.close)
	for _, k := range []wire.Chunk{
		chunk(wire.ChunkHeaderPage, 0, headerPage),
		chunk(wire.ChunkHeaderEvent, 0, "# compressed\n"),
		chunk(wire.ChunkClock, 0, "[local] global\n"),
		chunk(wire.ChunkFormat, 0, "sched/sched_switch\x00name: sched_switch\n"),
		chunk(wire.ChunkFormat, 0, "ftrace/print\x00name: print\n"),
		chunk(wire.ChunkFormat, 0, "labctl/clone\x00name: clone\n"),
		{Kind: wire.ChunkArmed, Payload: armed(t, wire.CaptureArmed{PageSize: 4096, CPUs: 4, Uname: "Linux 6.1 x\x1b[2J", Tracer: "nop"})},
		chunk(wire.ChunkPages, 2, page('a')+page('b')),
		chunk(wire.ChunkPages, 0, page('x')),
		chunk(wire.ChunkPages, 2, page('c')),
		chunk(wire.ChunkStats, 2, "entries: 0\n"),
		chunk(wire.ChunkSymbols, 0, "ffffffff81000000 T "),
		chunk(wire.ChunkSymbols, 0, "_text\n"),
		chunk(wire.ChunkCmdlines, 0, "7 labprobe\n"),
		chunk(wire.ChunkHist, 0, "a/b\x00one "),
		chunk(wire.ChunkHist, 0, "c/d\x00three"),
		chunk(wire.ChunkHist, 0, "a/b\x00two"),
	} {
		if err := c.take(k); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.capture()
	if err != nil {
		t.Fatal(err)
	}
	if got.LongSize != 8 || got.PageSize != 4096 || got.CPUCount != 4 || string(got.Kallsyms) != "ffffffff81000000 T _text\n" || string(got.Cmdlines) != "7 labprobe\n" {
		t.Errorf("capture %+v", got)
	}
	if strings.Contains(got.Uname, "\x1b") {
		t.Errorf("uname %q would act on a terminal", got.Uname)
	}
	var formats []string
	for _, f := range got.Formats {
		formats = append(formats, f.System+" "+strings.TrimSpace(string(f.Text)))
	}
	if diff := cmp.Diff([]string{"ftrace name: print", "labctl name: clone", "sched name: sched_switch"}, formats); diff != "" {
		t.Errorf("formats (-want +got):\n%s", diff)
	}
	var pages []string
	for _, cpu := range got.CPUs {
		b, err := io.ReadAll(io.NewSectionReader(cpu.Pages, 0, cpu.Size))
		if err != nil {
			t.Error(err)
		}
		pages = append(pages, string(bytes.ReplaceAll(b, bytes.Repeat(b[:1], 4095), nil))+string(cpu.Stats))
	}
	if len(got.CPUs) != 2 || got.CPUs[0].ID != 0 || got.CPUs[1].ID != 2 || got.CPUs[1].Size != 3*4096 {
		t.Errorf("CPUs %+v, pages %.40q", got.CPUs, pages)
	}
	if diff := cmp.Diff([]Hist{{"a/b", []byte("one two")}, {"c/d", []byte("three")}}, c.hists); diff != "" {
		t.Errorf("histograms (-want +got):\n%s", diff)
	}
	st := c.checked(wire.CaptureStopped{Bytes: 1 << 60, Truncated: "\x1b[2Jx", CPUs: []wire.CaptureCPU{{CPU: 2, Bytes: 1 << 60, Overrun: -5, Dropped: 3}, {CPU: -1}}})
	want := wire.CaptureStopped{Bytes: 4 * 4096, Truncated: st.Truncated, CPUs: []wire.CaptureCPU{{CPU: 0, Bytes: 4096}, {CPU: 2, Bytes: 3 * 4096, Dropped: 3}}}
	if diff := cmp.Diff(want, st); diff != "" || strings.Contains(st.Truncated, "\x1b") {
		t.Errorf("checked (-want +got):\n%s", diff)
	}
}

// following keeps what it was shown.
type following struct{ shown []string }

func (f *following) show(what string, pages []capture.CPU) {
	for _, p := range pages {
		b, _ := io.ReadAll(io.NewSectionReader(p.Pages, 0, p.Size))
		what += fmt.Sprintf(" %d:", p.ID)
		for page := range slices.Chunk(b, 4096) {
			what += string(page[:1])
		}
	}
	f.shown = append(f.shown, what)
}

func (f *following) Begin(c *capture.Capture) {
	f.show(fmt.Sprintf("begin %d formats", len(c.Formats)), c.CPUs)
}

func (f *following) Round(pages []capture.CPU, cmdlines []byte) {
	f.show(fmt.Sprintf("round %q", cmdlines), pages)
}

func (f *following) End(pages []capture.CPU) { f.show("end", pages) }

// A follower is shown each page once, when its round is over.
func TestFollower(t *testing.T) {
	page := func(b byte) string { return strings.Repeat(string(b), 4096) }
	var f following
	c := newCapturer(image{}, 1<<20, &f)
	t.Cleanup(c.close)
	for _, k := range []wire.Chunk{
		chunk(wire.ChunkRound, 0, "1 early\n"), // nothing is armed yet
		chunk(wire.ChunkHeaderPage, 0, headerPage),
		chunk(wire.ChunkFormat, 0, "ftrace/print\x00name: print\n"),
		{Kind: wire.ChunkArmed, Payload: armed(t, wire.CaptureArmed{PageSize: 4096, CPUs: 2})},
		chunk(wire.ChunkPages, 1, page('a')),
		chunk(wire.ChunkPages, 0, page('b')+page('c')),
		chunk(wire.ChunkRound, 0, "7 x\n"),
		chunk(wire.ChunkRound, 0, ""),
		chunk(wire.ChunkPages, 1, page('d')),
		chunk(wire.ChunkRound, 0, ""),
		chunk(wire.ChunkPages, 0, page('e')),
	} {
		if err := c.take(k); err != nil {
			t.Fatal(err)
		}
	}
	c.ended()
	want := []string{"begin 1 formats", `round "7 x\n" 0:bc 1:a`, `round ""`, `round "" 1:d`, "end 0:e"}
	if diff := cmp.Diff(want, f.shown); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}

// What no guest of ours sends is an error, in one line.
func TestCapturerRefuses(t *testing.T) {
	begun := wire.Chunk{Kind: wire.ChunkArmed, Payload: armed(t, wire.CaptureArmed{PageSize: 4096, CPUs: 1})}
	for _, tt := range []struct {
		name   string
		chunks []wire.Chunk
		want   string
	}{
		{"pages first", []wire.Chunk{chunk(wire.ChunkPages, 0, "x")}, "no whole pages"},
		{"half a page", []wire.Chunk{begun, chunk(wire.ChunkPages, 0, "x")}, "no whole pages"},
		{"more than asked for", []wire.Chunk{begun, chunk(wire.ChunkPages, 0, strings.Repeat("x", 3*4096))}, "more than the 8192 bytes"},
		{"begun twice", []wire.Chunk{begun, begun}, "twice"},
		{"no JSON", []wire.Chunk{chunk(wire.ChunkArmed, 0, "{")}, "decode"},
		{"odd page", []wire.Chunk{chunk(wire.ChunkArmed, 0, `{"page_size":5000,"cpus":1}`)}, "no such machine"},
		{"huge page", []wire.Chunk{chunk(wire.ChunkArmed, 0, `{"page_size":1152921504606846976,"cpus":1}`)}, "no such machine"},
		{"no CPU", []wire.Chunk{chunk(wire.ChunkArmed, 0, `{"page_size":4096}`)}, "no such machine"},
		{"CPU 65535", []wire.Chunk{begun, chunk(wire.ChunkStats, 65535, "")}, "more than a machine has"},
		{"format without a name", []wire.Chunk{chunk(wire.ChunkFormat, 0, "name: x\n")}, "is no event"},
		{"format with a bad name", []wire.Chunk{chunk(wire.ChunkFormat, 0, "a/\x1b\x00x")}, "is no event"},
		{"histogram of no event", []wire.Chunk{chunk(wire.ChunkHist, 0, "# event histogram\n")}, "is no event"},
		{"endless histograms", repeat(chunk(wire.ChunkHist, 0, "a/b\x00"+strings.Repeat("x", 1<<19)), 33), "histograms of more than"},
		{"endless text", repeat(chunk(wire.ChunkCmdlines, 0, strings.Repeat("x", 1<<20)), 17), "more than"},
		{"endless formats", repeat(chunk(wire.ChunkFormat, 0, "a/b\x00"+strings.Repeat("x", 1<<19)), 33), "together"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCapturer(image{}, 8192, nil)
			defer c.close()
			var err error
			for _, k := range tt.chunks {
				if err = c.take(k); err != nil {
					break
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("take = %v, want %q", err, tt.want)
			}
		})
	}
	c := newCapturer(image{}, 0, nil)
	if _, err := c.capture(); err == nil || !strings.Contains(err.Error(), "has not begun") {
		t.Errorf("capture of nothing = %v", err)
	}
	if err := c.take(begun); err != nil {
		t.Fatal(err)
	}
	if _, err := c.capture(); err == nil || !strings.Contains(err.Error(), "header_page") {
		t.Errorf("capture without header_page = %v", err)
	}
}

func repeat(c wire.Chunk, n int) (out []wire.Chunk) {
	for range n {
		out = append(out, c)
	}
	return out
}

func TestMoved(t *testing.T) {
	const table = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T startup_64\nffffffff81000010 t f\n"
	for _, tt := range []struct {
		name, anchor, want string
		ok                 bool
	}{
		{"in its place", "ffffffff81000000 T startup_64\n", table, true},
		{"moved up", "ffffffff92000000 T startup_64\n", "0000000000000000 A fixed_percpu_data\nffffffff92000000 T startup_64\nffffffff92000010 t f\n", true},
		{"moved down", "ffffffff80000000 T startup_64\n", "0000000000000000 A fixed_percpu_data\nffffffff80000000 T startup_64\nffffffff80000010 t f\n", true},
		{"another kernel", "ffffffff81000000 T nosuch\n", "", false},
		{"no anchor", "", "", false},
		{"no address", "x T startup_64\n", "", false},
	} {
		got, ok := moved([]byte(table), []byte(tt.anchor))
		if ok != tt.ok || ok && string(got) != tt.want {
			t.Errorf("%s: moved = %q, %v; want %q, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzCapturer has the bytes of a link come in as a capture.
func FuzzCapturer(f *testing.F) {
	var out bytes.Buffer
	w := wire.NewChunkWriter(&out, 64, false)
	w.Write(wire.ChunkHeaderPage, 0, []byte(headerPage))
	w.Write(wire.ChunkFormat, 0, []byte("ftrace/print\x00name: print\n"))
	w.Write(wire.ChunkSymbols, 0, []byte("ffffffff92000000 T startup_64\n"))
	w.Write(wire.ChunkModules, 0, []byte("virtio .text 0xffffffffc0000000\n"))
	w.Write(wire.ChunkArmed, 0, armed(f, wire.CaptureArmed{PageSize: 4096, CPUs: 2, Missing: []wire.CaptureMissing{{What: "event x", Why: "y"}}}))
	w.Write(wire.ChunkPages, 1, make([]byte, 4096))
	w.Write(wire.ChunkRound, 0, []byte("7 x\n"))
	w.Close()
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newCapturer(image{[]byte("ffffffff81000000 T startup_64\n"), noModules}, 8192, &following{})
		defer c.close()
		defer c.ended()
		r := wire.NewChunkReader(bytes.NewReader(in))
		for {
			k, err := r.Next()
			if err == nil {
				err = c.take(k)
			}
			if err != nil {
				break
			}
		}
		got, err := c.capture()
		if err != nil {
			return
		}
		for _, cpu := range got.CPUs {
			if cpu.Size > 8192 || cpu.Size%int64(got.PageSize) != 0 {
				t.Fatalf("CPU %d has %d bytes", cpu.ID, cpu.Size)
			}
		}
	})
}

func noModules(...string) ([]kernel.Module, error) { return nil, kernel.ErrNoModule }
