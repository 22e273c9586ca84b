package memory

import (
	"context"
	"sync/atomic"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/rawclone"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "entries", Run: entries}) }

// entries has a child and a thread read and write one shared page, and looks at the page as
// parent, child and thread have it, before the two touch it and after.
var entries = staged("entries", "raw clone of a child and a thread, reads of pagemap of all three", entriesOn)

func entriesOn(ctx context.Context, st *stage) error {
	shared, err := st.pages(1, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	word := (*uintptr)(unsafe.Pointer(&shared[0]))
	atomic.StoreUintptr(word, 42)

	var values [2]rawclone.Word
	var acts [2][2]int
	var scripts [2]*script
	for i, role := range []string{"child", "thread"} {
		s, err := newScript(role)
		if err != nil {
			return err
		}
		at := s.prog.Const(mm.Addr(shared))
		acts[i][0] = s.act()
		values[i] = s.read(at, 1)
		acts[i][1] = s.act()
		s.write(at, 1, uintptr(i+1)*100)
		scripts[i] = s
	}
	child, thread := scripts[0], scripts[1]
	if err := st.spawn(thread, threaded); err != nil {
		return err
	}
	if err := st.spawn(child, forked); err != nil {
		return err
	}
	three := map[string]spot{}
	point := map[string][]int64{"page": said(shared)}
	for who, tid := range map[string]int{"parent": st.self.PID, "child": child.child.TID, "thread": thread.child.TID} {
		three[who] = spot{tid, mm.Addr(shared)}
		point[who] = []int64{int64(tid)}
	}
	all := func(name string) (err error) {
		if st.data[name], err = behind(three); err != nil {
			return err
		}
		return probe.Look(name, point)
	}
	if err := all("made"); err != nil {
		return err
	}
	for i, s := range scripts {
		if err := s.play(ctx, acts[i][0]); err != nil {
			return err
		}
	}
	if err := all("touched"); err != nil {
		return err
	}
	var after []uintptr
	for i, s := range scripts {
		if err := s.play(ctx, acts[i][1]); err != nil {
			return err
		}
		after = append(after, atomic.LoadUintptr(word))
	}
	if err := all("written"); err != nil {
		return err
	}
	st.data["read"] = map[string]uintptr{"child": child.prog.Get(values[0]), "thread": thread.prog.Get(values[1])}
	st.data["parent_after"] = after
	return nil
}
