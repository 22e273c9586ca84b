package memory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "huge", Run: huge}) }

const (
	poolFile = "/proc/sys/vm/nr_hugepages"
	thpFile  = "/sys/kernel/mm/transparent_hugepage/enabled"

	madvCollapse = 25 // MADV_COLLAPSE, 7d8faaf15545
)

// huge asks for a huge page of the pool, without one and with one, and has the kernel make
// one of ordinary memory, split it and make it again.
var huge = staged("huge", "mmap with MAP_HUGETLB, nr_hugepages, madvise, mprotect; meminfo, smaps and pagemap", hugeOn)

func hugeOn(_ context.Context, st *stage) error {
	info, err := mm.Counters("/proc/meminfo")
	if err != nil {
		return err
	}
	size := int(info["Hugepagesize"]) << 10
	if size == 0 {
		return errors.New("/proc/meminfo has no Hugepagesize: the kernel has no huge pages (CONFIG_HUGETLB_PAGE)")
	}
	st.data["huge_kb"] = size >> 10
	if err := poolOn(st, size); err != nil {
		return err
	}
	return transparentOn(st, size)
}

// pool is what /proc/meminfo says of the pool of huge pages.
type pool struct {
	Total int `json:"total"`
	Free  int `json:"free"`
	Rsvd  int `json:"reserved"`
}

func poolNow() (p pool, err error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSpace(value))
		switch key {
		case "HugePages_Total":
			p.Total = n
		case "HugePages_Free":
			p.Free = n
		case "HugePages_Rsvd":
			p.Rsvd = n
		}
	}
	return p, nil
}

func poolOn(st *stage, size int) (err error) {
	was, err := os.ReadFile(poolFile)
	if err != nil {
		return err
	}
	resize := func(n string) error { return os.WriteFile(poolFile, []byte(n), 0) }
	if err := resize("0"); err != nil {
		return fmt.Errorf("empty the pool: %w", err)
	}
	defer func() { err = errors.Join(err, resize(strings.TrimSpace(string(was)))) }()
	ask := func() ([]byte, error) {
		return unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
	}
	pools := map[string]pool{}
	note := func(when string) (err error) {
		pools[when], err = poolNow()
		return err
	}
	st.data["pool"] = pools
	if err := note("empty"); err != nil {
		return err
	}
	b, err := ask()
	st.data["without_pool"] = "" // as it should not be
	if err == nil {
		return errors.Join(errors.New("mmap gave huge pages of an empty pool"), unix.Munmap(b))
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		st.data["without_pool"] = unix.ErrnoName(errno)
	}
	if err := resize("2"); err != nil {
		return fmt.Errorf("fill the pool: %w", err)
	}
	if err := note("filled"); err != nil {
		return err
	}
	if got := pools["filled"].Total; got < 2 {
		return fmt.Errorf("the kernel has found memory for %d of 2 huge pages: give the machine more memory", got)
	}
	if b, err = ask(); err != nil {
		return fmt.Errorf("map huge pages: %w", err)
	}
	defer func() {
		err = errors.Join(err, unix.Munmap(b))
		if err == nil {
			err = note("unmapped")
		}
	}()
	if err := note("mapped"); err != nil {
		return err
	}
	b[0] = 1
	if err := note("touched"); err != nil {
		return err
	}
	u, err := mm.SmapsAt(st.self.PID, mm.Addr(b))
	if err != nil {
		return err
	}
	page, err := mm.Look(st.self.PID, mm.Addr(b))
	if err != nil {
		return err
	}
	st.data["pool_page"] = page
	st.data["pool_area"] = u.KB
	return probe.Look("pool", map[string][]int64{"self": {int64(st.self.PID)}, "page": {int64(mm.Addr(b))}})
}

// attempts is how often memory is mapped anew in the hope of a huge page: the kernel gives
// one when it has one at hand.
const attempts = 8

// compound is a range of the size of a huge page at one moment.
type compound struct {
	Huge   uint64    `json:"huge_kb"` // AnonHugePages of smaps
	Rss    uint64    `json:"rss_kb"`
	Pages  []mm.Page `json:"pages"` // the first, the second and the last
	Faults int64     `json:"minflt"`
}

