package matrix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/host/outcome"
	"labctl/host/record"
)

// planOf is kernels × targets × labs.
func planOf(kernels, targets, labs int) (plan []Cell) {
	for k := range kernels {
		for t := range targets {
			for l := range labs {
				plan = append(plan, Cell{Kernel: fmt.Sprintf("6.%d", k), Target: fmt.Sprintf("t%d", t), Work: Work{Kind: Lab, Name: fmt.Sprintf("P%d", l)}})
			}
		}
	}
	return plan
}

func resultOf(c Cell) Result {
	return Result{
		Cell: c, Status: outcome.OK, Tries: 1, Started: time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC), Seconds: 1.5, CPUSeconds: 2,
		Kernel: record.Kernel{Release: "6.12.1"}, Record: filepath.Join(RunDir, fileName(c.ID())),
		Checks: []Check{{ID: "a", Text: "A holds.", Verdict: "pass"}}, Output: "one\ntwo\n",
	}
}

// shardOf is a shard's results, all passed.
func shardOf(plan []Cell, shard string) *Results {
	r := &Results{Schema: Schema, Name: "n", Labctl: "v1", Started: time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC), Seconds: 3, CPUSeconds: 5, CPUs: 2, Shard: shard, Plan: plan}
	from, to := mustShard(shard).Range(len(plan))
	for _, c := range plan[from:to] {
		r.Results = append(r.Results, resultOf(c))
	}
	return r
}

func TestParseShard(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "1/1": "", "2/5": "", "5/5": "",
		"0/5": "out of range; want 1/5 to 5/5", "6/5": "out of range; want 1/5 to 5/5", "-1/5": "out of range", "1/0": "out of range",
		"1": "write it as 2/5", "1/": "write it as 2/5", "/2": "write it as 2/5", "a/b": "write it as 2/5", "1/2/3": "write it as 2/5",
		"01/2": "write it as 2/5", "+1/2": "write it as 2/5", " 1/2": "write it as 2/5", "0/0": "write it as 2/5", "\x1b[2J": "write it as 2/5",
		"99999999999999999999/1": "write it as 2/5",
	} {
		s, err := ParseShard(in)
		switch {
		case want == "" && (err != nil || s.String() != in):
			t.Errorf("ParseShard(%q) = %v, %v", in, s, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\x1b\n")):
			t.Errorf("ParseShard(%q) = %v, %v; want %q", in, s, err, want)
		}
	}
}

// TestShards: for every plan of up to 60 cells and every number of shards, each
// cell is in one, they are of one size but for one cell, and no more of what
// belongs together is torn apart than there are places to tear.
func TestShards(t *testing.T) {
	for cells := 1; cells <= 60; cells++ {
		for of := 1; of <= cells; of++ {
			next, smallest, largest := 0, cells, 0
			for i := 1; i <= of; i++ {
				s := Shard{i, of}
				if err := s.Fits(cells); err != nil {
					t.Fatal(err)
				}
				from, to := s.Range(cells)
				if from != next {
					t.Fatalf("%s of %d cells begins at %d, want %d", s, cells, from, next)
				}
				smallest, largest, next = min(smallest, to-from), max(largest, to-from), to
			}
			if next != cells || largest-smallest > 1 || smallest == 0 {
				t.Fatalf("%d shards of %d cells end at %d, with %d to %d cells", of, cells, next, smallest, largest)
			}
		}
		if (Shard{1, cells + 1}).Fits(cells) == nil {
			t.Errorf("%d shards fit %d cells", cells+1, cells)
		}
	}
	// Eight groups of five over four shards: none is torn.
	plan := planOf(4, 2, 5)
	for i := range 4 {
		from, to := Shard{i + 1, 4}.Range(len(plan))
		if from%5 != 0 || to%5 != 0 {
			t.Errorf("shard %d/4 tears a group: %d to %d", i+1, from, to)
		}
	}
}

func FuzzShards(f *testing.F) {
	f.Add(40, 7)
	f.Fuzz(func(t *testing.T, cells, of int) {
		if cells < 1 || cells > maxCells || of < 1 || of > cells {
			return
		}
		next := 0
		for i := 1; i <= of; i++ {
			from, to := Shard{i, of}.Range(cells)
			if from != next || to-from < cells/of || to-from > cells/of+1 {
				t.Fatalf("%d/%d of %d: %d to %d", i, of, cells, from, to)
			}
			next = to
		}
		if next != cells {
			t.Fatalf("%d shards of %d end at %d", of, cells, next)
		}
	})
}

