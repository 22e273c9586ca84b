package printfmt

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"labctl/host/trace/format"
	"labctl/host/trace/internal/sample"
)

func uintOf(order binary.ByteOrder) func([]byte, int) (uint64, bool) {
	return func(b []byte, size int) (uint64, bool) {
		switch size {
		case 1:
			return uint64(b[0]), true
		case 2:
			return uint64(order.Uint16(b)), true
		case 4:
			return uint64(order.Uint32(b)), true
		case 8:
			return order.Uint64(b), true
		}
		return 0, false
	}
}

var env = &Env{
	Uint:     uintOf(binary.LittleEndian),
	LongSize: 8,
	Symbol: func(addr uint64, offset bool) (string, bool) {
		if addr < 0x1000 || addr >= 0x1100 {
			return "", false
		}
		if offset {
			return fmt.Sprintf("vfs_read+0x%x/0x100", addr-0x1000), true
		}
		return "vfs_read", true
	},
	String: func(addr uint64) (string, bool) { return "a constant", addr == 0x5000 },
}

const event = `name: y
ID: 1
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:int i;	offset:8;	size:4;	signed:1;
	field:u8 b;	offset:12;	size:1;	signed:0;
	field:s8 s;	offset:13;	size:1;	signed:1;
	field:u16 h;	offset:14;	size:2;	signed:0;
	field:unsigned long l;	offset:16;	size:8;	signed:0;
	field:unsigned long ip;	offset:24;	size:8;	signed:0;
	field:const char * str;	offset:32;	size:8;	signed:0;
	field:char comm[8];	offset:40;	size:8;	signed:0;
	field:u32 arr[3];	offset:48;	size:12;	signed:0;
	field:__data_loc char[] name;	offset:60;	size:4;	signed:0;
	field:__data_loc u16[] dyn;	offset:64;	size:4;	signed:0;
	field:__rel_loc char[] rel;	offset:68;	size:4;	signed:0;
	field:__u8 v4[4];	offset:72;	size:4;	signed:0;
	field:__u8 v6[16];	offset:76;	size:16;	signed:0;
	field:__u8 sa[16];	offset:92;	size:16;	signed:0;
	field:__data_loc unsigned long[] mask;	offset:108;	size:4;	signed:0;
	field:__data_loc char[] gone;	offset:112;	size:4;	signed:0;

print fmt: `

// data is a record of the event.
func data() []byte {
	le := binary.LittleEndian
	b := make([]byte, 116)
	minus5, minus3 := int32(-5), int8(-3)
	le.PutUint32(b[4:], 77)
	le.PutUint32(b[8:], uint32(minus5))
	b[12], b[13] = 200, byte(minus3)
	le.PutUint16(b[14:], 0x1234)
	le.PutUint64(b[16:], 0xdeadbeef12345678)
	le.PutUint64(b[24:], 0x1010)
	le.PutUint64(b[32:], 0x5000)
	copy(b[40:], "swapper\x00")
	for i := range 3 {
		le.PutUint32(b[48+4*i:], uint32(10*i+1))
	}
	le.PutUint32(b[60:], 6<<16|116) // "/a b=1"
	le.PutUint32(b[64:], 4<<16|124)
	le.PutUint32(b[68:], 4<<16|(128-72))
	copy(b[72:], []byte{192, 0, 2, 1})
	copy(b[76:], []byte{0x20, 1, 0xd, 0xb8, 15: 1})
	copy(b[92:], []byte{2, 0, 0x1f, 0x90, 127, 0, 0, 1})
	le.PutUint32(b[108:], 8<<16|132)
	le.PutUint32(b[112:], 100<<16|1000)
	b = append(b, "/a b=1\x00\x00"...)
	b = le.AppendUint16(le.AppendUint16(b, 7), 0xffff)
	b = append(b, "rel\x00"...)
	return le.AppendUint64(b, 0x1_0000_000b)
}

func compile(t testing.TB, print string) (*Program, error) {
	t.Helper()
	e, err := format.Parse("x", []byte(event+print+"\n"), 8)
	if err != nil {
		t.Fatal(err)
	}
	return Compile(e, env)
}

