package serve

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"labctl/host/machine"
	"labctl/host/outside"
	"labctl/host/outside/page"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/registry"
	"labctl/host/text"
)

// How often the live view is shown, how often the guest's count of forks is looked at,
// and how long apart the lists of tasks are read at least: a fork storm is not to keep a
// CPU of the host busy.
const (
	showEvery = 200 * time.Millisecond
	peekEvery = 5 * time.Millisecond
	readEvery = 40 * time.Millisecond
	// Between two lists there is at least so many times what one has taken: the host's CPUs
	// are the guest's as well.
	readShare = 40
	// A task that has ended is shown for a while, so that one is seen that lived for an
	// instant.
	showGone = 4 * time.Second
)

const (
	maxShownTasks = 4000
	maxFrames     = 40
	maxPaths      = 60
	maxWho        = 6
)

// liveTasks is the tree, as a tab gets it: tasks in the order of the tree.
type liveTasks struct {
	Machine string     `json:"machine"`
	Tasks   []liveTask `json:"tasks"`
	More    int        `json:"more,omitempty"` // that are not shown
	// Forks counts tasks that the kernel has made since it was first looked at, -1 where
	// it does not say; Missed those of them that came and went between two looks.
	Forks  int64  `json:"forks"`
	Missed int64  `json:"missed"`
	Torn   string `json:"torn,omitempty"`
}

type liveTask struct {
	TID    int    `json:"tid"`
	PID    int    `json:"pid"`
	PPID   int    `json:"ppid"`
	Name   string `json:"name"`
	Kernel bool   `json:"kernel,omitempty"`
	State  string `json:"state"`
	CPU    int    `json:"cpu"`
	Depth  int    `json:"depth"`
	New    bool   `json:"new,omitempty"`  // made since the page's machine is looked at
	Gone   bool   `json:"gone,omitempty"` // it has ended
	Runs   bool   `json:"runs,omitempty"` // it is on a CPU
	// Left says that the task came and went between two looks, and was found in what it
	// left in memory.
	Left bool `json:"left,omitempty"`
}

// livePath is one way through the kernel in which tasks sleep.
type livePath struct {
	Frames []string `json:"frames"`
	Who    []string `json:"who"`
	Count  int      `json:"count"`
}

// liveDetail is the chosen task.
type liveDetail struct {
	TID     int         `json:"tid"`
	Name    string      `json:"name,omitempty"`
	Stack   []string    `json:"stack"`
	Note    string      `json:"note,omitempty"` // why there is no stack
	Fields  []liveField `json:"fields"`
	Walk    *liveWalk   `json:"walk,omitempty"`
	Trouble string      `json:"trouble,omitempty"`
}

type liveField struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Text string `json:"text"`
}

type liveWalk struct {
	Address string     `json:"address"`
	Format  string     `json:"format,omitempty"`
	Levels  []walkStep `json:"levels"`
	To      string     `json:"to"`
	Mapped  bool       `json:"mapped"`
}

type walkStep struct {
	Level string `json:"level"`
	Index int    `json:"index"`
	At    string `json:"at"`
	Entry string `json:"entry"`
	Flags string `json:"flags"`
}

// fields are the members of a task_struct that a page shows: those of them that the
// kernel has.
var fields = []string{
	"comm", "pid", "tgid", "__state", "state", "exit_state", "flags", "real_parent.pid", "parent.pid", "group_leader.pid",
	"mm", "active_mm", "mm.mm_users.counter", "fs", "files", "files.count.counter", "sighand", "nsproxy", "signal.nr_threads", "stack",
	"prio", "static_prio", "normal_prio", "policy", "sched_class", "se.vruntime", "se.sum_exec_runtime",
	"utime", "stime", "nvcsw", "nivcsw", "min_flt", "maj_flt", "start_time", "exit_code", "vfork_done", "set_child_tid", "clear_child_tid",
}

// addresses are those that a page offers to follow, of a process.
var addresses = []string{"mm.start_code", "mm.start_data", "mm.start_brk", "mm.start_stack"}