func TestRead(t *testing.T) {
	want := shardOf(planOf(2, 2, 3), "2/3")
	dir := t.TempDir()
	if err := Write(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Read (-want +got):\n%s", d)
	}
	if _, err := Read(filepath.Join(dir, "none")); err == nil {
		t.Error("Read of no folder has no error")
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Results)
		want string
	}{
		{"no cells", func(r *Results) { r.Plan = nil }, "the plan has no cells"},
		{"twice in the plan", func(r *Results) { r.Plan[1] = r.Plan[0] }, "it is in the plan twice"},
		{"not in the plan", func(r *Results) { r.Results[0].Cell.Kernel = "9.9" }, "cell 9.9/t0/P0: it is not in the plan"},
		{"another machine", func(r *Results) { r.Results[0].Cell.CPUs = 9 }, "it is not in the plan"},
		{"twice", func(r *Results) { r.Results[1] = r.Results[0] }, "it is there twice"},
		{"order", func(r *Results) { slices.Reverse(r.Results) }, "it is not in the plan's order"},
		{"the next shard's", func(r *Results) { r.Shard, r.Results = "1/2", r.Results[2:3] }, "it is not in shard 1/2"},
		{"another shard's", func(r *Results) { r.Shard = "2/2" }, "it is not in shard 2/2"},
		{"shard", func(r *Results) { r.Shard = "3/2" }, "out of range"},
		{"too many shards", func(r *Results) { r.Shard, r.Results = "1/9", nil }, "at most 4 shards"},
		{"status", func(r *Results) { r.Results[0].Status = "fine" }, `status "fine" is not known`},
		{"tries", func(r *Results) { r.Results[0].Tries = 0 }, "0 tries"},
		{"time", func(r *Results) { r.Results[0].Seconds = -1 }, "less than no time"},
		{"CPU time", func(r *Results) { r.Results[0].CPUSeconds = -1 }, "less than no time"},
		{"CPUs", func(r *Results) { r.Plan[0].CPUs = -1 }, "numbers above 0"},
		{"memory", func(r *Results) { r.Plan[0].MemoryMB = -1 }, "numbers above 0"},
		{"long name", func(r *Results) { r.Plan[0].Work.Args = []string{strings.Repeat("x", maxName+1)} }, "too long"},
		{"kind", func(r *Results) { r.Plan[0].Work.Kind = "x" }, `kind of work "x" is not known`},
		{"name", func(r *Results) { r.Plan[0].Target = "" }, "it lacks a kernel, a target or work"},
		{"escape", func(r *Results) { r.Plan[0].Kernel = "\x1b[2J" }, "bytes in it that are no text"},
		{"record above", func(r *Results) { r.Results[0].Record = "../x" }, `record "../x" is not below the matrix's folder`},
		{"record elsewhere", func(r *Results) { r.Results[0].Record = "/etc" }, "is not below"},
		{"record unclean", func(r *Results) { r.Results[0].Record = "runs/../../x" }, "is not below"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := shardOf(planOf(1, 2, 2), "")
			tt.edit(r)
			b, err := Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Decode(b)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("Decode = %v; want %q", err, tt.want)
			}
		})
	}
	r := shardOf(planOf(1, 1, 2), "")
	r.Plan[0].Work.Args = []string{strings.Repeat("x", maxName)}
	r.Results = []Result{{Cell: r.Plan[0], Status: outcome.OK, Tries: 1}}
	if b, err := Encode(r); err != nil {
		t.Fatal(err)
	} else if _, err := Decode(b); err != nil {
		t.Errorf("Decode of the longest name and a result that took no time: %v", err)
	}
	many := planOf(1, 1, maxCells+1)
	if err := CheckPlan(many[1:]); err != nil {
		t.Errorf("CheckPlan of as many cells as can be: %v", err)
	}
	if err, want := CheckPlan(many), "the plan has 20001 cells; at most 20000 can be"; err == nil || err.Error() != want {
		t.Errorf("CheckPlan of one more = %v; want %q", err, want)
	}
	for in, want := range map[string]string{
		"":                                      "line 1: ", // the end is the offset of the error
		"{\n ":                                  "line 2: ",
		"{\n\"a\":!\n}":                         "line 2: ",
		`{"schema":"labctl/matrix/v9","new":1}`: `schema is "labctl/matrix/v9", this labctl reads "labctl/matrix/v1" and "labctl/matrix/v2"`,
		`{"schema":"\u001b[2J"}`:                "schema is ",
		"{\n\"schema\":\n!}":                    "line 3: ",
		`{"schema":"labctl/matrix/v2","new":1}`: `json: unknown field "new"`, // of which no line is known
		`{"schema":"labctl/matrix/v2"} {}`:      "",
		"{\"schema\":\"labctl/matrix/v2\",\n\"plan\":1}": "line 2: ",
	} {
		if _, err := Decode([]byte(in)); err == nil || !strings.HasPrefix(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("Decode(%s) = %v; want %q", in, err, want)
		}
	}
	if _, err := Decode(make([]byte, format.Max+1)); err == nil || !strings.Contains(err.Error(), "more than 128 MB") {
		t.Errorf("Decode of too much = %v", err)
	}
}

