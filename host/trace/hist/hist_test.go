package hist

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labctl/host/golden"
	"labctl/host/text"
)

// samples are files of real kernels, by kernel and event.
func samples(t testing.TB) map[string]map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.hist")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d samples, %v; want 3", len(files), err)
	}
	out := map[string]map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		kernel := strings.TrimSuffix(filepath.Base(file), ".hist")
		out[kernel] = map[string]string{}
		for _, part := range strings.Split("\n"+string(b), "\n=== ")[1:] {
			event, body, _ := strings.Cut(part, "\n")
			out[kernel][event] = body + "\n"
		}
	}
	return out
}

func dump(b *strings.Builder, h *Histogram) {
	fmt.Fprintf(b, "%s %s: %d hits, %d entries, %d dropped, %d rows\n", h.Event, h.Trigger, h.Hits, h.Entries, h.Dropped, len(h.Rows))
	fmt.Fprintf(b, "  %s | %s\n", strings.Join(h.Keys, " "), strings.Join(h.Values, " "))
	for i, r := range h.Rows {
		if i == 4 {
			break
		}
		for _, k := range r.Keys {
			if k.Stack != nil {
				b.WriteString("  " + k.Stack.Folded())
			} else {
				b.WriteString("  " + k.Text)
			}
		}
		fmt.Fprintf(b, " | %d\n", r.Values)
	}
}

// TestParse reads what real kernels have written: nothing is left out, and the rows come
// to the kernel's totals.
func TestParse(t *testing.T) {
	for kernel, events := range samples(t) {
		var b strings.Builder
		for _, event := range []string{"sched/sched_switch", "sched/sched_waking", "raw_syscalls/sys_enter", "raw_syscalls/sys_exit", "kmem/kmalloc", "kmem/kfree", "kmem/kmem_cache_alloc", "sched/sched_process_exec", "irq/softirq_entry", "sched/sched_process_wait"} {
			hists, err := Parse(event, events[event])
			if err != nil {
				t.Errorf("%s: %s: %v", kernel, event, err)
			}
			if want := strings.Count(events[event], "# trigger info"); len(hists) != want {
				t.Errorf("%s: %s: %d histograms, want %d", kernel, event, len(hists), want)
			}
			for i := range hists {
				// These were read while events came in: the totals are of later.
				if h := &hists[i]; strings.HasPrefix(h.Disputed, "the rows come to ") {
					h.Disputed = ""
				}
				if h := &hists[i]; h.Disputed != "" || h.Unread > 0 || uint64(len(h.Rows)) != h.Entries {
					t.Errorf("%s: %s: %q, %d lines unread, %d rows of %d", kernel, h.Trigger, h.Disputed, h.Unread, len(h.Rows), h.Entries)
				}
				dump(&b, &hists[i])
			}
		}
		golden.Check(t, filepath.Join("testdata", kernel+".txt"), b.String())
	}
}

func file(trigger string, lines ...string) string {
	return "# event histogram\n#\n# trigger info: " + trigger + "\n#\n\n" + strings.Join(lines, "\n") + "\n"
}

