package outcome

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

func TestSaid(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Kind
		full bool // is ENOSPC
	}{
		{"apt-get: Write error - write (28: No space left on device)", HostLacks, true},
		{"apt-get: You don't have enough free space in /var/cache/apt/archives/.", HostLacks, true},
		{"go mod download: write /x: no space left on device", HostLacks, true},
		{"apt-get: Could not resolve 'mirror.example'", HostLacks, false},
		{"go list -m: Get \"http://127.0.0.1:9/x\": dial tcp 127.0.0.1:9: connect: connection refused", HostLacks, false},
		{"apt-get: The repository 'http://x trixy Release' does not have a Release file.", Internal, false},
	} {
		plain := errors.New(tt.text)
		got := Said(fmt.Errorf("pull: %w", plain))
		if !errors.Is(got, plain) || got.Error() != "pull: "+tt.text {
			t.Errorf("Said changed %q to %q", tt.text, got)
		}
		if Of(got) != tt.want || errors.Is(got, syscall.ENOSPC) != tt.full {
			t.Errorf("Said(%q) is %q, a full disk: %v; want %q, %v", tt.text, Of(got), errors.Is(got, syscall.ENOSPC), tt.want, tt.full)
		}
	}
	if Said(nil) != nil {
		t.Error("Said(nil) is an error")
	}
}