// watcher looks at one machine from outside for as long as a tab does.
type watcher struct {
	s       *Server
	machine *registry.Machine
	g       *outside.Guest

	forks, first uint64 // total_forks, now and when it was first read
	counts       bool
	seenForks    uint64            // forks that belong to tasks which were seen
	known        map[taskKey]*seen // tasks, those that have ended for a while included
	since        uint64            // when the youngest task began that was there at the first look
	places       map[uint64]uint64 // where task_structs have been, and when the last task there began
	tasks        *task.Tasks
	stacks       map[taskKey]kept
	started      bool
}

type taskKey struct {
	addr uint64
	tid  int
}

type seen struct {
	task.Task
	isNew bool
	left  bool      // it was never seen alive
	gone  time.Time // zero while it lives
}

// kept is a stack of a task that has not run since.
type kept struct {
	switches uint64
	frames   []string
	note     string
}

// open finds the kernel of a machine.
func (s *Server) openWatcher(ctx context.Context, m *registry.Machine) (*watcher, error) {
	g, err := machine.Outside(ctx, s.o.Env.Env, m, "")
	if err != nil {
		return nil, err
	}
	return &watcher{s: s, machine: m, g: g, known: map[taskKey]*seen{}, places: map[uint64]uint64{}, stacks: map[taskKey]kept{}}, nil
}

// peek reads how many tasks the kernel has made, if it says so.
func (w *watcher) peek() (n uint64, ok bool) {
	l := w.g.Look()
	addr, err := l.Variable("total_forks", 0)
	if err != nil {
		return 0, false
	}
	n, err = l.Pointer(addr)
	return n, err == nil
}

// run looks until ctx ends. The guest is not spoken to, and is never stopped: the
// registers of its CPUs, for which it would be, are not read.
func (w *watcher) run(ctx context.Context) error {
	peek := time.NewTicker(peekEvery)
	defer peek.Stop()
	var lastRead, lastShow time.Time
	var took time.Duration // of the last list
	for {
		wants := w.wants()
		if !wants.Live {
			select { // nobody looks
			case <-w.s.hub.moved:
				continue
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return nil
			}
		}
		n, ok := w.peek()
		now := time.Now()
		made := ok && w.counts && n != w.forks
		if now.Sub(lastRead) >= showEvery || made && now.Sub(lastRead) >= max(readEvery, readShare*took) {
			if err := w.read(now); err != nil {
				return err
			}
			lastRead, took = now, time.Since(now)
		}
		if now.Sub(lastShow) >= showEvery {
			w.show(now)
			lastShow = now
		}
		select {
		case <-peek.C:
		case <-w.s.hub.moved:
			lastShow = time.Time{} // a choice is answered at once
		case <-ctx.Done():
			return nil
		}
	}
}

// wants is what any tab looks at.
func (w *watcher) wants() (c choice) {
	for _, t := range w.s.hub.all() {
		one := t.looksAt()
		c.Live = c.Live || one.Live
		c.Stacks = c.Stacks || one.Stacks
	}
	return c
}

// read reads the tasks, and notes which are new and which have ended.
func (w *watcher) read(now time.Time) error {
	n, ok := w.peek() // before the list: what is made meanwhile is missed by neither
	tasks, err := task.Read(w.g.Kernel, nil)
	if err != nil {
		return err
	}
	w.tasks = tasks
	lives := map[taskKey]bool{}
	for _, one := range tasks.List {
		if one.Idle() {
			continue
		}
		key := taskKey{one.Addr, one.TID}
		lives[key] = true
		old := w.known[key]
		if old == nil {
			old = &seen{isNew: w.started}
			w.known[key] = old
			if w.started {
				w.seenForks++
			}
		}
		old.Task, old.gone, old.left = one, time.Time{}, false
		w.places[one.Addr] = one.Started
		if !w.started {
			w.since = max(w.since, one.Started)
		}
	}
	if ok && w.counts && n-w.first > w.seenForks {
		w.remains(now)
	}
	for key, old := range w.known {
		switch {
		case lives[key]:
		case tasks.Torn != "" && old.gone.IsZero(): // it may be in the part that was not read
		case old.gone.IsZero():
			old.gone = now
		case now.Sub(old.gone) > showGone:
			delete(w.known, key)
			delete(w.stacks, key)
		}
	}
	if ok && !w.counts {
		w.first, w.counts = n, true
	}
	if ok {
		w.forks = n
	}
	w.started = true
	return nil
}

