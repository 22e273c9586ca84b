package procfs

import (
	"slices"
	"strings"
	"testing"
)

func TestParseStack(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil,
		"[<0>] do_wait+0x164/0x240\n[<0>] kernel_wait4+0x9c/0x140\n[<0>] el0_sync+0x160/0x180\n": {"do_wait", "kernel_wait4", "el0_sync"},
		"[<ffffffc00010f2dc>] poll_schedule_timeout.constprop.0+0x40/0x78\n":                     {"poll_schedule_timeout.constprop.0"},
		"[<0>] mod_func+0x1/0x2 [pktgen]\n":                                                      {"mod_func"},
		"[<ffffffff>] 0xffffffffffffffff\n":                                                      nil,
		"[<0>] \n] +0x1/0x2\nno brackets+0x1":                                                    nil,
	} {
		if got := ParseStack([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("ParseStack(%q) = %q; want %q", text, got, want)
		}
	}
}

func FuzzParseStack(f *testing.F) {
	f.Add([]byte("[<0>] do_wait+0x164/0x240\n"))
	f.Add([]byte("] a+0x\n] +0x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := ParseStack(text)
		if len(got) > maxStack {
			t.Errorf("ParseStack gives %d functions; want at most %d", len(got), maxStack)
		}
		for _, name := range got {
			if name == "" || strings.ContainsRune(name, '\n') || !strings.Contains(string(text), name) {
				t.Errorf("ParseStack(%q) = %q", text, got)
			}
		}
	})
}
