package fake

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// registers are those of the stub's only CPU, as QEMU numbers them.
var registers = []string{
	"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "eflags",
}

// Stub is a gdbstub for one CPU.
type Stub struct {
	mu    sync.Mutex
	regs  map[string]uint64
	next  []func() string // what happens when the guest runs, and the stop that ends it
	armed []string        // "Z1,ffffffff81095c40,1"
}

// Set sets a register.
func (s *Stub) Set(name string, v uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(name, v)
}

func (s *Stub) get(name string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.regs[name]
}

func (s *Stub) set(name string, v uint64) {
	if s.regs == nil {
		s.regs = map[string]uint64{}
	}
	s.regs[name] = v
}

// Armed lists the points that are set: "1,ffffffff81095c40,1".
func (s *Stub) Armed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.armed)
}

// Runs says what happens when the guest runs the next time, be it for one step: registers
// change, and it stops. watch is "", or has a watchpoint's stop: "watch:ffffffff87000000".
func (s *Stub) Runs(watch string, regs map[string]uint64, then func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, func() string {
		for name, v := range regs {
			s.set(name, v)
		}
		if then != nil {
			then()
		}
		return "T05thread:01;" + watch
	})
}

// RunsOn says that the guest does not stop the next time, unless it is interrupted.
func (s *Stub) RunsOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, func() string { return "" })
}

// Dies says that the guest is gone when it runs the next time.
func (s *Stub) Dies() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = append(s.next, func() string { return "W00" })
}

// serve replies to a client until its connection ends.
func (s *Stub) serve(f *Guest, conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		c, err := r.ReadByte()
		if err != nil {
			return
		}
		request := ""
		switch c {
		case 3: // an interrupt
			request = "\x03"
		case '$':
			body, err := r.ReadString('#')
			if err != nil {
				return
			}
			if _, err := r.Discard(2); err != nil {
				return
			}
			request = strings.TrimSuffix(body, "#")
		default:
			continue
		}
		reply, ok := s.reply(f, request)
		if !ok {
			continue // the guest runs on
		}
		sum := byte(0)
		for i := range len(reply) {
			sum += reply[i]
		}
		if _, err := fmt.Fprintf(conn, "$%s#%02x", reply, sum); err != nil {
			return
		}
	}
}

func (s *Stub) reply(f *Guest, q string) (reply string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.HasPrefix(q, "qSupported"):
		return "PacketSize=1000;qXfer:features:read+", true
	case strings.HasPrefix(q, "qXfer:features:read:target.xml:0,"):
		var b strings.Builder
		for _, name := range registers {
			fmt.Fprintf(&b, `<reg name="%s" bitsize="64"/>`, name)
		}
		return "l<target><feature>" + b.String() + "</feature></target>", true
	case q == "qfThreadInfo":
		return "m01", true
	case q == "qsThreadInfo":
		return "l", true
	case q == "g":
		var b strings.Builder
		for _, name := range registers {
			b.WriteString(little(s.regs[name]))
		}
		return b.String(), true
	case strings.HasPrefix(q, "Hg"):
		return "OK", true
	case q != "" && q[0] == 'p':
		if n, err := strconv.ParseUint(q[1:], 16, 16); err == nil && int(n) < len(registers) {
			return little(s.regs[registers[n]]), true
		}
	case q != "" && q[0] == 'P':
		num, val, _ := strings.Cut(q[1:], "=")
		b, err := hex.DecodeString(val)
		if n, nerr := strconv.ParseUint(num, 16, 16); err == nil && nerr == nil && int(n) < len(registers) {
			slices.Reverse(b)
			v, _ := strconv.ParseUint(hex.EncodeToString(b), 16, 64)
			s.set(registers[n], v)
			return "OK", true
		}
	case q != "" && q[0] == 'M':
		where, data, _ := strings.Cut(q[1:], ":")
		at, _, _ := strings.Cut(where, ",")
		addr, err := strconv.ParseUint(at, 16, 64)
		b, berr := hex.DecodeString(data)
		if err == nil && berr == nil {
			f.Put(f.Phys(addr), b)
			return "OK", true
		}
	case q != "" && q[0] == 'Z':
		s.armed = append(s.armed, q[1:])
		return "OK", true
	case q != "" && q[0] == 'z':
		if i := slices.Index(s.armed, q[1:]); i >= 0 {
			s.armed = slices.Delete(s.armed, i, i+1)
			return "OK", true
		}
		return "E16", true
	case strings.HasPrefix(q, "vCont;"):
		if len(s.next) == 0 {
			return "E22", true // the test has not said what happens
		}
		run := s.next[0]
		s.next = s.next[1:]
		reply = run()
		return reply, reply != ""
	case q == "\x03":
		return "T02thread:01;", true
	}
	return "E22", true
}

func little(v uint64) string {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return hex.EncodeToString(b)
}
