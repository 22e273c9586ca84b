// Package progress shows work that is under way: pulls of kernels, builds of kernels
// and the cells of a matrix.
package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"labctl/host/kernel"
	"labctl/host/text"
	"labctl/host/ui/table"
)

// Line shows slow work: on a terminal as one line that is drawn over and over, with a
// bar; elsewhere as a line for each stage. It is safe for concurrent use once its
// fields are set.
type Line struct {
	W        io.Writer
	Terminal bool // W is one
	Quiet    bool // nothing is shown

	mu    sync.Mutex
	pulls []pull // under way, in the order of their start
	line  string // of other work that is under way
	shown int    // cells of the line that is drawn now
	drawn time.Time
}

type pull struct {
	what string
	p    kernel.Progress
}

// maxLine is the width of the line in cells, so that it stays one on most terminals.
const maxLine = 100

// stages are the words for kernel.Progress.
var stages = map[kernel.Stage]string{
	kernel.StageWait: "waiting for another labctl that pulls it", kernel.StageDamaged: "damaged, pulling it again",
	kernel.StageIndex: "fetching the package index", kernel.StageDownload: "downloading",
	kernel.StageUnpack: "unpacking", kernel.StageInspect: "reading the image", kernel.StageTypes: "making types of DWARF by pahole", kernel.StageDone: "done",
}

// Say prints a line above what is drawn.
func (l *Line) Say(line string) {
	if l.Quiet {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.erase()
	fmt.Fprintln(l.W, line)
	l.draw()
}

// Above calls print, which writes to W, with what is drawn out of the way. Unlike Say
// it does so even if the Line is quiet.
func (l *Line) Above(print func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.erase()
	print()
	l.draw()
}

// Pull shows one step of a kernel's pull; what names the kernel.
func (l *Line) Pull(what string, p kernel.Progress) {
	line := strings.TrimSpace(fmt.Sprintf("%s: %s %s", what, stages[p.Stage], p.Note))
	if l.Quiet {
		if p.Stage == kernel.StageDamaged { // not merely progress
			fmt.Fprintln(l.W, line)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.pulls, func(q pull) bool { return q.what == what })
	if i < 0 {
		i = len(l.pulls)
		l.pulls = append(l.pulls, pull{what: what})
	}
	news := l.pulls[i].p.Stage != p.Stage
	l.pulls[i].p = p
	if p.Stage == kernel.StageDone {
		l.pulls = slices.Delete(l.pulls, i, i+1)
	}
	if news && (!l.Terminal || p.Stage == kernel.StageDone || p.Stage == kernel.StageDamaged) {
		l.erase()
		fmt.Fprintln(l.W, line)
	}
	if news || time.Since(l.drawn) > 100*time.Millisecond {
		l.erase()
		l.draw()
	}
}

// Status shows one line of work that is under way, on a terminal alone; empty shows
// none.
func (l *Line) Status(line string) {
	if l.Quiet || !l.Terminal {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = line
	l.erase()
	l.draw()
}

func (l *Line) erase() {
	if l.shown > 0 {
		fmt.Fprintf(l.W, "\r%*s\r", l.shown, "")
		l.shown = 0
	}
}

// draw shows what is under way: of pulls a bar for one, percentages for several.
func (l *Line) draw() {
	if !l.Terminal || len(l.pulls) == 0 && l.line == "" {
		return
	}
	var parts []string
	if l.line != "" {
		parts = append(parts, l.line)
	}
	for _, q := range l.pulls {
		s := q.what + ": " + stages[q.p.Stage]
		if q.p.Total > 0 {
			part := min(1, float64(q.p.Done)/float64(q.p.Total))
			if len(l.pulls) == 1 {
				full := int(part * 20)
				s += fmt.Sprintf(" [%-20s]", strings.Repeat("#", full))
			}
			s += fmt.Sprintf(" %d%%", int(part*100))
			if len(l.pulls) == 1 {
				s += fmt.Sprintf(" of %d MB", q.p.Total>>20)
			}
		}
		parts = append(parts, s)
	}
	line := strings.Join(parts, " | ")
	line = table.Cut(text.Clean(line), maxLine)
	fmt.Fprint(l.W, line)
	l.shown, l.drawn = table.Width(line), time.Now()
}
