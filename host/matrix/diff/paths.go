package diff

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/host/clone"
	"labctl/host/lab/result"
	"labctl/host/stack"
	"labctl/host/text"
)

// Path is one way to make a task, from the creation function outward.
type Path struct {
	Way string `json:"way"` // "fork", "vfork", "clone", "clone3", "thread", "kthread", "worker", "kernel"
	// Seen says of each kernel how often it was seen; 0 is not recorded.
	Seen   []int `json:"seen"`
	Frames []Row `json:"frames"` // innermost first
}

// wayNames are the ways in the order of printing. A thread is one whatever system
// call made it.
var wayNames = []string{"fork", "vfork", "clone", "clone3", "thread", "kthread", "worker", "kernel"}

const threadFlag = 0x10000 // CLONE_THREAD

func wayOf(c *result.Creation) string {
	if c.Flags > 0 && c.Flags&threadFlag != 0 && c.Via != "kthread" && c.Via != "worker" {
		return "thread"
	}
	return c.Via
}

// maxFrames bounds what is aligned; kernel stacks of a creation have ten frames.
const maxFrames = 128

// stacksOf returns the stack that a kernel shows most often for each way, of those
// that reach the end of a kernel stack if there is any; else the way is a gap.
func (k *Kernel) stacksOf() (stacks map[string][]string, seen map[string]int) {
	type tally struct {
		frames []string
		whole  bool
		n      int
	}
	ways := map[string]map[string]*tally{}
	for _, r := range k.results {
		for _, s := range r.Steps {
			for _, c := range slices.Concat(s.Creations, s.Others) {
				if len(c.Stack.Frames) == 0 || len(c.Stack.Frames) > maxFrames {
					continue
				}
				var frames []string
				for _, f := range c.Stack.Frames {
					if f.Name != "" {
						frames = append(frames, ksym.Strip(stack.Sanitise(f.Name)))
					}
				}
				way, id := wayOf(&c), strings.Join(frames, " ")
				if ways[way] == nil {
					ways[way] = map[string]*tally{}
				}
				if ways[way][id] == nil {
					ways[way][id] = &tally{frames: frames, whole: !c.Stack.Truncated}
				}
				ways[way][id].n++
			}
		}
	}
	stacks, seen = map[string][]string{}, map[string]int{}
	for _, way := range wayNames {
		var most tally
		for _, id := range slices.Sorted(maps.Keys(ways[way])) {
			if t := ways[way][id]; t.whole && !most.whole || t.whole == most.whole && t.n > most.n {
				most = *t
			}
		}
		if stacks[way], seen[way] = most.frames, most.n; most.n > 0 && !most.whole {
			k.gap("its stacks of %s do not reach the kernel's entry", way)
		}
	}
	return stacks, seen
}

// paths lays the stacks of all kernels side by side, for each way.
func (d *Diff) paths(mixed bool) {
	stacks := make([]map[string][]string, len(d.Kernels))
	seen := make([]map[string]int, len(d.Kernels))
	for i, k := range d.Kernels {
		stacks[i], seen[i] = k.stacksOf()
	}
	for _, way := range wayNames {
		p := Path{Way: way}
		var all [][]string
		recorded := 0
		for i := range d.Kernels {
			p.Seen = append(p.Seen, seen[i][way])
			all = append(all, stacks[i][way])
			if seen[i][way] > 0 {
				recorded++
			}
		}
		if recorded > 0 {
			p.Frames = d.frames(all, mixed)
			d.Paths = append(d.Paths, p)
		}
	}
}

// frames lays stacks side by side, each against what is to the left of it. An
// empty one was not recorded.
func (d *Diff) frames(stacks [][]string, mixed bool) []Row {
	unknown := make([]bool, len(stacks))
	var lines [][]string
	for col, s := range stacks {
		if unknown[col] = len(s) == 0; unknown[col] {
			continue
		}
		var wider [][]string
		pairs := align(len(lines), len(s), func(i, j int) int { return likeness(last(lines[i]), s[j]) })
		for _, at := range pairs {
			line := make([]string, len(stacks))
			if at[0] >= 0 {
				line = lines[at[0]]
			}
			if at[1] >= 0 {
				line[col] = s[at[1]]
			}
			wider = append(wider, line)
		}
		lines = wider
	}
	renamed := Renamed
	if mixed {
		renamed = Counterpart
	}
	var rows []Row
	for _, line := range lines {
		r := d.row("", line, unknown)
		for i := range r.Cells {
			if c := &r.Cells[i]; slices.Contains(c.Changes, Changed) {
				c.Changes = []Change{renamed}
			}
			r.Name = cmp.Or(r.Name, r.Cells[i].Text)
		}
		rows = append(rows, r)
	}
	return rows
}

