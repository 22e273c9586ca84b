package memory

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/wire"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "rss", Run: rss}) }

// bigArray is a megabyte of the program's data that begins as zeroes and that nobody
// writes to: of it the file has nothing.
var bigArray [1 << 20]byte

// usage is what a process is said to use, in KB.
type usage struct {
	Status map[string]uint64 `json:"status"` // VmRSS, RssAnon, …: the kernel's counters
	Rollup map[string]uint64 `json:"rollup"` // Rss, Pss, …: counted in the page tables
	Zeroes map[string]uint64 `json:"zeroes"` // smaps of the untouched array
	Dirty  map[string]uint64 `json:"dirty"`  // smaps of the pages that the parent has written
	// The first pages of the two.
	ZeroPages  []mm.Page `json:"zero_pages"`
	DirtyPages []mm.Page `json:"dirty_pages"`
}

// shown is how many pages of each are looked at.
const shown = 4

// rss forks a child that reads and writes an array of zeroes, and pages that its parent has
// written, and looks at what both are said to use.
func rss(ctx context.Context, raw json.RawMessage) (*wire.ProbeResult, error) {
	p := struct {
		Pages int `json:"pages"`
	}{Pages: 64}
	if err := probe.Params(raw, &p); err != nil {
		return nil, err
	}
	if p.Pages < 2 || p.Pages > 64<<10 {
		return nil, probe.Paramf("pages %d: give 2 to %d", p.Pages, 64<<10)
	}
	return perform("rss", "raw clone, reads and writes in the child, smaps, smaps_rollup and status of both", func(st *stage) error { return rssOn(ctx, st, p.Pages) })
}

func rssOn(ctx context.Context, st *stage, n int) error {
	page := os.Getpagesize()
	first := int(-uintptr(unsafe.Pointer(&bigArray)) % uintptr(page))
	zeroes := bigArray[first : first+(len(bigArray)-first)/page*page]
	// Advice of its own makes it an area of its own: what else is in the data is not counted.
	if err := unix.Madvise(zeroes, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("madvise: %w", err)
	}
	if err := mm.Small(zeroes); err != nil {
		return err
	}
	dirty, err := st.pages(n, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	fill(dirty)

	s, err := newScript("child")
	if err != nil {
		return err
	}
	names := []string{"forked", "zeroes_read", "zeroes_written", "dirty_read", "dirty_written"}
	acts := []int{s.act()}
	self := s.prog.Buffer(32)
	length := s.prog.Syscall(unix.SYS_READLINKAT, s.prog.Const(atFDCWD), s.prog.Addr(s.prog.CString("/proc/self")), s.prog.Addr(self), s.prog.Const(31))
	acts = append(acts, s.act())
	s.read(s.prog.Const(mm.Addr(zeroes)), len(zeroes)/page)
	acts = append(acts, s.act())
	s.write(s.prog.Const(mm.Addr(zeroes[page:])), 1, 1)
	acts = append(acts, s.act())
	s.read(s.prog.Const(mm.Addr(dirty)), n)
	acts = append(acts, s.act())
	s.write(s.prog.Const(mm.Addr(dirty[page:])), 1, 1)

	use := func(pid int) (u usage, err error) {
		if u.Status, err = mm.Counters(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
			return u, err
		}
		roll, err := mm.Rollup(pid)
		if err != nil {
			return u, err
		}
		u.Rollup = roll.KB
		for _, part := range []struct {
			b     []byte
			into  *map[string]uint64
			pages *[]mm.Page
		}{{zeroes, &u.Zeroes, &u.ZeroPages}, {dirty, &u.Dirty, &u.DirtyPages}} {
			a, err := mm.SmapsAt(pid, mm.Addr(part.b))
			if err != nil {
				return u, err
			}
			*part.into = a.KB
			if *part.pages, err = look(pid, part.b[:min(len(part.b)/page, shown)*page]); err != nil {
				return u, err
			}
		}
		return u, nil
	}
	before, err := use(st.self.PID)
	if err != nil {
		return err
	}
	st.data["before"] = map[string]usage{"parent": before}
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	child := s.child.TID
	for i, name := range names {
		if err := s.play(ctx, acts[i]); err != nil {
			return err
		}
		both := map[string]usage{}
		for who, pid := range map[string]int{"parent": st.self.PID, "child": child} {
			if both[who], err = use(pid); err != nil {
				return err
			}
		}
		st.data[name] = both
		point := map[string][]int64{"parent": {int64(st.self.PID)}, "child": {int64(child)},
			"zeroes": said(zeroes[:shown*page]), "dirty": said(dirty[:min(n, shown)*page])}
		if err := probe.Look(name, point); err != nil {
			return err
		}
	}
	link, err := s.prog.Result(length)
	if err != nil {
		return fmt.Errorf("readlink in the child: %w", err)
	}
	who, err := strconv.Atoi(string(s.prog.Bytes(self, int(link))))
	if err != nil {
		return fmt.Errorf("/proc/self in the child: %w", err)
	}
	st.data["self_in_child"] = who
	st.data["pages"] = n
	st.data["zero_pages"] = len(zeroes) / page
	return nil
}

// atFDCWD is AT_FDCWD as a system call takes it.
const atFDCWD = ^uintptr(99)
