package gdb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"

	"labctl/host/outcome"
)

func TestReadPacket(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"$OK#9a", "OK", ""},
		{"++$OK#9a", "OK", ""},
		{"$#00", "", ""},
		{"$0* #7a", "0000", ""},
		{"$}\x03#80", "#", ""},
		{"$OK#9b", "", "checksum"},
		{"$OK#zz", "", "checksum"},
		{"$*!#4b", "", "nothing to repeat"},
		{"$OK", "", "unexpected EOF"},
		{"$OK#9", "", "unexpected EOF"},
		{"+", "", "EOF"},
	} {
		got, err := readPacket(bufio.NewReader(strings.NewReader(c.in)))
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("readPacket(%q) = %q, %v; want %q, %q", c.in, got, err, c.want, c.err)
		}
	}
}

// No packet is larger than its bound, what is encoded is read again, and whatever comes is
// a packet or an error.
func FuzzPacket(f *testing.F) {
	for _, s := range []string{"$OK#9a", "$T05thread:02;watch:ffff888003a80018;#00", "$0* #7a", "$}\x03#80", "+$m01#ce", "$E22#00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		c := &Client{threads: []int{1, 2}}
		for {
			p, err := readPacket(r)
			if err != nil {
				break
			}
			if len(p) > maxPacket {
				t.Fatalf("packet of %d bytes", len(p))
			}
			if s, err := c.parseStop(string(p)); err == nil && (s.CPU < 0 || s.CPU > 1) {
				t.Fatalf("stop of CPU %d", s.CPU)
			}
			_ = failure(p)
			_, _ = decode([]Register{{Name: "pc", Bits: 64}}, p)
		}
		got, err := readPacket(bufio.NewReader(bytes.NewReader(encode(in))))
		if err != nil || !bytes.Equal(got, in) {
			t.Fatalf("readPacket(encode(%q)) = %q, %v", in, got, err)
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(`<?xml version="1.0"?><target><xi:include href="core.xml"/><feature name="x"><reg name="pc" bitsize="64" regnum="3"/></feature></target>`))
	f.Fuzz(func(t *testing.T, part []byte) {
		var d description
		if d.add(part) != nil {
			return
		}
		if len(d.registers) > maxRegisters {
			t.Fatalf("%d registers", len(d.registers))
		}
		place(d.registers, 4096)
		for _, r := range d.registers {
			if r.offset > 4096 {
				t.Fatalf("register at %d", r.offset)
			}
		}
	})
}

// stub replies to a client as QEMU does.
func stub(t *testing.T, conn net.Conn, replies map[string]string) {
	r := bufio.NewReader(conn)
	conn.Write(encode([]byte("T02thread:01;")))
	for {
		p, err := readPacket(r)
		if err != nil {
			return
		}
		reply, ok := replies[string(p)]
		if !ok {
			t.Errorf("the client asks %q", p)
		}
		conn.Write(encode([]byte(reply)))
	}
}

func TestClient(t *testing.T) {
	ours, theirs := net.Pipe()
	go stub(t, theirs, map[string]string{
		"qSupported:swbreak+;hwbreak+;vContSupported+": "PacketSize=1000;qXfer:features:read+",
		"QStartNoAckMode":                      "OK",
		"qXfer:features:read:target.xml:0,ffb": `l<target><xi:include href="core.xml"/><xi:include href="sys.xml"/></target>`,
		"qXfer:features:read:core.xml:0,ffb":   `m<feature><reg name="x0" bitsize="64"/><reg name="PC" bitsize="64"/>`,
		"qXfer:features:read:core.xml:43,ffb":  `l<reg name="cpsr" bitsize="32"/></feature>`,
		"qXfer:features:read:sys.xml:0,ffb":    `l<feature><reg name="SP_EL0" bitsize="64" regnum="90"/></feature>`,
		"g":                                    "0100000000000000" + "1080000000000000" + "xxxxxxxx",
		"qfThreadInfo":                         "m01,p01.02",
		"qsThreadInfo":                         "l",
		"Hg2":                                  "OK",
		"p5a":                                  "7800000000000000",
		"P1=0403000000000000":                  "OK",
		"Mff00,2:abcd":                         "E14",
		"Z1,1080,1":                            "OK",
		"Z2,2000,4":                            "",
		"vCont;s:2":                            "T05thread:p01.02;",
		"vCont;c":                              "T05thread:01;watch:2000;",
	})
	ctx := context.Background()
	c, err := New(ctx, ours)
	if err != nil {
		t.Fatal(err)
	}
	if c.CPUs() != 2 {
		t.Errorf("CPUs() = %d, want 2", c.CPUs())
	}
	got, err := c.Registers(ctx, 1)
	if want := (Values{"x0": 1, "pc": 0x8010}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Registers(1) = %v, %v; want %v", got, err, want)
	}
	if v, err := c.Register(ctx, 1, "sp_el0"); v != 0x78 || err != nil {
		t.Errorf(`Register("sp_el0") = %#x, %v; want 0x78`, v, err)
	}
	if err := c.SetRegister(ctx, 1, "pc", 0x304); err != nil {
		t.Error(err)
	}
	if err := c.Write(ctx, 1, 0xff00, []byte{0xab, 0xcd}); outcome.Of(err) != outcome.BadInput {
		t.Errorf("Write at an address that is not mapped: %v", err)
	}
	if err := c.Insert(ctx, Point{Kind: Execute, Addr: 0x1080}); err != nil {
		t.Error(err)
	}
	if err := c.Insert(ctx, Point{OnWrite, 0x2000, 4}); err == nil {
		t.Error("a packet that the stub does not know is no error")
	}
	for _, w := range []struct {
		resume func() error
		want   Stop
	}{
		{func() error { return c.Step(ctx, 1) }, Stop{CPU: 1, Signal: SignalTrap}},
		{func() error { return c.Continue(ctx) }, Stop{CPU: 0, Signal: SignalTrap, Watch: OnWrite, Addr: 0x2000}},
	} {
		if err := w.resume(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Registers(ctx, 1); !errors.Is(err, ErrRunning) {
			t.Errorf("Registers of a guest that runs: %v, want %v", err, ErrRunning)
		}
		if got, err := c.Wait(ctx); got != w.want || err != nil {
			t.Errorf("Wait() = %+v, %v; want %+v", got, err, w.want)
		}
	}
	for _, cpu := range []int{-1, 2} {
		if _, err := c.Registers(ctx, cpu); err == nil || c.Step(ctx, cpu) == nil {
			t.Errorf("CPU %d is there", cpu)
		}
	}
	theirs.Close()
	if _, err := c.Wait(ctx); !errors.Is(err, ErrEnded) {
		t.Errorf("Wait() after the end: %v, want %v", err, ErrEnded)
	}
}
