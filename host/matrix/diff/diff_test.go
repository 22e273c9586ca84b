package diff

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/golden"
	"labctl/host/kernel/profile"
	"labctl/host/lab"
	"labctl/host/record"
	"labctl/host/ui/table"
)

// find knows the lab K1 alone.
func find(id string) (*lab.Lab, error) { return lab.One(os.DirFS("testdata/labs"), id) }

func load(t *testing.T, paths ...string) ([]*Kernel, []string) {
	t.Helper()
	kernels, problems, err := Load(paths, find)
	if err != nil {
		t.Fatal(err)
	}
	return kernels, problems
}

func printed(t *testing.T, rep *Report, o Options) string {
	t.Helper()
	var b strings.Builder
	if err := Print(&b, rep, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGolden compares records of real kernels, of which the profiles and results
// were cut down.
func TestGolden(t *testing.T) {
	for _, tt := range []struct {
		name  string
		paths []string
		parts []string
	}{
		{"arm64", []string{"testdata/records/arm64/5.10", "testdata/records/arm64/7.2"}, nil},
		{"amd64", []string{"testdata/records/amd64"}, nil},
		{"both", []string{"testdata/records/amd64/7.2", "testdata/records/arm64/7.2"}, []string{Stacks, Syscalls, Functions}},
		{"by-arch", []string{"testdata/records"}, []string{Stacks, Claims}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kernels, problems := load(t, tt.paths...)
			rep := &Report{Schema: Schema, Problems: problems, Diffs: New(kernels, tt.parts)}
			golden.Check(t, "testdata/"+tt.name+".txt", printed(t, rep, Options{Cells: 100}))
			golden.Check(t, "testdata/"+tt.name+".md", printed(t, rep, Options{Markdown: true, All: tt.name == "arm64"}))
			if !slices.ContainsFunc(rep.Diffs, (*Diff).Differs) {
				t.Error("Differs = false")
			}
			if b, err := json.Marshal(rep); err != nil || len(b) < 1000 {
				t.Errorf("JSON of the report = %d bytes, %v", len(b), err)
			}
		})
	}
}

// TestWidth holds the terminal's form to its width.
func TestWidth(t *testing.T) {
	kernels, _ := load(t, "testdata/records/arm64")
	for _, cells := range []int{60, 80, 100} {
		out := printed(t, &Report{Diffs: New(kernels, nil)}, Options{Cells: cells, All: true})
		for _, line := range strings.Split(out, "\n") {
			if n := table.Width(line); n > cells {
				t.Errorf("at %d cells a line has %d: %q", cells, n, line)
			}
		}
	}
}

func TestSame(t *testing.T) {
	kernels, _ := load(t, "testdata/records/arm64/7.2", "testdata/records/arm64/7.2/")
	if len(kernels) != 2 {
		t.Fatalf("one kernel given twice: %d kernels; want two", len(kernels))
	}
	d := New(kernels, nil)[0]
	if kernels[0].Label == kernels[1].Label {
		t.Errorf("both are called %s", kernels[0].Label)
	}
	if d.Differs() {
		t.Errorf("a record differs from itself:\n%s", printed(t, &Report{Diffs: []*Diff{d}}, Options{Cells: 100, All: true}))
	}
}

func TestAlign(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"", "", ""},
		{"", "x", "-x"},
		{"kernel_clone __do_sys_clone", "kernel_clone __do_sys_clone", "kernel_clone=kernel_clone __do_sys_clone=__do_sys_clone"},
		{"_do_fork SyS_clone do_syscall_64", "kernel_clone __x64_sys_clone x64_sys_call do_syscall_64",
			"_do_fork=kernel_clone SyS_clone=__x64_sys_clone -x64_sys_call do_syscall_64=do_syscall_64"},
		{"el0_svc el0_sync_handler el0_sync", "invoke_syscall el0_svc el0t_64_sync_handler el0t_64_sync",
			"-invoke_syscall el0_svc=el0_svc el0_sync_handler=el0t_64_sync_handler el0_sync=el0t_64_sync"},
		{"kthreadd ret_from_fork", "kthreadd ret_from_fork ret_from_fork_asm", "kthreadd=kthreadd ret_from_fork=ret_from_fork -ret_from_fork_asm"},
		{"sys_fork", "sys_vfork", "sys_fork- -sys_vfork"},
		{"a b c", "c", "a- b- c=c"},
	} {
		a, b := strings.Fields(tt.a), strings.Fields(tt.b)
		var got []string
		for _, p := range align(len(a), len(b), func(i, j int) int { return likeness(a[i], b[j]) }) {
			switch {
			case p[0] < 0:
				got = append(got, "-"+b[p[1]])
			case p[1] < 0:
				got = append(got, a[p[0]]+"-")
			default:
				got = append(got, a[p[0]]+"="+b[p[1]])
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("align(%s | %s) = %s; want %s", tt.a, tt.b, s, tt.want)
		}
	}
}