func transparentOn(st *stage, size int) error {
	was, err := os.ReadFile(thpFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the kernel makes no huge pages by itself (CONFIG_TRANSPARENT_HUGEPAGE): %w", err)
	}
	if err != nil {
		return err
	}
	mode := strings.Trim(between(string(was), "[", "]"), " ")
	if err := os.WriteFile(thpFile, []byte("madvise"), 0); err != nil {
		return err
	}
	defer os.WriteFile(thpFile, []byte(mode), 0)
	st.data["mode"] = mode
	if err := plainOn(st, size); err != nil {
		return err
	}

	page := os.Getpagesize()
	var all, b []byte
	var first compound
	for range attempts {
		if all, err = unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			return err
		}
		offset := -int(uintptr(unsafe.Pointer(&all[0]))) & (size - 1)
		b = all[offset : offset+size]
		if err := unix.Madvise(b, unix.MADV_HUGEPAGE); err != nil {
			return errors.Join(fmt.Errorf("madvise: %w", err), unix.Munmap(all))
		}
		before := faultsOfThread()
		b[0] = 1
		after := faultsOfThread()
		if first, err = compoundOf(st.self.PID, b); err != nil {
			return errors.Join(err, unix.Munmap(all))
		}
		first.Faults = after - before
		if first.Huge > 0 {
			break
		}
		if err := unix.Munmap(all); err != nil {
			return err
		}
		all = nil
	}
	if all == nil {
		return fmt.Errorf("the kernel had no huge page at hand in %d attempts: give the machine more memory", attempts)
	}
	st.mapped = append(st.mapped, all)
	moments := map[string]compound{"huge": first}
	st.data["moments"] = moments
	before := faultsOfThread()
	fill(b)
	st.data["faults_of_the_rest"] = faultsOfThread() - before
	point := map[string][]int64{"self": {int64(st.self.PID)}, "page": {int64(mm.Addr(b)), int64(mm.Addr(b)) + int64(page), int64(mm.Addr(b)) + int64(size-page)}}
	moment := func(name string) error {
		c, err := compoundOf(st.self.PID, b)
		if err != nil {
			return err
		}
		if name != "huge" {
			moments[name] = c
		}
		return probe.Look(name, point)
	}
	if err := moment("huge"); err != nil {
		return err
	}
	if err := unix.Mprotect(b[page:2*page], unix.PROT_READ); err != nil {
		return fmt.Errorf("mprotect: %w", err)
	}
	if err := moment("split"); err != nil {
		return err
	}
	if err := unix.Mprotect(b[page:2*page], unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("mprotect: %w", err)
	}
	for range attempts { // EAGAIN: pages were on their way to a list
		if err = unix.Madvise(b, madvCollapse); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if errors.Is(err, unix.EINVAL) {
		st.data["collapse"] = "EINVAL" // the kernel does not know it
		return nil
	}
	if err != nil {
		return fmt.Errorf("collapse: %w", err)
	}
	st.data["collapse"] = ""
	return moment("collapsed")
}

// plainOn does what the article does: a mapping of the size of a huge page, wherever it comes
// to be, and advice.
func plainOn(st *stage, size int) error {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	if err := unix.Madvise(b, unix.MADV_HUGEPAGE); err != nil {
		return fmt.Errorf("madvise: %w", err)
	}
	fill(b)
	c, err := compoundOf(st.self.PID, b)
	if err != nil {
		return err
	}
	st.data["plain"] = map[string]any{"aligned": mm.Addr(b)&uintptr(size-1) == 0, "huge_kb": c.Huge, "addr": mm.Addr(b)}
	return nil
}

func compoundOf(pid int, b []byte) (c compound, err error) {
	all, err := mm.Smaps(pid)
	if err != nil {
		return c, err
	}
	// A part with other rights is an area of its own.
	start := uint64(mm.Addr(b))
	for _, u := range all {
		if u.Start < start+uint64(len(b)) && u.End > start {
			c.Huge += u.KB["AnonHugePages"]
			c.Rss += u.KB["Rss"]
		}
	}
	page := os.Getpagesize()
	for _, at := range []int{0, page, len(b) - page} {
		p, err := mm.Look(pid, mm.Addr(b[at:]))
		if err != nil {
			return c, err
		}
		c.Pages = append(c.Pages, p)
	}
	return c, nil
}

func faultsOfThread() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return -1
	}
	return int64(u.Minflt)
}

// between is the part of s between two marks.
func between(s, a, b string) string {
	_, s, _ = strings.Cut(s, a)
	s, _, _ = strings.Cut(s, b)
	return s
}
