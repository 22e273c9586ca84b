package memory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/rawclone"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "segv", Run: segv}) }

// fault is an access that the kernel answers by SIGSEGV, and what came of it.
type fault struct {
	Name   string `json:"name"`
	Addr   uint64 `json:"addr"` // of the access
	Write  bool   `json:"write"`
	Signal int    `json:"signal"`
	Code   int    `json:"code"`    // si_code: 1 is SEGV_MAPERR, 2 SEGV_ACCERR
	SiAddr uint64 `json:"si_addr"` // what the signal says of the address
	Area   string `json:"area"`    // permissions of the area at the address before the access, "" for none
	AsIs   string `json:"as_is"`   // the error of an mprotect of si_addr, which starts no page; "" for none
	Repair string `json:"repair"`
	Done   bool   `json:"done"`  // the access was completed when the instruction was begun again
	Value  uint64 `json:"value"` // what it read, or what the word holds
}

// segv has a child, which shares the probe's memory, do three accesses that are not allowed. The
// probe traces it, reads the signal, mends the mapping and has the child go on without the signal.
var segv = staged("segv", "raw clone with CLONE_VM, ptrace: PTRACE_GETSIGINFO, and PTRACE_CONT without the signal", segvOn)

// sharing is a process that shares its maker's memory, so that the maker can mend it.
var sharing = rawclone.Args{Flags: unix.CLONE_VM, ExitSignal: int(unix.SIGCHLD)}

func segvOn(ctx context.Context, st *stage) (err error) {
	page := os.Getpagesize()
	var at [3]uintptr
	for i, prot := range []int{unix.PROT_READ, unix.PROT_NONE, unix.PROT_READ | unix.PROT_WRITE} {
		b, err := st.pages([...]int{1, 1, 3}[i], unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		b[8] = 42
		if err := unix.Mprotect(b, prot); err != nil {
			return fmt.Errorf("mprotect: %w", err)
		}
		at[i] = mm.Addr(b)
	}
	at[2] += uintptr(page)
	word := uintptr(8)
	faults := []fault{
		{Name: "read-only", Addr: uint64(at[0] + word), Write: true, Repair: "mprotect(PROT_READ|PROT_WRITE)"},
		{Name: "no-access", Addr: uint64(at[1] + word), Repair: "mprotect(PROT_READ|PROT_WRITE)"},
		{Name: "hole", Addr: uint64(at[2] + word), Repair: "mmap(MAP_FIXED)"},
	}
	s, err := newScript("child")
	if err != nil {
		return err
	}
	var acts []int
	var values []rawclone.Word
	for _, f := range faults {
		acts = append(acts, s.act())
		to := s.prog.Const(uintptr(f.Addr))
		if f.Write {
			s.prog.Store(to, s.prog.Const(7))
			values = append(values, rawclone.Word{})
			continue
		}
		v := s.prog.Var(0)
		s.prog.Load(v, to)
		values = append(values, v)
	}
	if err := st.spawn(s, sharing); err != nil {
		return err
	}
	// The third is a hole between two pages. It is made when the child has its stack, which may
	// be of one page: the kernel would put it there.
	if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, at[2], uintptr(page), 0); errno != 0 {
		return fmt.Errorf("munmap: %w", errno)
	}
	child := s.child.TID
	defer func() {
		if err != nil { // it may stand still for good
			err = errors.Join(err, unix.Kill(child, unix.SIGKILL))
		}
	}()
	if err := ptrace(ptraceSeize, child, 0); err != nil {
		return err
	}
	for i := range faults {
		f := &faults[i]
		areas, err := mm.Maps(child)
		if err != nil {
			return err
		}
		if a, ok := mm.Find(areas, uintptr(f.Addr)); ok {
			f.Area = a.Perms
		}
		if err := s.prog.Post(s.cues[acts[i]], 1); err != nil {
			return err
		}
		if err := f.stopped(ctx, s, acts[i]); err != nil {
			return err
		}
		if err := probe.Look(faultPoints[i], map[string][]int64{"child": {int64(child)}, "address": {int64(f.Addr)}}); err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_MPROTECT, uintptr(f.SiAddr), uintptr(page), unix.PROT_READ|unix.PROT_WRITE); errno != 0 {
			f.AsIs = unix.ErrnoName(errno)
		}
		if f.Area == "" {
			_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&st.mapped[i][page]), uintptr(page), unix.PROT_READ|unix.PROT_WRITE,
				unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
			if err != nil {
				return fmt.Errorf("mmap: %w", err)
			}
		} else if err := unix.Mprotect(st.mapped[i], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return fmt.Errorf("mprotect: %w", err)
		}
		if err := ptrace(unix.PTRACE_CONT, child, 0); err != nil {
			return err
		}
		if err := s.prog.Await(ctx, s.done, uintptr(acts[i]+1)); err != nil {
			return err
		}
		f.Done = true
		if f.Write {
			f.Value = uint64(st.mapped[i][word])
		} else {
			f.Value = uint64(s.prog.Get(values[i])) & 0xff
		}
	}
	st.data["faults"] = faults
	return probe.Look("mended", map[string][]int64{"child": {int64(child)}, "address": {int64(at[0] + word), int64(at[1] + word), int64(at[2] + word)}})
}

// faultPoints are where the child is looked at, each access in turn.
var faultPoints = [...]string{"read_only", "no_access", "hole"}

// stopped waits until the child has stopped for a signal, and reads it.
func (f *fault) stopped(ctx context.Context, s *script, act int) error {
	child := s.child.TID
	var status unix.WaitStatus
	for {
		tid, err := unix.Wait4(child, &status, unix.WALL|unix.WNOHANG, nil)
		if err != nil {
			return fmt.Errorf("wait for the child's signal: %w", err)
		}
		if tid == child {
			break
		}
		if s.prog.Get(s.done) > uintptr(act) {
			return fmt.Errorf("%s: the access at %#x was allowed", f.Name, f.Addr)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: no signal: %w", f.Name, context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
	if !status.Stopped() {
		return fmt.Errorf("%s: the child has status %#x; want a stop by a signal", f.Name, int(status))
	}
	var info [128]byte // siginfo_t
	if err := ptrace(ptraceGetSiginfo, child, uintptr(unsafe.Pointer(&info))); err != nil {
		return err
	}
	f.Signal = int(binary.NativeEndian.Uint32(info[:]))
	f.Code = int(int32(binary.NativeEndian.Uint32(info[8:])))
	if unsafe.Sizeof(uintptr(0)) == 8 {
		f.SiAddr = binary.NativeEndian.Uint64(info[16:])
	} else {
		f.SiAddr = uint64(binary.NativeEndian.Uint32(info[12:]))
	}
	return nil
}

// Requests of ptrace(2) that package unix has no functions for.
const (
	ptraceGetSiginfo = 0x4202
	ptraceSeize      = 0x4206
)

func ptrace(request, tid int, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, data, 0, 0); errno != 0 {
		return fmt.Errorf("ptrace %#x of task %d: %w", request, tid, errno)
	}
	return nil
}