// layout makes a structure of "name:size:type" words, one behind another.
func layout(words string) *profile.Struct {
	s := &profile.Struct{Name: "s"}
	for _, w := range strings.Fields(words) {
		var m profile.Member
		parts := strings.Split(w, ":")
		m.Name, m.Type, m.Offset = parts[0], parts[2], s.Size
		fmt.Sscan(parts[1], &m.Size)
		s.Size += m.Size
		s.Members = append(s.Members, m)
	}
	return s
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		want       map[string]string // of members of another name
		how        string
	}{
		{"state", "info:8:i state:8:long stack:8:p", "info:8:i __state:4:int saved_state:4:int stack:8:p", map[string]string{"__state": "state"}, "same place in the order, same word"},
		{"type and place", "a:4:int group_exit_task:8:p b:4:int", "a:4:int group_exec_task:8:p b:4:int", map[string]string{"group_exec_task": "group_exit_task"}, "same place in the order, same size and type"},
		{"another place", "a:4:int x:8:p b:4:int", "a:4:int b:4:int y:8:p", nil, ""},
		{"another type", "a:4:int x:8:p b:4:int", "a:4:int y:8:q b:4:int", nil, ""},
		{"two to choose from", "a:4:int x:8:p b:4:int", "a:4:int y:8:p z:8:p b:4:int", nil, ""},
		{"word before type", "a:4:int x:8:p b:4:int", "a:4:int y:8:p x_:8:p b:4:int", map[string]string{"x_": "x"}, "same place in the order, same size and type"},
		{"moved and back", "a:4:int b:4:int c:4:int", "c:4:int b:4:int a:4:int", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := layout(tt.a), layout(tt.b)
			was, how := match(a, b)
			got := map[string]string{}
			for name, old := range was {
				if name != old {
					got[name] = old
					if how[name] != tt.how {
						t.Errorf("how[%s] = %q; want %q", name, how[name], tt.how)
					}
				}
			}
			want := tt.want
			if want == nil {
				want = map[string]string{}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("renames (-want +got):\n%s", diff)
			}
		})
	}
}

func kernels(structs ...*profile.Struct) []*Kernel {
	var all []*Kernel
	for i, s := range structs {
		k := &Kernel{Release: fmt.Sprintf("6.%d.0", i), Arch: "arm64", Target: "arm64", profile: &profile.Profile{BTF: s != nil}}
		if s != nil {
			k.profile.Structs = []profile.Struct{*s}
		}
		all = append(all, k)
	}
	return all
}

// TestDrift follows members over more than two kernels, one of which nobody knows.
func TestDrift(t *testing.T) {
	d := New(kernels(
		layout("a:8:p state:8:long z:4:int"),
		nil,
		layout("a:8:p __state:4:int new:4:int z:4:int"),
		layout("a:8:p __state:4:int z:4:long"),
		layout("a:8:p __state:4:int new:4:int z:4:long"),
	), []string{Members})[0]
	if len(d.Layouts) != 1 {
		t.Fatalf("layouts: %d; want 1", len(d.Layouts))
	}
	got := map[string]string{}
	var order []string
	for i := range d.Layouts[0].Members {
		r := &d.Layouts[0].Members[i]
		order = append(order, r.Name)
		got[r.Name] = r.First + ": " + d.changes(r)
	}
	want := map[string]string{
		"state": "6.2: 6.2 renamed (same place in the order, same word), retyped, resized",
		"new":   "6.2: 6.2 appeared; 6.3 vanished; 6.4 appeared",
		"z":     "6.3: 6.3 retyped",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("drift (-want +got):\n%s", diff)
	}
	if want := []string{"state", "new", "z"}; !slices.Equal(order, want) {
		t.Errorf("order = %v; want %v", order, want)
	}
	if cells := d.Layouts[0].Members[0].Cells; !cells[1].Unknown || cells[0].Unknown {
		t.Errorf("cells = %+v; want the second one unknown", cells)
	}
}

