package mm

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEntry(t *testing.T) {
	type facts struct {
		present, swapped, shared, exclusive, dirty bool
		pfn                                        uint64
	}
	for word, want := range map[Entry]facts{
		0:                  {},
		0x8180000000005346: {present: true, exclusive: true, dirty: true, pfn: 0x5346},
		0xa00000000001f7fd: {present: true, shared: true, pfn: 0x1f7fd},
		0x4000000000000123: {swapped: true},
		0x8000000000000000: {present: true},
		0x0080000000000000: {dirty: true},
		0x007fffffffffffff: {},
	} {
		got := facts{word.Present(), word.Swapped(), word.FileOrShared(), word.Exclusive(), word.SoftDirty(), word.PFN()}
		if got != want {
			t.Errorf("%#x: %+v; want %+v", uint64(word), got, want)
		}
	}
}

func TestFlagNames(t *testing.T) {
	for flags, want := range map[Flags][]string{
		0:                {},
		0x5068:           {"UPTODATE", "LRU", "ACTIVE", "ANON", "SWAPBACKED"},
		1 << 24:          {"ZERO_PAGE"},
		1<<26 | 1<<63:    {"PGTABLE"},
		1 << 31:          {"31"},
		0xffffffff << 32: {},
	} {
		if got := flags.Names(); !slices.Equal(got, want) {
			t.Errorf("names of %#x: %q; want %q", uint64(flags), got, want)
		}
	}
}

