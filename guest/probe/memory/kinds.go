package memory

import (
	"context"
	"fmt"
	"os"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/probe/procfs"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "faults", Run: faultKinds}) }

// kind is one access to memory by the child, and the faults that it took.
type kind struct {
	Name    string  `json:"name"`
	Addr    uint64  `json:"addr"`
	Write   bool    `json:"write"`
	Before  bool    `json:"before"`  // the child had an entry for the page before it
	Faults  uint64  `json:"faults"`  // minor page faults
	Major   uint64  `json:"major"`   // major ones: pages that had to be read from a disk
	Changed bool    `json:"changed"` // it had another page frame before
	Page    mm.Page `json:"page"`    // after it
}

// faultKinds has a child touch memory in all the ways that lead a page fault to another function.
var faultKinds = staged("faults", "raw clone, one access of the child at a time, its stat and pagemap", faultKindsOn)

// fileOf makes a file of /tmp with n pages in the page cache, which is removed at once.
func fileOf(n int) (*os.File, error) {
	f, err := os.CreateTemp("", "labctl-faults-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Write(make([]byte, n*os.Getpagesize())); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func faultKindsOn(ctx context.Context, st *stage) error {
	page := os.Getpagesize()
	anonymous := func() (uintptr, error) {
		b, err := st.pages(1, unix.MAP_PRIVATE)
		if err != nil {
			return 0, err
		}
		return mm.Addr(b), nil
	}
	f, err := fileOf(2)
	if err != nil {
		return err
	}
	defer f.Close()
	mapped := func(flags int) (uintptr, error) {
		b, err := unix.Mmap(int(f.Fd()), 0, page, unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			return 0, fmt.Errorf("map a file: %w", err)
		}
		st.mapped = append(st.mapped, b)
		return mm.Addr(b), nil
	}
	zero, err := anonymous()
	if err != nil {
		return err
	}
	fresh, err := anonymous()
	if err != nil {
		return err
	}
	inherited, err := st.pages(1, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	fill(inherited)
	private, err := mapped(unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	own, err := mapped(unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	shared, err := mapped(unix.MAP_SHARED)
	if err != nil {
		return err
	}
	kinds := []kind{
		{Name: "zero-read", Addr: uint64(zero)},
		{Name: "zero-write", Addr: uint64(zero), Write: true},
		{Name: "fresh-write", Addr: uint64(fresh), Write: true},
		{Name: "again", Addr: uint64(fresh), Write: true},
		{Name: "fork-write", Addr: uint64(mm.Addr(inherited)), Write: true},
		{Name: "file-read", Addr: uint64(private)},
		{Name: "file-write", Addr: uint64(private), Write: true},
		{Name: "file-first-write", Addr: uint64(own), Write: true},
		{Name: "shared-write", Addr: uint64(shared), Write: true},
	}
	s, err := newScript("child")
	if err != nil {
		return err
	}
	// The words that the child itself works with are there before it begins.
	acts := []int{s.act()}
	s.write(s.prog.Addr(s.prog.Var(0)), 1, 0)
	for _, k := range kinds {
		acts = append(acts, s.act())
		if at := s.prog.Const(uintptr(k.Addr)); k.Write {
			s.write(at, 1, 7)
		} else {
			s.read(at, 1)
		}
	}
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	if err := s.play(ctx, acts[0]); err != nil {
		return err
	}
	point := map[string][]int64{"child": {int64(s.child.TID)}, "page": {}}
	for _, k := range kinds {
		point["page"] = append(point["page"], int64(k.Addr))
	}
	if err := probe.Look("before", point); err != nil {
		return err
	}
	for i := range kinds {
		k := &kinds[i]
		before, err := mm.Look(s.child.TID, uintptr(k.Addr))
		if err != nil {
			return err
		}
		minor, major, err := allFaults(s.child.TID)
		if err != nil {
			return err
		}
		if err := s.play(ctx, acts[i+1]); err != nil {
			return err
		}
		minor2, major2, err := allFaults(s.child.TID)
		if err != nil {
			return err
		}
		if k.Page, err = mm.Look(s.child.TID, uintptr(k.Addr)); err != nil {
			return err
		}
		k.Before, k.Faults, k.Major = before.Present, minor2-minor, major2-major
		k.Changed = before.Present && before.PFN != k.Page.PFN
	}
	st.data["kinds"] = kinds
	return probe.Look("after", point)
}

// allFaults counts the minor and the major faults of a task that has one thread.
func allFaults(pid int) (minor, major uint64, err error) {
	s, err := procfs.ReadStat(fmt.Sprintf("/proc/%d/stat", pid))
	return s.MinFlt, s.MajFlt, err
}
