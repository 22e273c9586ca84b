package outside_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/outside/fake"
	"labctl/host/outside/kern"
	"labctl/host/outside/page"
	"labctl/host/outside/ring"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/outside/vma"
	"labctl/host/stack"
	"labctl/host/vm"
)

// lookAtAll reads everything that can be read of a guest.
func lookAtAll(g *outside.Guest) []error {
	l := g.Look()
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	mods, err := l.Modules()
	note(err)
	_, err = ring.Read(l)
	note(err)
	tasks, err := g.Tasks(context.Background())
	note(err)
	if err == nil {
		for i := range tasks.List {
			_, err := tasks.Stack(&tasks.List[i])
			note(err)
		}
		note(tasks.WriteCPUs(nopWriter{}, styles()[0]))
		tasks.Tree()
		task.Blame(tasks, tasks)
	}
	init, _ := g.Addr("init_task")
	_, _, err = vma.Read(l, init)
	note(err)
	table, err := page.Table(l, init, 0x400000)
	note(err)
	if err == nil {
		_, err = page.Walk(l, table, 0x400000)
		note(err)
	}
	_, err = page.FrameOf(l, 1000)
	note(err)
	r, err := value.New(l, l.Finder(mods))
	note(err)
	if err == nil {
		typ, err := r.Type("task_struct")
		note(err)
		if err == nil {
			_ = r.At(typ, init).String()
			_, err = r.List(typ, init, "children", false)
			note(err)
			_, err = r.Path(typ, init, "real_parent.real_parent.comm")
			note(err)
		}
	}
	return errs
}

// TestDamaged: guests that scribbled over their own lists are read in bounded time, with
// errors of one line that have an outcome.
func TestDamaged(t *testing.T) {
	f := fake.New(t)
	g := f.Open()
	init, _ := g.Addr("init_task")
	at := func(member string) uint64 {
		m, err := g.Member("task_struct", member)
		if err != nil {
			t.Fatal(err)
		}
		return f.Phys(init) + uint64(m.Offset)
	}
	list := at("tasks")
	node := uint64(fake.Free)
	back := func() { f.Word(list, f.Virt(list)); f.Word(list+8, f.Virt(list)) }
	for _, c := range []struct {
		name string
		make func()
		want string
	}{
		{"all zero", func() {}, "list of tasks: "},
		{"a list that leads nowhere", func() { f.Word(list, 0xdead000000000100); f.Word(list+8, f.Virt(list)) }, "0xdead000000000108"},
		{"a node that points back elsewhere", func() { f.Word(list, f.Virt(node)); f.Word(node+8, f.Virt(node)) }, "points back"},
		{"a task that points to itself", func() { f.Word(node, f.Virt(node)); f.Word(node+8, f.Virt(list)) }, "points back"},
		{"no others", back, ""},
	} {
		c.make()
		tasks, err := task.Read(g.Kernel, nil)
		switch {
		case err == nil && c.want == "":
			if len(tasks.List) != 1 || tasks.Torn != "" {
				t.Errorf("%s: %d tasks, torn %q; want the first one", c.name, len(tasks.List), tasks.Torn)
			}
		case err == nil && tasks.Torn != "" && strings.Contains(tasks.Torn, c.want):
		case err == nil:
			t.Errorf("%s: %d tasks, torn %q; want an error with %q", c.name, len(tasks.List), tasks.Torn, c.want)
		case !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || outcome.Of(err) != outcome.BadInput:
			t.Errorf("%s: %v (%s); want one line with %q", c.name, err, outcome.Of(err), c.want)
		}
	}
	for _, err := range lookAtAll(g) {
		if strings.Contains(err.Error(), "\n") || outcome.Of(err) == outcome.Internal {
			t.Errorf("%q is %s", err, outcome.Of(err))
		}
	}
}