// A maps file, and parts of smaps of 5.10, 6.12 and arm, as kernels print them.
const (
	maps = `00400000-00452000 r-xp 00000000 08:02 173521                             /usr/bin/x y
00651000-00652000 rw-p 00051000 08:02 173521                             /usr/bin/x y (deleted)
7ffd0000-7fff0000 rw-p 00000000 00:00 0                                  [stack]
7ffff7fc1000-7ffff7fc5000 r--p 00000000 00:00 0 
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
	smaps = `c000000000-c000400000 rw-p 00000000 00:00 0                              [anon: Go: heap]
Size:               4096 kB
KernelPageSize:        4 kB
Rss:                 424 kB
Pss:                 424 kB
Pss_Dirty:           424 kB
Private_Dirty:       424 kB
THPeligible:           1
ProtectionKey:         0
VmFlags: rd wr mr mw me ac sd 
7f0000000000-7f0000001000 rw-s 00000000 00:01 1024                       /dev/zero (deleted)
Size:                  4 kB
Rss:                   4 kB
VmFlags: rd wr sh mr mw me ms sd 
`
	rollup = `00400000-7ffcbca29000 ---p 00000000 00:00 0                              [rollup]
Rss:                3512 kB
Pss:                1904 kB
SwapPss:               0 kB
`
)

func TestParseMaps(t *testing.T) {
	areas, err := ParseMaps(maps)
	if err != nil || len(areas) != 5 {
		t.Fatalf("ParseMaps = %+v, %v; want 5 areas", areas, err)
	}
	want := Area{0x651000, 0x652000, "rw-p", 0x51000, "08:02", 173521, "/usr/bin/x y (deleted)"}
	if areas[1] != want {
		t.Errorf("area 1 = %+v; want %+v", areas[1], want)
	}
	for addr, want := range map[uint64]string{0x400000: "r-xp", 0x451fff: "r-xp", 0x651008: "rw-p", 0x7ffeffff: "rw-p"} {
		if got, ok := Find(areas, uintptr(addr)); !ok || got.Perms != want {
			t.Errorf("at %#x: %+v, %v; want %q", addr, got, ok, want)
		}
	}
	for _, addr := range []uintptr{0, 0x452000, 0x652000} {
		if got, ok := Find(areas, addr); ok {
			t.Errorf("at %#x: %+v; want nothing", addr, got)
		}
	}
	for _, bad := range []string{"x", "\n", "1-2 rw-p 0 00:00", "2-1 rw-p 0 00:00 0\n", "1-2 rwxps 0 00:00 0\n", "1-2 rw-p g 00:00 0\n", "1-2 rw-p 0 00:00 x\n"} {
		if got, err := ParseMaps(bad); err == nil {
			t.Errorf("ParseMaps(%q) = %+v; want an error", bad, got)
		}
	}
}

func TestParseSmaps(t *testing.T) {
	all, err := ParseSmaps(smaps)
	if err != nil || len(all) != 2 {
		t.Fatalf("ParseSmaps = %+v, %v; want 2 areas", all, err)
	}
	heap := Usage{Area{0xc000000000, 0xc000400000, "rw-p", 0, "00:00", 0, "[anon: Go: heap]"},
		map[string]uint64{"Size": 4096, "KernelPageSize": 4, "Rss": 424, "Pss": 424, "Pss_Dirty": 424, "Private_Dirty": 424},
		[]string{"rd", "wr", "mr", "mw", "me", "ac", "sd"}}
	if !reflect.DeepEqual(all[0], heap) {
		t.Errorf("area 0 = %+v; want %+v", all[0], heap)
	}
	if all[1].Perms != "rw-s" || all[1].KB["Rss"] != 4 || !slices.Contains(all[1].VMFlags, "sh") {
		t.Errorf("area 1 = %+v; want a shared one with 4 kB", all[1])
	}
	one, err := ParseSmaps(rollup)
	if err != nil || len(one) != 1 || one[0].Path != "[rollup]" || one[0].KB["Pss"] != 1904 {
		t.Errorf("ParseSmaps of a rollup = %+v, %v; want Pss 1904", one, err)
	}
	for _, bad := range []string{"Rss: 4 kB\n", "nothing\n", "a b: 4 kB\n"} {
		if got, err := ParseSmaps(bad); err == nil {
			t.Errorf("ParseSmaps(%q) = %+v; want an error", bad, got)
		}
	}
}

func TestParseCounters(t *testing.T) {
	got := ParseCounters("Name:\tx: 1 kB y\nVmRSS:\t    1404 kB\nThreads:\t1\nx: -1 kB\n")
	if want := map[string]uint64{"VmRSS": 1404}; !reflect.DeepEqual(got, want) {
		t.Errorf("ParseCounters = %v; want %v", got, want)
	}
}

// TestOwnMemory: a private page of ours is absent, and present once written. Page frame
// numbers are seen with the right to it alone, and what lacks it says so.
func TestOwnMemory(t *testing.T) {
	b, err := Anonymous(2, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	pid, page := os.Getpid(), os.Getpagesize()
	if p, err := Look(pid, Addr(b)); err != nil || p.Present {
		t.Fatalf("an untouched page: %+v, %v; want it absent", p, err)
	}
	b[page] = 1
	entries, err := Pagemap(pid, Addr(b), 2)
	if err != nil || entries[0].Present() || !entries[1].Present() || entries[1].FileOrShared() {
		t.Errorf("pagemap: %#x, %v; want the second page present, an anonymous one", entries, err)
	}
	p, err := Look(pid, Addr(b[page:]))
	switch {
	case errors.Is(err, ErrUnseen) && (p.PFN == 0 || p.Count == 0):
	case err != nil || p.PFN == 0 || p.Count != 1 || !p.Exclusive || !slices.Contains(p.Flags, "ANON"):
		t.Errorf("a written page: %+v, %v; want an anonymous one, mapped once, or ErrUnseen", p, err)
	}
	in, err := Mincore(Addr(b), uintptr(len(b)))
	if err != nil || !slices.Equal(in, []bool{false, true}) {
		t.Errorf("mincore: %v, %v; want the second page alone", in, err)
	}
	areas, err := Maps(pid)
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := Find(areas, Addr(b)); !ok || a.Perms != "rw-p" || a.Path != "" {
		t.Errorf("maps: %+v, %v; want rw-p without a name", a, ok)
	}
	if u, err := SmapsAt(pid, Addr(b)); err != nil || u.KB["Rss"] < uint64(page>>10) {
		t.Errorf("smaps: %+v, %v; want a page in memory", u, err)
	}
	status, err := Counters("/proc/self/status")
	if err != nil || status["VmRSS"] == 0 {
		t.Errorf("status: %v, %v; want VmRSS", status, err)
	}
	r, err := Rollup(pid)
	if err != nil || r.KB["Rss"] == 0 {
		t.Errorf("rollup: %+v, %v; want Rss", r, err)
	}
	all, err := Smaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	// The program's memory moves on between the two.
	if s := sum(all); s.KB["Rss"] < r.KB["Rss"]/2 || s.KB["Pss"] == 0 || s.KB["Size"] != 0 {
		t.Errorf("sum of smaps = %v, rollup %v", s.KB, r.KB)
	}
}

func TestBounds(t *testing.T) {
	if _, err := Pagemap(os.Getpid(), 0, maxEntries+1); err == nil {
		t.Error("Pagemap of too many pages succeeds")
	}
	if _, err := Mincore(0, 0); err == nil {
		t.Error("Mincore of nothing succeeds")
	}
	if _, err := KPageCount(1 << 62); err == nil {
		t.Error("KPageCount of a page frame that cannot be succeeds")
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add(maps)
	f.Add("- rw-p 0 0 0\n1-2\n")
	f.Fuzz(func(t *testing.T, text string) {
		areas, err := ParseMaps(text)
		if err != nil {
			return
		}
		if len(areas) > strings.Count(text, "\n")+1 {
			t.Errorf("%d areas of %q", len(areas), text)
		}
		for _, a := range areas {
			if a.End < a.Start || len(a.Perms) != 4 || !strings.Contains(text, a.Path) {
				t.Errorf("ParseMaps(%q) has %+v", text, a)
			}
		}
	})
}

func FuzzParseSmaps(f *testing.F) {
	f.Add(smaps)
	f.Add(rollup)
	f.Add("1-2 rw-p 0 0:0 0\n:\nVmFlags:\nRss: 1 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		ParseCounters(text)
		all, err := ParseSmaps(text)
		if err != nil {
			return
		}
		lines := strings.Count(text, "\n") + 1
		for _, u := range all {
			lines -= 1 + len(u.KB)
			if u.KB == nil || u.End < u.Start {
				t.Errorf("ParseSmaps(%q) has %+v", text, u)
			}
		}
		if lines < 0 {
			t.Errorf("ParseSmaps(%q) = %+v: more than its lines", text, all)
		}
	})
}
