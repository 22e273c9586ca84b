// Package bisect finds where something changes in a list, by looking at as few of its
// places as is possible. It runs nothing: it says where to look next.
package bisect

// Search is a search for a change over places in an order. The zero Search is of no
// use; see New.
type Search struct {
	n    int
	old  string
	seen map[int]string // empty: looked at in vain
}

// New begins a search over n places. old is what is thought to be seen at the first:
// when it is true the search is short, and when it is not, it finds the change all
// the same.
func New(n int, old string) *Search { return &Search{n, old, map[int]string{}} }

// Saw takes down what was seen at a place, or "" if nothing can be told there.
func (s *Search) Saw(place int, what string) { s.seen[place] = what }

// Next is where to look next. ok is false at the end: then Found has the change, or
// there is none to be found.
func (s *Search) Next() (place int, ok bool) {
	if from, to, ok := s.change(); ok {
		return s.middle(from, to)
	}
	first, last := s.known()
	if first < 0 {
		return s.middle(-1, s.n)
	}
	if s.seen[first] == s.old {
		if place, ok := s.middle(last, s.n); ok {
			return place, true
		}
		return s.first(first)
	}
	// The old is thought to be at the first place. Until that is found to be wrong, to look
	// behind it tells more than to look at it.
	if place, ok := s.middle(s.oldest(first), first); ok {
		return place, true
	}
	if place, ok := s.middle(-1, first); ok {
		return place, true
	}
	return s.last(last)
}

// Found are the two places that the change is between, nothing that can be told being
// between them. What is seen at both is known.
func (s *Search) Found() (from, to int, ok bool) {
	from, to, ok = s.change()
	if !ok {
		return 0, 0, false
	}
	_, more := s.middle(from, to)
	return from, to, !more
}

// change is the narrowest pair of places between which there is a change.
func (s *Search) change() (from, to int, ok bool) {
	last := -1
	for i := range s.n {
		if s.seen[i] == "" {
			continue
		}
		if last >= 0 && s.seen[last] != s.seen[i] && (!ok || i-last < to-from) {
			from, to, ok = last, i, true
		}
		last = i
	}
	return from, to, ok
}

// known are the first and last place where something was seen, or -1.
func (s *Search) known() (first, last int) {
	first, last = -1, -1
	for i := range s.n {
		if s.seen[i] != "" {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	return first, last
}

// oldest is the first place at which something can be told, as far as is known.
func (s *Search) oldest(before int) int {
	for i := range before {
		if what, looked := s.seen[i]; !looked || what != "" {
			return i
		}
	}
	return before
}

// middle is the place between two that was not looked at, nearest to the middle.
func (s *Search) middle(from, to int) (place int, ok bool) {
	place = -1
	for i := from + 1; i < to; i++ {
		if _, looked := s.seen[i]; !looked && (place < 0 || abs(2*i-from-to) < abs(2*place-from-to)) {
			place = i
		}
	}
	return place, place >= 0
}

// first is the first place before another that was not looked at, last the last after.
func (s *Search) first(before int) (place int, ok bool) {
	for i := range before {
		if _, looked := s.seen[i]; !looked {
			return i, true
		}
		if s.seen[i] != "" {
			break
		}
	}
	return 0, false
}

func (s *Search) last(after int) (place int, ok bool) {
	for i := s.n - 1; i > after; i-- {
		if _, looked := s.seen[i]; !looked {
			return i, true
		}
	}
	return 0, false
}

func abs(n int) int { return max(n, -n) }
