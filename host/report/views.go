package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"labctl/host/record"
	"labctl/host/trace/tasks"
	"labctl/host/view"
)

// Bounds on what pages show of a run.
const (
	maxLanes = 200
	maxPaths = 100
	maxOwned = 300
)

// Views are what there is to see of a run of a program or of probes: the tasks, how
// they lived, what they share, and the ways that they came through the kernel.
func Views(r *record.Run) (views []*view.View) {
	if t := r.Trace; t != nil && t.Timeline != nil {
		program := 0
		if t.Exit != nil {
			program = t.Exit.PID
		}
		views = append(views, Tasks(t.Timeline, program)...)
		views = append(views, &view.View{ID: "stacks", Title: view.Words{EN: "Ways through the kernel", KO: "커널에서 지나온 길"}, Stacks: paths(t.Timeline)})
		if s := t.Sleepers; s != nil {
			views = append(views, &view.View{ID: "sleepers", Title: view.Words{EN: "Where tasks slept", KO: "태스크가 잠든 자리"}, Stacks: sleeping(s)})
		}
	}
	if r.Trace != nil {
		views = append(views, histViews(r.Trace)...)
		views = append(views, wakeupViews(r.Trace)...)
	}
	for i := range r.Probes {
		views = append(views, probe(&r.Probes[i], i)...)
	}
	return views
}

// Tasks are the views of a timeline: its tree, the lives of its tasks, and who shares
// what with whom.
func Tasks(t *tasks.Timeline, program int) []*view.View {
	if len(t.Tasks) == 0 {
		return nil
	}
	return []*view.View{
		{ID: "tree", Title: view.Words{EN: "Who made whom", KO: "누가 누구를 만들었나"}, Tree: &view.Tree{Tasks: t, Program: program}},
		{ID: "lives", Title: view.Words{EN: "Who lived when", KO: "누가 언제 살아 있었나"}, Timeline: lives(t)},
		{ID: "shares", Title: view.Words{EN: "Who shares what with whom", KO: "누가 누구와 무엇을 공유하나"}, Table: owned(t),
			Note: view.Words{
				EN: "Tasks with the same letter in a column have the same structure, as they were made: by the flags that the kernel received. An exec gives a task memory of its own.",
				KO: "같은 열에 같은 글자가 있는 태스크들은 생성될 때 같은 구조체를 공유합니다. 커널이 받은 플래그에 따른 것이며, exec를 하면 자신만의 메모리를 갖게 됩니다.",
			}},
	}
}

func name(t *tasks.Task) string { return fmt.Sprintf("%s-%d", t.Comm, t.TID) }

func lives(t *tasks.Timeline) *view.Timeline {
	out := &view.Timeline{Start: t.Start, End: t.End}
	if out.End == 0 { // of creations alone
		for i := range t.Tasks {
			for _, at := range []*int64{t.Tasks[i].Born, t.Tasks[i].Died} {
				if at != nil && (out.Start == 0 || *at < out.Start) {
					out.Start = *at
				}
				if at != nil {
					out.End = max(out.End, *at)
				}
			}
		}
	}
	for i := range t.Tasks {
		k := &t.Tasks[i]
		if len(out.Lanes) == maxLanes {
			out.More = len(t.Tasks) - i
			break
		}
		s := view.Span{From: out.Start, To: out.End, State: view.Alive}
		if k.Born != nil {
			s.From = *k.Born
		}
		if k.Died != nil {
			s.To = *k.Died
		}
		out.Lanes = append(out.Lanes, view.Lane{Name: view.Same(name(k)), TID: int64(k.TID), Spans: []view.Span{s}})
	}
	return out
}

// owns are the structures that a task shares with its maker, by flag.
var owns = []struct{ head, flag string }{
	{"mm", "CLONE_VM"}, {"files", "CLONE_FILES"}, {"fs", "CLONE_FS"}, {"sighand", "CLONE_SIGHAND"}, {"sysvsem", "CLONE_SYSVSEM"},
}

// namespaces are what a task has new by a flag, and else with its maker.
var namespaces = []string{"NEWNS", "NEWUTS", "NEWIPC", "NEWPID", "NEWNET", "NEWUSER", "NEWCGROUP", "NEWTIME"}

// letters number groups: A to Z, AA, …
func letters(n int) string {
	if n < 26 {
		return string(rune('A' + n))
	}
	return letters(n/26-1) + string(rune('A'+n%26))
}

