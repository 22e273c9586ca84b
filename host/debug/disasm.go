package debug

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/arch/arm/armasm"
	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"

	"labctl/host/debug/command"
	"labctl/host/outcome"
	"labctl/host/text"
)

// maxInstruction is the longest instruction, of x86, in bytes.
const maxInstruction = 15

// instruction disassembles one instruction. One that cannot be read or is not known is
// its bytes; its size is what to go on by.
func (p *place) instruction(addr uint64) (ins string, size int, call bool) {
	b := make([]byte, maxInstruction)
	for len(b) > 0 && p.l.Read(b, addr) != nil {
		b = b[:len(b)-1] // the next page may be no memory
	}
	if len(b) == 0 {
		return "? (no memory)", 1, false
	}
	name := func(a uint64) (string, uint64) {
		if s, ok := p.lookup()(a); ok {
			return s.Name, s.Start
		}
		return "", 0
	}
	switch p.l.K.Image.Arch {
	case "amd64":
		if len(b) >= 4 && binary.LittleEndian.Uint32(b) == 0xfa1e0ff3 {
			return "endbr64", 4, false // the decoder does not know it
		}
		i, err := x86asm.Decode(b, 64)
		if err != nil {
			return fmt.Sprintf(".byte 0x%02x", b[0]), 1, false
		}
		return x86asm.GNUSyntax(i, addr, name), i.Len, i.Op == x86asm.CALL || i.Op == x86asm.LCALL
	case "arm64":
		if len(b) < 4 {
			break
		}
		i, err := arm64asm.Decode(b[:4])
		if err != nil {
			return fmt.Sprintf(".inst 0x%08x", binary.LittleEndian.Uint32(b)), 4, false
		}
		return branch(arm64asm.GNUSyntax(i), addr, name), 4, i.Op == arm64asm.BL || i.Op == arm64asm.BLR
	case "arm":
		if len(b) < 4 {
			break
		}
		i, err := armasm.Decode(b[:4], armasm.ModeARM)
		if err != nil {
			return fmt.Sprintf(".inst 0x%08x", binary.LittleEndian.Uint32(b)), 4, false
		}
		op := i.Op.String()
		return armasm.GNUSyntax(i), 4, strings.HasPrefix(op, "BL") && !strings.HasPrefix(op, "BLT") && !strings.HasPrefix(op, "BLE") && !strings.HasPrefix(op, "BLS")
	}
	return "? (no memory)", 1, false
}

// branch names the target of an arm64 branch: ".+0x1c".
func branch(ins string, addr uint64, name func(uint64) (string, uint64)) string {
	i := strings.LastIndex(ins, ".+0x")
	neg := false
	if i < 0 {
		if i = strings.LastIndex(ins, ".-0x"); i < 0 {
			return ins
		}
		neg = true
	}
	off, err := strconv.ParseUint(ins[i+4:], 16, 64)
	if err != nil {
		return ins
	}
	to := addr + off
	if neg {
		to = addr - off
	}
	sym, base := name(to)
	switch {
	case sym == "":
		return ins[:i] + fmt.Sprintf("0x%x", to)
	case to == base:
		return ins[:i] + sym
	}
	return ins[:i] + fmt.Sprintf("%s+0x%x", sym, to-base)
}

// disassemble is the command list.
func (s *Session) disassemble(_ context.Context, c *command.Command) error {
	addr, n := s.place.pc, 10
	if len(c.Args) > 0 {
		_, addrs, err := s.resolve(c.Args[0])
		if err != nil {
			return err
		}
		addr = addrs[0]
	}
	if len(c.Args) > 1 {
		v, err := strconv.Atoi(c.Args[1])
		if err != nil || v < 1 || v > 1000 || len(c.Args) > 2 {
			return outcome.Inputf("list: want [WHERE] [N], N from 1 to 1000")
		}
		n = v
	}
	var b strings.Builder
	for range n {
		ins, size, _ := s.place.instruction(addr)
		mark := "  "
		if addr == s.place.pc {
			mark = "=>"
		}
		fmt.Fprintf(&b, "%s 0x%x %-28s %s\n", mark, addr, s.place.at(addr), text.Line(ins, 120))
		addr += uint64(size)
	}
	return s.say(c, b.String())
}