func TestText(t *testing.T) {
	for _, c := range []struct{ print, want string }{
		{`"plain"`, "plain"},
		{`"100%% " "of " "it\n"`, "100% of it"},
		{`"%d %u %x %#x %o %5d|%-5d|%05d|%+d", REC->i, REC->b, REC->h, REC->h, REC->b, REC->b, REC->b, REC->b, REC->b`, "-5 200 1234 0x1234 310   200|200  |00200|+200"},
		{`"%d %x %lx %llx %hhx %hx", REC->s, REC->i, REC->l, (u64)REC->i, REC->l, REC->l`, "-3 fffffffb deadbeef12345678 fffffffffffffffb 78 5678"},
		{`"%.3d|%8.3x|%*d|%-*d|%016llx", REC->b, REC->h, 6, 1, 3, 2, REC->l`, "200|    1234|     1|2  |deadbeef12345678"},
		{`"%05d|%#06x|%#o|%#o|%05.0d|% d|[%.0s]", REC->i, 0x34, 8, 0, 7, 7, REC->comm`, "-0005|0x0034|010|0|    7| 7|[]"},
		{`"%c%c", 'a', REC->b ? '\x41' : 'B'`, "aA"},
		{`"%s|%10s|%-10s|%.3s", REC->comm, REC->comm, REC->comm, REC->comm`, "swapper|   swapper|swapper   |swa"},
		{`"%s %s %s", __get_str(name), __get_rel_str(rel), REC->str`, "/a b=1 rel a constant"},
		{`"%s", (char *)((void *)REC + (REC->__data_loc_name & 0xffff))`, "/a b=1"},
		{`"%u", (REC->__data_loc_name >> 16) & 0xffff`, "6"},
		{`"%s", REC->b > 100 ? "big" : "small"`, "big"},
		{`"%s%d", REC->i < 0 && !(REC->b == 1) ? "neg" : "", REC->i ? : 3`, "neg-5"},
		{`"%d %d %d", 2 + 3 * 4, (2 + 3) * 4, -7 / 2`, "14 20 -3"},
		{`"%d %d", REC->i < 1U, REC->i < 1`, "0 1"}, // C's conversion to unsigned
		{`"%llu %d", REC->l >> 60, 1 << 4 | 1`, "13 17"},
		{`"%d", 1 / (REC->b - 200)`, "(division by 0)"},
		{`"%d %d %d %d", 10 - 3 - 2, -7 % 3, 7U % 4U, 9`, "5 -1 3 9"},
		{`"%d %d %d %d %d", 6 ^ 3, 6 & 3, 6 | 3, ~6, -8 >> 1`, "5 2 7 -7 -4"},
		{`"%d%d%d%d%d%d %d%d", 2U < 2U, 2 < 2, 2 <= 2, 3 <= 2, 2 >= 2, 2 > 2, 1 != 2, 2 != 2`, "001010 10"},
		{`"%d%d%d%d", REC->b && 0, REC->b && 1, (REC->b - 200) || 0, (REC->b - 200) || REC->b`, "0101"},
		{`"%d %d %d", REC->b << 4, ~REC->b, -REC->b`, "3200 -201 -200"}, // it is an int by then
		{`"%d %u %llx", 1U > REC->i, 0xfffffffeU / 2U, 1 + 0x100000000`, "0 2147483647 100000001"},
		{`"%llx %lld", (u32)0x80000000 << (u64)1, (s32)-8 >> (u64)1`, "0 -4"}, // of a shift the left side's type
		{`"%llx %lld %d %d", 0xffffffff + 1, 0x7fffffff + 1, 0x80000000 > -1, 0x80000000L > -1`, "0 -2147483648 0 1"},
		{`"%d%d %x %d %u", true, false, (u8)REC->h, (s8)REC->b, (some_t)REC->b`, "10 34 -56 200"},
		{`"%d %d %d %d %d", (u8)-1, (u8)~0, (u8)!0, (HRTIMER_MODE_REL) & 1, (HRTIMER_MODE_REL) + 1`, "255 255 1 1 2"},
		{`"%d %d %d %d", (const u8)257, (volatile u8)257, (__force u8)257, *(u8 __user *)REC->comm`, "1 1 1 115"},
		{`"%s %x %s", (char *)"x", *(u8 *)&REC->h, (unsigned long)REC->comm`, "x 34 swapper"},
		{`"%c%s %c%c%c", '\101', "\x414\1012", "abc"[0], "abc"[2], "abc"[3]`, "AA4A2 ac(not in the record)"},
		{`"%u %u %u [%s] %s", *(REC->arr + 1), ((u16 *)REC->arr)[2], REC->arr[3], (char *)REC->comm + 8, (char *)REC->comm + 9`, "11 11 (not in the record) [] (not in the record)"},
		{`"%d %d", REC->arr * 2, REC->i[0]`, "(not in the record) (not in the record)"},
		{`"%d %d", sizeof(u8), sizeof(u8 *)`, "1 8"},
		{`"%u %u", REC->arr[1], ((u32 *)REC->arr)[2]`, "11 21"},
		{`"%x", *(u16 *)__get_dynamic_array(dyn)`, "7"},
		{`"%d", __get_dynamic_array_len(dyn)`, "4"},
		{`"%d", (int)sizeof(u32) + sizeof(REC->comm)`, "12"},
		{`"%s", __print_array(REC->arr, 3, 4)`, "{0x1,0xb,0x15}"},
		{`"%s", __print_array(__get_dynamic_array(dyn), __get_dynamic_array_len(dyn) / 2, 2)`, "{0x7,0xffff}"},
		{`"%s", __print_dynamic_array(dyn, 2)`, "{0x7,0xffff}"},
		{`"%s|%s", __print_hex(REC->v4, 4), __print_hex_str(REC->v4, 4)`, "c0 00 02 01|c0000201"},
		{`"%s %s %s", __print_hex(REC->v4, 5), __print_hex(1, 1), __print_hex(REC->v4, "x")`, "(not in the record) (not in the record) (not in the record)"},
		{`"%s %s", __print_array(REC->arr, 4, 4), __print_array(REC->arr, 1, 0)`, "(not in the record) (not in the record)"},
		{`"%s %s %s", __print_array(1, 1, 1), __print_array(REC->arr, "x", 4), __print_array(REC->arr, 1, "x")`, "(not in the record) (not in the record) (not in the record)"},
		{`"%s", __print_flags(REC->b, "|", { 0x80, "HIGH" }, { 8, "EIGHT" }, { 1, "ONE" })`, "HIGH|EIGHT|0x40"},
		{`"%s", __print_flags(0, "|", { 1, "ONE" })`, ""},
		{`"%s %s", __print_symbolic(REC->b, { 1, "one" }, { (100 << 1), "two" "hundred" }), __print_symbolic(REC->h, { 1, "one" })`, "twohundred 0x1234"},
		{`"%s", __print_symbolic(REC->b, { SOME_MACRO(3), "macro" }, { OTHER, "other" }, { 200, "known" })`, "known"},
		{`"%pS %ps %pB %pS %p %px %pK", (void *)REC->ip, (void *)REC->ip, (void *)REC->ip, (void *)REC->h, (void *)REC->h, (void *)REC->h, (void *)REC->h`,
			"vfs_read+0x10/0x100 vfs_read vfs_read+0xf/0x100 0x1234 0000000000001234 0000000000001234 0000000000001234"},
		{`"%pI4 %pi4 %pI6c %pI6", REC->v4, REC->v4, REC->v6, REC->v6`, "192.0.2.1 192.000.002.001 2001:db8::1 2001:0db8:0000:0000:0000:0000:0000:0001"},
		{`"%pISpc %pISc", REC->sa, REC->sa`, "127.0.0.1:8080 127.0.0.1"},
		{`"%pM %pUb %pUL", REC->v6, REC->v6, REC->v6`, "20:01:0d:b8:00:00 20010db8-0000-0000-0000-000000000001 B80D0120-0000-0000-0000-000000000001"},
		{`"%pSB %psB %pM", (void *)REC->ip, (void *)REC->ip, (void *)REC->h`, "vfs_read+0xf/0x100 vfs_read 0000000000001234"},
		{`"%pm %pM %pM", REC->v6, (u8 *)REC->v6 + 10, (u8 *)REC->v6 + 11`, "20010db80000 00:00:00:00:00:01 (not in the record)"},
		{`"%pI4 %pI4 %pI6c", &REC->v4, (u8 *)REC->v4 + 1, (u8 *)REC->v6 + 1`, "192.0.2.1 (not in the record) (not in the record)"},
		{`"%*ph %*phC", 3, REC->v4, 2, REC->v4`, "c0 00 02 c0:00"},
		{`"%s %*pbl %*pb", __get_bitmask(mask), 64, __get_dynamic_array(mask), 40, __get_dynamic_array(mask)`, "00000001,0000000b 0-1,3,32 01,0000000b"},
		{`"%*pb %*pb %*pb", 3, __get_dynamic_array(mask), 4, __get_dynamic_array(mask), 33, __get_dynamic_array(mask)`, "3 b 1,0000000b"},
		{`"%*pb %*pb", 36, (u8 *)REC + 16, 64, (u8 *)REC + 16`, "f,12345678 deadbeef,12345678"},
		{`"%*pbl %*pbl %*pb", 1, __get_dynamic_array(mask), 2, __get_dynamic_array(mask), 32, __get_dynamic_array(dyn)`, "0 0-1 00000000"},
		{`"%d %s", REC->common_pid, (REC->common_flags & 0x18) ? "irq" : "-"`, "77 -"},
		{`"%d", REC->ent.pid`, "77"},
		{`"%d", __builtin_expect(REC->b, 0) + (__builtin_constant_p(3) ? 1 : 2)`, "202"},
		{`"%s %u", __get_str(gone), REC->b`, "(not in the record) 200"},
		{`"%u %u", pte_val(REC->l, 1), REC->b`, "? 200"},
		{`"%llu.%09u", __print_ns_to_secs(REC->h), __print_ns_without_secs(REC->h)`, "0.000004660"},
		{`"%s", "\x1b\x1b"`, "\uFFFD\uFFFD"},
		{`"%d", ` + strings.Repeat("1+", 2*maxDepth) + "1", fmt.Sprint(2*maxDepth + 1)}, // wide is not deep
		{`"%s", "\x1b[2J\ttab\nnext"`, "\uFFFD[2J tab\uFFFDnext"},
	} {
		p, err := compile(t, c.print)
		if err != nil {
			t.Errorf("%s: %v", c.print, err)
			continue
		}
		if got := p.Text(data()); got != c.want {
			t.Errorf("%s\n got %q\nwant %q", c.print, got, c.want)
		}
	}
}

