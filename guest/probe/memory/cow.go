package memory

import (
	"context"
	"encoding/json"
	"os"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "cow", Run: cow}) }

// family are the pages of one mapping in parent and child.
type family struct {
	Parent []mm.Page `json:"parent"`
	Child  []mm.Page `json:"child,omitempty"`
}

// cow forks a child that writes to one of its parent's pages, after which the parent
// writes to the same one, and looks at all pages of both before and after each.
func cow(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Pages int `json:"pages"`
		Index int `json:"index"`
	}{Pages: 34, Index: 2}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	if p.Pages < 1 || p.Pages > 64 || p.Index < 0 || p.Index >= p.Pages {
		return nil, probe.Paramf("pages %d, index %d: give 1 to 64 pages, and one of them", p.Pages, p.Index)
	}
	return perform("cow", "raw clone, writes in child and parent, reads of pagemap, kpagecount and kpageflags", func(st *stage) error { return cowOn(ctx, st, p.Pages, p.Index) })
}

func cowOn(ctx context.Context, st *stage, n, index int) error {
	private, err := st.pages(n, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	shared, err := st.pages(2, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	untouched, err := st.pages(2, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	text, err := st.ownFile(2)
	if err != nil {
		return err
	}
	fill(private)
	fill(shared)
	Sink += text[0] + text[len(text)-1]

	s, err := newScript("child")
	if err != nil {
		return err
	}
	at := s.prog.Const(addrs(private)[index])
	idle := s.act()
	seen := s.read(at, 1)
	write := s.act()
	s.write(at, 1, 0x77)

	parent := int64(st.self.PID)
	before := family{}
	if before.Parent, err = look(st.self.PID, private); err != nil {
		return err
	}
	if err := probe.Look("before", map[string][]int64{"parent": {parent}, "private": said(private)}); err != nil {
		return err
	}
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	child := s.child.TID
	both := func(b []byte) (f family, err error) {
		if f.Parent, err = look(st.self.PID, b); err != nil {
			return f, err
		}
		f.Child, err = look(child, b)
		return f, err
	}
	if err := s.play(ctx, idle); err != nil {
		return err
	}
	fork := map[string]family{}
	for name, b := range map[string][]byte{"private": private, "shared": shared, "untouched": untouched, "text": text} {
		if fork[name], err = both(b); err != nil {
			return err
		}
	}
	minflt := map[string]uint64{}
	if minflt["forked"], err = faults(child); err != nil {
		return err
	}
	if err := probe.Look("forked", map[string][]int64{"parent": {parent}, "child": {int64(child)},
		"private": said(private), "shared": said(shared), "untouched": said(untouched), "text": said(text)}); err != nil {
		return err
	}
	if err := s.play(ctx, write); err != nil {
		return err
	}
	written, err := both(private)
	if err != nil {
		return err
	}
	if minflt["written"], err = faults(child); err != nil {
		return err
	}
	here := map[string][]int64{"parent": {parent}, "child": {int64(child)}, "private": said(private)}
	if err := probe.Look("written", here); err != nil {
		return err
	}
	private[index*os.Getpagesize()] = 0x66
	again, err := both(private)
	if err != nil {
		return err
	}
	here["private"] = here["private"][index : index+1]
	if err := probe.Look("again", here); err != nil {
		return err
	}
	st.data["index"] = index
	st.data["before"] = before
	st.data["forked"] = fork
	st.data["written"] = written
	st.data["again"] = again
	st.data["minflt"] = minflt
	st.data["child_read"] = s.prog.Get(seen) & 0xff
	st.data["parent_has"] = private[index*os.Getpagesize()]
	return nil
}

// Sink keeps reads that are made for their page faults.
var Sink byte

// ownFile maps the start of the program's file, for reading.
func (st *stage) ownFile(pages int) ([]byte, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, pages*os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	if err == nil {
		st.mapped = append(st.mapped, b)
	}
	return b, err
}
