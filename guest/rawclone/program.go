package rawclone

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// instr is one instruction. Every operand is the address of a word, constants
// included, so the assembly needs a single addressing mode; an unused argument
// points at a zero. go_asm.h carries the offsets to the assembly.
type instr struct {
	code uintptr
	dst  uintptr // address of the word written; for opJumpEqual the instruction to go to
	nr   uintptr
	arg  [6]uintptr
}

// The codes start at 1: zeroed memory is no instruction and traps.
const (
	opSyscall    = 1 + iota // *dst = syscall(*nr, *arg[0] … *arg[5]), -errno on error
	opLoad                  // *dst = **arg[0]
	opStore                 // **dst = *arg[0]
	opAdd                   // *dst += *arg[0]
	opJumpEqual             // if *arg[0] == *arg[1] go to dst
	opThreadLoad            // *dst = the word that the thread pointer points to
)

const (
	arenaBytes = 64 << 10
	maxInstrs  = 256
	wordBytes  = unsafe.Sizeof(uintptr(0))
	instrWords = unsafe.Sizeof(instr{}) / wordBytes
	firstData  = maxInstrs * instrWords // index of the first word after the code
)

// Word is one machine word of a program's memory, 8 bytes on amd64 and arm64,
// 4 on arm. The zero Word always holds 0 for reading.
type Word struct{ index uintptr }

// Label is a place in a program's code.
type Label struct{ addr uintptr }

// Program is what a child will run: a list of operations and the words they
// work on. Both lie in one shared anonymous mapping, outside the Go heap: the
// collector neither moves nor frees it, and the parent reads what the child
// wrote whether or not the two share their address space.
//
// The child stores without barriers. The parent may rely on a word once Wait has
// returned, or once the child is seen to sleep in the kernel.
//
// A Program is not safe for concurrent building. It runs one child at a time and
// may be spawned again after Wait; its words keep their values.
type Program struct {
	mem    []byte
	words  []uintptr
	instrs uintptr // emitted so far
	next   uintptr // index of the first free word
	consts map[uintptr]Word
	ends   bool // the last operation is an exit
	err    error
	child  *Child
	scrap  Word // takes results nobody asked for
	tid    Word // CLONE_PARENT_SETTID, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID
	pidfd  Word
	tls    Word // CLONE_SETTLS: 256 bytes, of which the first word is its own address
	args   Word // struct clone_args
}

// NewProgram returns an empty program. Close frees it.
func NewProgram() (*Program, error) {
	mem, err := unix.Mmap(-1, 0, arenaBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map a program's memory: %w", err)
	}
	p := &Program{
		mem:    mem,
		words:  unsafe.Slice((*uintptr)(unsafe.Pointer(&mem[0])), arenaBytes/wordBytes),
		next:   firstData + 1, // Word{} is the zero at firstData
		consts: map[uintptr]Word{},
	}
	p.scrap = p.Var(0)
	p.tid = p.Var(0)
	p.pidfd = p.Var(0)
	p.tls = p.Buffer(256)
	p.Set(p.tls, p.addr(p.tls))
	p.args = p.Buffer(int(unsafe.Sizeof(cloneArgs{})))
	return p, nil
}

// Close frees the program's memory. A child that still runs would fault, so
// Close refuses until Wait has returned.
func (p *Program) Close() error {
	if p.child != nil {
		return errors.New("close a program: its child has not been waited for")
	}
	mem := p.mem
	p.mem, p.words = nil, nil
	return unix.Munmap(mem)
}

// addr is the address of w in the child and in the parent: a forked child has
// the mapping at the same place.
func (p *Program) addr(w Word) uintptr {
	return uintptr(unsafe.Pointer(&p.words[0])) + (firstData+w.index)*wordBytes
}

func (p *Program) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("rawclone program: "+format, args...)
	}
}

// alloc reserves n words; Word{} when there is no room, with the error kept for Spawn.
func (p *Program) alloc(n uintptr) Word {
	if room := uintptr(len(p.words)) - p.next; n > room {
		p.fail("%d words wanted, %d left of %d", n, room, uintptr(len(p.words))-firstData)
		return Word{}
	}
	w := Word{p.next - firstData}
	p.next += n
	return w
}

// Var returns a new word that holds v.
func (p *Program) Var(v uintptr) Word {
	w := p.alloc(1)
	if w != (Word{}) {
		p.Set(w, v)
	}
	return w
}

// Const returns a word that holds v and that the program must not write.
func (p *Program) Const(v uintptr) Word {
	if v == 0 {
		return Word{}
	}
	w, ok := p.consts[v]
	if !ok {
		w = p.Var(v)
		p.consts[v] = w
	}
	return w
}

// Addr returns a constant that holds the address of w, for system calls that
// take a pointer and for Load and Store.
func (p *Program) Addr(w Word) Word { return p.Const(p.addr(w)) }

// Buffer reserves n bytes of zeroes, rounded up to words, and returns the first
// word.
func (p *Program) Buffer(n int) Word {
	if n <= 0 || n > arenaBytes {
		p.fail("a buffer of %d bytes", n)
		return Word{}
	}
	return p.alloc((uintptr(n) + wordBytes - 1) / wordBytes)
}

// Bytes is the memory of n bytes from w on. It is valid until Close.
func (p *Program) Bytes(w Word, n int) []byte {
	from := (firstData + w.index) * wordBytes
	return p.mem[from : from+uintptr(n) : from+uintptr(n)]
}

// CString reserves s with its closing zero and returns the first word.
func (p *Program) CString(s string) Word {
	w := p.Buffer(len(s) + 1)
	if w != (Word{}) {
		copy(p.Bytes(w, len(s)), s)
	}
	return w
}

