package decode

import (
	"fmt"
	"strings"
	"testing"
)

func TestKallsyms(t *testing.T) {
	s := ParseKallsyms([]byte("0000000000000000 A fixed_percpu_data\n" +
		"ffffffff81000000 T _text\nffffffff81000000 T alias\nffffffff81000100 T vfs_read\nffffffff81000180 t vfs_read.cold\nffffffff81002000 B _end\n" +
		"ffffffffc0000000 t one\t[mod]\nffffffffc0000040 t two\t[mod]\nffffffffc0005000 t other\t[b]\n" +
		"no symbol\nzz T bad\n"))
	for _, c := range []struct {
		addr uint64
		want string // empty for none
		size uint64
	}{
		{0x1000, "", 0},
		{0xffffffff80ffffff, "", 0},
		{0xffffffff81000000, "_text", 0x100},
		{0xffffffff8100017f, "vfs_read", 0x80},
		{0xffffffff81000180, "vfs_read.cold", 0x1e80},
		{0xffffffff82000000, "", 0},
		{0xffffffffc000003f, "one [mod]", 0x40},
		{0xffffffffc0000fff, "two [mod]", 0xfc0}, // the module's memory is whole pages
		{0xffffffffc0001000, "", 0},
		{0xffffffffc0005001, "other [b]", 0},
	} {
		got, ok := s.Find(c.addr)
		name := got.Name
		if got.Module != "" {
			name += " [" + got.Module + "]"
		}
		if ok != (c.want != "") || name != c.want || got.Size != c.size {
			t.Errorf("%x: %q of %#x bytes, want %q of %#x", c.addr, name, got.Size, c.want, c.size)
		}
	}
}

func TestNames(t *testing.T) {
	c := kernels[0].capture()
	c.Cmdlines = []byte("7 a b\n8 \x1b[2J\nnewline\n99999999999 big\n9 \n")
	c.Tgids = []byte("7 6\n8 x\n")
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]string{0: "<idle>", 7: "a b", 8: "\uFFFD[2J", 9: "", 10: "<...>"} {
		if got := d.Comm(pid); got != want {
			t.Errorf("task %d is %q, want %q", pid, got, want)
		}
	}
	if tgid, ok := d.Tgid(7); tgid != 6 || !ok {
		t.Errorf("task 7 is of process %d, %v; want 6", tgid, ok)
	}
	if _, ok := d.Tgid(8); ok {
		t.Error("task 8 has a process")
	}
}

// TestFrames: a return address at the start of a symbol belongs to the one before
// it, where a call that never returns was the last instruction.
func TestFrames(t *testing.T) {
	names := map[uint64]string{0x100: "irq_handler", 0x200: "el1h_64_irq", 0x300: "before", 0x400: "next", 0x500: "caller", 0x600: "ret_from_fork", 1<<64 - 0x100: "last"}
	d := &Decoder{kernelFrom: func() uint64 { return 0x100 }}
	d.SetSymbols(func(addr uint64) (Symbol, bool) {
		start := addr &^ 0xff
		name, ok := names[start]
		return Symbol{Name: name, Start: start, Size: 0x100}, ok
	})
	for _, tt := range []struct {
		name string
		pcs  []uint64
		want string
	}{
		{"the innermost is exact", []uint64{0x400, 0x510}, "next+0x0 caller+0x10"},
		{"a return address is not", []uint64{0x510, 0x400}, "caller+0x10 before+0x100"},
		{"nor behind a handler", []uint64{0x110, 0x400}, "irq_handler+0x10 before+0x100"},
		{"where an exception came it is", []uint64{0x110, 0x210, 0x400, 0x500}, "irq_handler+0x10 el1h_64_irq+0x10 next+0x0 next+0x100"},
		{"what is put there by its start", []uint64{0x510, 0x600}, "caller+0x10 ret_from_fork+0x0"},
		{"code of ftrace's own", []uint64{0x510, trampoline}, "caller+0x10 ftrace_trampoline+0x0"},
		{"none, and nothing is before 0", []uint64{0x510, 0x10, 0}, "caller+0x10 0x10 user 0x0 user"},
		{"data of the kernel's", []uint64{0x510, 0x710}, "caller+0x10 0x710 unknown"},
	} {
		var got []string
		for _, f := range d.Frames(tt.pcs) {
			if f.Name == "" {
				got = append(got, fmt.Sprintf("%#x %s", f.PC, f.Kind))
				continue
			}
			got = append(got, fmt.Sprintf("%s+%#x", f.Name, f.Offset))
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%s: Frames(%#x) = %s; want %s", tt.name, tt.pcs, got, tt.want)
		}
	}
}

// TestLowest: on 32-bit arm modules are below the image, user programs below both.
func TestLowest(t *testing.T) {
	for _, tt := range []struct {
		name     string
		kallsyms string
		longSize int
		want     uint64
	}{
		{"64 bits", "ffff800080000000 T _text\n", 8, 1 << 63},
		{"arm", "c0300000 T _text\nc0301e60 T __turn_mmu_on\nbf001000 t f\t[m]\n", 4, 0xbf000000},
		{"arm with 2 GB for the kernel", "80008000 T stext\n80008000 T _text\n", 4, 0x7f000000},
		{"the symbols of a kept trace", "c1230000 t kernel_clone\n", 4, 0xbf000000},
		{"no symbols", "", 4, 0},
		{"an image at 0", "00000100 T _text\n", 4, 0},
	} {
		if got := ParseKallsyms([]byte(tt.kallsyms)).lowest(tt.longSize); got != tt.want {
			t.Errorf("%s: the kernel's addresses begin at %#x, want %#x", tt.name, got, tt.want)
		}
	}
}