// remains looks for tasks that came and went between two looks in what they left in
// memory.
func (w *watcher) remains(now time.Time) {
	for _, one := range w.tasks.Remains(slices.Collect(maps.Keys(w.places)), w.since) {
		key := taskKey{one.Addr, one.TID}
		if w.known[key] != nil || w.places[one.Addr] == one.Started {
			continue // it was seen
		}
		w.places[one.Addr] = one.Started
		w.known[key] = &seen{Task: one, isNew: true, left: true, gone: now}
		w.seenForks++
	}
}

// show tells each tab what it looks at.
func (w *watcher) show(now time.Time) {
	if w.tasks == nil {
		return
	}
	var tree, ways []byte
	details := map[choice][]byte{}
	for _, t := range w.s.hub.all() {
		c := t.looksAt()
		if !c.Live {
			continue
		}
		if tree == nil {
			tree = encode("live", w.tree())
		}
		t.show("live", tree)
		if c.Stacks {
			if ways == nil {
				ways = encode("stacks", w.paths())
			}
			t.show("stacks", ways)
		}
		if c.TID > 0 {
			key := choice{TID: c.TID, Address: c.Address}
			if details[key] == nil {
				details[key] = encode("detail", w.detail(key))
			}
			t.show("detail", details[key])
		}
	}
}

// tree puts the tasks, and those that have just ended, in the order of the tree.
func (w *watcher) tree() (out liveTasks) {
	out = liveTasks{Machine: w.machine.Name, Forks: -1, Torn: w.tasks.Torn, Tasks: []liveTask{}}
	if w.counts {
		out.Forks = int64(w.forks - w.first)
		out.Missed = max(0, out.Forks-int64(w.seenForks))
	}
	all := task.Tasks{}
	for _, one := range w.known {
		all.List = append(all.List, one.Task)
	}
	// A process's threads stand before its children, each in the order of their numbers.
	slices.SortFunc(all.List, func(a, b task.Task) int {
		if at, bt := a.TID != a.PID, b.TID != b.PID; at != bt {
			if at {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.TID, b.TID), cmp.Compare(a.Addr, b.Addr))
	})
	order, depth := all.Tree()
	for i, one := range order {
		if len(out.Tasks) == maxShownTasks {
			out.More = len(order) - i
			break
		}
		s := w.known[taskKey{one.Addr, one.TID}]
		out.Tasks = append(out.Tasks, liveTask{
			TID: one.TID, PID: one.PID, PPID: one.PPID, Name: one.Name(), Kernel: one.Kernel, State: one.State, CPU: one.CPU,
			Depth: depth[i], New: s.isNew, Gone: !s.gone.IsZero(), Runs: one.OnCPU && s.gone.IsZero(), Left: s.left,
		})
	}
	return out
}

// stackOf is the stack of a task that sleeps. One that has not run since has the same.
func (w *watcher) stackOf(one *task.Task) (frames []string, note string) {
	key := taskKey{one.Addr, one.TID}
	if one.OnCPU {
		return nil, "runs"
	}
	if k, ok := w.stacks[key]; ok && k.switches == one.Switches {
		return k.frames, k.note
	}
	s, err := w.tasks.Stack(one)
	if err != nil {
		note = text.Line(err.Error(), 200)
	} else if note = s.Note; len(s.Frames) == 0 && note == "" {
		note = "none"
	}
	for i, f := range s.Frames {
		if i == maxFrames {
			frames = append(frames, "…")
			break
		}
		frames = append(frames, f.String())
	}
	w.stacks[key] = kept{one.Switches, frames, note}
	return frames, note
}