// Pointers returns the first word of an array of the addresses of ws, ended by a
// zero: argv and envp of execve.
func (p *Program) Pointers(ws ...Word) Word {
	first := p.alloc(uintptr(len(ws)) + 1)
	if first != (Word{}) {
		for i, w := range ws {
			p.Set(Word{first.index + uintptr(i)}, p.addr(w))
		}
	}
	return first
}

// Get reads w.
func (p *Program) Get(w Word) uintptr { return atomic.LoadUintptr(&p.words[firstData+w.index]) }

// Set writes w.
func (p *Program) Set(w Word, v uintptr) { atomic.StoreUintptr(&p.words[firstData+w.index], v) }

// Post writes w and wakes the child where it sleeps in FutexWait on w.
func (p *Program) Post(w Word, v uintptr) error {
	p.Set(w, v)
	if _, _, errno := unix.Syscall6(unix.SYS_FUTEX, p.addr(w), futexWake, 1<<30, 0, 0, 0); errno != 0 {
		return fmt.Errorf("futex wake: %w", errno)
	}
	return nil
}

// Await returns once the child has made w hold v, or when ctx is done.
func (p *Program) Await(ctx context.Context, w Word, v uintptr) error {
	for pause := 50 * time.Microsecond; p.Get(w) != v; pause = min(2*pause, 5*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("await a child: %w", context.Cause(ctx))
		case <-time.After(pause):
		}
	}
	return nil
}

// Result splits a system call's result word into value and errno, as the
// kernel's last page of addresses (MAX_ERRNO, include/linux/err.h) tells them apart.
func (p *Program) Result(w Word) (uintptr, error) {
	v := p.Get(w)
	if v > ^uintptr(4095) {
		return 0, unix.Errno(-v)
	}
	return v, nil
}

func (p *Program) emit(in instr) {
	if p.instrs == maxInstrs {
		p.fail("more than %d operations", maxInstrs)
		return
	}
	code := p.words[p.instrs*instrWords:]
	copy(code, unsafe.Slice(&in.code, instrWords))
	p.instrs++
	p.ends = false
}

// Here is the place of the next operation.
func (p *Program) Here() Label {
	return Label{uintptr(unsafe.Pointer(&p.words[0])) + p.instrs*unsafe.Sizeof(instr{})}
}

// Ahead is the place n operations after the next: Ahead(0) is Here.
func (p *Program) Ahead(n int) Label {
	return Label{p.Here().addr + uintptr(n)*unsafe.Sizeof(instr{})}
}

// Syscall calls nr with at most six arguments and returns the word that takes
// the result.
func (p *Program) Syscall(nr uintptr, args ...Word) Word {
	w := p.Var(0)
	p.syscall(w, nr, args...)
	return w
}

func (p *Program) syscall(dst Word, nr uintptr, args ...Word) {
	in := instr{code: opSyscall, dst: p.addr(dst), nr: p.addr(p.Const(nr))}
	if len(args) > len(in.arg) {
		p.fail("system call %d with %d arguments", nr, len(args))
		return
	}
	for i := range in.arg {
		in.arg[i] = p.addr(Word{})
	}
	for i, a := range args {
		in.arg[i] = p.addr(a)
	}
	p.emit(in)
}

// Load copies the word at the address in ptr to dst.
func (p *Program) Load(dst, ptr Word) {
	p.emit(instr{code: opLoad, dst: p.addr(dst), arg: [6]uintptr{p.addr(ptr)}})
}

// Store copies src to the word at the address in ptr.
func (p *Program) Store(ptr, src Word) {
	p.emit(instr{code: opStore, dst: p.addr(ptr), arg: [6]uintptr{p.addr(src)}})
}

// Add adds src to dst, not atomically.
func (p *Program) Add(dst, src Word) {
	p.emit(instr{code: opAdd, dst: p.addr(dst), arg: [6]uintptr{p.addr(src)}})
}

// ThreadLoad copies to dst the word that the task's thread pointer points to, by the register
// that it is in: FS on amd64, TPIDR_EL0 on arm64, TPIDRURO on arm. Of a child with CLONE_SETTLS it
// is the address of TLS; of another it is what its maker has there, if anything.
func (p *Program) ThreadLoad(dst Word) {
	p.emit(instr{code: opThreadLoad, dst: p.addr(dst), arg: [6]uintptr{p.addr(Word{})}}) // the interpreter loads an argument first
}

// TLS is the first of the words that CLONE_SETTLS makes the child's thread pointer point to,
// 256 bytes. It holds its own address, as the x86-64 ABI has it; those behind it are free.
func (p *Program) TLS() Word { return p.tls }

// JumpIfEqual goes to l when a and b hold the same value.
func (p *Program) JumpIfEqual(l Label, a, b Word) {
	p.emit(instr{code: opJumpEqual, dst: l.addr, arg: [6]uintptr{p.addr(a), p.addr(b)}})
}

// FutexWait sleeps while w holds v. The parent ends it by Post. v must fit 32
// bits, which is what a futex compares.
func (p *Program) FutexWait(w Word, v uint32) {
	same := p.Const(uintptr(v))
	again := p.Here()
	p.syscall(p.scrap, unix.SYS_FUTEX, p.Addr(w), p.Const(futexWait), same)
	p.JumpIfEqual(again, w, same) // a futex may wake for no reason
}

// Exit ends the task, and only this one.
func (p *Program) Exit(code int) {
	p.syscall(p.scrap, unix.SYS_EXIT, p.Const(uintptr(code)))
	p.ends = true
}

// ExitGroup ends the task's whole thread group: in a CLONE_THREAD child that
// is the Go program itself.
func (p *Program) ExitGroup(code int) {
	p.syscall(p.scrap, unix.SYS_EXIT_GROUP, p.Const(uintptr(code)))
	p.ends = true
}
