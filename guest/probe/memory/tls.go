package memory

import (
	"context"
	"sync/atomic"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/rawclone"
)

func init() { probe.Register(probe.Probe{Name: "tls", Run: tls}) }

// thread is what one of two threads has of thread-local storage.
type thread struct {
	TID      int     `json:"tid"`
	Block    uint64  `json:"block"`    // what clone was given
	Register uint64  `json:"register"` // what the thread's register points to, read through it
	Asked    uint64  `json:"asked"`    // what arch_prctl(ARCH_GET_FS) says, 0 where there is no such call
	Variable uint64  `json:"variable"` // the address of the thread's variable: a word behind what the register points to
	Wrote    uint64  `json:"wrote"`
	Kept     uint64  `json:"kept"`   // read by the register when the other has written its own
	Peeked   uint64  `json:"peeked"` // the other's variable, read at its address
	Page     mm.Page `json:"page"`   // of the block, as the thread has it
}

// tls has two threads write a variable each, at a place that is found by the thread pointer,
// and looks at the thread pointers inside, outside, and at who can read what.
var tls = staged("tls", "raw clone with CLONE_SETTLS, loads through the thread pointer, arch_prctl", tlsOn)

// local is the script of a thread and the words that it reports in.
type local struct {
	*script
	tls                            *uintptr // the block that clone is given, in our memory: the same as the thread's
	base, again, asked, kept, peek rawclone.Word
	other                          rawclone.Word // the address of the other's variable
	set, get                       int
}

func newLocal(role string, wrote uintptr) (*local, error) {
	s, err := newScript(role)
	if err != nil {
		return nil, err
	}
	l := &local{script: s}
	l.base, l.again, l.asked = s.prog.Var(0), s.prog.Var(0), s.prog.Var(0)
	l.kept, l.peek, l.other = s.prog.Var(0), s.prog.Var(0), s.prog.Var(0)
	l.tls = (*uintptr)(unsafe.Pointer(&s.prog.Bytes(s.prog.TLS(), 256)[0]))
	word := s.prog.Const(unsafe.Sizeof(uintptr(0)))
	l.set = s.act()
	s.prog.ThreadLoad(l.base)
	if sysArchPrctl != 0 {
		s.prog.Syscall(sysArchPrctl, s.prog.Const(archGetFS), s.prog.Addr(l.asked))
	}
	at := s.prog.Var(0)
	s.prog.Add(at, l.base)
	s.prog.Add(at, word)
	s.prog.Store(at, s.prog.Const(wrote))
	l.get = s.act()
	s.prog.ThreadLoad(l.again)
	s.prog.Add(l.again, word)
	s.prog.Load(l.kept, l.again)
	s.prog.Load(l.peek, l.other)
	return l, nil
}

func tlsOn(ctx context.Context, st *stage) error {
	var all [2]*local
	wrote := [2]uintptr{111, 222}
	for i, role := range []string{"one", "two"} {
		l, err := newLocal(role, wrote[i])
		if err != nil {
			return err
		}
		all[i] = l
	}
	for i, l := range all {
		l.prog.Set(l.other, uintptr(unsafe.Pointer(all[1-i].tls))+unsafe.Sizeof(uintptr(0)))
		if err := st.spawn(l.script, threaded); err != nil {
			return err
		}
	}
	// A child without CLONE_SETTLS, which has its maker's thread pointer.
	child, err := newScript("child")
	if err != nil {
		return err
	}
	if err := st.spawn(child, forked); err != nil {
		return err
	}
	for _, act := range []func(*local) int{func(l *local) int { return l.set }, func(l *local) int { return l.get }} {
		for _, l := range all {
			if err := l.play(ctx, act(l)); err != nil {
				return err
			}
		}
	}
	point := map[string][]int64{"self": {int64(st.self.TID)}, "child": {int64(child.child.TID)}}
	for i, l := range all {
		block := uintptr(unsafe.Pointer(l.tls))
		page, err := mm.Look(l.child.TID, block)
		if err != nil {
			return err
		}
		st.data[l.role] = thread{
			TID: l.child.TID, Block: uint64(block), Register: uint64(l.prog.Get(l.base)), Asked: uint64(l.prog.Get(l.asked)),
			Variable: uint64(l.prog.Get(l.again)), Wrote: uint64(wrote[i]), Kept: uint64(l.prog.Get(l.kept)), Peeked: uint64(l.prog.Get(l.peek)), Page: page,
		}
		point[l.role] = []int64{int64(l.child.TID)}
		point["block_"+l.role] = []int64{int64(block)}
	}
	st.data["self"] = map[string]any{"tid": st.self.TID, "reads": [2]uintptr{
		atomic.LoadUintptr((*uintptr)(unsafe.Add(unsafe.Pointer(all[0].tls), unsafe.Sizeof(uintptr(0))))),
		atomic.LoadUintptr((*uintptr)(unsafe.Add(unsafe.Pointer(all[1].tls), unsafe.Sizeof(uintptr(0)))))}}
	return probe.Look("written", point)
}
