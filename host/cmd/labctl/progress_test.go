package main

import (
	"strings"
	"testing"

	"labctl/host/kernel"
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
	steps := func(g *progress) {
		g.pull("6.12 arm64", kernel.Progress{Stage: kernel.StageIndex})
		g.pull("6.12 arm64", kernel.Progress{Stage: kernel.StageDownload, Done: 45 << 20, Total: 90 << 20})
		g.say("a word in between")
		g.pull("6.12 amd64", kernel.Progress{Stage: kernel.StageUnpack, Done: 1, Total: 4})
		g.pull("6.12 arm64", kernel.Progress{Stage: kernel.StageDone, Note: "6.12.1-arm64"})
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
			steps(&progress{w: &b, terminal: c.terminal, quiet: c.quiet})
			if got := screen(b.String()); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
