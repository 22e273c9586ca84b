package outside_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/outside/kern"
	"labctl/host/outside/page"
	"labctl/host/outside/ring"
	"labctl/host/outside/task"
	"labctl/host/outside/value"
	"labctl/host/outside/vma"
	"labctl/host/stack"
	"labctl/host/vm"
)

// fake is the memory of a guest that never ran: that of a real kernel as far as it takes
// to find it, and what a test puts there.
type fake struct {
	t    testing.TB
	file *os.File
	k    *kernel.Kernel
}

const (
	fakeSize = 128 << 20
	fakePhys = 16 << 20
	fakeText = 0xffffffff81000000
	fakeFree = 112 << 20 // what is free for a test starts here, after the image
)

func newFake(t testing.TB) *fake {
	t.Helper()
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := kernel.ParseRef("6.12")
	if err != nil {
		t.Fatal(err)
	}
	k, err := cache.Get(context.Background(), ref, "amd64", nil)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t, os.NewFile(uintptr(fd), "guest"), k}
	t.Cleanup(func() { f.file.Close() })
	if err := f.file.Truncate(fakeSize); err != nil {
		t.Fatal(err)
	}
	syms, err := k.Symbols(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	phys := func(name string) uint64 { return syms.Named(name)[0].Addr - fakeText + fakePhys }
	f.put(phys("linux_banner"), []byte("Linux version "+k.Release+" (fake)\x00"))
	// The kernel's tables, as 2 MB pages: the image, and all memory behind it, since the
	// first byte of the image is at 16 MB in its gigabyte, too.
	root := phys("init_top_pgt")
	pud, pmd := uint64(fakePhys-0x2000), uint64(fakePhys-0x1000)
	f.word(root+511*8, pud|0x63)
	f.word(pud+510*8, pmd|0x63)
	for i := uint64(0); i < fakeSize>>21; i++ {
		f.word(pmd+i*8, i<<21|0xe3)
	}
	return f
}

// put writes to the memory, which has room for all that tests put there.
func (f *fake) put(at uint64, b []byte) { f.file.WriteAt(b, int64(at)) }

func (f *fake) word(at, v uint64) { f.put(at, binary.LittleEndian.AppendUint64(nil, v)) }

// virt is the virtual address of a physical one.
func (f *fake) virt(phys uint64) uint64 { return fakeText - fakePhys + phys }

func (f *fake) phys(virt uint64) uint64 { return virt - fakeText + fakePhys }

// Inspector.
func (f *fake) Memory(context.Context) (*vm.Memory, error) {
	fd, err := unix.Dup(int(f.file.Fd()))
	return &vm.Memory{File: os.NewFile(uintptr(fd), "guest"), Regions: []vm.Region{{Base: 0, Host: 0, Size: fakeSize}}}, err
}

func (f *fake) Registers(context.Context) (string, error) {
	return "CPU#0\nRIP=ffffffff81000100 RFL=00000216 [----AP-] CPL=0 II=0 A20=1 SMM=0 HLT=1\nRSP=ffffffff88000000\n", nil
}

func (f *fake) Stop(context.Context) (func() error, error) { return func() error { return nil }, nil }

func (f *fake) GDB(context.Context) (net.Conn, error) { return nil, outcome.Inputf("there is none") }

