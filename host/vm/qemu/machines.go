package qemu

import (
	"fmt"
	"strings"
)

// HasMachine reports whether a binary has a machine type, such as "raspi4b". It runs
// QEMU each time, which takes some 50 ms.
func HasMachine(binary, machine string) (bool, error) {
	text, err := say(binary, "-machine", "help")
	if err != nil {
		return false, fmt.Errorf("list the machines of %s: %w", binary, err)
	}
	return hasMachine(text, machine), nil
}

// hasMachine parses QEMU's list: a heading, then one line per machine, "raspi3b
// Raspberry Pi 3B (…)".
func hasMachine(help, machine string) bool {
	for line := range strings.Lines(help) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == machine {
			return true
		}
	}
	return false
}
