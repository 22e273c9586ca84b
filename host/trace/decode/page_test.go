package decode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/trace/capture"
)

// kernel is what pages are made for.
type kernel struct {
	order order
	long  int
	page  int
}

type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

var kernels = []kernel{
	{binary.LittleEndian, 8, 4096},
	{binary.LittleEndian, 4, 4096},
	{binary.BigEndian, 8, 4096},
	{binary.BigEndian, 4, 4096},
	{binary.LittleEndian, 8, 65536},
}

func (k kernel) String() string {
	return fmt.Sprintf("%v %d-bit, pages of %d", k.order, 8*k.long, k.page)
}

const (
	idTick  = 300 // one u32
	idStack = 4
	idUser  = 12
)

func (k kernel) capture(cpus ...[]byte) *capture.Capture {
	common := "format:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n" +
		"\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n" +
		"\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n" +
		"\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
	stacks := func(name, first string, id int) capture.Format {
		return capture.Format{System: "ftrace", Text: fmt.Appendf(nil, "name: %s\nID: %d\n%s\tfield:%s;\toffset:8;\tsize:4;\tsigned:1;\n"+
			"\tfield:unsigned long caller[8];\toffset:%d;\tsize:%d;\tsigned:0;\n", name, id, common, first, 8+k.long, 8*k.long)}
	}
	c := &capture.Capture{
		Order: k.order, LongSize: k.long, PageSize: k.page,
		HeaderPage: fmt.Appendf(nil, "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:%d;\tsigned:1;\n"+
			"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:%d;\tsize:%d;\tsigned:1;\n", k.long, 8+k.long, k.page-8-k.long),
		Formats: []capture.Format{
			stacks("kernel_stack", "int size", idStack), stacks("user_stack", "unsigned int tgid", idUser),
			{System: "test", Text: fmt.Appendf(nil, "name: tick\nID: %d\n%s\tfield:u32 n;\toffset:8;\tsize:4;\tsigned:0;\n\nprint fmt: \"n=%%u\", REC->n\n", idTick, common)},
		},
		CPUCount: len(cpus),
	}
	for i, pages := range cpus {
		c.CPUs = append(c.CPUs, capture.CPU{ID: i, Pages: bytes.NewReader(pages), Size: int64(len(pages))})
	}
	return c
}

// word is a record's first.
func (k kernel) word(typ, delta uint32) []byte {
	if k.order == order(binary.BigEndian) {
		return k.order.AppendUint32(nil, typ<<27|delta)
	}
	return k.order.AppendUint32(nil, delta<<5|typ)
}

func (k kernel) u32(v uint32) []byte { return k.order.AppendUint32(nil, v) }

func (k kernel) ulong(v uint64) []byte {
	if k.long == 4 {
		return k.u32(uint32(v))
	}
	return k.order.AppendUint64(nil, v)
}

// event is a record of data; long ones have their length in a word of its own.
func (k kernel) event(delta uint32, data []byte) []byte {
	for len(data)%4 != 0 {
		data = append(data, 0)
	}
	if n := len(data) / 4; n <= maxDataLen {
		return slices.Concat(k.word(uint32(n), delta), data)
	}
	return slices.Concat(k.word(0, delta), k.u32(uint32(len(data)+4)), data)
}

func (k kernel) common(id uint16, flags Flags, pid uint32) []byte {
	return slices.Concat(k.order.AppendUint16(nil, id), []byte{byte(flags), 0}, k.u32(pid))
}

func (k kernel) tick(delta, n uint32) []byte { return k.tickIn(delta, n, 0, 7) }

func (k kernel) tickIn(delta, n uint32, flags Flags, pid uint32) []byte {
	return k.event(delta, slices.Concat(k.common(idTick, flags, pid), k.u32(n)))
}

func (k kernel) stack(flags Flags, pid uint32, pcs ...uint64) []byte {
	b := slices.Concat(k.common(idStack, flags, pid), k.u32(uint32(len(pcs))), make([]byte, k.long-4))
	for _, pc := range pcs {
		b = append(b, k.ulong(pc)...)
	}
	return k.event(0, b)
}

func (k kernel) user(flags Flags, pid uint32, pcs ...uint64) []byte {
	b := slices.Concat(k.common(idUser, flags, pid), k.u32(9), make([]byte, k.long-4))
	for i := range 8 {
		pc := uint64(0)
		if i < len(pcs) {
			pc = pcs[i]
		}
		b = append(b, k.ulong(pc)...)
	}
	return k.event(0, b)
}

