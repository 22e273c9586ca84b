package memory

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"

	"labctl/guest/probe/mm"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

type runner = func(context.Context, json.RawMessage) (*wire.ProbeResult, error)

// seen runs a probe. A host that shows no page frames has it say that, and nothing else; the
// labs' tests run the probes in guests, which do.
func seen(t *testing.T, run runner, params string) map[string]any {
	t.Helper()
	res, err := run(t.Context(), json.RawMessage(params))
	if pid, werr := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); werr != unix.ECHILD {
		t.Fatalf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, werr)
	}
	if errors.Is(err, mm.ErrUnseen) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	last := res.Tasks[len(res.Tasks)-1]
	if res.Tasks[0].PID != os.Getpid() || last.Role != "child" || *last.Status != 0 {
		t.Errorf("tasks %+v; want the probe and a child that ended well", res.Tasks)
	}
	return res.Data
}

func TestCow(t *testing.T) {
	data := seen(t, cow, `{"pages":5,"index":3}`)
	w := data["written"].(family)
	before := data["before"].(family).Parent
	for i := range 5 {
		if w.Parent[i].PFN != before[i].PFN || (w.Child[i].PFN == before[i].PFN) == (i == 3) {
			t.Errorf("page %d: frame %#x before, then %#x in the parent, %#x in the child", i, before[i].PFN, w.Parent[i].PFN, w.Child[i].PFN)
		}
	}
	if data["child_read"] != uintptr(4) || data["parent_has"] != byte(0x66) {
		t.Errorf("the child read %v, the parent has %v; want 4 and 0x66", data["child_read"], data["parent_has"])
	}
}

func TestEntries(t *testing.T) {
	data := seen(t, entries, ``)
	made, touched := data["made"].(map[string]mm.Page), data["touched"].(map[string]mm.Page)
	if made["child"].Present || made["thread"].PFN != made["parent"].PFN || touched["child"].PFN != made["parent"].PFN {
		t.Errorf("made %+v, touched %+v; want the child without an entry, then with the parent's page", made, touched)
	}
	if r := data["read"].(map[string]uintptr); r["child"] != 42 || r["thread"] != 42 {
		t.Errorf("read %v; want 42 twice", r)
	}
	if a := data["parent_after"].([]uintptr); a[0] != 100 || a[1] != 200 {
		t.Errorf("the parent has %v; want 100, 200", a)
	}
}

func TestDemand(t *testing.T) {
	data := seen(t, demand, `{"pages":32}`)
	mapped, written := data["mapped"].(have), data["written"].(have)
	if mapped.Present != 0 || written.Present != 32 || written.Frames != 32 || written.Area["Rss"] != 32*uint64(os.Getpagesize()>>10) {
		t.Errorf("mapped %+v, written %+v; want nothing, then 32 pages", mapped, written)
	}
}

func TestRss(t *testing.T) {
	data := seen(t, rss, `{"pages":8}`)
	kb := uint64(os.Getpagesize() >> 10)
	read, written := data["dirty_read"].(map[string]usage)["child"].Dirty, data["dirty_written"].(map[string]usage)["child"].Dirty
	if read["Rss"] != 8*kb || written["Rss"] != 8*kb || read["Pss"] != 4*kb || written["Private_Dirty"] != read["Private_Dirty"]+kb {
		t.Errorf("after a read %v, after a write %v; want one Rss, and a private page more", read, written)
	}
	if data["self_in_child"] == os.Getpid() {
		t.Error("/proc/self of the child is the parent's")
	}
}

func TestShm(t *testing.T) {
	data := seen(t, shm, ``)
	pages := data["pages"].(map[string]mm.Page)
	if a, b := pages["child_first"], pages["child_second"]; a.PFN != b.PFN || a.PFN != pages["parent_first"].PFN || a.Addr == b.Addr {
		t.Errorf("pages %+v; want one page frame at two addresses of the child", pages)
	}
	if n := data["nattch"].(map[string]uint64); n["forked"] != 2 || n["attached"] != 3 || n["detached"] != 2 {
		t.Errorf("attached %v; want 2, 3, 2", n)
	}
	if data["parent_reads"] != byte(42) || data["after_removal"] != byte(42) {
		t.Errorf("the parent reads %v, then %v; want 42", data["parent_reads"], data["after_removal"])
	}
}

func TestFilemap(t *testing.T) {
	data := seen(t, filemap, ``)
	read, written := data["read"].(map[string]mm.Page), data["written"].(map[string]mm.Page)
	if read["parent"].PFN != read["child"].PFN || read["private"].PFN != read["child"].PFN || written["private"].PFN == read["private"].PFN {
		t.Errorf("read %+v, written %+v; want one page frame, and another for the private write", read, written)
	}
	if data["parent_reads"] != byte(42) || data["file_has"] != uint32(42) || data["parent_after"] != byte(42) {
		t.Errorf("%v; want 42 in the mapping and the file", data)
	}
}

