package registry

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"

	"labctl/host/outcome"
	"labctl/host/text"
)

// maxName limits a machine's name, in bytes.
const maxName = 40

var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// CheckName reports what is wrong with a machine's name.
func CheckName(name string) error {
	if len(name) > maxName || !goodName.MatchString(name) {
		return outcome.Inputf("machine name %q: want at most %d lower-case letters, digits and hyphens, and no hyphen first", text.Line(name, 60), maxName)
	}
	return nil
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// autoName names the machine of a run: "exec-prog-3f2a".
func autoName(run string) string {
	var b [3]byte
	rand.Read(b[:])
	run = strings.Trim(notName.ReplaceAllString(strings.ToLower(run), "-"), "-")
	if run == "" {
		run = "run"
	}
	tail := "-" + hex.EncodeToString(b[:])
	return strings.TrimRight(run[:min(len(run), maxName-len(tail))], "-") + tail
}
