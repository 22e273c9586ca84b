package main

import (
	"strings"
	"testing"
)

func TestSample(t *testing.T) {
	for _, tt := range []struct {
		s      sample
		median float64
		text   string
	}{
		{nil, 0, "-"},
		{sample{2}, 2, "2.0 s"},
		{sample{3, 1, 2}, 2, "2.0 (1.0–3.0) s"},
		{sample{4, 1, 2, 3}, 2.5, "2.5 (1.0–4.0) s"},
	} {
		if got := tt.s.median(); got != tt.median {
			t.Errorf("median of %v = %v, want %v", tt.s, got, tt.median)
		}
		if got := tt.s.text("s", 1); got != tt.text {
			t.Errorf("text of %v = %q, want %q", tt.s, got, tt.text)
		}
	}
}

func TestTable(t *testing.T) {
	var tab table
	tab.add(row{what: "run", baseline: "bare", got: sample{2, 3}, base: sample{1, 2}, ratios: sample{2, 1.5}, unit: "s", digits: 1, bound: "1.35"})
	tab.add(row{what: "clones", baseline: "one", got: sample{300}, base: sample{100}, unit: "MB"})
	tab.note("a note")
	want := `RATIO             BOUND  N  WHAT    MEDIAN (MIN–MAX)  BASELINE  MEDIAN (MIN–MAX)
1.75 (1.50–2.00)  1.35   2  run     2.5 (2.0–3.0) s   bare      1.5 (1.0–2.0) s
3.00              -      1  clones  300 MB            one       100 MB
a note
`
	if got := tab.String(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// Mappings as a QEMU of 8 MB of guest RAM has them, with RAM that the kernel has
// split in two.
const smaps = `556a4c000000-556a4c100000 r-xp 00000000 fe:00 77 /usr/bin/qemu-system-x86_64
Rss:                2048 kB
Pss:                1024 kB
Pss_Dirty:             0 kB
VmFlags: rd ex mr mw me sd
556a4d000000-556a4d100000 rw-p 00000000 00:00 0 [heap]
Pss:                2048 kB
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Pss:                1024 kB
7f0000200000-7f0000800000 rw-p 00000000 00:00 0
Pss:                3072 kB
7f0001000000-7f0002000000 rwxp 00000000 00:00 0
Pss:                5120 kB
7f0003000000-7f0003800000 rw-p 00000000 fe:00 78 /cache/templates/abc.ram
Pss:                6144 kB
`

func TestReadSmaps(t *testing.T) {
	got, err := readSmaps(strings.NewReader(smaps), 8<<20)
	want := parts{ram: 4 + 6, text: 1, jit: 5, anon: 2}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func FuzzReadSmaps(f *testing.F) {
	f.Add(smaps)
	f.Add("z-1 r 0 0 0\nPss: 1 kB\n")
	f.Add("0-ffffffffffffffff r 0 0 0\nPss: -1 kB\n")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := readSmaps(strings.NewReader(s), 8<<20); err == nil && p.sum() < 0 {
			t.Errorf("%q: %+v, want no negative memory", s, p)
		}
	})
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"extra"}, {"-pairs", "0"}, {"-labctl", "/nowhere/labctl"}, {"-labctl", "/bin/true", "-rows", "nosuch"}} {
		var out, errs strings.Builder
		if err := run(t.Context(), args, &out, &errs); err == nil {
			t.Errorf("bench %q: no error", args)
		}
	}
}
