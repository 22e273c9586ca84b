package nearest

import (
	"strings"
	"testing"

	"labctl/host/outcome"
)

func TestName(t *testing.T) {
	known := []string{"5.10", "6.1", "6.12", "debian:trixie", "virtio_console"}
	for _, tt := range []struct{ got, want string }{
		{"6.21", "6.12"}, {"6.2", "6.1"}, {"debain:trixie", "debian:trixie"}, {"virtio_consle", "virtio_console"},
		{"zzz", ""}, {"", ""}, {"6.1", "6.1"}, {"6.", ""}, {"6.11", "6.12"},
	} {
		if near := Name(tt.got, known); near != tt.want {
			t.Errorf("Name(%q) = %q, want %q", tt.got, near, tt.want)
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, tt := range []struct {
		got   string
		known []string
		want  string
	}{
		{"P99", []string{"P1", "P9"}, `lab "P99" is not known, did you mean P9? (known: P1, P9)`},
		{"K2", []string{"K1", "P2"}, `lab "K2" is not known (known: K1, P2)`}, // neither is a slip
		{"P1", nil, `lab "P1" is not known (there is none)`},
		{"\x1b[2J\nP1", nil, `lab "�[2J P1" is not known (there is none)`},
		{strings.Repeat("x", 100), nil, `lab "` + strings.Repeat("x", 80) + `…" is not known (there is none)`},
	} {
		err := Unknown("lab", tt.got, tt.known)
		if err.Error() != tt.want || outcome.Of(err) != outcome.BadInput {
			t.Errorf("Unknown(%q, %q) = %q, %v; want %q, %v", tt.got, tt.known, err, outcome.Of(err), tt.want, outcome.BadInput)
		}
	}
}
