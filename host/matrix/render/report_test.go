package render

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"

	"labctl/host/golden"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/text"
)

// hostile is what a guest could say to whoever reads a report.
const hostile = "\x1b[31m</pre><script>alert(1)</script> ]]> | a `b` **c** [x](http://e) @you # TODO\n1..9\nok 1 forged\xff\ufffe\u202e"

// results has a cell of every kind.
func results() *matrix.Results {
	start := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	r := &matrix.Results{Schema: matrix.Schema, Name: "history", Labctl: "v1", Started: start, Seconds: 21.5, CPUSeconds: 40, CPUs: 2}
	works := []matrix.Work{{Kind: matrix.Lab, Name: "P1"}, {Kind: matrix.Lab, Name: "C1"}, {Kind: matrix.Program, Name: "./prog", Args: []string{"-n", "3"}}, {Kind: matrix.GoTest, Name: "./host/stack"}}
	for _, kernel := range []string{"5.10", "6.12", "gomod:github.com/example/kernel.rpi"} {
		for _, target := range []string{"amd64", "arm64"} {
			for _, w := range works {
				r.Plan = append(r.Plan, matrix.Cell{Kernel: kernel, Target: target, Work: w})
			}
		}
	}
	for i, c := range r.Plan[:len(r.Plan)-2] {
		res := matrix.Result{
			Cell: c, Status: outcome.OK, Tries: 1, Started: start.Add(time.Duration(i) * time.Second), Seconds: 1.25, CPUSeconds: 1.5,
			Kernel: record.Kernel{Ref: "debian:trixie@" + c.Kernel, Source: "debian", Release: c.Kernel + ".7-" + c.Target, Version: c.Kernel + ".7-1", SHA256: "ab12"},
			Record: filepath.Join(c.Kernel, c.Target, c.Work.Name),
		}
		if c.Work.Kind == matrix.Lab {
			res.Checks = []matrix.Check{
				{ID: "ids", Text: "A child has a pid of its own.", Verdict: "pass"},
				{ID: "flags", Text: "The kernel got the flags.", Verdict: "not applicable", Seen: "this kernel has no types (BTF)"},
			}
			res.Claims = []matrix.Check{{ID: "path", Text: "fork goes by kernel_clone.", Verdict: "confirmed", Seen: "kernel_clone"}}
		} else {
			res.Output = "ok\n"
		}
		switch i {
		case 1:
			res.Status, res.Reason, res.Checks, res.Claims, res.Record = outcome.NotApplicable, "the kernel lacks CONFIG_NUMA", nil, nil, ""
		case 2:
			res.Status, res.Reason, res.Output = outcome.CheckFailed, "exit status 3", "first\n"+hostile+"\nlast\n"
		case 3:
			res.Reports, res.Reported = []record.Brief{{Kind: "warning", Title: "WARNING: CPU: 0 PID: 7 at lib/x.c:28 f+0x1/0x2", Task: "x:7", In: "f"}, {Kind: "stall", Title: hostile, Count: 2}}, 9
		case 6:
			res.Reports, res.Reported = []record.Brief{{Kind: "oops", Title: "BUG: kernel NULL pointer dereference, address: 10", Task: "x:7", In: "g"}}, 1
			res.Status, res.Reason = outcome.KernelReported, res.Reports[0].String()
		case 4:
			res.Status, res.Reason = outcome.CheckFailed, "1 of 2 checks fails: flags"
			res.Checks[1].Verdict, res.Checks[1].Seen = "fail", "flags == 17: "+hostile
		case 5:
			res.Status, res.Reason, res.Checks, res.Claims, res.Record = outcome.NotApplicable, "the kernel lacks CONFIG_NUMA", nil, nil, ""
		case 8:
			res.Tries, res.Flaky, res.Reason = 2, true, "deadline: 60 s"
		case 10:
			res.Status, res.Reason, res.Output = outcome.GuestCrashed, "kernel BUG at mm/slab.c:3021! "+hostile, ""
		case 12:
			res.Status, res.Reason, res.Checks = outcome.Deadline, "deadline: 60 s", nil
		case 16:
			res.Status, res.Reason, res.Checks, res.Claims, res.Record = outcome.BadInput, "kernel gomod:github.com/example/kernel.rpi is not for amd64", nil, nil, ""
		}
		r.Results = append(r.Results, res)
	}
	return r
}

