package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"labctl/host/kernel"
	"labctl/host/text"
)

// progress tells of slow work on standard error: on a terminal one line that is
// drawn over and over, with a bar; elsewhere a line for each stage.
type progress struct {
	w        io.Writer
	terminal bool
	quiet    bool

	mu    sync.Mutex
	pulls []pull // under way, in the order of their start
	line  string // of other work that is under way
	shown int    // columns of the line that is drawn now
	drawn time.Time
}

type pull struct {
	what string
	p    kernel.Progress
}

// stages are the words for kernel.Progress.
var stages = map[kernel.Stage]string{
	kernel.StageWait: "waiting for another labctl that pulls it", kernel.StageDamaged: "damaged, pulling it again",
	kernel.StageIndex: "fetching the package index", kernel.StageDownload: "downloading",
	kernel.StageUnpack: "unpacking", kernel.StageInspect: "reading the image", kernel.StageDone: "done",
}

// say prints a line above what is drawn.
func (g *progress) say(line string) {
	if g.quiet {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.erase()
	fmt.Fprintln(g.w, line)
	g.draw()
}

// pull shows one step of a kernel's pull; what names the kernel.
func (g *progress) pull(what string, p kernel.Progress) {
	if g.quiet {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.pulls, func(q pull) bool { return q.what == what })
	if i < 0 {
		i = len(g.pulls)
		g.pulls = append(g.pulls, pull{what: what})
	}
	news := g.pulls[i].p.Stage != p.Stage
	g.pulls[i].p = p
	if p.Stage == kernel.StageDone {
		g.pulls = slices.Delete(g.pulls, i, i+1)
	}
	if news && (!g.terminal || p.Stage == kernel.StageDone || p.Stage == kernel.StageDamaged) {
		g.erase()
		fmt.Fprintln(g.w, strings.TrimSpace(fmt.Sprintf("%s: %s %s", what, stages[p.Stage], p.Note)))
	}
	if news || time.Since(g.drawn) > 100*time.Millisecond {
		g.erase()
		g.draw()
	}
}

// status shows one line of work that is under way, on a terminal alone; empty shows
// none.
func (g *progress) status(line string) {
	if g.quiet || !g.terminal {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.line = line
	g.erase()
	g.draw()
}

func (g *progress) erase() {
	if g.shown > 0 {
		fmt.Fprintf(g.w, "\r%*s\r", g.shown, "")
		g.shown = 0
	}
}

// draw shows what is under way: of pulls a bar for one, percentages for several.
func (g *progress) draw() {
	if !g.terminal || len(g.pulls) == 0 && g.line == "" {
		return
	}
	var parts []string
	if g.line != "" {
		parts = append(parts, g.line)
	}
	for _, q := range g.pulls {
		s := q.what + ": " + stages[q.p.Stage]
		if q.p.Total > 0 {
			part := min(1, float64(q.p.Done)/float64(q.p.Total))
			if len(g.pulls) == 1 {
				full := int(part * 20)
				s += fmt.Sprintf(" [%-20s]", strings.Repeat("#", full))
			}
			s += fmt.Sprintf(" %d%%", int(part*100))
			if len(g.pulls) == 1 {
				s += fmt.Sprintf(" of %d MB", q.p.Total>>20)
			}
		}
		parts = append(parts, s)
	}
	line := strings.Join(parts, " | ")
	if len(line) > 100 {
		line = text.Line(line, 97)
	}
	fmt.Fprint(g.w, line)
	g.shown, g.drawn = len(line), time.Now()
}