func (f *fake) open() *outside.Guest {
	f.t.Helper()
	g, err := outside.Open(context.Background(), f, f.k, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { g.Close() })
	return g
}

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
	f := newFake(t)
	g := f.open()
	init, _ := g.Addr("init_task")
	at := func(member string) uint64 {
		m, err := g.Member("task_struct", member)
		if err != nil {
			t.Fatal(err)
		}
		return f.phys(init) + uint64(m.Offset)
	}
	list := at("tasks")
	node := uint64(fakeFree)
	back := func() { f.word(list, f.virt(list)); f.word(list+8, f.virt(list)) }
	for _, c := range []struct {
		name string
		make func()
		want string
	}{
		{"all zero", func() {}, "list of tasks: "},
		{"a list that leads nowhere", func() { f.word(list, 0xdead000000000100); f.word(list+8, f.virt(list)) }, "0xdead000000000108"},
		{"a node that points back elsewhere", func() { f.word(list, f.virt(node)); f.word(node+8, f.virt(node)) }, "points back"},
		{"a task that points to itself", func() { f.word(node, f.virt(node)); f.word(node+8, f.virt(list)) }, "points back"},
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
	f := newFake(t)
	empty, err := unix.MemfdCreate("empty", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(empty), "empty")
	defer file.Close()
	if err := file.Truncate(fakeSize); err != nil {
		t.Fatal(err)
	}
	_, err = kern.Open(t.Context(), f.k, &vm.Memory{File: file, Regions: []vm.Region{{Size: fakeSize}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "is not found in the guest's memory") || outcome.Of(err) != outcome.BadInput {
		t.Errorf("Open = %v (%s)", err, outcome.Of(err))
	}
	// An anchor of another machine is not believed.
	g := f.open()
	wrong := g.Anchor()
	wrong.Phys += 2 << 20
	memory, err := f.Memory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	k, err := kern.Open(t.Context(), f.k, memory, &wrong)
	if err != nil || k.Anchor() != g.Anchor() {
		t.Errorf("Open with a wrong anchor = %v, want that of the guest", err)
	}
}

// FuzzGuest scribbles over the kernel's variables and what they point to.
func FuzzGuest(f *testing.F) {
	fk := newFake(f)
	g := fk.open()
	var targets []uint64
	for _, name := range []string{"init_task", "modules", "prb", "runqueues", "mem_section", "__per_cpu_offset", "__start_orc_unwind"} {
		if at, ok := g.Addr(name); ok && at>>63 != 0 {
			targets = append(targets, fk.phys(at))
		}
	}
	targets = append(targets, fakeFree, fakeFree+4096)
	f.Add([]byte("a list that leads to itself"))
	f.Add([]byte{0, 0, 0, 9, 0, 0, 1, 8, 0, 9, 64, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Each six bytes are a word: where, and what. Most words lead to where others
		// are.
		for ; len(b) >= 6; b = b[6:] {
			at := targets[int(b[0])%len(targets)] + uint64(binary.LittleEndian.Uint16(b[1:])%2048)*8
			v := fk.virt(targets[int(b[3])%len(targets)] + uint64(binary.LittleEndian.Uint16(b[4:])))
			if b[3] > 200 {
				v = uint64(b[4]) << (b[5] % 64)
			}
			fk.word(at, v)
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
	f := newFake(t)
	g := f.open()
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
		return f.phys(init) + uint64(m.Offset)
	}
	clone, _ := g.Addr("kernel_clone")
	f.put(at("comm"), []byte("a\x01b\x00"))
	f.word(at("prio"), 0xfffffffb)
	f.word(at("real_parent"), init)
	f.word(at("sched_class"), clone+4)
	f.word(at("task_works"), 0)
	f.word(at("__state"), 0x402)
	b, err := g.Member("task_struct", "in_execve")
	if err != nil || b.Bits != 1 {
		t.Fatalf("in_execve = %+v, %v; want one bit", b, err)
	}
	f.word(f.phys(init)+uint64(b.Offset), 1<<b.Shift)
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
	f.word(at("children"), init+at("children")-f.phys(init))
	f.word(at("children")+8, init+at("children")-f.phys(init))
	l.Fresh()
	if got, err := r.List(typ, init, "children", false); err != nil || len(got) != 1 {
		t.Errorf("an empty list is %#x, %v", got, err)
	}
	if _, err := r.List(typ, init, "prio", false); err == nil || !strings.Contains(err.Error(), "not a struct list_head") {
		t.Errorf("a list through prio: %v", err)
	}
}