func (k kernel) extend(delta uint64) []byte {
	return slices.Concat(k.word(timeExtend, uint32(delta&(1<<27-1))), k.u32(uint32(delta>>27)))
}

func (k kernel) stamp(abs uint64) []byte {
	abs &^= topBits
	return slices.Concat(k.word(timeStamp, uint32(abs&(1<<27-1))), k.u32(uint32(abs>>27)))
}

func (k kernel) discarded(delta uint32, size int) []byte {
	return slices.Concat(k.word(padding, delta), k.u32(uint32(size)), make([]byte, size-4))
}

// pageOf makes a page; flags are those of the commit word, after is what follows
// the data.
func (k kernel) pageOf(time uint64, flags uint32, after []byte, records ...[]byte) []byte {
	data := slices.Concat(records...)
	commit := int64(int32(uint32(len(data)) | flags)) // the sign goes into the upper half
	b := slices.Concat(k.order.AppendUint64(nil, time), k.ulong(uint64(commit)), data, after)
	if len(b) > k.page {
		panic("page too full")
	}
	return append(b, make([]byte, k.page-len(b))...)
}

// run is what a decoder says, a line an event or error.
func run(t testing.TB, c *capture.Capture) ([]string, []Stats) {
	t.Helper()
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for e, err := range d.Events() {
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		s := fmt.Sprintf("%d cpu %d %s %s", e.Time, e.CPU, e.Name(), d.Text(e))
		if e.Name() == "kernel_stack" || e.Name() == "user_stack" {
			s = fmt.Sprintf("%d cpu %d %s", e.Time, e.CPU, e.Name())
		}
		if e.Lost > 0 {
			s += fmt.Sprintf(" lost %d", e.Lost)
		}
		if e.Stack != nil {
			s += fmt.Sprintf(" stack %x", e.Stack)
		}
		if e.UserStack != nil {
			s += fmt.Sprintf(" user %x", e.UserStack)
		}
		out = append(out, s)
	}
	return out, d.Stats()
}

func TestRecords(t *testing.T) {
	for _, k := range kernels {
		const high = uint64(0xa8) << 56 // a clock with bits that a stamp has no room for
		big := k.event(1, slices.Concat(k.common(idTick, 0, 7), k.u32(99), make([]byte, 300)))
		got, stats := run(t, k.capture(slices.Concat(
			k.pageOf(1000, 0, nil,
				k.tick(0, 1), k.tick(5, 2), big,
				k.extend(1<<40), k.tick(0, 3),
				k.stamp(1<<50), k.tick(3, 4),
				k.discarded(7, 40), k.tick(1, 5), // its time counts
				k.discarded(1, 40), k.tick(1, 6), // 1 is not a time
				k.word(padding, 0)),
			k.pageOf(high|100, 0, nil, k.stamp(50|high), k.tick(0, 7), k.stamp(200|high), k.tick(0, 8)),
		)))
		want := []string{
			"1000 cpu 0 tick n=1", "1005 cpu 0 tick n=2", "1006 cpu 0 tick n=99",
			fmt.Sprint(1006+1<<40, " cpu 0 tick n=3"),
			fmt.Sprint(1<<50+3, " cpu 0 tick n=4"),
			fmt.Sprint(1<<50+11, " cpu 0 tick n=5"),
			fmt.Sprint(1<<50+12, " cpu 0 tick n=6"),
			// Before the page's time: the low bits went round.
			fmt.Sprint(high+1<<59+50, " cpu 0 tick n=7"),
			fmt.Sprint(high+1<<59+200, " cpu 0 tick n=8"),
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v: -want +got\n%s", k, d)
		}
		if s := stats[0]; s.Events != 9 || s.Damaged != 0 || s.Lost != 0 {
			t.Errorf("%v: stats %+v", k, s)
		}
	}
}

