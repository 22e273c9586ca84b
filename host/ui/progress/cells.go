package progress

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"labctl/host/matrix"
	"labctl/host/matrix/schedule"
	"labctl/host/text"
)

// cells shows how the cells of a matrix come along.
type cells struct {
	line  *Line
	start time.Time

	mu                  sync.Mutex
	total, done, failed int
	before              int // done when this run began
	running             []matrix.Cell
}

// Cells begins to show the progress of total cells, of which done have ended before.
// tell is for every start and end of a cell, stop for when all is over.
func (l *Line) Cells(total, done int) (tell func(schedule.Event), stop func()) {
	p := &cells{line: l, start: time.Now(), total: total, done: done, before: done}
	if done > 0 {
		l.Say(fmt.Sprintf("%d of %d cells are done", done, total))
	}
	end := func() {}
	if l.Terminal {
		end = ticker(time.Second, p.draw)
	}
	return p.tell, func() {
		end()
		l.Status("")
	}
}

// tell is for every start and end of a cell.
func (p *cells) tell(e schedule.Event) {
	p.mu.Lock()
	p.running = e.Running
	line := ""
	if r := e.Ended; r != nil {
		p.done++
		if r.Status.Failed() {
			p.failed++
		}
		line = fmt.Sprintf("%d/%d %s %s %.1f s", p.done, p.total, text.Line(r.Cell.ID(), 120), r.Status, r.Seconds)
		if r.Flaky {
			line += fmt.Sprintf(" (flaky: try %d)", r.Tries)
		}
		if r.Reason != "" {
			line += ": " + text.Line(r.Reason, 160)
		}
	}
	p.mu.Unlock()
	if line != "" {
		p.line.Say(line)
	}
	p.draw()
}

// draw shows where the run is on a terminal.
func (p *cells) draw() {
	p.mu.Lock()
	line := fmt.Sprintf("%d/%d", p.done, p.total)
	if p.failed > 0 {
		line += fmt.Sprintf(", %d failed", p.failed)
	}
	if n := p.done - p.before; n > 0 && p.done < p.total {
		left := time.Since(p.start) / time.Duration(n) * time.Duration(p.total-p.done)
		line += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	var ids []string
	for _, c := range p.running {
		ids = append(ids, text.Line(c.ID(), 60))
	}
	line += ": " + strings.Join(ids, ", ")
	p.mu.Unlock()
	p.line.Status(line)
}

// ticker calls f every now and then until stop.
func ticker(every time.Duration, f func()) (stop func()) {
	t := time.NewTicker(every)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-t.C:
				f()
			case <-over:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		t.Stop()
		close(over)
		wg.Wait()
	})
}
