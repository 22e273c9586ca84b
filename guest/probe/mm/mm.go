// Package mm reads what the kernel tells of a process's memory: its areas
// (maps, smaps), the page behind an address (pagemap), and what is known of a
// page frame (kpagecount, kpageflags).
//
// All of it but mincore is Documentation/admin-guide/mm/pagemap.rst and
// Documentation/filesystems/proc.rst of the kernel's source.
package mm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnseen is that the kernel shows no page frame numbers to this program: it has no
// CAP_SYS_ADMIN, or the kernel no CONFIG_PROC_PAGE_MONITOR.
var ErrUnseen = errors.New("the kernel shows no page frame numbers: that takes CONFIG_PROC_PAGE_MONITOR and CAP_SYS_ADMIN")

// Entry is a word of /proc/PID/pagemap, one for each page of the address space.
type Entry uint64

// Present: the page is in memory, and the process's page table has it.
func (e Entry) Present() bool { return e>>63&1 != 0 }

// Swapped: the entry says where on the swap the page is.
func (e Entry) Swapped() bool { return e>>62&1 != 0 }

// FileOrShared: the page belongs to a file or to shared memory, as the pages of
// MAP_SHARED|MAP_ANONYMOUS do.
func (e Entry) FileOrShared() bool { return e>>61&1 != 0 }

// Exclusive: the page is mapped here and nowhere else.
func (e Entry) Exclusive() bool { return e>>56&1 != 0 }

// SoftDirty: the page was written to since 4 was written to /proc/PID/clear_refs.
func (e Entry) SoftDirty() bool { return e>>55&1 != 0 }

// PFN is the page frame number, 0 of a page that is not present, or that this program may
// not know (see ErrUnseen).
func (e Entry) PFN() uint64 {
	if !e.Present() {
		return 0
	}
	return uint64(e) & (1<<55 - 1)
}

// maxEntries bounds one read of entries or of words for page frames: 256 MB of memory
// in pages of 4 KB.
const maxEntries = 64 << 10

// Pagemap reads the entries of n pages of a process, from the page that addr is in on.
func Pagemap(pid int, addr uintptr, n int) ([]Entry, error) {
	words, err := words(fmt.Sprintf("/proc/%d/pagemap", pid), uint64(addr)/uint64(os.Getpagesize()), n)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, n)
	for i, w := range words {
		entries[i] = Entry(w)
	}
	return entries, nil
}

// KPageCount reads how often a page frame is mapped to user space. Of a page of a larger
// folio newer kernels give the folio's average (CONFIG_PAGE_MAPCOUNT).
func KPageCount(pfn uint64) (uint64, error) { return word("/proc/kpagecount", pfn) }

// KPageFlags reads what the kernel uses a page frame for.
func KPageFlags(pfn uint64) (Flags, error) {
	w, err := word("/proc/kpageflags", pfn)
	return Flags(w), err
}

func word(path string, index uint64) (uint64, error) {
	w, err := words(path, index, 1)
	if err != nil {
		return 0, err
	}
	return w[0], nil
}

// words reads n words of 8 bytes in a file that has nothing else.
func words(path string, index uint64, n int) ([]uint64, error) {
	if n < 0 || n > maxEntries || index > 1<<60 {
		return nil, fmt.Errorf("%s: %d words from %#x on: too many at once", path, n, index)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, none := os.Stat("/proc/kpagecount"); none != nil { // all three files come with one option
			return nil, fmt.Errorf("%w (%w)", ErrUnseen, err)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w (%w)", ErrUnseen, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 8*n)
	if _, err := f.ReadAt(b, int64(index*8)); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: nothing at word %#x: %w", path, index, io.ErrUnexpectedEOF)
	} else if err != nil {
		return nil, err
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return out, nil
}

// Page is all that can be seen of the page at an address from inside the guest. It is made for
// a probe's data.
type Page struct {
	Addr         uint64   `json:"addr"`
	Present      bool     `json:"present"`
	Swapped      bool     `json:"swapped"`
	PFN          uint64   `json:"pfn"` // 0 when not present
	FileOrShared bool     `json:"file_or_shared"`
	Exclusive    bool     `json:"exclusive"` // mapped nowhere else
	SoftDirty    bool     `json:"soft_dirty"`
	Count        uint64   `json:"count"` // how often the page frame is mapped
	Flags        []string `json:"flags"` // of the page frame: ANON, THP, ZERO_PAGE, …
}

// Look reads pagemap, kpagecount and kpageflags for one address of a process. The page is read
// again if it was another meanwhile.
func Look(pid int, addr uintptr) (Page, error) {
	for range 5 {
		before, err := Pagemap(pid, addr, 1)
		if err != nil {
			return Page{}, err
		}
		e := before[0]
		p := Page{Addr: uint64(addr), Present: e.Present(), Swapped: e.Swapped(), PFN: e.PFN(), FileOrShared: e.FileOrShared(),
			Exclusive: e.Exclusive(), SoftDirty: e.SoftDirty(), Flags: []string{}}
		if p.Present {
			if p.PFN == 0 {
				return p, ErrUnseen
			}
			if p.Count, err = KPageCount(p.PFN); err != nil {
				return p, err
			}
			flags, err := KPageFlags(p.PFN)
			if err != nil {
				return p, err
			}
			p.Flags = flags.Names()
		}
		after, err := Pagemap(pid, addr, 1)
		if err != nil {
			return p, err
		}
		if after[0].Present() == p.Present && after[0].PFN() == p.PFN {
			return p, nil
		}
	}
	return Page{}, fmt.Errorf("the page at %#x of process %d is a new one at every look", addr, pid)
}

// Mincore tells of each page of a range of one's own memory whether it is in memory: of a
// file's pages, in the page cache. The range starts at a page.
func Mincore(addr, length uintptr) ([]bool, error) {
	page := uintptr(os.Getpagesize())
	n := (length + page - 1) / page
	if n == 0 || n > maxEntries {
		return nil, fmt.Errorf("mincore of %d bytes: want 1 to %d pages", length, maxEntries)
	}
	vec := make([]byte, n)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, addr, length, uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		return nil, fmt.Errorf("mincore %#x: %w", addr, errno)
	}
	in := make([]bool, n)
	for i, v := range vec {
		in[i] = v&1 != 0
	}
	return in, nil
}

// Anonymous maps pages that are in no huge page, so that each has an entry of its own, and that
// are no part of the area of a neighbour: flags is MAP_PRIVATE or MAP_SHARED. None of them is present.
func Anonymous(pages, flags int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, pages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d pages: %w", pages, err)
	}
	if err := Small(b); err != nil {
		return nil, errors.Join(err, unix.Munmap(b))
	}
	// Kernels without huge pages have no other difference between these pages and the runtime's.
	if err := unix.Madvise(b, unix.MADV_DONTDUMP); err != nil {
		return nil, errors.Join(fmt.Errorf("madvise: %w", err), unix.Munmap(b))
	}
	return b, nil
}

// Small keeps the kernel from making huge pages of memory. A kernel without huge pages does not
// know the advice.
func Small(b []byte) error {
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("madvise: %w", err)
	}
	return nil
}

// Addr is where a mapping starts.
func Addr(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
