package outcome

import (
	"slices"
	"strings"
	"syscall"
)

// apt, go and tar say in words alone what is wrong. These words are the ones that
// make a difference to labctl's user.
var (
	diskWords  = []string{"No space left on device", "no space left on device", "enough free space"}
	reachWords = []string{
		// apt
		"Could not resolve", "Could not connect", "Unable to connect", "Temporary failure resolving", "Connection timed out", "Connection failed", "Cannot initiate the connection",
		// go
		"dial tcp", "no such host", "connection refused", "i/o timeout", "TLS handshake timeout",
		"module lookup disabled by GOPROXY=off",
	}
)

// said is an error that also is another, without saying so.
type said struct {
	error
	is error
}

func (s said) Unwrap() []error { return []error{s.error, s.is} }

// Said finds out whose matter it is when a program of this host ends with an error
// that only words report: a full disk is ENOSPC, an archive that this host cannot
// reach is HostLacks, all else is as it was.
func Said(err error) error {
	switch {
	case err == nil:
	case says(err, diskWords):
		return said{err, syscall.ENOSPC}
	case says(err, reachWords):
		return said{err, New(HostLacks, "out of reach")}
	}
	return err
}

func says(err error, words []string) bool {
	text := err.Error()
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}
