package memory

import (
	"context"
	"fmt"
	"os"
	"strings"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "areas", Run: areas}) }

// territory is what /proc says of the areas of a process.
type territory struct {
	Lines  []string          `json:"lines"`  // of maps, with single blanks, without the kernel's own page
	Pieces []string          `json:"pieces"` // the permissions of the areas of one mapping
	Status map[string]uint64 `json:"status"` // VmSize, … in KB
}

// gate reports whether a line of maps is a page of the kernel's that it lists for every process, and
// that no process has an area for: of amd64, and of 32-bit arm.
func gate(a mm.Area) bool { return a.Path == "[vsyscall]" || a.Path == "[vectors]" }

// areas forks a child of several kinds of mappings, which takes a page in the middle of
// one the right to write, gives it back, and grows its heap.
var areas = staged("areas", "raw clone of a child and a thread, mprotect and brk in the child, reads of maps and status", areasOn)

func areasOn(ctx context.Context, st *stage) error {
	page := os.Getpagesize()
	private, err := st.pages(3, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if _, err := st.pages(2, unix.MAP_SHARED); err != nil {
		return err
	}
	none, err := st.pages(2, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if err := unix.Mprotect(none, unix.PROT_NONE); err != nil {
		return fmt.Errorf("mprotect: %w", err)
	}
	if err := st.partOfFile(); err != nil {
		return err
	}

	s, err := newScript("child")
	if err != nil {
		return err
	}
	middle := s.prog.Const(mm.Addr(private) + uintptr(page))
	length := s.prog.Const(uintptr(page))
	acts := []int{s.act(), s.act()}
	split := s.prog.Syscall(unix.SYS_MPROTECT, middle, length, s.prog.Const(unix.PROT_READ))
	acts = append(acts, s.act())
	merge := s.prog.Syscall(unix.SYS_MPROTECT, middle, length, s.prog.Const(unix.PROT_READ|unix.PROT_WRITE))
	acts = append(acts, s.act())
	end := s.prog.Syscall(unix.SYS_BRK, s.prog.Const(0))
	s.prog.Add(end, s.prog.Const(uintptr(4*page)))
	grown := s.prog.Syscall(unix.SYS_BRK, end)
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	child := s.child.TID
	for i, name := range []string{"forked", "split", "merged", "grown"} {
		if err := s.play(ctx, acts[i]); err != nil {
			return err
		}
		t, err := territoryOf(child, private)
		if err != nil {
			return err
		}
		st.data[name] = t
		if err := probe.Look(name, map[string][]int64{"child": {int64(child)}, "page": said(private)}); err != nil {
			return err
		}
	}
	for what, r := range map[string]func() (uintptr, error){
		"mprotect": func() (uintptr, error) { return s.prog.Result(split) }, "mprotect back": func() (uintptr, error) { return s.prog.Result(merge) },
	} {
		if _, err := r(); err != nil {
			return fmt.Errorf("%s in the child: %w", what, err)
		}
	}
	if got, want := s.prog.Get(grown), s.prog.Get(end); got != want {
		return fmt.Errorf("brk in the child: %#x; want %#x", got, want)
	}
	return st.threadArea(ctx)
}

// threadArea says what area the stack of a thread is in.
func (st *stage) threadArea(ctx context.Context) error {
	s, err := newScript("thread")
	if err != nil {
		return err
	}
	idle := s.act()
	if err := st.spawn(s, threaded); err != nil {
		return err
	}
	if err := s.play(ctx, idle); err != nil {
		return err
	}
	all, err := mm.Maps(st.self.PID)
	if err != nil {
		return err
	}
	top := s.child.StackTop()
	a, ok := mm.Find(all, top-1)
	if !ok {
		return fmt.Errorf("maps: nothing at the thread's stack, %#x", top)
	}
	st.data["thread"] = map[string]any{"stack_top": top, "area": a}
	return nil
}

// partOfFile maps a page of a file of /tmp, from the second page on.
func (st *stage) partOfFile() error {
	f, err := os.CreateTemp("", "labctl areas ")
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	page := os.Getpagesize()
	if err := f.Truncate(int64(2 * page)); err != nil {
		return err
	}
	b, err := unix.Mmap(int(f.Fd()), int64(page), page, unix.PROT_READ, unix.MAP_SHARED)
	if err == nil {
		st.mapped = append(st.mapped, b)
	}
	return err
}

func territoryOf(pid int, b []byte) (t territory, err error) {
	text, err := mm.MapsText(pid)
	if err != nil {
		return t, err
	}
	all, err := mm.ParseMaps(text)
	if err != nil {
		return t, err
	}
	lines := strings.Split(text, "\n")
	for i, a := range all {
		if !gate(a) {
			t.Lines = append(t.Lines, strings.Join(strings.Fields(lines[i]), " "))
		}
		if start := uint64(mm.Addr(b)); a.Start < start+uint64(len(b)) && a.End > start {
			t.Pieces = append(t.Pieces, a.Perms)
		}
	}
	t.Status, err = mm.Counters(fmt.Sprintf("/proc/%d/status", pid))
	return t, err
}
