package mm

import "strconv"

// Flags is a word of /proc/kpageflags.
type Flags uint64

// Flags that probes ask for.
const ZeroPage Flags = 1 << 24 // the page of zeroes that reads of untouched memory get

// flagNames are the bits of include/uapi/linux/kernel-page-flags.h, from 0 on.
var flagNames = [...]string{"LOCKED", "ERROR", "REFERENCED", "UPTODATE", "DIRTY", "LRU", "ACTIVE", "SLAB", "WRITEBACK", "RECLAIM", "BUDDY",
	"MMAP", "ANON", "SWAPCACHE", "SWAPBACKED", "COMPOUND_HEAD", "COMPOUND_TAIL", "HUGE", "UNEVICTABLE", "HWPOISON", "NOPAGE", "KSM", "THP",
	"OFFLINE", "ZERO_PAGE", "IDLE", "PGTABLE"}

// Names are the flags that are set, from the lowest bit on. The bits from 32 on are the
// kernel's own, and not named.
func (f Flags) Names() []string {
	names := []string{}
	for i := range 32 {
		if f>>i&1 == 0 {
			continue
		}
		if i < len(flagNames) {
			names = append(names, flagNames[i])
		} else {
			names = append(names, strconv.Itoa(i))
		}
	}
	return names
}