func owned(t *tasks.Timeline) *view.Table {
	out := &view.Table{Columns: []view.Column{{Head: view.Words{EN: "TASK", KO: "태스크"}}, {Head: view.Words{EN: "MADE BY", KO: "만든 태스크"}}}}
	for _, o := range owns {
		out.Columns = append(out.Columns, view.Column{Head: view.Same(o.head)})
	}
	out.Columns = append(out.Columns, view.Column{Head: view.Words{EN: "new namespaces", KO: "새 네임스페이스"}}, view.Column{Head: view.Words{EN: "then exec", KO: "그 뒤 exec"}})
	groups := make([][]int, len(t.Tasks))
	next := make([]int, len(owns))
	for i := range t.Tasks {
		if i == maxOwned {
			out.More = len(t.Tasks) - i
			break
		}
		k := &t.Tasks[i]
		flags := strings.Split(k.Flags, "|")
		kernel := k.Via == "kthread" || k.Via == "kernel" || k.TID == 2
		known := k.Parent != nil && *k.Parent < i && k.Flags != ""
		row := view.Row{Cells: []view.Cell{{Kind: view.Text, Text: name(k)}, {Kind: view.None}}}
		if k.Parent != nil && *k.Parent < len(t.Tasks) {
			row.Cells[1] = view.Cell{Kind: view.Text, Text: name(&t.Tasks[*k.Parent])}
		}
		groups[i] = make([]int, len(owns))
		for j, o := range owns {
			if known && slices.Contains(flags, o.flag) {
				groups[i][j] = groups[*k.Parent][j]
			} else {
				groups[i][j] = next[j]
				next[j]++
			}
			cell := view.Cell{Kind: view.Text, Text: letters(groups[i][j])}
			if kernel && o.head == "mm" {
				cell = view.Cell{Kind: view.None}
			}
			row.Cells = append(row.Cells, cell)
		}
		var fresh []string
		for _, n := range namespaces {
			if slices.Contains(flags, "CLONE_"+n) {
				fresh = append(fresh, strings.ToLower(strings.TrimPrefix(n, "NEW")))
			}
		}
		row.Cells = append(row.Cells, orNone(strings.Join(fresh, ", ")), orNone(k.Exec))
		out.Rows = append(out.Rows, row)
	}
	return out
}

func orNone(s string) view.Cell {
	if s == "" {
		return view.Cell{Kind: view.None}
	}
	return view.Cell{Kind: view.Text, Text: s}
}

func paths(t *tasks.Timeline) *view.Stacks {
	out := &view.Stacks{}
	for _, p := range t.Paths {
		if len(out.Paths) == maxPaths {
			out.More = len(t.Paths) - maxPaths
			break
		}
		out.Paths = append(out.Paths, view.Path{Who: []string{p.Of}, Count: int(p.Count), Stack: p.Stack})
	}
	slices.SortStableFunc(out.Paths, func(a, b view.Path) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

func sleeping(s *record.Sleepers) *view.Stacks {
	out := &view.Stacks{}
	for _, p := range s.Places[:min(len(s.Places), maxPaths)] {
		path := view.Path{Count: int(p.Count), Stack: p.Stack}
		for _, k := range p.Tasks {
			path.Who = append(path.Who, fmt.Sprintf("%s-%d (%s)", k.Comm, k.TID, p.State))
		}
		out.Paths = append(out.Paths, path)
	}
	out.More = len(s.Places) - len(out.Paths)
	return out
}

func probe(p *record.Probe, i int) (views []*view.View) {
	id := func(s string) string { return fmt.Sprintf("probe%d-%s", i, s) }
	if p.NotApplicable != "" {
		why := view.Same(p.NotApplicable)
		return []*view.View{{ID: id("not"), Title: view.Same(p.Name), Absent: &why}}
	}
	t := &view.Table{Columns: []view.Column{
		{Head: view.Words{EN: "WHAT", KO: "무엇"}}, {Head: view.Words{EN: "AGREES", KO: "일치"}}, {Head: view.Words{EN: "THE KERNEL SHOWED", KO: "커널이 보인 것"}}, {Head: view.Words{EN: "ASKED FOR", KO: "요청한 것"}},
	}}
	for _, f := range p.Findings {
		agrees := view.Cell{Kind: view.Yes}
		if !f.OK {
			agrees = view.Cell{Kind: view.Text, Text: "✗", Tone: view.Bad}
		}
		t.Rows = append(t.Rows, view.Row{Cells: []view.Cell{{Kind: view.Text, Text: f.What}, agrees, {Kind: view.Text, Text: f.Got}, {Kind: view.Text, Text: f.Want}}})
	}
	views = append(views, &view.View{ID: id("findings"), Title: view.Words{EN: "Probe " + p.Name, KO: "프로브 " + p.Name}, Table: t})
	s := &view.Stacks{}
	for j := range p.Creations[:min(len(p.Creations), maxPaths)] {
		c := &p.Creations[j]
		s.Paths = append(s.Paths, view.Path{Who: []string{fmt.Sprintf("%s-%d → %s-%d", c.Requester.Comm, c.Requester.TID, c.Child.Current(), c.Child.TID)}, Count: 1, Stack: c.Stack})
		if r := c.AskedBy; r != nil {
			s.Paths = append(s.Paths, view.Path{Who: []string{fmt.Sprintf("%s-%d asks for %s-%d", r.Comm, r.TID, c.Child.Current(), c.Child.TID)}, Count: 1, Stack: r.Stack})
		}
	}
	views = append(views, &view.View{ID: id("stacks"), Title: view.Words{EN: "Its ways through the kernel", KO: "커널에서 지나온 길"}, Stacks: s})
	for _, v := range Tasks(tasks.Of(p.Creations, nil), 0) {
		if v.ID != "lives" { // when they ended is not in the record
			v.ID = id(v.ID)
			views = append(views, v)
		}
	}
	return views
}

// Reports are the kernel's reports as views, each with its stack and lines.
func Reports(all []*record.Crash) (views []*view.View) {
	for i, c := range all {
		title := view.Same(c.Kind + ": " + c.Title)
		if c.Stack != nil {
			views = append(views, &view.View{ID: fmt.Sprintf("report%d-stack", i), Title: title, Stacks: &view.Stacks{Paths: []view.Path{{Who: []string{c.Kind}, Count: max(c.Count, 1), Stack: *c.Stack}}}})
		}
		views = append(views, &view.View{ID: fmt.Sprintf("report%d", i), Title: title, Pre: strings.Join(c.Lines, "\n")})
	}
	return views
}
