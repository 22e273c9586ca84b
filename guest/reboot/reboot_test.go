package reboot

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReboot(t *testing.T) {
	for _, tt := range []struct {
		args string
		err  error
		does string
		want int
		says string
	}{
		{"reboot", nil, "sync restart", 0, ""},
		{"reboot -f", nil, "sync restart", 0, ""},
		{"reboot -f -n", nil, "restart", 0, ""},
		{"reboot", unix.EPERM, "sync restart", 1, "reboot: operation not permitted\n"},
		{"reboot now", nil, "", 2, "reboot: \"now\" is not known\n"},
	} {
		var does []string
		var said strings.Builder
		got := run(strings.Fields(tt.args), &said, func() { does = append(does, "sync") }, func() error {
			does = append(does, "restart")
			return tt.err
		})
		if got != tt.want || strings.Join(does, " ") != tt.does || !strings.HasPrefix(said.String(), tt.says) {
			t.Errorf("%s: status %d, does %q, says %q; want %d, %q, %q", tt.args, got, does, said.String(), tt.want, tt.does, tt.says)
		}
	}
}
