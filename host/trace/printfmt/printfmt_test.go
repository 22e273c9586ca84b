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
		{`"%u %u", REC->arr[1], ((u32 *)REC->arr)[2]`, "11 21"},
		{`"%x", *(u16 *)__get_dynamic_array(dyn)`, "7"},
		{`"%d", __get_dynamic_array_len(dyn)`, "4"},
		{`"%d", (int)sizeof(u32) + sizeof(REC->comm)`, "12"},
		{`"%s", __print_array(REC->arr, 3, 4)`, "{0x1,0xb,0x15}"},
		{`"%s", __print_array(__get_dynamic_array(dyn), __get_dynamic_array_len(dyn) / 2, 2)`, "{0x7,0xffff}"},
		{`"%s", __print_dynamic_array(dyn, 2)`, "{0x7,0xffff}"},
		{`"%s|%s", __print_hex(REC->v4, 4), __print_hex_str(REC->v4, 4)`, "c0 00 02 01|c0000201"},
		{`"%s", __print_flags(REC->b, "|", { 0x80, "HIGH" }, { 8, "EIGHT" }, { 1, "ONE" })`, "HIGH|EIGHT|0x40"},
		{`"%s", __print_flags(0, "|", { 1, "ONE" })`, ""},
		{`"%s %s", __print_symbolic(REC->b, { 1, "one" }, { (100 << 1), "two" "hundred" }), __print_symbolic(REC->h, { 1, "one" })`, "twohundred 0x1234"},
		{`"%s", __print_symbolic(REC->b, { SOME_MACRO(3), "macro" }, { OTHER, "other" }, { 200, "known" })`, "known"},
		{`"%pS %ps %pB %pS %p %px %pK", (void *)REC->ip, (void *)REC->ip, (void *)REC->ip, (void *)REC->h, (void *)REC->h, (void *)REC->h, (void *)REC->h`,
			"vfs_read+0x10/0x100 vfs_read vfs_read+0xf/0x100 0x1234 0000000000001234 0000000000001234 0000000000001234"},
		{`"%pI4 %pi4 %pI6c %pI6", REC->v4, REC->v4, REC->v6, REC->v6`, "192.0.2.1 192.000.002.001 2001:db8::1 2001:0db8:0000:0000:0000:0000:0000:0001"},
		{`"%pISpc %pISc", REC->sa, REC->sa`, "127.0.0.1:8080 127.0.0.1"},
		{`"%pM %pUb %pUL", REC->v6, REC->v6, REC->v6`, "20:01:0d:b8:00:00 20010db8-0000-0000-0000-000000000001 B80D0120-0000-0000-0000-000000000001"},
		{`"%*ph %*phC", 3, REC->v4, 2, REC->v4`, "c0 00 02 c0:00"},
		{`"%s %*pbl %*pb", __get_bitmask(mask), 64, __get_dynamic_array(mask), 40, __get_dynamic_array(mask)`, "00000001,0000000b 0-1,3,32 01,0000000b"},
		{`"%d %s", REC->common_pid, (REC->common_flags & 0x18) ? "irq" : "-"`, "77 -"},
		{`"%d", REC->ent.pid`, "77"},
		{`"%d", __builtin_expect(REC->b, 0) + (__builtin_constant_p(3) ? 1 : 2)`, "202"},
		{`"%s %u", __get_str(gone), REC->b`, "(not in the record) 200"},
		{`"%u %u", pte_val(REC->l, 1), REC->b`, "? 200"},
		{`"%llu.%09u", __print_ns_to_secs(REC->h), __print_ns_without_secs(REC->h)`, "0.000004660"},
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

func TestErrors(t *testing.T) {
	deep := strings.Repeat("(", 2*maxDepth) + "1" + strings.Repeat(")", 2*maxDepth)
	for _, c := range []struct {
		print, want string
		soft        bool // the argument alone prints as "?"
	}{
		{`REC->i`, "at byte 0: no string where one is expected", false},
		{`"%d`, "at byte 0: a string without an end", false},
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
	if got, want := Binary(env, "%d %s %d", nil), "(not in the record)  (not in the record)"; got != want {
		t.Errorf("of nothing: got %q\nwant %q", got, want)
	}
	if got, want := Binary(env, "broken %", b), "broken %"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBigEndian(t *testing.T) {
	e, err := format.Parse("x", []byte(event+`"%u %s", REC->arr[0], __get_bitmask(mask)`), 4)
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
	if got, want := p.Text(b), "9 00000001,00000003"; got != want {
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
