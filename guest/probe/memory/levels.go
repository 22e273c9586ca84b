package memory

import (
	"context"
	"fmt"
	"math/bits"
	"os"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "levels", Run: levels}) }

// levels has a child touch four pages of a large reservation, each further from the first: in
// the same page table, in the next one, and beyond what one table of tables maps.
var levels = staged("levels", "raw clone, writes in the child, its pagemap and VmPTE", levelsOn)

func levelsOn(ctx context.Context, st *stage) error {
	page := uint64(os.Getpagesize())
	entries := page / 8      // of a table
	table := page * entries  // what the last one maps
	far := table * entries   // and what the one above maps, on 64 bits
	if bits.UintSize == 32 { // a root of 4 or 16 KB maps all that there is
		far = 4 * table
	}
	area, err := unix.Mmap(-1, 0, int(3*far), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("reserve %d MB: %w", 3*far>>20, err)
	}
	st.mapped = append(st.mapped, area)
	if err := mm.Small(area); err != nil {
		return err
	}
	// Two whole ranges of a table of tables, so that no neighbour has brought their tables.
	start := (uint64(mm.Addr(area)) + far - 1) / far * far
	names := []string{"first", "near", "table", "far"}
	at := []uint64{start, start + page, start + table, start + far}

	s, err := newScript("child")
	if err != nil {
		return err
	}
	acts := []int{s.act()}
	for i := range names {
		acts = append(acts, s.act())
		s.write(s.prog.Const(uintptr(at[i])), 1, uintptr(i+1))
	}
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	child := s.child.TID
	tables := map[string]uint64{}
	count := func(when string) error {
		c, err := mm.Counters(fmt.Sprintf("/proc/%d/status", child))
		tables[when] = c["VmPTE"]
		return err
	}
	if err := s.play(ctx, acts[0]); err != nil {
		return err
	}
	if err := count("before"); err != nil {
		return err
	}
	spots := map[string]spot{}
	point := map[string][]int64{"parent": {int64(st.self.PID)}, "child": {int64(child)}}
	for i, name := range names {
		if err := s.play(ctx, acts[i+1]); err != nil {
			return err
		}
		if err := count(name); err != nil {
			return err
		}
		spots[name] = spot{child, uintptr(at[i])}
		point["page"] = append(point["page"], int64(at[i]))
	}
	pages, err := behind(spots)
	if err != nil {
		return err
	}
	list := []mm.Page{}
	for _, name := range names {
		list = append(list, pages[name])
	}
	st.data["names"] = names
	st.data["pages"] = list
	st.data["tables_kb"] = tables
	st.data["maps"] = map[string]uint64{"page": page, "table": table, "far": far}
	return probe.Look("touched", point)
}