func TestTLS(t *testing.T) {
	data := seen(t, tls, ``)
	for _, role := range []string{"one", "two"} {
		l := data[role].(thread)
		if l.Register != l.Block || sysArchPrctl != 0 && l.Asked != l.Block {
			t.Errorf("%s: block %#x, by the register %#x, by the call %#x; want one address", role, l.Block, l.Register, l.Asked)
		}
		if l.Kept != l.Wrote {
			t.Errorf("%s wrote %d and reads %d", role, l.Wrote, l.Kept)
		}
	}
	if one, two := data["one"].(thread), data["two"].(thread); one.Peeked != two.Wrote || two.Peeked != one.Wrote {
		t.Errorf("one reads %d of two's, two %d of one's; want %d and %d", one.Peeked, two.Peeked, two.Wrote, one.Wrote)
	}
}

func TestFutex(t *testing.T) {
	data := seen(t, futex, ``)
	if data["mismatch"] != "EAGAIN" {
		t.Errorf("a wait for another value gave %v; want EAGAIN", data["mismatch"])
	}
	want := []wake{{1, 1, 1}, {100, 2, 3}, {1, 0, 3}}
	if got := data["wakes"].([]wake); !slices.Equal(got, want) {
		t.Errorf("wakes %+v; want %+v", got, want)
	}
	private := data["private"].(map[string]any)
	if k := private["wake"].(wake); k.Result != 1 || private["child_asleep"] != true {
		t.Errorf("private memory: %+v; want the thread alone to be woken", private)
	}
}

func TestAreas(t *testing.T) {
	res, err := areas(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"forked": 1, "split": 3, "merged": 1, "grown": 1} {
		if got := res.Data[name].(territory); len(got.Pieces) != want || len(got.Lines) == 0 {
			t.Errorf("%s: pieces %q of the mapping; want %d", name, got.Pieces, want)
		}
	}
}

func TestFaultKinds(t *testing.T) {
	kinds := seen(t, faultKinds, ``)["kinds"].([]kind)
	zero := kinds[1].Changed // a kernel need not have a page of zeroes for reads
	for _, k := range kinds {
		want := uint64(1)
		if k.Name == "again" || k.Name == "zero-write" && !zero {
			want = 0
		}
		if k.Faults != want || k.Changed != (k.Name == "zero-write" && zero || k.Name == "fork-write" || k.Name == "file-write") {
			t.Errorf("%+v; want %d faults", k, want)
		}
	}
}

func TestSegv(t *testing.T) {
	faults := seen(t, segv, ``)["faults"].([]fault)
	for i, want := range []fault{{Code: 2, Area: "r--p", Value: 7}, {Code: 2, Area: "---p", Value: 42}, {Code: 1, Value: 0}} {
		f := faults[i]
		if f.Code != want.Code || f.Area != want.Area || f.Value != want.Value || f.SiAddr != f.Addr || f.AsIs != "EINVAL" || !f.Done {
			t.Errorf("%+v; want code %d in an area %q, and then the value %d", f, want.Code, want.Area, want.Value)
		}
	}
}

func TestLevels(t *testing.T) {
	data := seen(t, levels, ``)
	kb := uint64(os.Getpagesize() >> 10)
	n := data["tables_kb"].(map[string]uint64)
	if n["near"] != n["first"] || n["table"] != n["near"]+kb || n["far"] <= n["table"] {
		t.Errorf("tables %v KB; want none for the neighbour, one for the next table, more for what is far", n)
	}
}

func TestPss(t *testing.T) {
	data := seen(t, pss, ``)
	kb := data["segment_kb"].(int)
	moments := data["moments"].(map[string]holding)
	for name, want := range map[string][4]int{ // Pss of the segment and of the private pages, of parent and child
		"forked": {kb, kb / 2, 0, kb / 2}, "touched": {kb / 2, kb / 2, kb / 2, kb / 2}, "written": {kb / 2, kb, kb / 2, kb}, "detached": {kb, kb, 0, kb},
	} {
		h := moments[name]
		got := [4]int{}
		for i, n := range []uint64{h.Parent.Segment["Pss"], h.Parent.Private["Pss"], h.Child.Segment["Pss"], h.Child.Private["Pss"]} {
			got[i] = int(n)
		}
		if got != want {
			t.Errorf("%s: Pss %d KB; want %d", name, got, want)
		}
	}
	if h := moments["touched"]; h.Row["nattch"] != 2 || h.Row["perms"] != 0o640 || int(h.Row["size"]) != kb<<10 {
		t.Errorf("row %v; want two attachments, 640 and %d bytes", h.Row, kb<<10)
	}
	if n := moments["detached"].Row["nattch"]; n != 1 {
		t.Errorf("attached %d times after shmdt; want 1", n)
	}
}

