package progress

import (
	"strings"
	"testing"

	"labctl/host/kernel"
	"labctl/host/kernel/kbuild"
	"labctl/host/matrix"
	"labctl/host/matrix/schedule"
	"labctl/host/outcome"
	"labctl/host/ui/table"
)

// screen applies what a terminal would: CR goes to the start of the line and
// what follows overwrites it.
func screen(s string) []string {
	var lines []string
	for _, l := range strings.Split(s, "\n") {
		var row []byte
		col := 0
		for i := 0; i < len(l); i++ {
			if l[i] == '\r' {
				col = 0
				continue
			}
			for len(row) <= col {
				row = append(row, ' ')
			}
			row[col] = l[i]
			col++
		}
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return lines
}

func TestProgress(t *testing.T) {
	steps := func(l *Line) {
		l.Pull("6.12 arm64", kernel.Progress{Stage: kernel.StageIndex})
		l.Pull("6.12 arm64", kernel.Progress{Stage: kernel.StageDownload, Done: 45 << 20, Total: 90 << 20})
		l.Say("a word in between")
		l.Pull("6.12 amd64", kernel.Progress{Stage: kernel.StageUnpack, Done: 1, Total: 4})
		l.Pull("6.12 arm64", kernel.Progress{Stage: kernel.StageDone, Note: "6.12.1-arm64"})
	}
	for _, c := range []struct {
		name            string
		terminal, quiet bool
		want            []string
	}{
		{"plain", false, false, []string{
			"6.12 arm64: fetching the package index", "6.12 arm64: downloading", "a word in between",
			"6.12 amd64: unpacking", "6.12 arm64: done 6.12.1-arm64", "",
		}},
		{"terminal", true, false, []string{
			"a word in between", "6.12 arm64: done 6.12.1-arm64", "6.12 amd64: unpacking [#####               ] 25% of 0 MB",
		}},
		{"quiet", true, true, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			steps(&Line{W: &b, Terminal: c.terminal, Quiet: c.quiet})
			if got := screen(b.String()); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestBuild(t *testing.T) {
	steps := func(l *Line) {
		made, end := l.Build()
		for done := 0; done <= 20; done += 5 {
			made(kbuild.Progress{Arch: "arm64", Done: done, Total: 20, Object: "kernel/fork.o"})
		}
		end()
		for _, done := range []int{0, 199, 200, 399, 401} { // nobody knows how many there will be
			made(kbuild.Progress{Arch: "arm", Done: done})
		}
		end()
	}
	for _, c := range []struct {
		name            string
		terminal, quiet bool
		want            []string
	}{
		{"plain", false, false, []string{
			"building for arm64: 0 of about 20 objects", "building for arm64: 5 of about 20 objects", "building for arm64: 10 of about 20 objects",
			"building for arm64: 15 of about 20 objects", "building for arm64: 20 of about 20 objects",
			"building for arm: 0 objects", "building for arm: 200 objects", "building for arm: 401 objects", "",
		}},
		{"terminal", true, false, []string{""}}, // nothing is left of the line
		{"quiet", false, true, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			steps(&Line{W: &b, Terminal: c.terminal, Quiet: c.quiet})
			got := screen(b.String())
			for i, line := range got {
				got[i], _, _ = strings.Cut(line, ", ") // the time that it took
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if c.terminal && !strings.Contains(b.String(), "0 of about 20 objects, 1s kernel/fork.o") {
				t.Errorf("drawn %q; want the first object in it", b.String())
			}
		})
	}
}

// TestBuildIsNotSilent: where a step takes long there is a line each minute.
func TestBuildIsNotSilent(t *testing.T) {
	var out strings.Builder
	b := build{line: &Line{W: &out}}
	for done := range 3 {
		b.made(kbuild.Progress{Arch: "arm", Done: done})
		b.said = b.said.Add(-silence)
	}
	if got := strings.Count(out.String(), "\n"); got != 3 {
		t.Errorf("%d lines in\n%swant 3", got, out.String())
	}
}

func TestCells(t *testing.T) {
	cell := func(name string) matrix.Cell {
		return matrix.Cell{Kernel: "6.12", Target: "arm64", Work: matrix.Work{Kind: matrix.Lab, Name: name}}
	}
	var b strings.Builder
	l := &Line{W: &b}
	tell, stop := l.Cells(3, 1)
	tell(schedule.Event{Running: []matrix.Cell{cell("P1")}})
	tell(schedule.Event{Ended: &matrix.Result{Cell: cell("P1"), Status: outcome.OK, Seconds: 1.25, Tries: 2, Flaky: true}})
	tell(schedule.Event{Ended: &matrix.Result{Cell: cell("P2"), Status: outcome.CheckFailed, Seconds: 2, Reason: "check\nids \x1b[2J"}})
	stop()
	want := "1 of 3 cells are done\n" +
		"2/3 6.12/arm64/P1 ok 1.2 s (flaky: try 2)\n" +
		"3/3 6.12/arm64/P2 " + string(outcome.CheckFailed) + " 2.0 s: check ids \ufffd[2J\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// The line is as long as fits, and is wiped by the cells that it takes.
func TestWideLine(t *testing.T) {
	var b strings.Builder
	l := &Line{W: &b, Terminal: true}
	l.Status(strings.Repeat("커널", 40))
	l.Status("")
	drawn, wiped, _ := strings.Cut(b.String(), "\r")
	if n := table.Width(drawn); n > maxLine || n < maxLine-2 {
		t.Errorf("drawn %d cells, want %d or a little less", n, maxLine)
	}
	if want := strings.Repeat(" ", table.Width(drawn)) + "\r"; wiped != want {
		t.Errorf("wiped by %d bytes, want %d", len(wiped), len(want))
	}
}
