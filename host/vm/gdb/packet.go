package gdb

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"

	"labctl/host/outcome"
)

// maxPacket limits the payload of a packet, in bytes. QEMU's are 4 KB; a run-length
// encoded one may be longer than what was sent.
const maxPacket = 1 << 20

// readPacket reads the next packet's payload: "$", the payload, "#" and a checksum of two
// hex digits. What is between packets, such as acknowledgements, is skipped. In the
// payload "}" escapes a byte, and "*" repeats the one before it (gdb's manual, "Remote
// Protocol: Overview").
func readPacket(r *bufio.Reader) ([]byte, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == '$' {
			break
		}
	}
	var out []byte
	var sum byte
	next := func() (byte, error) {
		b, err := r.ReadByte()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return b, err
	}
	for {
		b, err := next()
		if err != nil {
			return nil, err
		}
		if b == '#' {
			break
		}
		sum += b
		times := 1
		switch b {
		case '}':
			if b, err = next(); err != nil {
				return nil, err
			}
			sum += b
			b ^= 0x20
		case '*':
			n, err := next()
			if err != nil {
				return nil, err
			}
			if sum += n; n < 29 || n > 126 || len(out) == 0 {
				return nil, outcome.Hostf("packet of QEMU's gdbstub: nothing to repeat, or %d times", int(n)-29)
			}
			b, times = out[len(out)-1], int(n)-29
		}
		if len(out)+times > maxPacket {
			return nil, outcome.Hostf("packet of QEMU's gdbstub: longer than %d bytes", maxPacket)
		}
		for range times {
			out = append(out, b)
		}
	}
	var digits [2]byte
	for i := range digits {
		b, err := next()
		if err != nil {
			return nil, err
		}
		digits[i] = b
	}
	if want, err := strconv.ParseUint(string(digits[:]), 16, 8); err != nil || byte(want) != sum {
		return nil, outcome.Hostf("packet of QEMU's gdbstub: checksum %q, want %02x", digits, sum)
	}
	return out, nil
}

// encode returns a packet with a payload.
func encode(payload []byte) []byte {
	out := make([]byte, 0, len(payload)+4)
	out = append(out, '$')
	for _, b := range payload {
		switch b {
		case '$', '#', '}', '*':
			out = append(out, '}')
			b ^= 0x20
		}
		out = append(out, b)
	}
	var sum byte
	for _, b := range out[1:] {
		sum += b
	}
	return append(out, fmt.Sprintf("#%02x", sum)...)
}

// failure returns the error of a reply, nil for another one.
func failure(reply []byte) error {
	if len(reply) == 3 && reply[0] == 'E' {
		if _, err := hex.DecodeString(string(reply[1:])); err == nil {
			return outcome.Inputf("QEMU's gdbstub refuses it (%s)", reply)
		}
	}
	return nil
}
