package kernel

import (
	"strings"
	"syscall"
)

// apt and go say in words alone what is wrong. These words are the ones that make
// a difference to labctl's user.
var (
	diskWords  = []string{"No space left on device", "no space left on device", "enough free space"}
	reachWords = []string{
		// apt
		"Could not resolve", "Could not connect", "Unable to connect", "Temporary failure resolving", "Connection timed out", "Connection failed", "Cannot initiate the connection",
		// go
		"dial tcp", "no such host", "connection refused", "i/o timeout", "TLS handshake timeout",
		"module lookup disabled by GOPROXY=off",
	}
	replacedWords = []string{" 404 ", "Hash Sum mismatch", "unexpected size"}
)

// blamed is an error that also is another, without saying so.
type blamed struct {
	error
	is error
}

func (b blamed) Unwrap() []error { return []error{b.error, b.is} }

// blame finds out whose fault it is: a full disk is ENOSPC, an archive that this
// host cannot reach is ErrHostLacks, all else is as it was.
func blame(err error) error {
	switch {
	case err == nil:
	case says(err, diskWords):
		return blamed{err, syscall.ENOSPC}
	case says(err, reachWords):
		return blamed{err, ErrHostLacks}
	}
	return err
}

// replaced says whether a download ended because the archive has another file now.
func replaced(err error) bool { return says(err, replacedWords) }

func says(err error, words []string) bool {
	text := err.Error()
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
