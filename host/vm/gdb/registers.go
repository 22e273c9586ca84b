package gdb

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"io"
	"strconv"
	"strings"

	"labctl/host/outcome"
)

// Register describes one register of the stub's target description.
type Register struct {
	Name   string
	Number int
	Bits   int
	Group  string // "general", "float", "system"; may be empty
	Core   bool   // part of the description's first feature: the general registers

	offset int // in the reply to "g", -1 if it is not there
}

// Limits on a target description.
const (
	maxDescription = 4 << 20 // bytes, of all its parts
	maxRegisters   = 4096
	maxBits        = 64 << 10
)

// description collects registers from the parts of a target description.
type description struct {
	registers []Register
	includes  []string
	next      int
	features  int
}

// add parses one part: <reg> elements, and <xi:include> of further parts, in the order in
// which they are numbered.
func (d *description) add(part []byte) error {
	dec := xml.NewDecoder(strings.NewReader(string(part)))
	dec.Strict = false // it may have no declaration of the prefix xi
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return outcome.Hostf("target description of QEMU's gdbstub: %v", err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		attr := map[string]string{}
		for _, a := range e.Attr {
			attr[a.Name.Local] = a.Value
		}
		switch e.Name.Local {
		case "include":
			d.includes = append(d.includes, attr["href"])
		case "feature":
			d.features++
		case "reg":
			if n := attr["regnum"]; n != "" {
				v, err := strconv.ParseUint(n, 10, 16)
				if err != nil {
					return outcome.Hostf("target description of QEMU's gdbstub: register number %q", n)
				}
				d.next = int(v)
			}
			bits, err := strconv.ParseUint(attr["bitsize"], 10, 32)
			if err != nil || bits == 0 || bits > maxBits || attr["name"] == "" || len(d.registers) >= maxRegisters {
				return outcome.Hostf("target description of QEMU's gdbstub: register %q of %q bits", attr["name"], attr["bitsize"])
			}
			d.registers = append(d.registers, Register{Name: strings.ToLower(attr["name"]), Number: d.next, Bits: int(bits), Group: attr["group"], Core: d.features <= 1, offset: -1})
			d.next++
		}
	}
}

// place sets where registers are in the reply to "g" of so many bytes: one after another
// by number, from 0 on. Numbers of no register take no bytes: 32-bit Arm's end at 15 and
// go on at 25.
func place(regs []Register, size int) {
	at := 0
	byNumber, last := map[int]*Register{}, -1
	for i := range regs {
		byNumber[regs[i].Number] = &regs[i]
		last = max(last, regs[i].Number)
	}
	for n := 0; n <= last && at < size; n++ {
		r := byNumber[n]
		if r == nil {
			continue
		}
		if at+(r.Bits+7)/8 > size {
			return
		}
		r.offset = at
		at += (r.Bits + 7) / 8
	}
}

// Values are registers by name. Those of more than 64 bits are left out.
type Values map[string]uint64

// decode decodes the reply to "g".
func decode(regs []Register, reply []byte) (Values, error) {
	raw := make([]byte, len(reply)/2)
	known := make([]bool, len(raw))
	for i := range raw {
		if b := reply[2*i : 2*i+2]; string(b) != "xx" {
			if _, err := hex.Decode(raw[i:i+1], b); err != nil {
				return nil, outcome.Hostf("registers from QEMU's gdbstub: %q is no byte", b)
			}
			known[i] = true
		}
	}
	v := Values{}
	for _, r := range regs {
		n := (r.Bits + 7) / 8
		if r.offset < 0 || n > 8 || r.offset+n > len(raw) || !known[r.offset] {
			continue
		}
		v[r.Name] = little(raw[r.offset : r.offset+n])
	}
	return v, nil
}

func little(b []byte) uint64 {
	var word [8]byte
	copy(word[:], b)
	return binary.LittleEndian.Uint64(word[:])
}