func TestLost(t *testing.T) {
	for _, k := range kernels {
		c := k.capture(slices.Concat(
			k.pageOf(10, 0, nil, k.tick(0, 1)),
			k.pageOf(20, 1<<31|1<<30, k.ulong(1234), k.tick(0, 2), k.tick(1, 3)),
			k.pageOf(30, 1<<31, nil, k.tick(0, 4)),
		), k.pageOf(15, 0, nil, k.tick(0, 9)))
		c.CPUs[0].Stats = []byte("entries: 0\noverrun: 1300\ncommit overrun: 0\nbytes: 0\ndropped events: 6\nread events: 4\n")
		got, stats := run(t, c)
		want := []string{"10 cpu 0 tick n=1", "15 cpu 1 tick n=9", "20 cpu 0 tick n=2 lost 1234", "21 cpu 0 tick n=3", "30 cpu 0 tick n=4 lost 1"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v: -want +got\n%s", k, d)
		}
		wantStats := []Stats{{CPU: 0, Events: 4, Lost: 1235, AtLeast: true, Overrun: 1300, Dropped: 6}, {CPU: 1, Events: 1}}
		if d := cmp.Diff(wantStats, stats); d != "" {
			t.Errorf("%v: -want +got\n%s", k, d)
		}
		if n := stats[0].Missing(); n != 1306 {
			t.Errorf("%v: %d events missing, want 1306", k, n)
		}
	}
}

func TestMerge(t *testing.T) {
	k := kernels[0]
	var cpus [][]byte
	var want []string
	for cpu := range 5 {
		var records [][]byte
		for n := range 20 {
			records = append(records, k.tick(5, uint32(n)))
		}
		cpus = append(cpus, k.pageOf(uint64(cpu), 0, nil, records...))
	}
	cpus = append(cpus, nil, k.pageOf(0, 0, nil)) // one without pages, one without records
	for n := range 20 {
		for cpu := range 5 {
			want = append(want, fmt.Sprintf("%d cpu %d tick n=%d", cpu+5*(n+1), cpu, n))
		}
	}
	// Of one time, the lower CPU comes first.
	slices.SortStableFunc(want, func(a, b string) int {
		var x, y, cpuX, cpuY int
		fmt.Sscanf(a, "%d cpu %d", &x, &cpuX)
		fmt.Sscanf(b, "%d cpu %d", &y, &cpuY)
		return (x*100 + cpuX) - (y*100 + cpuY)
	})
	got, _ := run(t, k.capture(cpus...))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestStacks(t *testing.T) {
	for _, k := range kernels {
		// An interrupt with its own stack and a softirq's without one come
		// between an event and its stacks, which are on the next page.
		got, stats := run(t, k.capture(slices.Concat(
			k.pageOf(10, 0, nil,
				k.stack(0, 7, 0x99), // of an event that is gone
				k.tickIn(0, 1, 0, 7), k.tickIn(1, 2, SoftIRQ, 7), k.tickIn(1, 3, HardIRQ, 7), k.stack(HardIRQ, 7, 0x31, 0x32)),
			k.pageOf(20, 0, nil,
				k.stack(0, 7, 0x11, 0x12, 0x13), k.user(0, 7, 0x400), k.tickIn(1, 4, 0, 7), k.tickIn(1, 5, 0, 7), k.user(0, 7, 0x500, 0x501),
				k.tickIn(1, 6, 0, 7)),
			k.pageOf(30, 1<<31, nil, k.stack(0, 7, 0x61)), // whose event may have been lost
		)))
		want := []string{
			"10 cpu 0 kernel_stack stack [99]",
			"10 cpu 0 tick n=1 stack [11 12 13] user [400]",
			"11 cpu 0 tick n=2",
			"12 cpu 0 tick n=3 stack [31 32]",
			"21 cpu 0 tick n=4", "22 cpu 0 tick n=5 user [500 501]", "23 cpu 0 tick n=6",
			"30 cpu 0 kernel_stack lost 1 stack [61]",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v: -want +got\n%s", k, d)
		}
		if stats[0].Events != 12 {
			t.Errorf("%v: %d records, want 12", k, stats[0].Events)
		}
	}
}

// failing is a reader that fails at an offset.
type failing struct {
	io.ReaderAt
	at int64
}

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= f.at {
		return f.ReaderAt.ReadAt(b, off)
	}
	n, _ := f.ReaderAt.ReadAt(b[:max(f.at-off, 0)], off)
	return n, errors.New("the disk is gone")
}