// TestSigns: by its sign a type is greater than 0 or not, when it is given -1.
func TestSigns(t *testing.T) {
	for names, want := range map[string]string{
		"u32 __u8 unsigned bool _Bool size_t gfp_t dev_t sector_t __be32 __le16 uid_t": "1",
		"int s64 long pid_t loff_t char short":                                         "0",
	} {
		for _, name := range strings.Fields(names) {
			p, err := compile(t, fmt.Sprintf(`"%%d", (%s)-1 > 0`, name))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if got := p.Text(data()); got != want {
				t.Errorf("(%s)-1 > 0 is %s, want %s", name, got, want)
			}
		}
	}
}

// TestShort has records that end where a field does, or a byte before.
func TestShort(t *testing.T) {
	const rest = "field:char rest[];\toffset:116;\tsize:0;\tsigned:0;"
	for _, c := range []struct {
		print string
		n     int // bytes of the record
		want  string
	}{
		{`"%d", REC->i`, 12, "-5"}, {`"%d", REC->i`, 11, "(not in the record)"},
		{`"%u", REC->__data_loc_gone`, 116, "6554600"}, {`"%u", REC->__data_loc_gone`, 115, "(not in the record)"},
		{`"[%s]", __get_str(empty)`, 116, "[]"}, {`"[%s]", __get_str(empty)`, 115, "[(not in the record)]"},
		{`"[%s]", __get_str(name)`, 122, "[/a b=1]"}, {`"[%s]", __get_str(name)`, 121, "[(not in the record)]"},
		{`"[%s]", REC->rest`, 120, "[/a b]"}, {`"[%s]", REC->rest`, 116, "[]"}, {`"[%s]", REC->rest`, 115, "[(not in the record)]"},
		{`"%d", *(u8 *)&REC->gone`, 100, "(not in the record)"},
	} {
		const empty = "field:__data_loc char[] empty;\toffset:112;\tsize:4;\tsigned:0;"
		e, err := format.Parse("x", []byte(strings.Replace(event, "print fmt:", "\t"+empty+"\n\t"+rest+"\nprint fmt: ", 1)+c.print+"\n"), 8)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Compile(e, env)
		if err != nil {
			t.Fatal(err)
		}
		b := data()
		if strings.Contains(c.print, "empty") {
			binary.LittleEndian.PutUint32(b[112:], 0)
		}
		if got := p.Text(b[:c.n]); got != c.want {
			t.Errorf("%s of %d bytes is %q, want %q", c.print, c.n, got, c.want)
		}
	}
}