// paths are the ways in which tasks sleep, each once, the most trodden first.
func (w *watcher) paths() []livePath {
	at := map[string]int{}
	all := []livePath{}
	for _, one := range w.tasks.ByTID() {
		if one.Idle() {
			continue
		}
		frames, _ := w.stackOf(one)
		if len(frames) == 0 {
			continue
		}
		key := strings.Join(frames, "\n")
		i, ok := at[key]
		if !ok {
			if len(all) == maxPaths {
				continue
			}
			i = len(all)
			at[key] = i
			all = append(all, livePath{Frames: frames})
		}
		all[i].Count++
		if len(all[i].Who) < maxWho {
			all[i].Who = append(all[i].Who, fmt.Sprintf("%s %d", one.Name(), one.TID))
		}
	}
	return all
}

// detail is one task: its stack, the members of its task_struct, and a walk.
func (w *watcher) detail(c choice) (out liveDetail) {
	out = liveDetail{TID: c.TID, Stack: []string{}, Fields: []liveField{}}
	one := w.tasks.Find(c.TID)
	if one == nil {
		out.Trouble = "ended"
		return out
	}
	out.Name = one.Name()
	if frames, note := w.stackOf(one); len(frames) > 0 {
		out.Stack = frames
	} else {
		out.Note = note
	}
	l := w.g.Look()
	r, err := value.New(l, l.Finder(w.tasks.Modules))
	if err == nil {
		typ, terr := r.Type("struct task_struct")
		if err = terr; err == nil {
			for _, name := range fields {
				if v, ok := field(r.Path(typ, one.Addr, name)); ok {
					out.Fields = append(out.Fields, liveField{name, text.Line(v.Type, 60), text.Line(v.Text, 120)})
				}
			}
		}
		if c.Address == "" && err == nil && !one.Kernel {
			for _, name := range addresses {
				if v, ok := field(r.Path(typ, one.Addr, name)); ok && v.Number != 0 {
					c.Address = "0x" + strconv.FormatUint(v.Number, 16)
					break
				}
			}
		}
	}
	if err != nil {
		out.Trouble = text.Line(err.Error(), 200)
	}
	if c.Address == "" {
		c.Address = "0x" + strconv.FormatUint(one.Addr, 16) // its own task_struct
	}
	out.Walk = w.walk(one, c.Address)
	return out
}

// field is a member that can be shown in a line.
func field(v value.Value, err error) (value.Value, bool) {
	return v, err == nil && v.Error == "" && len(v.Members) == 0 && len(v.Elems) == 0 && v.Text != ""
}

// walk follows an address of a task through its page tables.
func (w *watcher) walk(one *task.Task, address string) *liveWalk {
	l := w.g.Look()
	out := &liveWalk{Address: text.Line(address, 128), Levels: []walkStep{}}
	addr, err := l.ParseAddress(address)
	if err != nil {
		out.To = text.Line(err.Error(), 200)
		return out
	}
	table, err := page.Table(l, one.Addr, addr)
	var res page.Result
	if err == nil {
		res, err = page.Walk(l, table, addr)
	}
	if err != nil {
		out.To = text.Line(err.Error(), 200)
		return out
	}
	out.Address, out.Format, out.Mapped = fmt.Sprintf("0x%x", res.Addr), res.Format, res.Mapped
	for _, e := range res.Entries {
		out.Levels = append(out.Levels, walkStep{e.Level, e.Index, fmt.Sprintf("0x%x", e.At), fmt.Sprintf("0x%016x", e.Entry), strings.Join(e.Flags, " ")})
	}
	switch {
	case !res.Mapped:
		out.To = text.Line(res.Why, 200)
	case res.Frame != nil:
		out.To = fmt.Sprintf("0x%x, page frame 0x%x, refcount %d, mapcount %d", res.Phys, res.Frame.PFN, res.Frame.RefCount, res.Frame.MapCount)
	default:
		out.To = fmt.Sprintf("0x%x", res.Phys)
	}
	return out
}
