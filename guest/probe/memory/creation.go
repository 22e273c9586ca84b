package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/rawclone"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "creation", Run: creation}) }

// born is a task that was made, and what it has at its birth.
type born struct {
	Way      string `json:"way"`
	TID      int    `json:"tid"`
	KB       int    `json:"kb"`        // of the maker's memory that the probe has mapped and written for it
	Areas    int    `json:"areas"`     // of the child, by its maps; 0 where its maker stands still as long as it lives
	Entries  int    `json:"entries"`   // of the pages of that memory that the child has entries for, before it has touched any
	TablesKB uint64 `json:"tables_kb"` // VmPTE of the child
	Later    int64  `json:"later"`     // page faults of the maker as it writes to the memory again, -1 where it did not
	NS       int64  `json:"ns"`        // from before the call to after it; for information
}

// A way to make a task.
type way struct {
	name string
	kind rawclone.Kind
	args rawclone.Args
}

var ways = []way{
	{"fork", rawclone.Clone, forked},
	{"clone3", rawclone.Clone3, forked},
	{"vfork", rawclone.VFork, rawclone.Args{}},
	{"thread", rawclone.Clone, threaded},
}

// creation makes a task in each way while the maker has more and more memory in use, and looks at what of it
// the task has when it is born.
var creation = staged("creation", "raw fork, clone3, vfork and thread, with 0 to 32 MB in use; maps, pagemap and VmPTE of the new task", creationOn)

// creationMB are the sizes of memory.
var creationMB = []int{0, 2, 8, 32}

func creationOn(ctx context.Context, st *stage) error {
	page := os.Getpagesize()
	table := page * page / 8 // what the last table of page tables maps
	most := creationMB[len(creationMB)-1] << 20
	// With pages of 64 KB a table maps more than the machine has memory.
	all, err := unix.Mmap(-1, 0, most+table, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("map %d MB: %w", most>>20, err)
	}
	st.mapped = append(st.mapped, all)
	if err := mm.Small(all); err != nil {
		return err
	}
	// Whole tables, so that each adds as many as it should.
	skip := -int(mm.Addr(all)) & (table - 1)
	memory := all[skip : skip+most]
	st.data["table_kb"] = table >> 10
	runs := []born{}
	for _, mb := range creationMB {
		used := memory[:mb<<20]
		fill(used)
		for _, w := range ways {
			b := born{Way: w.name, KB: mb << 10, Later: -1}
			if err := b.make(ctx, st, w, used); err != nil {
				if w.kind == rawclone.Clone3 && errors.Is(err, unix.ENOSYS) {
					continue // the kernel does not know it
				}
				return fmt.Errorf("%s with %d MB: %w", w.name, mb, err)
			}
			runs = append(runs, b)
		}
	}
	st.data["runs"] = runs
	return nil
}

// laterMB is the size at which the maker writes to its memory once more, after each birth.
const laterMB = 2

func (b *born) make(ctx context.Context, st *stage, w way, used []byte) error {
	s, err := newScript(map[bool]string{true: "thread", false: "child"}[w.name == "thread"])
	if err != nil {
		return err
	}
	var born int
	if w.kind != rawclone.VFork { // whose maker could not tell it to go on
		born = s.act()
		s.act()
	} else {
		s.prog.Exit(0)
	}
	before := time.Now()
	child, err := rawclone.Spawn(w.kind, w.args, s.prog)
	b.NS = time.Since(before).Nanoseconds()
	if err != nil {
		return errors.Join(err, s.prog.Close())
	}
	s.child, b.TID = child, child.TID
	st.scripts = append(st.scripts, s)
	if w.kind != rawclone.VFork {
		if err := s.play(ctx, born); err != nil {
			return err
		}
		if err := b.look(child, used); err != nil {
			return err
		}
		if b.KB == creationMB[len(creationMB)-1]<<10 {
			point := map[string][]int64{"maker": {int64(st.self.PID)}, "task": {int64(b.TID)}, "page": {int64(mm.Addr(used)), int64(mm.Addr(used)) + int64(len(used)-os.Getpagesize())}}
			if err := probe.Look(w.name, point); err != nil {
				return err
			}
		}
	}
	if b.KB == laterMB<<10 {
		faults := faultsOfThread()
		fill(used)
		b.Later = faultsOfThread() - faults
	}
	// It ends here: of two children that live at once, each would have a part in the other's costs.
	return st.finish(s)
}

func (b *born) look(child *rawclone.Child, used []byte) error {
	areas, err := mm.Maps(child.TID)
	if err != nil {
		return err
	}
	for _, a := range areas {
		if !gate(a) {
			b.Areas++
		}
	}
	if len(used) > 0 {
		entries, err := mm.Pagemap(child.TID, mm.Addr(used), len(used)/os.Getpagesize())
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Present() {
				b.Entries++
			}
		}
	}
	c, err := mm.Counters(fmt.Sprintf("/proc/%d/status", child.TID))
	b.TablesKB = c["VmPTE"]
	return err
}
