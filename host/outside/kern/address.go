package kern

import (
	"strconv"
	"strings"

	"labctl/host/outcome"
	"labctl/host/text"
)

// ParseAddress parses an address as a user writes one: in hex, or a symbol, with or
// without an offset. Hex without 0x has at least 8 digits.
func (l *Look) ParseAddress(s string) (uint64, error) {
	name, off, plus := strings.Cut(s, "+")
	var n uint64
	if plus {
		var err error
		if n, err = strconv.ParseUint(off, 0, 64); err != nil {
			return 0, outcome.Inputf("address %q: want a number behind the +", s)
		}
	}
	if v, err := strconv.ParseUint(strings.TrimPrefix(name, "0x"), 16, 64); err == nil && (strings.HasPrefix(name, "0x") || len(name) >= 8) {
		return v + n, nil
	}
	if strings.HasPrefix(name, "0x") {
		return 0, outcome.Inputf("address %q: want at most 16 digits of hex behind 0x", text.Line(s, 80))
	}
	addr, err := l.Variable(name, 0)
	return addr + n, err
}
