package qemu

import (
	"fmt"
	"strings"
)

// HasMachine says whether a binary knows a machine: "raspi4b". It asks QEMU each
// time, some 50 ms.
func HasMachine(binary, machine string) (bool, error) {
	text, err := say(binary, "-machine", "help")
	if err != nil {
		return false, fmt.Errorf("list the machines of %s: %w", binary, err)
	}
	return hasMachine(text, machine), nil
}

// hasMachine reads a line a machine, "raspi3b              Raspberry Pi 3B (…)",
// below a heading.
func hasMachine(help, machine string) bool {
	for line := range strings.Lines(help) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == machine {
			return true
		}
	}
	return false
}
