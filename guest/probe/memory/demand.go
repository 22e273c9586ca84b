package memory

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "demand", Run: demand}) }

// have is what a process has of one mapping, and of memory at all.
type have struct {
	Faults   uint64            `json:"minflt"` // since it began
	Present  int               `json:"present"`
	Frames   int               `json:"frames"` // different page frames
	ZeroPage int               `json:"zero_page"`
	Area     map[string]uint64 `json:"area"`   // smaps of the mapping, in KB
	Status   map[string]uint64 `json:"status"` // VmSize, VmRSS, VmPTE, … in KB
	First    []mm.Page         `json:"first"`
}

// samples is how many pages are shown, and looked at from outside.
const samples = 16

// demand has a child read all pages of a mapping that nobody has touched, then write to
// them, and looks at what the child has before and after.
func demand(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Pages int `json:"pages"`
	}{Pages: 512}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	if p.Pages < samples || p.Pages > 64<<10 {
		return nil, probe.Paramf("pages %d: give %d to %d", p.Pages, samples, 64<<10)
	}
	return perform("demand", "raw clone, reads and writes in the child, its pagemap, smaps, status and stat", func(st *stage) error { return demandOn(ctx, st, p.Pages) })
}

func demandOn(ctx context.Context, st *stage, n int) error {
	area, err := st.pages(n, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	s, err := newScript("child")
	if err != nil {
		return err
	}
	at := s.prog.Const(mm.Addr(area))
	names := []string{"mapped", "read", "written", "again"}
	acts := []int{s.act()}
	acts = append(acts, s.act())
	value := s.read(at, n)
	acts = append(acts, s.act())
	s.write(at, n, 1)
	acts = append(acts, s.act())
	s.write(at, n, 2)
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	st.data["pages"] = n
	for i, name := range names {
		if err := s.play(ctx, acts[i]); err != nil {
			return err
		}
		h, err := haveOf(s.child.TID, area)
		if err != nil {
			return err
		}
		st.data[name] = h
		if name == "again" {
			break
		}
		point := map[string][]int64{"child": {int64(s.child.TID)}, "page": said(area[:samples*os.Getpagesize()])}
		if err := probe.Look(name, point); err != nil {
			return err
		}
	}
	st.data["value"] = s.prog.Get(value)
	return nil
}

func haveOf(pid int, area []byte) (h have, err error) {
	if h.Faults, err = faults(pid); err != nil {
		return h, err
	}
	entries, err := mm.Pagemap(pid, mm.Addr(area), len(area)/os.Getpagesize())
	if err != nil {
		return h, err
	}
	zero := map[uint64]bool{}
	for _, e := range entries {
		if !e.Present() {
			continue
		}
		h.Present++
		pfn := e.PFN()
		if pfn == 0 {
			return h, mm.ErrUnseen
		}
		is, known := zero[pfn]
		if !known {
			flags, err := mm.KPageFlags(pfn)
			if err != nil {
				return h, err
			}
			is = flags&mm.ZeroPage != 0
			zero[pfn] = is
		}
		if is {
			h.ZeroPage++
		}
	}
	h.Frames = len(zero)
	u, err := mm.SmapsAt(pid, mm.Addr(area))
	if err != nil {
		return h, err
	}
	h.Area = u.KB
	if h.Status, err = mm.Counters(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
		return h, err
	}
	h.First, err = look(pid, area[:samples*os.Getpagesize()])
	return h, err
}