// TestNotFound: memory without the kernel in it.
func TestNotFound(t *testing.T) {
	f := fake.New(t)
	empty, err := unix.MemfdCreate("empty", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(empty), "empty")
	defer file.Close()
	const size = 128 << 20
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	_, err = kern.Open(t.Context(), f.Kernel, &vm.Memory{File: file, Regions: []vm.Region{{Size: size}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "is not found in the guest's memory") || outcome.Of(err) != outcome.BadInput {
		t.Errorf("Open = %v (%s)", err, outcome.Of(err))
	}
	// An anchor of another machine is not believed.
	g := f.Open()
	wrong := g.Anchor()
	wrong.Phys += 2 << 20
	memory, err := f.Memory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	k, err := kern.Open(t.Context(), f.Kernel, memory, &wrong)
	if err != nil || k.Anchor() != g.Anchor() {
		t.Errorf("Open with a wrong anchor = %v, want that of the guest", err)
	}
}

// FuzzGuest scribbles over the kernel's variables and what they point to.
func FuzzGuest(f *testing.F) {
	fk := fake.New(f)
	g := fk.Open()
	var targets []uint64
	for _, name := range []string{"init_task", "modules", "prb", "runqueues", "mem_section", "__per_cpu_offset", "__start_orc_unwind"} {
		if at, ok := g.Addr(name); ok && at>>63 != 0 {
			targets = append(targets, fk.Phys(at))
		}
	}
	targets = append(targets, fake.Free, fake.Free+4096)
	f.Add([]byte("a list that leads to itself"))
	f.Add([]byte{0, 0, 0, 9, 0, 0, 1, 8, 0, 9, 64, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Each six bytes are a word: where, and what. Most words lead to where others
		// are.
		for ; len(b) >= 6; b = b[6:] {
			at := targets[int(b[0])%len(targets)] + uint64(binary.LittleEndian.Uint16(b[1:])%2048)*8
			v := fk.Virt(targets[int(b[3])%len(targets)] + uint64(binary.LittleEndian.Uint16(b[4:])))
			if b[3] > 200 {
				v = uint64(b[4]) << (b[5] % 64)
			}
			fk.Word(at, v)
		}
		for _, err := range lookAtAll(g) {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
		}
	})
}

type nopWriter struct{}

func (nopWriter) Write(p []byte) (int, error) { return len(p), nil }

func styles() []stack.Style { return stack.Styles }

// TestValueForms: values in the forms that they are printed in.
func TestValueForms(t *testing.T) {
	f := fake.New(t)
	g := f.Open()
	l := g.Look()
	r, err := value.New(l, l.Finder(nil))
	if err != nil {
		t.Fatal(err)
	}
	init, _ := g.Addr("init_task")
	at := func(member string) uint64 {
		m, err := g.Member("task_struct", member)
		if err != nil {
			t.Fatal(err)
		}
		return f.Phys(init) + uint64(m.Offset)
	}
	clone, _ := g.Addr("kernel_clone")
	f.Put(at("comm"), []byte("a\x01b\x00"))
	f.Word(at("prio"), 0xfffffffb)
	f.Word(at("real_parent"), init)
	f.Word(at("sched_class"), clone+4)
	f.Word(at("task_works"), 0)
	f.Word(at("__state"), 0x402)
	b, err := g.Member("task_struct", "in_execve")
	if err != nil || b.Bits != 1 {
		t.Fatalf("in_execve = %+v, %v; want one bit", b, err)
	}
	f.Word(f.Phys(init)+uint64(b.Offset), 1<<b.Shift)
	typ, err := r.Type("struct task_struct")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"comm":                         "61 01 62 00 00 00 00 00 00 00 00 00 00 00 00 00",
		"prio":                         "-5",
		"real_parent":                  fmt.Sprintf("0x%x <init_task>", init),
		"real_parent.real_parent.prio": "-5",
		"sched_class":                  fmt.Sprintf("0x%x <kernel_clone+0x4>", clone+4),
		"task_works":                   "NULL",
		"__state":                      "1026",
		"in_execve":                    "1",
		"usage":                        "0",
		"thread_info":                  "{flags = 0, syscall_work = 0, status = 0, cpu = 0}",
		"cpus_mask.bits[1]":            "0",
	} {
		v, err := r.Path(typ, init, path)
		if err != nil || v.String() != want && v.Line() != path+" = "+want {
			t.Errorf("%s = %s, %v; want %s", path, v, err, want)
		}
	}
	for path, want := range map[string]string{
		"":                     "want a path",
		"comm.x":               "has no member x",
		"task_works.next":      "the pointer is null",
		"cpus_mask.bits[9999]": "the array has",
		"prio[0]":              "is not an array",
		"cpus_mask.bits[x]":    "want a number",
		"prioo":                "did you mean prio?",
	} {
		if _, err := r.Path(typ, init, path); err == nil || !strings.Contains(err.Error(), want) || outcome.Of(err) != outcome.BadInput {
			t.Errorf("%q: %v, want %s", path, err, want)
		}
	}
	for _, name := range []string{"task_struct", "struct task_struct", "union sigval", "sigval_t", "enum pid_type", "pid_t"} {
		if _, err := r.Type(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Type("union task_struct"); err == nil {
		t.Error("union task_struct is found, which is a struct")
	}
	pid, err := r.Type("enum pid_type")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Scalar(pid, 1) + " " + r.Scalar(pid, 77); got != "PIDTYPE_TGID 77" {
		t.Errorf("enum pid_type 1 and 77 are %s", got)
	}
	// A list of one, and members that are none.
	f.Word(at("children"), init+at("children")-f.Phys(init))
	f.Word(at("children")+8, init+at("children")-f.Phys(init))
	l.Fresh()
	if got, err := r.List(typ, init, "children", false); err != nil || len(got) != 1 {
		t.Errorf("an empty list is %#x, %v", got, err)
	}
	if _, err := r.List(typ, init, "prio", false); err == nil || !strings.Contains(err.Error(), "not a struct list_head") {
		t.Errorf("a list through prio: %v", err)
	}
}