func TestBadPages(t *testing.T) {
	k := kernels[0]
	good := k.pageOf(100, 0, nil, k.tick(0, 9))
	for _, c := range []struct {
		name  string
		pages []byte
		want  string
	}{
		{"commit lies", slices.Concat(k.order.AppendUint64(nil, 1), k.ulong(5000), make([]byte, 4080)), "trace of CPU 0, byte 8: a page says it has 5000 bytes of data, and has room for 4080"},
		{"a record past the data", k.pageOf(1, 0, nil, k.word(20, 0), k.u32(0)), "trace of CPU 0, byte 16: a record goes on past the end of its page's data"},
		{"a length past the data", k.pageOf(1, 0, nil, k.word(0, 0), k.u32(4000), make([]byte, 16)), "trace of CPU 0, byte 16: a record's length is not one that fits its page"},
		{"a length of 0", k.pageOf(1, 0, nil, k.word(0, 0), k.u32(0), make([]byte, 16)), "trace of CPU 0, byte 16: a record's length is not one that fits its page"},
		{"a huge length", k.pageOf(1, 0, nil, k.word(padding, 3), k.u32(0xfffffffc), make([]byte, 16)), "trace of CPU 0, byte 16: a record's length is not one that fits its page"},
		{"a record cut in its word", k.pageOf(1, 0, nil, []byte{1, 2}), "trace of CPU 0, byte 16: a record is cut: less than 4 bytes are left"},
		{"an extend cut", k.pageOf(1, 0, nil, k.word(timeExtend, 3)), "trace of CPU 0, byte 16: a record is cut: less than 8 bytes are left"},
		{"no event", k.pageOf(1, 0, nil, k.word(1, 3), k.u32(1)), "trace of CPU 0, byte 16: a record is too short for an event"},
	} {
		got, stats := run(t, k.capture(slices.Concat(c.pages, good)))
		want := []string{c.want, "100 cpu 0 tick n=9"}
		if d := cmp.Diff(want, got); d != "" || stats[0].Damaged != 1 {
			t.Errorf("%s: %d damaged, -want +got\n%s", c.name, stats[0].Damaged, d)
		}
	}

	two := slices.Concat(good, k.pageOf(200, 0, nil, k.tick(0, 1), k.tick(1, 2)))
	tick9 := "100 cpu 0 tick n=9"
	for _, c := range []struct {
		name string
		edit func(c *capture.CPU)
		want []string
	}{
		{"cut in a header", func(c *capture.CPU) { c.Size = 4096 + 10 },
			[]string{tick9, "trace of CPU 0, byte 4096: the capture ends in the header of a page: 10 bytes of 4096"}},
		{"cut in a record", func(c *capture.CPU) { c.Size = 4096 + 16 + 16 + 2 },
			[]string{tick9, "200 cpu 0 tick n=1", "trace of CPU 0, byte 4128: a record is cut: less than 4 bytes are left"}},
		{"cut behind the data", func(c *capture.CPU) { c.Size = 8000 }, []string{tick9, "200 cpu 0 tick n=1", "201 cpu 0 tick n=2"}},
		{"2^60 bytes claimed", func(c *capture.CPU) { c.Size = 1 << 60 },
			[]string{tick9, "200 cpu 0 tick n=1", "201 cpu 0 tick n=2", "trace of CPU 0, byte 8192: the pages end here, and 1152921504606846976 bytes are claimed"}},
		{"a negative size", func(c *capture.CPU) { c.Size = -1 }, nil},
		{"no reader", func(c *capture.CPU) { c.Pages = nil }, nil},
		{"a reader that fails", func(c *capture.CPU) { c.Pages = failing{c.Pages, 4096} },
			[]string{tick9, "read trace of CPU 0, byte 4096: the disk is gone"}},
	} {
		in := k.capture(two)
		c.edit(&in.CPUs[0])
		got, _ := run(t, in)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

func TestUnknownEvent(t *testing.T) {
	k := kernels[0]
	got, stats := run(t, k.capture(k.pageOf(1, 0, nil, k.event(0, slices.Concat(k.common(4711, 0, 7), k.u32(1))), k.tick(1, 2))))
	if d := cmp.Diff([]string{"1 cpu 0 unknown-4711 ", "2 cpu 0 tick n=2"}, got); d != "" || stats[0].Unknown != 1 {
		t.Errorf("%+v, -want +got\n%s", stats, d)
	}
}

func TestOpen(t *testing.T) {
	k := kernels[0]
	for _, c := range []struct {
		name string
		edit func(c *capture.Capture)
		want string
	}{
		{"no order", func(c *capture.Capture) { c.Order = nil }, "its byte order is not known"},
		{"long", func(c *capture.Capture) { c.LongSize = 16 }, "an unsigned long of 16 bytes"},
		{"page size", func(c *capture.Capture) { c.PageSize = 1 << 30 }, "pages of 1073741824 bytes"},
		{"no header", func(c *capture.Capture) { c.HeaderPage = nil }, "header_page): no field timestamp"},
		{"other records", func(c *capture.Capture) { c.HeaderEvent = []byte("type_len : 3 bits") }, `"type_len : 3 bits", not 5`},
		{"no formats", func(c *capture.Capture) { c.Formats = nil }, "no format of any event"},
		{"one ID twice", func(c *capture.Capture) {
			c.Formats = append(c.Formats, capture.Format{System: "x", Text: bytes.Replace(c.Formats[2].Text, []byte("tick"), []byte("tock"), 1)})
		}, "both have ID 300"},
		{"common fields elsewhere", func(c *capture.Capture) {
			c.Formats[1].Text = bytes.Replace(c.Formats[1].Text, []byte("offset:4;"), []byte("offset:40;"), 1)
		}, "its common fields are not where"},
		{"no format can be read", func(c *capture.Capture) {
			c.Formats = []capture.Format{{System: "test", Text: []byte("name: tick\n")}}
		}, "format of event test/tick: no ID"},
	} {
		in := k.capture(nil)
		c.edit(in)
		_, err := Open(in)
		if err == nil || !strings.HasPrefix(err.Error(), "read capture: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.want)
		}
	}
}

// TestBrokenFormat: a format that cannot be read is an error only for records of its
// event, which keep what is common to all records.
func TestBrokenFormat(t *testing.T) {
	const want = "format of event test/tick: field n: size:4000000 is no number up to 1048576"
	k := kernels[0]
	other := capture.Format{System: "x", Text: []byte("name: nothing\n")}
	for _, c := range []struct {
		name   string
		pages  []byte
		events int
		errs   []string
	}{
		{"no record of it", k.pageOf(1, 0, nil, k.stack(0, 7, 1, 2)), 1, nil},
		{"two records of it", k.pageOf(1, 0, nil, k.tick(0, 1), k.tick(1, 2)), 2, []string{want}},
	} {
		in := k.capture(c.pages)
		in.Formats[2].Text = bytes.Replace(in.Formats[2].Text, []byte("size:4;\tsigned:0"), []byte("size:4000000;\tsigned:0"), 1)
		in.Formats = append(in.Formats, other)
		d, err := Open(in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var errs []string
		events := 0
		for e, err := range d.Events() {
			if err != nil {
				errs = append(errs, err.Error())
				continue
			}
			events++
			if e.PID != 7 {
				t.Errorf("%s: event of PID %d; want 7", c.name, e.PID)
			}
		}
		if diff := cmp.Diff(c.errs, errs); diff != "" || events != c.events {
			t.Errorf("%s: %d events, want %d; errors -want +got\n%s", c.name, events, c.events, diff)
		}
	}
}

// endless repeats a page.
type endless struct{ page []byte }

func (e endless) ReadAt(b []byte, off int64) (int, error) {
	for n := 0; n < len(b); {
		at := int((off + int64(n)) % int64(len(e.page)))
		n += copy(b[n:], e.page[at:])
	}
	return len(b), nil
}

// large is a capture of n events on two CPUs.
func large(n int) *capture.Capture {
	k := kernels[0]
	var records [][]byte
	for i := range 100 {
		records = append(records, k.tick(10, uint32(i)))
	}
	page := k.pageOf(1, 0, nil, records...)
	c := k.capture(nil, nil)
	for i := range c.CPUs {
		c.CPUs[i].Pages, c.CPUs[i].Size = endless{page}, int64(n/2/len(records)*k.page)
	}
	return c
}

func TestBoundedMemory(t *testing.T) {
	d, err := Open(large(10_000_000))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := 0
	for _, err := range d.Events() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	runtime.ReadMemStats(&after)
	if n != 10_000_000 {
		t.Errorf("%d events, want 10 million", n)
	}
	// A window for each CPU, and no more.
	if got := after.TotalAlloc - before.TotalAlloc; got > 4*window {
		t.Errorf("%d bytes allocated, want at most %d", got, 4*window)
	}
}
