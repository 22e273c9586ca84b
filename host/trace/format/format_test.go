package format

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/trace/internal/sample"
)

const common = `format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

`

func TestFields(t *testing.T) {
	for _, c := range []struct {
		line string
		long int
		want Field
		text bool
	}{
		{"int prio;	offset:8;	size:4;	signed:1;", 8, Field{"prio", "int", 8, 4, true, false, 4, Here}, false},
		{"unsigned long ip;	offset:8;	size:4;	signed:0;", 4, Field{"ip", "unsigned long", 8, 4, false, false, 4, Here}, false},
		{"const char * name;	offset:8;	size:8;	signed:0;", 8, Field{"name", "const char *", 8, 8, false, false, 8, Here}, false},
		{"const char *name;	offset:8;	size:8;	signed:0;", 8, Field{"name", "const char *", 8, 8, false, false, 8, Here}, false},
		{"char comm[16];	offset:8;	size:16;	signed:0;", 8, Field{"comm", "char", 8, 16, false, true, 1, Here}, true},
		{"char state;	offset:8;	size:1;	signed:1;", 8, Field{"state", "char", 8, 1, true, false, 1, Here}, false},
		{"unsigned char data[16];	offset:8;	size:16;	signed:0;", 8, Field{"data", "unsigned char", 8, 16, false, true, 1, Here}, false},
		{"unsigned long caller[8];	offset:16;	size:64;	signed:0;", 8, Field{"caller", "unsigned long", 16, 64, false, true, 8, Here}, false},
		{"unsigned long caller[8];	offset:12;	size:32;	signed:0;", 4, Field{"caller", "unsigned long", 12, 32, false, true, 4, Here}, false},
		{"char func[30+1];	offset:12;	size:31;	signed:1;", 8, Field{"func", "char", 12, 31, true, true, 1, Here}, true},
		{"__u8 saddr[sizeof(struct sockaddr_in6)];	offset:12;	size:28;	signed:0;", 8, Field{"saddr", "__u8", 12, 28, false, true, 1, Here}, false},
		{"u32 buf[];	offset:24;	size:0;	signed:0;", 8, Field{"buf", "u32", 24, 0, false, true, 4, Here}, false},
		{"u32 none[3];	offset:24;	size:0;	signed:0;", 8, Field{"none", "u32", 24, 0, false, true, 4, Here}, false},
		{"__data_loc char[] name;	offset:8;	size:4;	signed:0;", 8, Field{"name", "__data_loc char", 8, 4, false, true, 1, DataLoc}, true},
		{"__data_loc char name[];	offset:8;	size:4;	signed:0;", 8, Field{"name", "__data_loc char", 8, 4, false, true, 1, DataLoc}, true},
		{"__rel_loc u64[] v;	offset:8;	size:4;	signed:0;", 8, Field{"v", "__rel_loc u64", 8, 4, false, true, 8, RelLoc}, false},
		{"__data_loc unsigned long[] cpumask;	offset:8;	size:4;	signed:0;", 4, Field{"cpumask", "__data_loc unsigned long", 8, 4, false, true, 4, DataLoc}, false},
		{"__data_loc cpumask_t cpus;	offset:8;	size:4;	signed:0;", 8, Field{"cpus", "__data_loc cpumask_t", 8, 4, false, true, 8, DataLoc}, false},
		{"__data_loc cpumask_t *[] mask;	offset:8;	size:4;	signed:0;", 4, Field{"mask", "__data_loc cpumask_t *", 8, 4, false, true, 4, DataLoc}, false},
		{"int last;	offset:1048572;	size:4;	signed:1;", 8, Field{"last", "int", 1048572, 4, true, false, 4, Here}, false},
		{"struct foo * p;	offset:8;	size:8;	signed:0;", 8, Field{"p", "struct foo *", 8, 8, false, false, 8, Here}, false},
		// Before 5.6.
		{"unsigned long caller;	offset:16;	size:0;	signed:0;", 8, Field{"caller", "unsigned long", 16, 0, false, true, 8, Here}, false},
		{"char buf;	offset:16;	size:0;	signed:0;", 8, Field{"buf", "char", 16, 0, false, true, 1, Here}, true},
		// One element's size for the whole array.
		{"nid_t nid[3];	offset:24;	size:4;	signed:0;", 8, Field{"nid", "nid_t", 24, 4, false, true, 4, Here}, false},
		{"u32 a[2];	offset:24;	size:4;	signed:0;", 8, Field{"a", "u32", 24, 4, false, true, 4, Here}, false},
		{"char rcutorturename[8];	offset:8;	size:1;	signed:0;", 8, Field{"rcutorturename", "char", 8, 1, false, true, 1, Here}, true},
		{"enum hrtimer_mode mode;	offset:8;	size:4;", 8, Field{"mode", "enum hrtimer_mode", 8, 4, false, false, 4, Here}, false},
	} {
		e, err := Parse("x", []byte("name: y\nID: 1\n"+common+"\tfield:"+c.line+"\n"), c.long)
		if err != nil {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		if d := cmp.Diff(c.want, e.Fields[0]); d != "" {
			t.Errorf("%q: -want +got\n%s", c.line, d)
		}
		if got := e.Fields[0].IsText(); got != c.text {
			t.Errorf("%q: IsText() = %v", c.line, got)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"A": true, "Z": true, "a": true, "z": true, "_": true, "x0": true, "x9": true, "x-x": true, "x.x": true,
		"0": true, "802154_rdev_add_virtual_intf": true, "-x": false, ".x": false,
		"x/x": false, "x;x": false, "x@x": false, "x[x": false, "x`x": false, "x{x": false, // beside those in ASCII
		strings.Repeat("x", maxName): true, strings.Repeat("x", maxName+1): false,
	} {
		if _, err := Parse("x", []byte("name: "+name+"\nID: 1\n"+common), 8); (err == nil) != ok {
			t.Errorf("an event called %q: %v; want it to be good: %t", name, err, ok)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []int{0, maxID} {
		if e, err := Parse("x", fmt.Appendf(nil, "name: y\nID: %d\n%s", id, common), 8); err != nil || e.ID != id {
			t.Errorf("ID %d: %+v, %v", id, e, err)
		}
	}
}

func TestErrors(t *testing.T) {
	field := func(s string) string { return "name: y\nID: 1\n" + common + "\tfield:" + s + "\n" }
	for _, c := range []struct{ text, want string }{
		{"", "format of event x/?: no name"},
		{"name: \x1b[2Jy\nID: 1\n" + common, "format of event x/?: \"\uFFFD[2Jy\" is not the name of an event"},
		{"name: y\n" + common, "format of event x/y: no ID"},
		{"name: y\nID: 65536\n" + common, `format of event x/y: ID "65536" is no number up to 65535`},
		{"name: y\nID: 1\n", "format of event x/y: no field common_type of 2 bytes"},
		{field("int a;\toffset:8;\tsize:4294967296;"), "format of event x/y: field a: size:4294967296 is no number up to 1048576"},
		{field("int a;\toffset:-8;\tsize:4;"), "format of event x/y: field a: offset:-8 is no number up to 1048576"},
		{field("int a;\toffset:1048576;\tsize:8;"), "format of event x/y: field a: offset 1048576 and size 8 are over a record's bound of 1048576"},
		{field("int a;\toffset:8;"), "format of event x/y: field a: no size"},
		{field("u64 a[N];\toffset:8;\tsize:12;"), "format of event x/y: field a: size 12 is not a multiple of its elements' 8"},
		{field("__data_loc char[] a;\toffset:8;\tsize:8;"), "format of event x/y: field a: a place of data has size 8, not 4"},
		{field(";\toffset:8;\tsize:8;"), `format of event x/y: "" declares no field`},
		{"name: y\nID: 1\n" + strings.Repeat("\tfield:int a;\toffset:8;\tsize:4;\n", 1024), "format of event x/y: no field common_type of 2 bytes"},
		{"name: y\nID: 1\n" + common + strings.Repeat("\tfield:int a;\toffset:8;\tsize:4;\n", 1021), "format of event x/y: more than 1024 fields"},
		{strings.Repeat("x", 1<<20), "format of event x/?: no name"},
		{strings.Repeat("x", 1<<20+1), "format of event x/?: 1048577 bytes, more than 1048576"},
	} {
		_, err := Parse("x", []byte(c.text), 8)
		if err == nil || err.Error() != c.want {
			t.Errorf("%.200q: error %v, want %s", c.text, err, c.want)
		}
	}
}

// TestKernels reads the formats of all samples.
func TestKernels(t *testing.T) {
	for _, s := range sample.All(t) {
		for _, f := range s.Capture.Formats {
			e, err := Parse(f.System, f.Text, 8)
			if err != nil {
				t.Errorf("%s: %v", s.Name, err)
				continue
			}
			if len(e.Common) != 4 || len(e.Fields) == 0 && e.Name != "sys_enter_getpid" && e.Name != "sys_enter_rt_sigreturn" || e.Print == "" {
				t.Errorf("%s: %s has %d common fields, %d others, print fmt %q", s.Name, e, len(e.Common), len(e.Fields), e.Print)
			}
			end := 0
			for _, f := range e.Fields {
				if f.Offset < end {
					t.Errorf("%s: %s: field %s begins before the last one ends", s.Name, e, f.Name)
				}
				end = f.Offset + f.Size
			}
			if again := e.Field("common_pid"); again == nil || again.Offset != 4 {
				t.Errorf("%s: %s: common_pid is %+v", s.Name, e, again)
			}
		}
		p, err := ParsePage(s.Capture.HeaderPage)
		if d := cmp.Diff(Page{CommitOffset: 8, CommitSize: 8, DataOffset: 16, Size: 4096}, p); err != nil || d != "" {
			t.Errorf("%s: %v, -want +got\n%s", s.Name, err, d)
		}
		if err := CheckRecord(s.Capture.HeaderEvent); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

func TestPage(t *testing.T) {
	page := func(stamp, commit, size, data, dataSize int) string {
		return fmt.Sprintf("\tfield: u64 timestamp;\toffset:0;\tsize:%d;\tsigned:0;\n\tfield: local_t commit;\toffset:%d;\tsize:%d;\tsigned:1;\n"+
			"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:%d;\tsize:%d;\tsigned:1;\n", stamp, commit, size, data, dataSize)
	}
	for _, c := range []struct {
		text string
		want Page
		err  string
	}{
		{page(8, 8, 4, 12, 4084), Page{8, 4, 12, 4096}, ""},
		{page(8, 8, 8, 16, 65520), Page{8, 8, 16, 65536}, ""},
		{page(4, 8, 8, 16, 4080), Page{}, "timestamp at 0 of 4 bytes, not at 0 of 8"},
		{page(8, 8, 2, 16, 4080), Page{}, "commit of 2 bytes, not 4 or 8"},
		{page(8, 4, 8, 16, 4080), Page{}, "fields overlap: commit at 4, data at 16"},
		{page(8, 8, 8, 12, 4080), Page{}, "fields overlap: commit at 8, data at 12"},
		{page(8, 8, 8, 16, 48), Page{8, 8, 16, 64}, ""},
		{page(8, 8, 8, 16, 47), Page{}, "a page of 63 bytes; it has 64 to 1048576"},
		{page(8, 8, 8, 16, 1<<20-16), Page{8, 8, 16, 1 << 20}, ""},
		{strings.Repeat("x", 1<<20), Page{}, "no field timestamp"},
		{strings.Repeat("x", 1<<20+1), Page{}, "1048577 bytes, more than 1048576"},
		{"", Page{}, "no field timestamp"},
	} {
		p, err := ParsePage([]byte(c.text))
		got := ""
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "format of ring-buffer pages (header_page): ")
		}
		if p != c.want || got != c.err {
			t.Errorf("%q: %+v, %q; want %+v, %q", c.text, p, got, c.want, c.err)
		}
	}
}

func TestCheckRecord(t *testing.T) {
	const good = "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n" +
		"\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n"
	for _, c := range []struct{ old, new, err string }{
		{"", "", ""},
		{"\ttime_stamp : type == 31\n", "", ""}, // which came later than the others
		{"5 bits", "6 bits", `"type_len    :    6 bits", not 5`},
		{"== 28", "== 280000000000", `"data max type_len  == 280000000000", not 28`},
		{good, strings.Repeat("x", 1<<20), ""},
		{good, strings.Repeat("x", 1<<20+1), "1048577 bytes, more than 1048576"},
	} {
		got := ""
		if err := CheckRecord([]byte(strings.Replace(good, c.old, c.new, 1))); err != nil {
			got = strings.TrimPrefix(err.Error(), "format of ring-buffer records (header_event): ")
		}
		if got != c.err {
			t.Errorf("%.40q for %.40q: error %q; want %q", c.new, c.old, got, c.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, boot := range []string{"5.10-amd64", "7.2-arm64"} {
		for _, in := range sample.Load(f, boot+"/io").Capture.Formats {
			f.Add(in.Text)
		}
	}
	f.Add([]byte("name: y\nID: 1\n" + common + "\tfield:__rel_loc u64 v[];\toffset:8;\tsize:4;\n\nprint fmt: \"\", REC->v"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse("x", b, 8)
		if err != nil {
			return
		}
		for _, f := range append(e.Common, e.Fields...) {
			if f.Offset < 0 || f.Size < 0 || f.Offset+f.Size > maxRecord || f.Elem <= 0 || f.Array && f.Loc == Here && f.Size%f.Elem != 0 {
				t.Errorf("field %+v", f)
			}
		}
		if e.ID < 0 || e.ID > maxID || e.Name == "" {
			t.Errorf("event %q, ID %d", e.Name, e.ID)
		}
	})
}

func FuzzParsePage(f *testing.F) {
	f.Add(sample.Load(f, "5.10-amd64/io").Capture.HeaderPage)
	f.Add(sample.Load(f, "7.2-arm64/io").Capture.HeaderPage)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePage(b)
		if err == nil && (p.CommitOffset < 8 || p.DataOffset < p.CommitOffset+p.CommitSize || p.Size <= p.DataOffset && p.Size != p.DataOffset || p.Size > maxRecord) {
			t.Errorf("page %+v", p)
		}
	})
}

// Span believes a record no further than its end.
func TestSpan(t *testing.T) {
	record := []byte{9, 9, 9, 9, 12, 0, 3, 0, 4, 0, 4, 0, 'a', 'b', 'c', 'd'} // at 4: 3 bytes at 12; at 8: 4 bytes at 4 beyond its end
	for _, tt := range []struct {
		name        string
		f           Field
		record      []byte
		start, size int
		ok          bool
	}{
		{"here", Field{Offset: 12, Size: 4}, record, 12, 4, true},
		{"here, one byte too few", Field{Offset: 12, Size: 4}, record[:15], 12, 4, false},
		{"flexible", Field{Offset: 12}, record, 12, 4, true},
		{"flexible, empty", Field{Offset: 16}, record, 16, 0, true},
		{"flexible, past the end", Field{Offset: 17}, record, 17, 0, false},
		{"elsewhere", Field{Offset: 4, Size: 4, Loc: DataLoc}, record, 12, 3, true},
		{"elsewhere, to the last byte", Field{Offset: 4, Size: 4, Loc: DataLoc}, record[:15], 12, 3, true},
		{"elsewhere, cut", Field{Offset: 4, Size: 4, Loc: DataLoc}, record[:14], 12, 3, false},
		{"elsewhere, itself cut", Field{Offset: 4, Size: 4, Loc: DataLoc}, record[:7], 4, 4, false},
		{"relative, past the end", Field{Offset: 8, Size: 4, Loc: RelLoc}, record, 16, 4, false},
		{"relative, to the last byte", Field{Offset: 8, Size: 4, Loc: RelLoc}, append(record[:16:16], 1, 2, 3, 4), 16, 4, true},
	} {
		start, size, ok := tt.f.Span(tt.record, binary.LittleEndian.Uint32)
		if start != tt.start || size != tt.size || ok != tt.ok {
			t.Errorf("%s: Span = %d, %d, %t; want %d, %d, %t", tt.name, start, size, ok, tt.start, tt.size, tt.ok)
		}
	}
}