// last is the name that a line had last.
func last(line []string) string {
	for _, name := range slices.Backward(line) {
		if name != "" {
			return name
		}
	}
	return ""
}

// likeness reports whether two frames are the same function, or one of a family.
func likeness(a, b string) int {
	switch {
	case a == b:
		return same
	case sameFamily(a, b), handlers(a, b):
		return near
	}
	return farther
}

func sameFamily(a, b string) bool {
	x, ok := ksym.Family(a)
	y, both := ksym.Family(b)
	return ok && both && x.Family == y.Family && x.OutermostOnly == y.OutermostOnly
}

// handlers are C functions that assembly entries call: el0t_64_sync_handler is that
// of el0t_64_sync.
func handlers(a, b string) bool {
	a, ok := strings.CutSuffix(a, "_handler")
	b, both := strings.CutSuffix(b, "_handler")
	return ok && both && sameFamily(a, b)
}

// ways tells by which system call, and with which flags, programs had a task made
// that they name: a task of a probe's, or a number in a program's data. It has
// every task that is made in one way, whether kernels differ in it or not.
func (d *Diff) ways() {
	type call map[string]bool
	all := map[string][]call{}
	ran := map[string][]bool{} // lab and step
	var names []string
	for i, k := range d.Kernels {
		for _, r := range k.results {
			for _, s := range r.Steps {
				step := text.Line(r.Lab+" "+s.ID, 80)
				if ran[step] == nil {
					ran[step] = make([]bool, len(d.Kernels))
				}
				ran[step][i] = ran[step][i] || s.NoCompiler == "" && s.NoCall == ""
				for _, c := range s.Creations {
					who := named(s, c.Child.TID)
					if who == "" {
						continue
					}
					name := step + ": " + who
					if all[name] == nil {
						all[name] = make([]call, len(d.Kernels))
						names = append(names, name)
					}
					if all[name][i] == nil {
						all[name][i] = call{}
					}
					all[name][i][requested(&c)] = true
				}
			}
		}
	}
	slices.SortFunc(names, natural)
	for _, name := range names {
		step, _, _ := strings.Cut(name, ":")
		unknown := make([]bool, len(d.Kernels))
		single, different := true, call{}
		for i, calls := range all[name] {
			unknown[i] = !ran[step][i]
			single = single && len(calls) <= 1
			maps.Copy(different, calls)
		}
		if single {
			texts := make([]string, len(d.Kernels))
			for i, calls := range all[name] {
				texts[i] = strings.Join(slices.Collect(maps.Keys(calls)), "")
			}
			d.Ways = append(d.Ways, d.row(name, texts, unknown))
			continue
		}
		// A task that is made in many ways has a row for each that not all know.
		for _, c := range slices.Sorted(maps.Keys(different)) {
			texts := make([]string, len(d.Kernels))
			for i, calls := range all[name] {
				if calls[c] {
					texts[i] = c
				}
			}
			if r := d.row(name, texts, unknown); r.has() {
				d.Ways = append(d.Ways, r)
			}
		}
	}
}

// named is what a step calls a task: its role, or the key of its number.
func named(s *result.Step, tid int64) string {
	for _, t := range s.Tasks {
		if t.TID == tid && t.Role != "self" {
			return text.Line(t.Role, 40)
		}
	}
	if len(s.Tasks) > 0 {
		return "" // what a probe returns is the number of a task that it names
	}
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		if n, ok := s.Data[key].(int64); ok && n == tid {
			return text.Line(key, 40)
		}
	}
	return ""
}

// requested is "clone VM|VFORK + SIGCHLD", without the CLONE_ of each flag.
func requested(c *result.Creation) string {
	via := text.Line(c.Via, 40)
	if via == "" {
		via = "not known:"
	}
	if c.Flags < 0 {
		return via
	}
	out := via
	if c.Flags != 0 {
		out += " " + strings.ReplaceAll(clone.Flags(c.Flags).String(), "CLONE_", "")
	}
	if c.ExitSignal > 0 {
		out += " + " + clone.Signal(c.ExitSignal).String()
	}
	return out
}
