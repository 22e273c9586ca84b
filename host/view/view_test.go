package view

import (
	"strings"
	"testing"

	"labctl/host/golden"
	"labctl/host/stack"
	"labctl/host/trace/tasks"
	"labctl/host/ui/table"
)

// path is the way of a fork in Debian's 6.12 for amd64, by sched_process_fork.
func path(t testing.TB, first string) stack.Stack {
	t.Helper()
	var s stack.Stack
	for _, l := range []string{first + "+0x1e5/0x3d0", "__do_sys_clone+0x65/0x90", "do_syscall_64+0x82/0x190", "entry_SYSCALL_64_after_hwframe+0x76/0x7e"} {
		f, ok := stack.ParseFrame(l)
		if !ok {
			t.Fatalf("no frame: %q", l)
		}
		s.Frames = append(s.Frames, f)
	}
	s.Classify()
	return s
}

// all is a view of every kind.
func all(t testing.TB) []*View {
	at := func(n int64) *int64 { return &n }
	parent := 0
	absent := Words{"this kernel has no kcmp", "이 커널에는 kcmp가 없습니다"}
	return []*View{
		{
			ID: "ids", Title: Words{"Three numbers", "세 번호"}, Note: Words{"A note.", "설명입니다."},
			Table: &Table{
				Named:   true,
				Columns: []Column{{Head: Same("PID"), Right: true}, {Head: Same("vm")}, {Head: Words{"FLAGS", "플래그"}}},
				Rows: []Row{
					{Words{"a process", "프로세스"}, []Cell{{Kind: Number, Text: "146"}, {Kind: No}, {Kind: None}}},
					{Words{"its thread", "그 스레드"}, []Cell{{Kind: Number, Text: "7"}, {Kind: Yes}, {Kind: Text, Text: "VM|FS|FILES|SIGHAND|THREAD|SYSVSEM|SETTLS|PARENT_SETTID|CHILD_CLEARTID"}}},
					{Words{"another", "다른 것"}, []Cell{{Kind: Number, Text: "8"}, {Kind: Wrong, Text: "step x has no task"}, {Kind: Text, Text: "<script>alert(1)</script>\x1b[31m"}}},
				},
				More: 2,
			},
		},
		{
			ID: "tree", Title: Words{"Who made whom", "누가 누구를 만들었나"},
			Tree: &Tree{Program: 100, Tasks: &tasks.Timeline{Tasks: []tasks.Task{
				{TID: 100, Comm: "prog"},
				{TID: 105, Comm: "child", Parent: &parent, Born: at(1_000_000), Died: at(3_500_000), Via: "clone", Flags: "CLONE_VM|CLONE_VFORK|SIGCHLD", Path: 1, Notes: []string{"it was odd"}},
			}}},
		},
		{
			ID: "stacks", Title: Words{"Ways", "길"},
			Stacks: &Stacks{Paths: []Path{{Who: []string{"prog-100 → child-105", "prog-100 → child-106"}, Count: 2, Stack: path(t, "kernel_clone")}}, More: 1},
		},
		{
			ID: "times", Title: Words{"Who ran when", "누가 언제 돌았나"},
			Timeline: &Timeline{
				Start: 1e9, End: 1.1e9, More: 3,
				Lanes: []Lane{
					{Words{"parent (100)", "부모(100)"}, 100, []Span{{1e9, 1.02e9, Running, 0}, {1.02e9, 1.08e9, "D", 0}, {1.08e9, 1.1e9, Running, 0}}},
					{Same("child (105)"), 105, []Span{{1.02e9, 1.03e9, Ready, 1}, {1.03e9, 1.08e9, Running, 1}, {1.08e9, 1.09e9, "?", 1}}},
				},
				Marks: []Mark{{0, 1.02e9, Same("vfork")}, {1, 1.08e9, Same("exit")}, {1, 1.099e9, Same("gone")}},
			},
		},
		{
			ID: "walk", Title: Words{"A walk", "걷기"},
			Walk: &Walk{Address: "0x7ffe1000", Levels: []Step{{"PGD", "47:39", "255", "0x1067"}, {"PUD", "38:30", "511", "0x2067"}, {"PTE", "20:12", "1", "0x8000000003025067"}}, To: "page 0x3025"},
		},
		{
			ID: "layout", Title: Words{"A structure", "구조체"},
			Layout: &Layout{Name: "task_struct", Size: 48, Members: []Member{{"__state", 24, 4, "unsigned int", "was state"}, {"stack", 32, 8, "void *", ""}}},
		},
		{
			ID: "compare", Title: Words{"Two witnesses", "두 증인"},
			Compare: &Compare{Sides: []Side{
				{Same("sched_switch"), []string{"__schedule", "schedule", "do_sigtimedwait", "do_syscall_64"}},
				{Same("/proc/PID/stack"), []string{"do_sigtimedwait", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"}},
			}},
		},
		{ID: "pre", Title: Words{"Printed", "출력"}, Pre: "one </pre><script>alert(2)</script>\n  two\n"},
		{ID: "none", Title: Words{"Not here", "여기에는 없음"}, Absent: &absent},
	}
}

func TestTerminal(t *testing.T) {
	for _, tt := range []struct {
		file string
		o    Options
	}{
		{"terminal-en.txt", Options{Lang: "en", Cells: 80, Plain: true}},
		{"terminal-ko.txt", Options{Lang: "ko", Cells: 60, Plain: true}},
		{"terminal-colour.txt", Options{Lang: "en", Cells: 80}},
	} {
		var b strings.Builder
		if err := Terminal(&b, all(t), tt.o); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "testdata/"+tt.file, b.String())
		for l := range strings.Lines(b.String()) {
			if n := table.Width(strings.TrimRight(l, "\n")); n > tt.o.Cells {
				t.Errorf("%s: a line of %d cells: %q", tt.file, n, l)
			}
		}
		if strings.Contains(b.String(), "</script>\x1b") {
			t.Errorf("%s: the guest's colours are in it", tt.file)
		}
	}
}

// TestRows: lines that two lists have in common stand beside each other.
func TestRows(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"a b c", "a b c", "a=a b=b c=c"},
		{"a b c", "b d", "a= b=b c= =d"},
		{"", "x", "=x"},
		{"a x b", "a y b", "a=a x= =y b=b"},
	} {
		c := Compare{Sides: []Side{{Lines: strings.Fields(tt.a)}, {Lines: strings.Fields(tt.b)}}}
		var got []string
		for _, r := range c.rows() {
			got = append(got, r[0]+"="+r[1])
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("rows of %q and %q = %q; want %q", tt.a, tt.b, s, tt.want)
		}
	}
}

