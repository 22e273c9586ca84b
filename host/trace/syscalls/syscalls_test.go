package syscalls

import (
	"strconv"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	for _, tt := range []struct {
		uname  string
		number int64
		want   string // "" for none
	}{
		{"Linux 6.12.107+deb13-amd64 x86_64", 257, "openat"},
		{"Linux 6.12.107+deb13-arm64 aarch64", 56, "openat"},
		{"Linux 6.12.107+deb13-armmp armv7l", 322, "openat"},
		{"Linux 6.12.107+deb13-armmp armv7l", 0xf0005, "set_tls"},
		{"Linux 6.12.107+deb13-armmp armv7l", 0, "restart_syscall"},
		{"Linux host 5.10.0-8-amd64 x86_64", 0, "read"}, // trace-cmd's
		{"Linux host 5.10.0 x86_64 GNU/Linux", 1, "write"},
		{"Linux h 6.1 i686", 5, "open"},
		{"Linux h 6.1 ppc64le", 5, "open"},
		{"Linux h 6.1 mips64", 5000, "read"},
		{"Linux x86_64 6.1 riscv64", 63, "read"}, // the host is called that
		{"Linux h 6.1 x86_64", 0x40000001, "write"},
		{"Linux h 6.1 x86_64", 0x40000000 + 520, ""},
		{"Linux h 6.1 aarch64", 0x40000001, ""},
		{"Linux h 6.1 x86_64", -1, ""},
		{"Linux h 6.1 x86_64", 1 << 40, ""},
		{"Linux h 6.1 vax", 1, ""},
		{"", 1, ""},
	} {
		got, ok := Of(tt.uname).Name(tt.number)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: call %d is %q, %v; want %q", tt.uname, tt.number, got, ok, tt.want)
		}
	}
	if got, _ := OfSymbols([]byte("ffff800080080000 T _text\nffff80008030c680 T __arm64_sys_read\n")).Name(63); got != "read" {
		t.Errorf("call 63 of a kernel with __arm64_sys_read is %q; want read", got)
	}
	if got := OfSymbols([]byte("c0008000 T sys_read\n")); got != nil {
		t.Errorf("a kernel with sys_read is taken for %s", got.Arch)
	}
}

// Every machine has a column, and no two calls of a machine have one number.
func TestTables(t *testing.T) {
	for _, m := range machines {
		table := load(m.arch)
		if n := len(table.names); n < 300 {
			t.Errorf("%s has %d calls; want 300 at least", m.arch, n)
		}
		column := 0
		for line := range strings.Lines(numbers) {
			row := strings.Split(strings.TrimSpace(line), "\t")
			if column == 0 {
				for row[column] != m.arch {
					column++
				}
			} else if row[column] != "-" {
				n, err := strconv.ParseInt(row[column], 10, 64)
				if err != nil || table.names[n] != row[0] {
					t.Errorf("%s: %s and %s are both %s (%v)", m.arch, row[0], table.names[n], row[column], err)
				}
			}
		}
	}
}

func TestError(t *testing.T) {
	amd64 := Of("x86_64")
	for result, want := range map[int64]string{
		-2: "ENOENT", -11: "EAGAIN", -95: "EOPNOTSUPP", -512: "ERESTARTSYS", -517: "EPROBE_DEFER",
		0: "", 2: "", -4096: "", -1 << 62: "", -4000: "",
	} {
		if got, ok := amd64.Error(result); got != want || ok != (want != "") {
			t.Errorf("error %d is %q, %v; want %q", result, got, ok, want)
		}
	}
	if got, ok := Of("mips").Error(-89); ok {
		t.Errorf("mips: -89 is %s; want none: its numbers are others", got)
	}
}
