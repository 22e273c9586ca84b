package progress

import (
	"cmp"
	"fmt"
	"time"

	"labctl/host/kernel/kbuild"
)

// build shows how far make is: elsewhere than on a terminal by a line for each tenth,
// or for each 200 objects where nobody knows how many there will be, and for each
// minute in which that is not reached.
type build struct {
	line               *Line
	step               int
	drawn, began, said time.Time
}

// silence is the longest time without a line.
const silence = time.Minute

// Build shows builds of kernels, one after the other: made is for each object, end for
// the end of each build.
func (l *Line) Build() (made func(kbuild.Progress), end func()) {
	b := &build{line: l}
	return b.made, func() { l.Status("") }
}

func (b *build) made(p kbuild.Progress) {
	if p.Done == 0 {
		b.step, b.began = 0, time.Now()
	}
	if b.line.Terminal {
		if time.Since(b.drawn) > 100*time.Millisecond {
			b.drawn = time.Now()
			b.line.Status(b.words(p) + " " + p.Object)
		}
		return
	}
	each := 200
	if p.Total > 0 {
		each = max(1, p.Total/10)
	}
	if step := p.Done / each; p.Done == 0 || step > b.step || time.Since(b.said) >= silence {
		b.step, b.said = step, time.Now()
		b.line.Say(b.words(p))
	}
}

// words is "building for arm64: 612 of about 1480 objects, 4m10s".
func (b *build) words(p kbuild.Progress) string {
	s := fmt.Sprintf("building for %s: %d objects", p.Arch, p.Done)
	if p.Total > 0 && p.Done <= p.Total { // it may become more than was thought
		s = fmt.Sprintf("building for %s: %d of about %d objects", p.Arch, p.Done, p.Total)
	}
	return s + ", " + cmp.Or(time.Since(b.began).Truncate(time.Second), time.Second).String()
}