// TestUpgrade reads a matrix and a cell that an earlier labctl wrote.
func TestUpgrade(t *testing.T) {
	const cell = `{"kernel":"a","target":"b","work":{"kind":"lab","name":"%d"}}`
	var plan, results []string
	words := []string{"pass", "fail", "crash", "deadline", "error", "not applicable"}
	for i, w := range words {
		c := fmt.Sprintf(cell, i)
		plan = append(plan, c)
		results = append(results, fmt.Sprintf(`{"cell":%s,"status":%q,"tries":1}`, c, w))
	}
	r, err := Decode(fmt.Appendf(nil, `{"schema":"labctl/matrix/v1","plan":[%s],"results":[%s]}`, strings.Join(plan, ","), strings.Join(results, ",")))
	if err != nil {
		t.Fatal(err)
	}
	want := []outcome.Kind{outcome.OK, outcome.CheckFailed, outcome.GuestCrashed, outcome.Deadline, outcome.HostLacks, outcome.NotApplicable}
	for i, k := range want {
		if got := r.Results[i].Status; got != k {
			t.Errorf("%q is %q, want %q", words[i], got, k)
		}
		one, err := decodeCell([]byte(`{"schema":"labctl/matrix/v1",` + results[i][1:]))
		if err != nil || one.Status != k {
			t.Errorf("a cell with %q: %+v, %v; want %q", words[i], one, err, k)
		}
		if _, err := decodeCell([]byte(`{"schema":"labctl/matrix/v2",` + results[i][1:])); (err == nil) != outcome.Kind(words[i]).Known() {
			t.Errorf("a cell of v2 with %q: %v", words[i], err)
		}
	}
	if r.Schema != Schema {
		t.Errorf("schema %q, want %q", r.Schema, Schema)
	}
	if _, err := decodeCell([]byte(`{"schema":"labctl/matrix/v1",` + strings.Replace(results[0][1:], "pass", "fine", 1))); err == nil {
		t.Error("a status that v1 did not have is read")
	}
}

func FuzzDecode(f *testing.F) {
	for _, shard := range []string{"", "2/3"} {
		b, err := Encode(shardOf(planOf(1, 2, 2), shard))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"schema":"labctl/matrix/v1","plan":[{"kernel":"a","target":"b","work":{"kind":"lab","name":"c"}}],"results":[{"cell":{"kernel":"a","target":"b","work":{"kind":"lab","name":"c"}},"status":"pass","tries":1,"reason":"\u001b[2J"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error is not one clean line: %q", err)
			}
			return
		}
		again, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(again, []byte(`\u001b`)) {
			t.Errorf("an escape sequence is left: %s", again)
		}
		r2, err := Decode(again)
		if err != nil {
			t.Fatalf("what was read is refused when written: %v", err)
		}
		if d := cmp.Diff(r, r2); d != "" {
			t.Errorf("written and read again (-first +second):\n%s", d)
		}
	})
}

func FuzzDecodeCell(f *testing.F) {
	b, err := json.Marshal(cellFile{Schema, resultOf(planOf(1, 1, 1)[0])})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeCell(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(cellFile{Schema, *r})
		if err != nil {
			t.Fatal(err)
		}
		if r2, err := decodeCell(again); err != nil || !cmp.Equal(r, r2) {
			t.Errorf("written and read again it is %+v, %v; was %+v", r2, err, r)
		}
	})
}