func TestCreation(t *testing.T) {
	res, err := creation(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	runs := res.Data["runs"].([]born)
	if want := len(ways) * len(creationMB); len(runs) != want {
		t.Fatalf("%d runs; want %d", len(runs), want)
	}
	for i, b := range runs {
		wantEntries := b.KB << 10 / os.Getpagesize()
		if b.Way == "vfork" {
			wantEntries = 0
		}
		least, most := int64(-1), int64(-1)
		if b.KB == laterMB<<10 {
			least, most = 0, 100 // the runtime's own
			if b.Way == "fork" || b.Way == "clone3" {
				least, most = int64(wantEntries), int64(wantEntries)+100
			}
		}
		if b.Entries != wantEntries || b.Later < least || b.Later > most || res.Tasks[i+1].TID != b.TID {
			t.Errorf("%+v; want %d entries, %d to %d faults later, and the task %+v", b, wantEntries, least, most, res.Tasks[i+1])
		}
	}
}

func TestSchedfiles(t *testing.T) {
	if _, err := os.Stat("/proc/self/sched"); err != nil {
		t.Skip("this kernel has no /proc/PID/sched")
	}
	res, err := schedfiles(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // as the system call has it: 20 less the nice value
	if err != nil {
		t.Fatal(err)
	}
	prio := int64(140 - nice)
	for role, want := range map[string]int64{"child": naps, "thread": naps / 2} {
		a := res.Data[role].(account)
		if a.Voluntary < want || a.Switches != a.Voluntary+a.Involuntary || a.Prio != prio {
			t.Errorf("%s: %+v; want %d voluntary switches or more, and priority %d", role, a, want, prio)
		}
	}
	for _, f := range res.Data["files"].([]schedFile) {
		if f.There && f.Names == nil && f.Child != res.Data["child"].(account).Switches {
			t.Errorf("%s has %d switches of the child; want %d", f.Path, f.Child, res.Data["child"].(account).Switches)
		}
	}
}

func TestParseSchedDebug(t *testing.T) {
	for name, text := range map[string]string{
		"by tree-key": `
runnable tasks:
 S            task   PID         tree-key  switches  prio     wait-time             sum-exec        sum-sleep
-------------------------------------------------------------------------------------------------------------
 I      kworker/0:0     5      1207.501123       166   120         0.000000         8.183376         0.000000 0 0 /
>R         labprobe   140      1203.000517        38   120         0.000000        12.500000         0.000000 0 0 /

`,
		"by vruntime": `
runnable tasks:
 S            task   PID       vruntime   eligible    deadline             slice          sum-exec      switches  prio         wait-time        sum-sleep       sum-block  node   group-id  group-path
-------------------------------------------------------------------------------------------------------------
 I     kworker/0:0     5     1207.501123   E    1210.501123         3.000000         8.183376       166   120         0.000000         0.000000         0.000000   0      0  /
>R  a name and 7   140     1203.000517   E    1210.501123 S       3.000000         8.183376        38   120         0.000000         0.000000         0.000000   0      0  /

cpu#1, 1000.000 MHz
  .nr_switches                   : 1234
`,
	} {
		rows := parseSchedDebug(text)
		if want := map[int]int64{5: 166, 140: 38}; !maps.Equal(rows, want) {
			t.Errorf("%s: %v; want %v", name, rows, want)
		}
	}
}

func FuzzSchedFiles(f *testing.F) {
	f.Add("nr_switches : 3\nse.sum_exec_runtime : 1.000002\n", 3)
	f.Add(" S task PID tree-key switches\n S labprobe 3 1.5 7\n", 3)
	f.Add("key shmid perms\n0 3 1600\n", 3)
	f.Fuzz(func(t *testing.T, text string, id int) {
		if row, ok := parseShm(text, id); ok && row == nil {
			t.Error("a row, and none")
		}
		parseSchedDebug(text)
		if a, err := parseSched(text); err == nil && a.Text != text {
			t.Error("another text")
		}
	})
}

func TestBadParameters(t *testing.T) {
	for name, bad := range map[string]struct {
		run    runner
		params []string
	}{
		"cow":     {cow, []string{`{"x":1}`, `{"pages":0}`, `{"pages":65}`, `{"index":34}`, `{"index":-1}`}},
		"shm":     {shm, []string{`{"x":1}`}},
		"areas":   {areas, []string{`{"x":1}`}},
		"numa":    {numa, []string{`{"x":1}`}},
		"levels":  {levels, []string{`{"x":1}`}},
		"huge":    {huge, []string{`{"x":1}`}},
		"filemap": {filemap, []string{`{"x":1}`}},
		"futex":   {futex, []string{`{"x":1}`}},
		"faults":  {faultKinds, []string{`{"x":1}`}},
		"segv":    {segv, []string{`{"x":1}`}},
		"tls":     {tls, []string{`{"x":1}`}},
		"entries": {entries, []string{`{"x":1}`}},
		"pss":     {pss, []string{`{"x":1}`}},
		"demand":  {demand, []string{`{"pages":15}`, `{"pages":65537}`}},
		"rss":     {rss, []string{`{"pages":1}`, `{"pages":65537}`}},
	} {
		for _, params := range bad.params {
			if res, err := bad.run(t.Context(), json.RawMessage(params)); err == nil {
				t.Errorf("%s %s gave %+v; want an error", name, params, res)
			}
		}
	}
}