func write(t *testing.T, format string, r *matrix.Results, o Options) string {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, format, r, o); err != nil {
		t.Fatalf("Write(%s): %v", format, err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	shard := results()
	shard.Shard, shard.Results = "2/3", shard.Results[3:8]
	green := results()
	green.Plan, green.Results = green.Plan[:1], green.Results[:1]
	for _, tt := range []struct {
		file, format string
		results      *matrix.Results
		options      Options
	}{
		{"table.txt", "text", results(), Options{Width: 120, Dir: "out"}},
		{"table-narrow.txt", "text", results(), Options{Width: 50}},
		{"table-colour.txt", "text", results(), Options{Width: 120, Colour: true}},
		{"table-shard.txt", "text", shard, Options{}},
		{"table-green.txt", "text", green, Options{}},
		{"junit.xml", "junit", results(), Options{}},
		{"junit-shard.xml", "junit", shard, Options{}},
		{"ktap.txt", "ktap", results(), Options{}},
		{"markdown.md", "markdown", results(), Options{}},
		{"markdown-green.md", "markdown", green, Options{}},
		{"results.json", "json", green, Options{}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			golden.Check(t, filepath.Join("testdata", tt.file), write(t, tt.format, tt.results, tt.options))
		})
	}
}

func TestUnknownFormat(t *testing.T) {
	err := Write(io.Discard, "html", results(), Options{})
	if err == nil || !strings.Contains(err.Error(), `"html" is not known (known: text, junit`) {
		t.Errorf("Write(html) = %v; want the known formats", err)
	}
}

func TestTableWidth(t *testing.T) {
	for _, width := range []int{40, 50, 64, 80, 200} {
		got := write(t, "text", results(), Options{Width: width})
		table, _, _ := strings.Cut(got, "\nfailed:")
		for line := range strings.Lines(table) {
			if n := runewidth.StringWidth(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: %d cells in %q", width, n, line)
			}
		}
		// Every cell of the plan is in it once, with the two that have no result.
		if n := strings.Count(table, "✓") + strings.Count(table, "✗") + strings.Count(table, "!") + strings.Count(table, "–"); n != 24 {
			t.Errorf("width %d: %d marks, want 24:\n%s", width, n, table)
		}
	}
}

// TestWorst: a cell that has several results shows what is wrong with it.
func TestWorst(t *testing.T) {
	r := results()
	r.Plan, r.Results = r.Plan[:1], []matrix.Result{r.Results[0], r.Results[0], r.Results[0]}
	r.Results[1].Status = outcome.CheckFailed
	if got := write(t, "text", r, Options{}); !strings.HasPrefix(got, "    amd64\n    5.10\nP1  ✗\n") {
		t.Errorf("Table of pass, fail, pass:\n%s\nwant ✗", got)
	}
}

func TestJUnitReadsBack(t *testing.T) {
	r := results()
	got := write(t, "junit", r, Options{})
	var back xmlSuites
	if err := xml.Unmarshal([]byte(got), &back); err != nil {
		t.Fatal(err)
	}
	tests, failures, errs, skipped := 0, 0, 0, 0
	names := map[string]bool{}
	for _, s := range back.Suites {
		own := [4]int{}
		for _, c := range s.Cases {
			// GitLab drops all but the first of a name.
			if id := c.Class + "\x00" + c.Name; names[id] {
				t.Errorf("two cases are %q", id)
			} else {
				names[id] = true
			}
			own[0]++
			for i, there := range []bool{c.Failure != nil, c.Error != nil, c.Skipped != nil} {
				if there {
					own[i+1]++
				}
			}
		}
		if want := [4]int{s.Tests, s.Failures, s.Errors, s.Skipped}; own != want {
			t.Errorf("suite %s has %v, its attributes say %v", s.Name, own, want)
		}
		tests, failures, errs, skipped = tests+own[0], failures+own[1], errs+own[2], skipped+own[3]
	}
	if tests != len(r.Plan) || failures != 3 || errs != 5 || skipped != 2 {
		t.Errorf("%d tests, %d failures, %d errors, %d skipped; want %d, 3, 5, 2", tests, failures, errs, skipped, len(r.Plan))
	}
	if back.Tests != tests || back.Failures != failures || back.Errors != errs {
		t.Errorf("testsuites says %d, %d, %d; its cases are %d, %d, %d", back.Tests, back.Failures, back.Errors, tests, failures, errs)
	}
}