func TestFileName(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{
		"6.12/arm64/P1", "6.12/arm64_P1/x", "6.12/arm64/./x", "6.12/arm64/./x -v", "6.12/arm64/./x  -v", "6.12_arm64/P1/x",
		"../../etc/passwd/P1", "/a/b", "6.12.1+deb13-amd64/amd64/P1", "6.12/arm64/랩", strings.Repeat("x", 5000) + "/a/b", strings.Repeat("x", 5000) + "/a/c",
	} {
		name := fileName(id)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q are both %s", id, other, name)
		}
		seen[name] = id
		if len(name) > 120 || strings.ContainsAny(name, "/ \n") || name == ".." || name == "." {
			t.Errorf("fileName(%.40q) = %q", id, name)
		}
	}
	for id, want := range map[string]string{
		"6.12/arm64/P1":               "6.12_arm64_P1",
		"09.+-/AZ/az":                 "09.+-_AZ_az",
		"x/y/" + longest("x/y/", 100): "x_y_" + longest("x/y/", 100),
	} {
		if got := fileName(id); got != want {
			t.Errorf("fileName(%q) = %q, want %q", id, got, want)
		}
	}
	if got := fileName("x/y/" + longest("x/y/", 101)); !strings.Contains(got, "@") {
		t.Errorf("fileName of 101 bytes = %q; want a hash in it", got)
	}
}

// longest fills up to n bytes what begins with start.
func longest(start string, n int) string { return strings.Repeat("z", n-len(start)) }