func TestSockaddr(t *testing.T) {
	v4 := []byte{2, 0, 0x1f, 0x90, 127, 0, 0, 1}
	v6 := []byte{10, 0, 0, 80, 8: 0x20, 9: 1, 23: 1}
	for _, c := range []struct {
		ext   string
		bytes []byte
		want  string
	}{
		{"pISpc", v4, "127.0.0.1:8080"}, {"pISc", v4, "127.0.0.1"}, {"pISpc", v4[:7], "(unknown family)"},
		{"pISpc", v6, "[2001::1]:80"}, {"pISc", v6, "2001::1"}, {"pISpc", v6[:23], "(unknown family)"},
		{"pISpc", []byte{7, 0}, "(unknown family)"}, {"pISpc", []byte{0, 0}, "(einval)"}, {"pISpc", []byte{7}, "(einval)"},
	} {
		p, err := compile(t, `"%`+c.ext+`", (u8 *)REC + 116`)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Text(append(data()[:116:116], c.bytes...)); got != c.want {
			t.Errorf("%%%s of % x is %q, want %q", c.ext, c.bytes, got, c.want)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	p, err := compile(t, `"`+strings.Repeat("%1024d", 200)+`"`+strings.Repeat(", 1", 200))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Text(data())); n != maxOutput {
		t.Errorf("200 KB are cut to %d bytes, want %d", n, maxOutput)
	}
}

func TestFirstError(t *testing.T) {
	p, err := compile(t, `"%d %d", magic(1), other(2)`)
	if err != nil {
		t.Fatal(err)
	}
	if p.Err() == nil || !strings.Contains(p.Err().Error(), "magic") {
		t.Errorf("Err() = %v, want that of the first argument", p.Err())
	}
}

func TestErrors(t *testing.T) {
	deep := strings.Repeat("(", 2*maxDepth) + "1" + strings.Repeat(")", 2*maxDepth)
	for _, c := range []struct {
		print, want string
		soft        bool // the argument alone prints as "?"
	}{
		{`REC->i`, "at byte 0: no string where one is expected", false},
		{`"%d`, "at byte 0: a string without an end", false},
		{`"%d\`, "at byte 0: a string without an end", false},
		{`"%d\x4`, "at byte 0: a string without an end", false},
		{`"%1025d", 1`, "at byte 11: a conversion is 1025 wide", false},
		{`"%d", 1_000`, `at byte 6: "1_000" is no number`, false},
		{`"%d", 0o17`, `at byte 6: "0o17" is no number`, false},
		{`"%d", REC->__data_loc_i`, "at byte 11: the event has no field __data_loc_i", true},
		{`"%d", ` + strings.Repeat("1+", 25000) + "1", "at byte 43696: too large an expression", false},
		{`"%d", REC->arr` + strings.Repeat("[0]", 20000), "at byte 49164: too large an expression", false},
		{`"%d"`, "at byte 4: the format has more conversions than there are arguments", false},
		{`"%d", 1, 2`, "at byte 10: 2 arguments, and the format takes 1", false},
		{`"%n", 1`, "at byte 7: conversion %n is not known", false},
		{`"%99999d", 1`, "at byte 12: a conversion is 99999 wide", false},
		{`"%d", REC->nothing`, "at byte 11: the event has no field nothing", true},
		{`"%d", magic(1)`, "at byte 12: function magic is not known", true},
		{`"%d", PAGE_SHIFT`, "at byte 6: PAGE_SHIFT is not known", true},
		{`"%d", 1 +`, `at byte 9: "" where a value is expected`, true},
		{`"%d", ` + deep, "at byte 39: too large an expression", true},
	} {
		p, err := compile(t, c.print)
		if c.soft {
			if err != nil {
				t.Errorf("%.50s: %v", c.print, err)
				continue
			}
			if got := p.Text(data()); got != "?" {
				t.Errorf("%.50s prints %q, want ?", c.print, got)
			}
			err = p.Err()
		}
		if want := "print fmt of event x/y: " + c.want; err == nil || err.Error() != want {
			t.Errorf("%.50s: error %v, want %s", c.print, err, want)
		}
	}
}

func TestFields(t *testing.T) {
	for _, c := range []struct{ print, want string }{
		{`"comm=%s pid=%d", REC->comm, REC->i`, "comm:swapper pid:-5"},
		{`"name=%s b=%d", __get_str(name), REC->b`, "name:/a b=1 b:200"}, // a key in a value is none
		{`"x %s a=%d %d c=\"%s\" d=%d", REC->comm, 1, 2, REC->comm, 3`, "a:1 2 c:swapper d:3"},
		{`"vec=%d [action=%s]", 1, REC->comm`, "vec:1 [action=swapper]"},
		{`"nothing"`, ""},
		{`"azAZ09_=%d", 1`, "azAZ09_:1"},
		{`"%sx=%d", REC->comm, 1`, ""}, // a conversion is part of the name
		{`"=%d a =%d b=%d", 1, 2, 3`, "b:3"},
		{`"c=\"%s\" d=\"%s", "", REC->comm`, `c: d:"swapper`},
	} {
		p, err := compile(t, c.print)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		p.Fields(data(), func(key, value string) { got = append(got, key+":"+value) })
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s\n got %q\nwant %q", c.print, s, c.want)
		}
		if head := p.Head(data()); head != "" {
			t.Errorf("%s has the head %q", c.print, head)
		}
	}
}

func TestProbe(t *testing.T) {
	p, err := compile(t, `"(%lx) name=\"%s\"", REC->__probe_ip, __get_str(name)`)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Text(data()); got != `(?) name="/a b=1"` {
		t.Errorf("no probe's event prints %q", got)
	}
	for _, c := range []struct{ fields, print, head, want string }{
		{"field:unsigned long __probe_ip;	offset:24;	size:8;	signed:0;", `"(%lx) name=\"%s\"", REC->__probe_ip, __get_str(name)`,
			"vfs_read+0x10/0x100", `(vfs_read+0x10/0x100) name=(fault)`},
		{"field:unsigned long __probe_ip;	offset:24;	size:8;	signed:0;", `"(%lx) name=\"%s b=\"%s x\" c=%s\"", REC->__probe_ip, __get_str(name), __get_str(name), __get_str(name)`,
			"vfs_read+0x10/0x100", `(vfs_read+0x10/0x100) name=" b=" x" c="`},
		{"field:unsigned long __probe_func;	offset:24;	size:8;	signed:0;", `"(%lx) n=%d", REC->__probe_func, 1`, "1010", "(1010) n=1"},
		{"field:unsigned long __probe_func;	offset:24;	size:8;	signed:0;\n\tfield:unsigned long __probe_ret_ip;	offset:32;	size:8;	signed:0;",
			`"(%lx <- %lx) n=%d", REC->__probe_func, REC->__probe_ret_ip, 1`, "0x5000 <- vfs_read", "(0x5000 <- vfs_read) n=1"},
	} {
		e, err := format.Parse("x", []byte(strings.Replace(event, "print fmt:", "\t"+c.fields+"\nprint fmt: ", 1)+c.print+"\n"), 8)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Compile(e, env)
		if err != nil {
			t.Fatal(err)
		}
		b := data()
		binary.LittleEndian.PutUint32(b[60:], 116) // a string without bytes: its fetch failed
		if got := p.Text(b); got != c.want {
			t.Errorf("%s\n got %q\nwant %q", c.print, got, c.want)
		}
		if got := p.Head(b); got != c.head {
			t.Errorf("%s: head %q, want %q", c.print, got, c.head)
		}
	}
}

func TestBinary(t *testing.T) {
	le := binary.LittleEndian
	var b []byte
	b = le.AppendUint32(b, 0xfffffff9)
	b = append(b, "word\x00"...)
	b = append(b, 'c', 0, 0)
	b = le.AppendUint64(b, 1<<40)
	b = le.AppendUint64(b, 0x1010)
	b = le.AppendUint32(b, 5)
	b = le.AppendUint32(b, 42)
	b = append(b, "10.0.0.1\x00"...)
	if got, want := Binary(env, "%d %s %c %llu %pS %*d %pI4 end\n", b), "-7 word c 1099511627776 vfs_read+0x10/0x100    42 10.0.0.1 end"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got, want := Binary(env, "%d %d", b[:4]), "-7 (not in the record)"; got != want {
		t.Errorf("of one number: got %q, want %q", got, want)
	}
	if got, want := Binary(env, "%d %s %d", nil), "(not in the record)  (not in the record)"; got != want {
		t.Errorf("of nothing: got %q\nwant %q", got, want)
	}
	if got, want := Binary(env, "broken %", b), "broken %"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBigEndian(t *testing.T) {
	e, err := format.Parse("x", []byte(event+`"%u %s %llx", REC->arr[0], __get_bitmask(mask), (void *)0x112345678`), 4)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 124)
	be := binary.BigEndian
	be.PutUint32(b[48:], 9)
	be.PutUint32(b[108:], 8<<16|116)
	be.PutUint32(b[116:], 3)
	be.PutUint32(b[120:], 1)
	p, err := Compile(e, &Env{Uint: uintOf(be), LongSize: 4})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Text(b), "9 00000001,00000003 12345678"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzText(f *testing.F) {
	for _, in := range sample.Load(f, "7.2-amd64/kmem").Capture.Formats {
		f.Add(in.Text, data())
	}
	for _, in := range sample.Load(f, "5.10-arm64/io").Capture.Formats {
		f.Add(in.Text, []byte("\x10\x00\x00\x00"))
	}
	f.Add([]byte(event+`"%*pbl %s %.*s %pISpc", -1, __get_dynamic_array(mask), __print_hex(REC->v4, 1 << 40), -1, REC->comm, REC->sa`), data())
	f.Fuzz(func(t *testing.T, text, record []byte) {
		e, err := format.Parse("x", text, 8)
		if err != nil {
			return
		}
		p, err := Compile(e, env)
		if err != nil {
			return
		}
		got := p.Text(record)
		if strings.ContainsAny(got, "\n\x1b") {
			t.Errorf("%q is not clean", got)
		}
		p.Fields(record, func(key, value string) {
			if strings.ContainsAny(value, "\n\x1b") {
				t.Errorf("%s=%q is not clean", key, value)
			}
		})
		p.Head(record)
	})
}

func FuzzBinary(f *testing.F) {
	f.Add("%d %s %*d %pS %pI4 %c%%", []byte("abcdefgh\x00ijklmnop"))
	f.Fuzz(func(t *testing.T, form string, b []byte) {
		if got := Binary(env, form, b); strings.ContainsAny(got, "\n\x1b") {
			t.Errorf("%q is not clean", got)
		}
	})
}