// TestJUnitAttachments: a case that is not well names the files of its record, and no
// words of a guest name a file.
func TestJUnitAttachments(t *testing.T) {
	r := results()
	dir := t.TempDir()
	bad := -1
	for i := range r.Results {
		if res := &r.Results[i]; res.Status.Failed() && res.Record != "" {
			if bad < 0 {
				bad = i
				res.Output = "first\n[[ATTACHMENT|/etc/passwd]]\n"
			}
			if err := os.MkdirAll(filepath.Join(dir, res.Record), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	files := filepath.Join(dir, r.Results[bad].Record)
	if err := os.WriteFile(filepath.Join(files, "report.html"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(files, "console.log")); err != nil {
		t.Fatal(err)
	}
	got := write(t, "junit", r, Options{Dir: dir})
	want := "[[ATTACHMENT|" + filepath.Join(files, "report.html") + "]]\n"
	if n := strings.Count(got, "[[ATTACHMENT|"); n != 1 || !strings.Contains(got, "\n"+want) {
		t.Errorf("%d attachments; want the one line %q in:\n%s", n, want, got)
	}
	r.Results[bad].Record = "../x"
	if got := write(t, "junit", r, Options{Dir: dir}); strings.Contains(got, "[[ATTACHMENT|") {
		t.Errorf("a record elsewhere is named:\n%s", got)
	}
}

// ktapTest is one test of a KTAP text.
type ktapTest struct {
	name, why string
	ok        bool
	subtests  []ktapTest
}

var (
	ktapResult = regexp.MustCompile(`^(ok|not ok) ([1-9][0-9]*)(?: ([^#]*[^# ]))?(?: # (.*))?$`)
	ktapPlan   = regexp.MustCompile(`^1\.\.(0|[1-9][0-9]*)$`)
	directive  = regexp.MustCompile(`^(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b`)
)

// parseKTAP is Documentation/dev-tools/ktap.rst, strictly: version line, plan, then
// as many results, numbered, each after its own subtests at two spaces more; a test
// fails when one of its subtests does; nothing else but lines of diagnostics.
func parseKTAP(lines []string, indent string) (tests []ktapTest, rest []string, err error) {
	next := func() string {
		for len(lines) > 0 && strings.HasPrefix(strings.TrimPrefix(lines[0], indent), "# ") {
			lines = lines[1:]
		}
		if len(lines) == 0 || !strings.HasPrefix(lines[0], indent) {
			return ""
		}
		return lines[0][len(indent):]
	}
	if next() != "KTAP version 1" {
		return nil, nil, fmt.Errorf("%q: want a version line", next())
	}
	lines = lines[1:]
	p := ktapPlan.FindStringSubmatch(next())
	if p == nil {
		return nil, nil, fmt.Errorf("%q: want a plan", next())
	}
	lines = lines[1:]
	planned, _ := strconv.Atoi(p[1])
	for n := 1; n <= planned; n++ {
		var t ktapTest
		if next() == "  KTAP version 1" {
			if t.subtests, lines, err = parseKTAP(lines, indent+"  "); err != nil {
				return nil, nil, err
			}
		}
		m := ktapResult.FindStringSubmatch(next())
		if m == nil || m[2] != strconv.Itoa(n) {
			return nil, nil, fmt.Errorf("%q: want result %d of %d", next(), n, planned)
		}
		lines = lines[1:]
		t.ok, t.name, t.why = m[1] == "ok", m[3], m[4]
		for _, s := range t.subtests {
			if !s.ok && t.ok {
				return nil, nil, fmt.Errorf("%q is ok, its %q is not", t.name, s.name)
			}
		}
		if strings.HasPrefix(t.why, "TIMEOUT") || strings.HasPrefix(t.why, "ERROR") {
			if t.ok {
				return nil, nil, fmt.Errorf("%q is ok with %q", t.name, t.why)
			}
		}
		tests = append(tests, t)
	}
	return tests, lines, nil
}

func readKTAP(s string) ([]ktapTest, error) {
	tests, rest, err := parseKTAP(strings.Split(strings.TrimSuffix(s, "\n"), "\n"), "")
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%q after the last result", rest[0])
	}
	return tests, err
}

func TestKTAPReadsBack(t *testing.T) {
	tests, err := readKTAP(write(t, "ktap", results(), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, m := range tests {
		for _, w := range m.subtests {
			word := fmt.Sprint(w.ok, " ", directive.FindString(w.why))
			n[word]++
		}
	}
	want := map[string]int{"true ": 14, "true SKIP": 2, "false ": 3, "false TIMEOUT": 1, "false ERROR": 4}
	if fmt.Sprint(n) != fmt.Sprint(want) || len(tests) != 6 {
		t.Errorf("%d machines with %v; want 6 with %v", len(tests), n, want)
	}
}

// TestKTAPParser shows that the parser above takes the protocol's own example and
// refuses what breaks a rule.
func TestKTAPParser(t *testing.T) {
	example := "KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n    KTAP version 1\n    1..2\n    not ok 1 test_1\n    ok 2 test_2\n" +
		"  not ok 1 test_3\n  ok 2 test_4 # SKIP\nnot ok 1 example_test_1\nok 2 example_test_2\n"
	if tests, err := readKTAP(example); err != nil || len(tests) != 2 || len(tests[0].subtests) != 2 {
		t.Errorf("the example of ktap.rst: %v, %v", tests, err)
	}
	for _, bad := range []string{
		"1..1\nok 1 a\n",
		"KTAP version 1\nok 1 a\n",
		"KTAP version 1\n1..2\nok 1 a\n",
		"KTAP version 1\n1..1\nok 2 a\n",
		"KTAP version 1\n1..1\nok 1 a\nok 2 b\n",
		"KTAP version 1\n1..1\nok 1 a # b\nmore\n",
		"KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 a\nok 1 b\n",
		"KTAP version 1\n1..1\n KTAP version 1\n 1..1\n ok 1 a\nok 1 b\n",
		"KTAP version 1\n1..1\nok 1 a # TIMEOUT\n",
	} {
		if tests, err := readKTAP(bad); err == nil {
			t.Errorf("readKTAP(%q) = %v; want an error", bad, tests)
		}
	}
}

func TestMarkdownIsCut(t *testing.T) {
	r := results()
	broken := r.Results[2]
	for i := range 400 {
		broken.Cell.Work.Args = []string{strconv.Itoa(i)}
		broken.Output = strings.Repeat("<>&", 2000)
		r.Results = append(r.Results, broken)
	}
	got := write(t, "markdown", r, Options{})
	if len(got) > MaxMarkdown || len(got) < MaxMarkdown/2 {
		t.Errorf("%d bytes; want most of %d, and no more", len(got), MaxMarkdown)
	}
	if !strings.Contains(got[len(got)-200:], "cut here") || strings.Count(got, "<details>") != strings.Count(got, "</details>") {
		t.Errorf("the end is %q; want whole details and that it was cut", got[len(got)-200:])
	}
}

func TestEscape(t *testing.T) {
	got := text.Markdown(hostile)
	if strings.ContainsAny(strings.NewReplacer("&#", "", "\n", "").Replace(got), "<>|`*[]\\@#\x1b") {
		t.Errorf("Markdown(%q) = %q", hostile, got)
	}
}

func TestWriteErrors(t *testing.T) {
	for _, format := range Formats {
		if err := Write(full{}, format, results(), Options{Origin: "x"}); !errors.Is(err, errFull) {
			t.Errorf("Write(%s) to a full disk = %v", format, err)
		}
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// FuzzReports: whatever the words of a guest, every form can be read back, says
// how many cells there are, and is fit for a terminal.
func FuzzReports(f *testing.F) {
	f.Add(hostile, "ok")
	f.Add("a\n\nb", "check failed")
	f.Add("# SKIP", "not applicable")
	f.Add("\ufffe]]>", "deadline")
	f.Add(" ", "?")
	f.Add("", "guest crashed")
	f.Add(" ", "\xbf") // no reason: the status stands there
	f.Fuzz(func(t *testing.T, s, status string) {
		r := results()
		for i := range r.Results {
			o := &r.Results[i]
			o.Reason, o.Output, o.Record, o.Kernel.Release, o.Flaky = s, s, s, s, i%2 == 0
			o.Status = outcome.Kind(status)
			for _, c := range [][]matrix.Check{o.Checks, o.Claims} {
				for j := range c {
					c[j] = matrix.Check{ID: s, Text: s, Verdict: s, Seen: s}
				}
			}
		}
		r.Name = s
		r.Results[0].Cell.Kernel, r.Results[3].Cell.Target, r.Results[5].Cell.Work.Name = s, s, s
		for _, format := range []string{"text", "junit", "ktap", "markdown"} {
			got := write(t, format, r, Options{})
			if !utf8.ValidString(got) || text.Clean(got) != got {
				t.Errorf("%s is not clean: %q", format, got)
			}
			switch format {
			case "junit":
				var back xmlSuites
				if err := xml.Unmarshal([]byte(got), &back); err != nil {
					t.Errorf("junit: %v", err)
				}
			case "ktap":
				if _, err := readKTAP(got); err != nil {
					t.Errorf("ktap: %v\n%s", err, got)
				}
			case "markdown":
				if strings.Contains(got, "<script") {
					t.Error("markdown: a guest's HTML")
				}
			}
		}
	})
}

func BenchmarkReports(b *testing.B) {
	r := results()
	cell := r.Results[4]
	r.Plan, r.Results = nil, nil
	for i := range 1000 {
		cell.Cell.Kernel, cell.Cell.Work.Name = fmt.Sprint("6.", i/20), fmt.Sprint("P", i%20)
		r.Results = append(r.Results, cell)
	}
	for _, format := range Formats {
		b.Run(format, func(b *testing.B) {
			for b.Loop() {
				if err := Write(io.Discard, format, r, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