// TestHTML: every kind is drawn, and what a guest said is text.
func TestHTML(t *testing.T) {
	var b strings.Builder
	for _, v := range all(t) {
		if err := HTML(&b, v, "t-"); err != nil {
			t.Fatal(err)
		}
	}
	golden.Check(t, "testdata/views.html", b.String())
	if strings.Contains(b.String(), "<script") || strings.Contains(b.String(), "style=") || strings.Contains(b.String(), "http") {
		t.Error("markup of a guest's, a style that the page's policy forbids, or an address of elsewhere")
	}
}

// TestMarkdown: every kind is written, what a guest said is text, and each table's rows
// have as many cells as its head.
func TestMarkdown(t *testing.T) {
	for _, lang := range []string{"en", "ko"} {
		var b strings.Builder
		if err := Markdown(&b, all(t), lang); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "testdata/views-"+lang+".md", b.String())
		if strings.Contains(b.String(), "<script") || strings.Contains(b.String(), "\x1b") {
			t.Error("a guest's markup or colours are in it")
		}
		cells := 0
		for l := range strings.Lines(b.String()) {
			if !strings.HasPrefix(l, "|") {
				cells = 0
				continue
			}
			if n := strings.Count(l, "|"); cells != 0 && n != cells {
				t.Errorf("%s: a row of %d cells where there are %d: %s", lang, n-1, cells-1, l)
			} else {
				cells = n
			}
		}
	}
}
