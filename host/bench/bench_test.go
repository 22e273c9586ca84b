package main

import (
	"os"
	"path/filepath"
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

// TestSoak starts a labctl that is a shell script, in two goes.
func TestSoak(t *testing.T) {
	dir := t.TempDir()
	fake := filepath.Join(dir, "labctl")
	script := "#!/bin/sh\ncase $1 in --version) echo labctl v1; exit;; esac\necho x >>" + dir + "/calls\ntest $(wc -l <" + dir + "/calls) != 3 || exit 4\n"
	if err := os.WriteFile(fake, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	state := filepath.Join(dir, "state")
	b := &bench{ctx: t.Context(), labctl: fake, kernel: "6.12", arches: []string{"arm64"}, say: t.Logf}
	plan := soakPlan{starts: 5, batch: 2, state: state, cold: true}
	for _, want := range []struct{ line, err string }{
		{"arm64 6.12 cold: 2 of 2 starts right; 3 are to come; each ", ""},
		{"arm64 6.12 cold: 3 of 4 starts right, 1 crashes; 1 are to come; each ", "1 starts did not end right"},
		{"arm64 6.12 cold: 4 of 5 starts right, 1 crashes; each ", "1 starts did not end right"},
		{"arm64 6.12 cold: 4 of 5 starts right, 1 crashes; each ", "1 starts did not end right"},
	} {
		var out strings.Builder
		err := b.soak(&out, plan)
		if !strings.HasPrefix(out.String(), want.line) || (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("soak said %q, %v; want %q, %q", out.String(), err, want.line, want.err)
		}
	}
	// Another kind of start is none of these.
	plan.cold, plan.batch = false, 0
	var out strings.Builder
	if err := b.soak(&out, plan); err != nil || !strings.HasPrefix(out.String(), "arm64 6.12 warm: 5 of 5 starts right; each ") {
		t.Errorf("warm soak said %q, %v", out.String(), err)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "labctl-soak-*")); len(kept) != 1 {
		t.Errorf("records kept: %v; want that of the crash", kept)
	}
	if err := os.WriteFile(state, []byte("x\ty\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.soak(&out, plan); err == nil || !strings.Contains(err.Error(), "state, line 1: 2 fields") {
		t.Errorf("soak with a damaged state = %v", err)
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
