package serve

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"time"

	gradebook "labctl/host/class"
	"labctl/host/lab"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/text"
)

const classEvery = time.Second // at its directory

// class is the gradebook of a class, as its directory fills.
type class struct {
	s   *Server
	dir string
	lab *lab.Lab

	mu   sync.Mutex
	last classState
}

// classState is what the page shows.
type classState struct {
	Lab     string       `json:"lab"`
	Title   lab.Text     `json:"title"`
	Checks  []classCheck `json:"checks"`
	Rows    []classRow   `json:"rows"`
	Of      int          `json:"of"` // submissions
	Trouble string       `json:"trouble,omitempty"`
}

type classCheck struct {
	ID   string   `json:"id"`
	Says lab.Text `json:"says"`
}

type classRow struct {
	Learner string            `json:"learner"`
	Word    string            `json:"word"` // empty: not graded yet
	OK      bool              `json:"ok"`
	Points  float64           `json:"points"`
	OutOf   float64           `json:"out_of"`
	Checks  map[string]string `json:"checks"`
	Seen    map[string]string `json:"seen"`
	Message string            `json:"message,omitempty"`
	Seconds float64           `json:"seconds"`
}

// openClass opens the directory that labctl lab check --class has made.
func openClass(s *Server, dir string) (*class, error) {
	all, err := matrix.SoFar(dir)
	if err != nil {
		return nil, outcome.Inputf("--class %s: want the directory of a class that labctl lab check --class grades (its --out): %w", dir, err)
	}
	id, ok := strings.CutPrefix(all.Name, "class-")
	l := s.labs[id]
	if !ok || l == nil || l.Exercise == nil {
		return nil, outcome.Inputf("--class %s: it is the matrix %q, not a class", dir, text.Line(all.Name, 60))
	}
	return &class{s: s, dir: dir, lab: l}, nil
}

func (c *class) get() classState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// watch reads the directory again and again, and tells the tabs what has changed.
func (c *class) watch(ctx context.Context) {
	var last string
	for {
		now := c.read()
		c.mu.Lock()
		c.last = now
		c.mu.Unlock()
		if b := string(encode("class", now)); b != last {
			last = b
			c.s.hub.send("class", now)
		}
		select {
		case <-time.After(classEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (c *class) read() classState {
	out := classState{Lab: c.lab.ID, Title: c.lab.Title, Checks: []classCheck{}, Rows: []classRow{}}
	for _, one := range c.lab.Exercise.Checks {
		out.Checks = append(out.Checks, classCheck{one.ID, one.Says})
	}
	all, err := matrix.SoFar(c.dir)
	if err != nil {
		out.Trouble = text.Line(err.Error(), maxLine)
		return out
	}
	out.Of = len(all.Plan)
	book := gradebook.NewBook(c.lab, nil, matrix.Sorted(all.Plan, all.Results))
	done := map[string]bool{}
	for _, r := range book.Rows {
		row := classRow{
			Learner: text.Line(r.Learner, 80), Word: r.Word(), OK: r.Outcome == outcome.OK, Points: r.Points, OutOf: r.OutOf,
			Checks: map[string]string{}, Seen: map[string]string{}, Message: text.Line(r.Message, maxLine), Seconds: r.Seconds,
		}
		for _, one := range r.Checks {
			row.Checks[one.ID] = string(one.Verdict)
			if one.Seen != "" {
				row.Seen[one.ID] = text.Line(one.Seen, 200)
			}
		}
		done[r.Learner] = true
		out.Rows = append(out.Rows, row)
	}
	for _, cell := range all.Plan {
		if len(cell.Work.Args) == 0 {
			continue
		}
		if name := filepath.Base(cell.Work.Args[0]); !done[cell.Work.Args[0]] && !done[name] {
			out.Rows = append(out.Rows, classRow{Learner: text.Line(name, 80), Checks: map[string]string{}, Seen: map[string]string{}})
		}
	}
	return out
}
