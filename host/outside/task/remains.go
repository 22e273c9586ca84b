package task

import (
	"labctl/host/text"
)

// exitDead is EXIT_DEAD of include/linux/sched.h: nobody waits for the task any more.
const exitDead = 0x10

// maxSlabs limits the slabs that are looked through for what ended tasks left.
const maxSlabs = 1 << 13

// Remains lists tasks that have ended, by what they left in memory: the kernel frees a
// task_struct without wiping it, and until another task gets the place it says who was
// there. It looks at the places beside those of tasks, at addrs, and returns tasks that
// began after since (Task.Started). It is none of a kernel whose allocator is not SLUB or
// does not tell its sizes, and a task whose place was given away at once is missing.
//
// The parent is 0 where its place was given away.
func (t *Tasks) Remains(addrs []uint64, since uint64) []Task {
	l := t.look
	l.Fresh()
	size, slab, ok := t.places()
	if !ok {
		return nil
	}
	lives := map[uint64]bool{}
	for i := range t.List {
		lives[t.List[i].Addr] = true
	}
	var found []Task
	seen := map[uint64]bool{}
	for _, addr := range addrs {
		base := addr &^ (slab - 1)
		if seen[base] || len(seen) == maxSlabs || (addr-base)%size != 0 {
			continue
		}
		seen[base] = true
		for at := base; at+size <= base+slab; at += size {
			if lives[at] {
				continue
			}
			if one, ok := t.remains(at); ok && one.Started > since {
				found = append(found, one)
			}
		}
	}
	return found
}

// places says how far apart task_structs are in a slab, and how large that is, in bytes.
// A slab is aligned to its size.
func (t *Tasks) places() (size, slab uint64, ok bool) {
	l := t.look
	at, err := l.Variable("task_struct_cachep", 0)
	if err != nil {
		return 0, 0, false
	}
	addr, err := l.Pointer(at)
	if err != nil || addr == 0 {
		return 0, 0, false
	}
	cache := l.Object("kmem_cache", addr)
	if !cache.Has("oo.x") || !cache.Has("size") {
		return 0, 0, false
	}
	size = cache.Uint("size")
	pages := cache.Uint("oo.x") >> 16 // the order; below it the count of objects
	// x86 leaves off of the structure what its registers do not need; names are before that.
	comm, err := l.K.Member("task_struct", "comm")
	if cache.Err() != nil || err != nil || pages > 10 || size < uint64(comm.Offset+comm.Size) {
		return 0, 0, false
	}
	slab = uint64(l.K.Table().Format.Page()) << pages
	return size, slab, size <= slab
}

// remains reads the task that was at a place.
func (t *Tasks) remains(addr uint64) (one Task, ok bool) {
	l := t.look
	o := l.Object("task_struct", addr)
	if o.Uint("exit_state")&exitDead == 0 || o.Err() != nil {
		return one, false // there is a task, or there is about to be one
	}
	one = Task{
		Addr: addr, PID: int(o.Int("tgid")), TID: int(o.Int("pid")), Comm: text.Line(o.String("comm"), maxName),
		Kernel: o.Uint("flags")&flagKthread != 0, State: "X", Started: o.Uint("start_time"),
		Switches: o.Uint("nvcsw") + o.Uint("nivcsw"),
	}
	parent := l.Object("task_struct", o.Uint("real_parent"))
	if o.Err() != nil || one.PID <= 0 || one.TID <= 0 || one.TID > maxPID || one.PID > maxPID || one.Comm == "" {
		return one, false
	}
	// A parent is older than its children; a task that has got its place is not.
	if ppid, began := int(parent.Int("tgid")), parent.Uint("start_time"); parent.Err() == nil && began <= one.Started && ppid > 0 && ppid <= maxPID {
		one.PPID = ppid
	}
	return one, true
}

// maxPID is PID_MAX_LIMIT of include/linux/threads.h.
const maxPID = 1 << 22