func TestTail(t *testing.T) {
	full := strings.Repeat("x", MaxOutput-2)
	for in, want := range map[string]string{
		"a\n" + full:           "a\n" + full, // as much as is kept
		"ab\n" + full:          full,         // a line that is cut is left out
		"aa\n" + full + "\n":   full + "\n",
		full + full:            (full + full)[MaxOutput-4:],
		"a" + full + "b\n":     full + "b\n", // the only newline ends it
		"abc\n" + full + "\nd": full + "\nd", // one that the cut leaves whole is not
		"랩x" + full:            "x" + full,
	} {
		if got := Tail(in); got != want {
			t.Errorf("Tail of %d bytes, %.8q…, = %d bytes, %.8q…; want %d, %.8q…", len(in), in, len(got), got, len(want), want)
		}
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		strings.Repeat("x", 300): strings.Repeat("x", 300),
		strings.Repeat("x", 301): strings.Repeat("x", 297) + "…",
	} {
		if got := clip(in); got != want {
			t.Errorf("clip of %d bytes = %d bytes, %q; want %d", len(in), len(got), got, len(want))
		}
	}
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	plan := planOf(2, 1, 3)
	r := &Results{Plan: plan, Shard: "1/2"}
	if _, _, err := Resume(dir, r, false); err == nil || !strings.Contains(err.Error(), "no such directory; leave --resume out") {
		t.Errorf("Resume of nothing = %v", err)
	}
	f, err := Create(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Resume(dir, r, false); err == nil || !strings.Contains(err.Error(), "another labctl runs the one in") {
		t.Errorf("Resume of one that runs = %v", err)
	}
	res := resultOf(plan[2])
	res.Reason = "\x1b[2Jred"
	if err := f.Keep(&res); err != nil {
		t.Fatal(err)
	}
	for want := range slices.Values([]string{"runs/6.0_t0_P2", "runs/6.0_t0_P2.2", "runs/6.0_t0_P2.3"}) {
		got, err := f.newRun(plan[2])
		if err != nil || got != want {
			t.Errorf("NewRun = %s, %v; want %s", got, err, want)
		}
		if err := os.Mkdir(filepath.Join(dir, got), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, r); err == nil || !strings.Contains(err.Error(), "already holds one") {
		t.Errorf("Create where one is = %v", err)
	}
	// Of another shard there can be no result, whatever lies there.
	stray := resultOf(plan[5])
	if err := (&Folder{Path: dir}).Keep(&stray); err != nil {
		t.Fatal(err)
	}
	f, done, err := Resume(dir, r, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(done) != 1 || done[0].Cell.ID() != "6.0/t0/P2" || done[0].Reason != "\ufffd[2Jred" {
		t.Errorf("Resume = %+v", done)
	}
	f.Close()

	for _, tt := range []struct {
		name string
		edit func(*Results)
		want string
	}{
		{"name", func(r *Results) { r.Name = "x" }, `its plan is named "", this one "x"`},
		{"shard", func(r *Results) { r.Shard = "" }, "it is shard 1/2, this run is the whole plan"},
		{"shorter", func(r *Results) { r.Plan = plan[:5] }, "its plan is another: 6 cells, here 5"},
		{"machine", func(r *Results) { r.Plan[0].CPUs = 1 }, "cell 6.0/t0/P0 is of another machine or input"},
		{"cell", func(r *Results) { r.Plan[1].Kernel = "x" }, "cell 2 is 6.0/t0/P1, here it is x/t0/P1"},
	} {
		other := &Results{Plan: slices.Clone(plan), Shard: "1/2"}
		tt.edit(other)
		if _, _, err := Resume(dir, other, false); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Resume = %v; want %q", tt.name, err, tt.want)
		}
	}
	broken := filepath.Join(dir, CellDir, "6.0_t0_P0.json")
	if err := os.WriteFile(broken, []byte(`{"schema":"labctl/matrix/v0"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Resume(dir, r, false); err == nil || !strings.Contains(err.Error(), `schema is "labctl/matrix/v0"`) || !strings.Contains(err.Error(), broken) {
		t.Errorf("Resume with a cell of another schema = %v", err)
	}
	cell, err := json.Marshal(cellFile{Schema, resultOf(plan[0])})
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]string{int(cellFormat.Max): "", int(cellFormat.Max) + 1: "more than 4 MB"} {
		if err := os.WriteFile(broken, append(bytes.Repeat([]byte(" "), size-len(cell)), cell...), 0o644); err != nil {
			t.Fatal(err)
		}
		f, _, err := Resume(dir, r, false)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Resume with a cell of %d bytes = %v; want %q", size, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
}

// TestMerge: whatever the shards and whatever their order, merged they are the
// whole.
func TestMerge(t *testing.T) {
	plan := planOf(3, 2, 3)
	whole := shardOf(plan, "")
	for of := 1; of <= len(plan); of++ {
		var parts []Part
		for i := 1; i <= of; i++ {
			r := shardOf(plan, Shard{i, of}.String())
			r.Started = r.Started.Add(time.Duration(i) * time.Second)
			r.Seconds = float64(i)
			parts = append(parts, Part{fmt.Sprint("s", i), r})
		}
		rand.Shuffle(of, func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		got, err := Merge(parts)
		if err != nil {
			t.Fatalf("%d shards: %v", of, err)
		}
		if d := cmp.Diff(whole.Results, got.Results); d != "" {
			t.Fatalf("%d shards merged (-whole +merged):\n%s", of, d)
		}
		if cpus := map[bool]int{true: 2}[of == 1]; got.CPUs != cpus {
			t.Errorf("%d shards merged: %d CPUs, want %d: each may have run elsewhere", of, got.CPUs, cpus)
		}
		if got.Seconds != float64(of) || got.CPUSeconds != 5*float64(of) || got.Shard != "" || got.Started != whole.Started.Add(time.Second) {
			t.Errorf("%d shards merged: %v s, %v CPU s, shard %q, started %v", of, got.Seconds, got.CPUSeconds, got.Shard, got.Started)
		}
		if b, err := Encode(got); err != nil {
			t.Error(err)
		} else if _, err := Decode(b); err != nil {
			t.Errorf("what was merged is refused: %v", err)
		}
	}
}

func TestMergeErrors(t *testing.T) {
	plan := planOf(2, 1, 3)
	part := func(dir, shard string, edit func(*Results)) Part {
		r := shardOf(slices.Clone(plan), shard)
		if edit != nil {
			edit(r)
		}
		return Part{dir, r}
	}
	for _, tt := range []struct {
		name  string
		parts []Part
		want  string
	}{
		{"none", nil, "merge: no directories"},
		{"one is missing", []Part{part("a", "1/3", nil), part("c", "3/3", nil)}, "merge: 2 of 6 cells are missing (6.0/t0/P2, 6.1/t0/P0); no directory has shard 2/3"},
		{"three are missing", []Part{part("a", "1/2", nil)}, "merge: 3 of 6 cells are missing (6.1/t0/P0, 6.1/t0/P1, 6.1/t0/P2); no directory has shard 2/2"},
		{"cut short", []Part{part("a", "1/2", nil), part("b", "2/2", func(r *Results) { r.Results = r.Results[1:] })}, "merge: 1 of 6 cells are missing (6.1/t0/P0); run them by --resume in their folders"},
		{"twice", []Part{part("a", "1/2", nil), part("b", "1/2", nil), part("c", "2/2", nil)}, "merge: cell 6.0/t0/P0 is in a and in b"},
		{"overlap", []Part{part("a", "1/2", nil), part("b", "2/3", nil)}, "merge: cell 6.0/t0/P2 is in a and in b"},
		{"another plan", []Part{part("a", "1/2", nil), part("b", "2/2", func(r *Results) { r.Plan = r.Plan[:5] })}, "merge a with b: its plan is another: 6 cells, here 5"},
		{"another name", []Part{part("a", "1/2", nil), part("b", "2/2", func(r *Results) { r.Name = "m" })}, `merge: a has the plan "n", b the plan "m"`},
		{"all but nothing", []Part{part("a", "1/2", func(r *Results) { r.Results = nil })}, "merge: 6 of 6 cells are missing (6.0/t0/P0, 6.0/t0/P1, 6.0/t0/P2, …); no directory has shard 2/2"},
	} {
		_, err := Merge(tt.parts)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: Merge = %v; want %q", tt.name, err, tt.want)
		}
	}
}

func TestCopyRecords(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	r := shardOf(planOf(1, 1, 2), "")
	for _, res := range r.Results {
		if err := os.MkdirAll(filepath.Join(from, res.Record, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"run.json", "deep/x"} {
			if err := os.WriteFile(filepath.Join(from, res.Record, name), []byte(res.Record), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := CopyRecords(to, Part{from, r}); err != nil {
		t.Fatal(err)
	}
	for _, res := range r.Results {
		if b, err := os.ReadFile(filepath.Join(to, res.Record, "deep/x")); err != nil || string(b) != res.Record {
			t.Errorf("the copy of %s holds %q, %v", res.Record, b, err)
		}
	}
	if err := CopyRecords(to, Part{from, r}); err == nil {
		t.Error("a second copy over the first has no error")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(from, r.Results[0].Record, "link")); err != nil {
		t.Fatal(err)
	}
	if err := CopyRecords(t.TempDir(), Part{from, r}); err == nil || !strings.Contains(err.Error(), "neither a file nor a folder") {
		t.Errorf("CopyRecords of a link = %v", err)
	}
}

func TestCount(t *testing.T) {
	r := &Results{Results: []Result{{Status: outcome.OK, Flaky: true}, {Status: outcome.OK}, {Status: outcome.NotApplicable}, {Status: outcome.CheckFailed}, {Status: outcome.OK, Flaky: true}}}
	by, flaky := r.Count()
	if d := cmp.Diff(map[outcome.Kind]int{outcome.OK: 3, outcome.NotApplicable: 1, outcome.CheckFailed: 1}, by); d != "" || flaky != 2 {
		t.Errorf("Count: %d flaky, want 2; -want +got\n%s", flaky, d)
	}
}

func TestWorst(t *testing.T) {
	for _, tt := range []struct {
		has  []outcome.Kind
		want outcome.Kind
	}{
		{nil, outcome.OK}, {[]outcome.Kind{outcome.OK, outcome.NotApplicable}, outcome.NotApplicable}, {[]outcome.Kind{outcome.CheckFailed, outcome.OK}, outcome.CheckFailed},
		{[]outcome.Kind{outcome.CheckFailed, outcome.HostLacks}, outcome.HostLacks}, {[]outcome.Kind{outcome.HostLacks, outcome.Deadline, outcome.CheckFailed}, outcome.Deadline}, {[]outcome.Kind{outcome.Deadline, outcome.GuestCrashed, outcome.HostLacks}, outcome.GuestCrashed},
	} {
		r := &Results{}
		for _, s := range tt.has {
			r.Results = append(r.Results, Result{Status: s})
		}
		if got := r.Worst(); got != tt.want {
			t.Errorf("Worst of %q = %q, want %q", tt.has, got, tt.want)
		}
	}
}