func TestFunctions(t *testing.T) {
	all := kernels(layout(""), layout(""), nil)
	f := func(name, proto, family string) profile.Function {
		return profile.Function{Name: name, Proto: proto, Family: family}
	}
	all[0].profile.Functions = []profile.Function{
		f("_do_fork", "long _do_fork(struct kernel_clone_args *)", "creation"), f("copy_thread", "int copy_thread(struct task_struct *)", ""), f("gone", "void gone(struct task_struct *)", ""),
	}
	all[1].profile.Functions = []profile.Function{
		f("copy_thread", "int copy_thread(struct task_struct *, int)", ""), f("kernel_clone", "pid_t kernel_clone(struct kernel_clone_args *)", "creation"),
	}
	all[2].profile.Functions = []profile.Function{f("kernel_clone", "", "creation")}
	all[2].profile.Symbols = true
	d := New(all, []string{Functions})[0]
	got := map[string]string{}
	for i := range d.Functions {
		got[d.Functions[i].Name] = d.changes(&d.Functions[i])
	}
	want := map[string]string{"_do_fork": "6.1 renamed", "copy_thread": "6.1 changed", "gone": "6.1 vanished"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
	if d.Functions[0].Name != "_do_fork" {
		t.Errorf("first is %s; want the one that makes tasks", d.Functions[0].Name)
	}
}

func TestLabels(t *testing.T) {
	k := func(release, arch, target string) *Kernel {
		return &Kernel{Release: release, Arch: arch, Target: target, Records: []string{release + target}}
	}
	for _, tt := range []struct {
		kernels []*Kernel
		want    string
	}{
		{[]*Kernel{k("5.10.0-32-arm64", "arm64", "arm64"), k("6.12.1+deb13-arm64", "arm64", "arm64")}, "5.10|6.12"},
		{[]*Kernel{k("6.12.1-a", "amd64", "amd64"), k("6.12.1-b", "arm64", "arm64")}, "amd64|arm64"},
		{[]*Kernel{k("6.12.1", "amd64", "amd64"), k("6.12.1", "arm64", "arm64"), k("7.2", "arm64", "arm64")}, "6.12 amd64|6.12 arm64|7.2 arm64"},
		{[]*Kernel{k("6.12.1", "arm64", "arm64"), k("6.12.2", "arm64", "arm64")}, "6.12.1|6.12.2"},
		{[]*Kernel{k("6.12.1", "arm64", "arm64"), k("6.12.1", "arm64", "raspi3b")}, "6.12.1 arm64|6.12.1 raspi3b"},
		{[]*Kernel{k("7", "arm64", "arm64"), k("7", "arm64", "arm64")}, "7 #1|7 #2"},
	} {
		label(tt.kernels)
		var got []string
		for _, k := range tt.kernels {
			got = append(got, k.Label)
		}
		if s := strings.Join(got, "|"); s != tt.want {
			t.Errorf("labels = %s; want %s", s, tt.want)
		}
	}
}

func TestNatural(t *testing.T) {
	in := []string{"P10", "6.12.107", "6.1.0", "7.2", "P2", "6.12", "5.10.0-9", "5.10.0-32"}
	slices.SortFunc(in, natural)
	if got, want := strings.Join(in, " "), "5.10.0-9 5.10.0-32 6.1.0 6.12 6.12.107 7.2 P2 P10"; got != want {
		t.Errorf("sorted = %s; want %s", got, want)
	}
}

// copyRecord makes a record to spoil.
func copyRecord(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func replace(t *testing.T, file, old, with string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %s", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), old, with, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	const good = "testdata/records/arm64/5.10"
	for _, tt := range []struct {
		name          string
		spoil         func(dir string)
		gap, problems string // parts of a line
	}{
		{"as it is", func(string) {}, "lab C6 cannot be judged", ""},
		{"another schema", func(dir string) { replace(t, dir+"/C6/run.json", "labctl/run/v1", "labctl/run/v9") }, "", `schema is "labctl/run/v9"`},
		{"another kernel.json", func(dir string) { replace(t, dir+"/K1/kernel.json", "labctl/kernel/v1", "labctl/kernel/v9") }, `schema is "labctl/kernel/v9"`, ""},
		{"no kernel.json", func(dir string) { os.Remove(dir + "/K1/kernel.json") }, "no kernel.json in its records", ""},
		{"kernel.json of another kernel", func(dir string) { replace(t, dir+"/K1/run.json", `"sha256": "4d`, `"sha256": "5d`) }, "is of another kernel", ""},
		{"no lab.json", func(dir string) { os.Remove(dir + "/K1/lab.json") }, "lab K1 has no result here: ok", ""},
		{"half a lab.json", func(dir string) { os.Truncate(dir+"/K1/lab.json", 500) }, "unexpected end", ""},
		{"no types", func(dir string) {
			p, err := profile.Read(dir + "/K1/kernel.json")
			if err != nil {
				t.Fatal(err)
			}
			p.BTF, p.Structs = false, nil
			b, err := profile.Encode(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/K1/kernel.json", b, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "no types (BTF)", ""},
		{"nothing booted", func(dir string) {
			replace(t, dir+"/C6/run.json", `"sha256": "4d783ecd3ef77b54ba4827024f2ac232cac2451f6680d378a55841846c2a4a39"`, `"sha256": ""`)
		}, "", "no kernel was booted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyRecord(t, good)
			tt.spoil(dir)
			all, problems := load(t, dir, "testdata/records/arm64/7.2")
			var gaps []string
			for _, k := range all {
				if k.SHA256 != all[len(all)-1].SHA256 {
					gaps = append(gaps, k.Gaps...)
				}
			}
			if !strings.Contains(strings.Join(gaps, "\n"), tt.gap) {
				t.Errorf("gaps = %q; want one with %q", gaps, tt.gap)
			}
			if got := strings.Join(problems, "\n"); !strings.Contains(got, tt.problems) || tt.problems == "" && got != "" {
				t.Errorf("problems = %q; want %q", got, tt.problems)
			}
			rep := &Report{Problems: problems, Diffs: New(all, nil)}
			if out := printed(t, rep, Options{Cells: 80}); !strings.Contains(out, "How a task is made") {
				t.Errorf("printed:\n%s", out)
			}
		})
	}
	t.Run("by a link", func(t *testing.T) {
		abs, err := filepath.Abs(good)
		if err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(abs, link); err != nil {
			t.Fatal(err)
		}
		if all, _ := load(t, link); len(all) != 1 || len(all[0].Records) != 3 {
			t.Errorf("kernels = %d; want one with 3 records", len(all))
		}
	})
	for _, tt := range []struct{ path, want string }{
		{"testdata/nowhere", "no such directory"},
		{"testdata/labs", "no " + record.RunFile},
		{"testdata/records/arm64/5.10/K1/run.json", "a file, not a directory"},
	} {
		if _, _, err := Load([]string{tt.path}, find); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Load(%s) = %v; want %q", tt.path, err, tt.want)
		}
	}
}

// TestTerminalClean shows that nothing a record says reaches a terminal raw.
func TestTerminalClean(t *testing.T) {
	dir := copyRecord(t, "testdata/records/arm64/5.10")
	replace(t, dir+"/K1/run.json", "5.10.0-32-arm64", `5.10\u001b[2J`)
	replace(t, dir+"/K1/run.json", `"name": "arm64"`, `"name": "arm64\u001b[0m"`)
	replace(t, dir+"/K1/lab.json", "el0_svc_common", `el0\u001b_common`)
	all, _ := load(t, dir, "testdata/records/arm64/7.2")
	for _, o := range []Options{{Cells: 80}, {Markdown: true}} {
		if out := printed(t, &Report{Diffs: New(all, nil)}, o); strings.ContainsAny(out, "\x1b\u009b") {
			t.Errorf("an escape in:\n%q", out)
		}
	}
}
