package clone

import (
	"math/bits"
	"testing"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		flags Flags
		sig   Signal
		want  string
	}{
		{0, 0, "0"},
		{0, 17, "SIGCHLD"},
		{0x4100, 17, "CLONE_VM|CLONE_VFORK|SIGCHLD"},
		{0x800700, 17, "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_UNTRACED|SIGCHLD"},
		{0x3d0f00, 0, "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_SETTLS|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID"},
		{0x100000000, 0, "CLONE_CLEAR_SIGHAND"},
		{0x200000000 | 0x80, 10, "CLONE_INTO_CGROUP|CLONE_NEWTIME|SIGUSR1"},
		{1<<63 | 0x101, 40, "CLONE_VM|0x8000000000000001|40"},
	} {
		if got := Text(c.flags, c.sig); got != c.want {
			t.Errorf("Text(%#x, %d) = %q, want %q", uint64(c.flags), int(c.sig), got, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	// glibc's fork is one word; its low byte is a signal even where a flag of
	// clone3 has the same bit.
	f, s := Split(0x01200011)
	if f != 0x01200000 || s != 17 {
		t.Errorf("Split(0x01200011) = %#x, %d, want 0x1200000, 17", uint64(f), int(s))
	}
	if f, s := Split(0x80); f != 0 || s != 128 {
		t.Errorf("Split(0x80) = %v, %v, want 0, 128", f, s)
	}
}

func TestNamesAreSingleBits(t *testing.T) {
	var all Flags
	for _, n := range names {
		if bits.OnesCount64(uint64(n.bit)) != 1 || all&n.bit != 0 {
			t.Errorf("%s is %#x, want one bit of its own", n.name, uint64(n.bit))
		}
		all |= n.bit
	}
	// Every bit from CLONE_VM to the last is a flag, and one bit of CSIGNAL.
	if want := Flags(1<<38-1)&^CSIGNAL | 0x80; all != want {
		t.Errorf("named bits are %#x, want %#x", uint64(all), uint64(want))
	}
}