// TestHostile: what strings of programs say is neither a row nor a total.
func TestHostile(t *testing.T) {
	const one = "hist:keys=comm:vals=hitcount:sort=hitcount:size=2048 [active]"
	const two = "hist:keys=comm,pid:vals=hitcount:sort=hitcount:size=2048 [active]"
	totals := func(hits, entries int) string {
		return fmt.Sprintf("\nTotals:\n    Hits: %d\n    Entries: %d\n    Dropped: 0", hits, entries)
	}
	for _, tt := range []struct {
		name, file string
		rows       int
		disputed   string
	}{
		{"plain", file(one, "{ comm: sh     } hitcount:          3", totals(3, 1)), 1, ""},
		{"braces", file(one, "{ comm: } hitcount: 9 } hitcount:          3", totals(3, 1)), 1, ""},
		{"a row in a name", file(one, "{ comm: x", "{ comm: y } hitcount:         99", "     } hitcount:          3", totals(3, 1)), 1, "2 lines"},
		{"totals in a name", file(one, "{ comm: x", "Totals:", "    Hits: 5", "     } hitcount:          3", totals(3, 1)), 0, "2 lines"},
		{"another key in a name", file(two, "{ comm: a, pid: 7, pid:          9 } hitcount:          3", totals(3, 1)), 0, "1 lines"},
		{"escapes", file(one, "{ comm: \x1b[2J\u202e } hitcount:          3", totals(3, 1)), 1, ""},
		{"too few rows", file(one, "{ comm: sh } hitcount:          3", totals(3, 2)), 1, "1 rows, and the kernel's total is 2 entries"},
		{"too few hits", file(one, "{ comm: sh } hitcount:          3", totals(4, 1)), 1, "3 hits, and the kernel's total is 4"},
		{"cut", file(one, "{ comm: sh } hitcount:          3"), 1, "it is cut"},
		{"a number too long", file(one, "{ comm: sh } hitcount: 99999999999999999999", totals(3, 1)), 0, "1 lines"},
	} {
		hists, err := Parse("a/b", tt.file)
		if err != nil || len(hists) != 1 {
			t.Errorf("%s: %d histograms, %v", tt.name, len(hists), err)
			continue
		}
		h := hists[0]
		if len(h.Rows) != tt.rows || (h.Disputed != "") != (tt.disputed != "") || !strings.Contains(h.Disputed, tt.disputed) {
			t.Errorf("%s: %d rows, disputed %q; want %d, %q", tt.name, len(h.Rows), h.Disputed, tt.rows, tt.disputed)
		}
		check(t, hists)
	}
	for _, none := range []string{"", "# event histogram\n", "# event histogram\n{ a: 1 } hitcount: 1\n", file("hist:size=1"), file("hist:keys=:vals=hitcount")} {
		if hists, err := Parse("a/b", none); err == nil {
			t.Errorf("Parse(%q) = %+v; want an error", none, hists)
		}
	}
}

// TestBounds: rows beyond the bound are counted.
func TestBounds(t *testing.T) {
	var lines []string
	for i := range maxRows + 7 {
		lines = append(lines, fmt.Sprintf("{ pid: %10d } hitcount: %10d", i, 1))
	}
	lines = append(lines, fmt.Sprintf("\nTotals:\n    Hits: %d\n    Entries: %d\n    Dropped: 3", len(lines), len(lines)))
	hists, err := Parse("a/b", file("hist:keys=pid:vals=hitcount:sort=hitcount:size=131072 [paused]", lines...))
	if err != nil || len(hists[0].Rows) != maxRows || hists[0].Unkept != 7 || hists[0].Dropped != 3 || hists[0].Disputed != "" {
		t.Errorf("%d rows, %d unkept, %q, %v", len(hists[0].Rows), hists[0].Unkept, hists[0].Disputed, err)
	}
}

func check(t *testing.T, hists []Histogram) {
	for _, h := range hists {
		for _, r := range h.Rows {
			if len(r.Keys) != len(h.Keys) || len(r.Values) != len(h.Values) {
				t.Fatalf("a row of %d keys and %d values, of %d and %d", len(r.Keys), len(r.Values), len(h.Keys), len(h.Values))
			}
			for _, k := range r.Keys {
				if text.Line(k.Text, maxWord+10) != k.Text {
					t.Fatalf("key %q is not fit for a terminal", k.Text)
				}
			}
		}
		for _, w := range append(append([]string{h.Trigger}, h.Keys...), h.Values...) {
			if text.Clean(w) != w {
				t.Fatalf("%q is not fit for a terminal", w)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, events := range samples(f) {
		for _, body := range events {
			if len(body) < 4<<10 {
				f.Add(body)
			}
		}
	}
	f.Add(file("hist:keys=comm,common_stacktrace:vals=hitcount,x.hex [active]", "{ comm: a, common_stacktrace:", "  f+0x1/0x2", "} hitcount: 1  x: ff", "", "Totals:", "    Hits: 1"))
	f.Fuzz(func(t *testing.T, body string) {
		hists, _ := Parse("a/b", body)
		if len(hists) > maxHists {
			t.Fatalf("%d histograms", len(hists))
		}
		check(t, hists)
	})
}

// TestParseLong: a text of many lines that end no row costs no more than its length.
func TestParseLong(t *testing.T) {
	begin := head + "\n" + info + "hist:keys=stacktrace:vals=hitcount:sort=hitcount:size=2048 [active]\n#\n\n"
	for name, line := range map[string]string{"words": "a\n", "braces": "} hitcount: x\n", "rows": "{ stacktrace: }\n"} {
		text := begin + "{ stacktrace:\n" + strings.Repeat(line, 4<<20/len(line))
		got, err := Parse("sched/sched_switch", text)
		if err != nil || len(got) != 1 || len(got[0].Rows) != 0 || got[0].Disputed == "" {
			t.Errorf("%s: got %d histograms, %v; want one without rows, and disputed", name, len(got), err)
		}
	}
}
