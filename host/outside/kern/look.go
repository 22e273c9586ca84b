package kern

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"labctl/host/outcome"
	"labctl/host/outside/mmu"
)

// Look is one look at a kernel: memory that was read once is not read again. A new look
// sees what has changed. It is not safe for concurrent use.
type Look struct {
	K     *Kernel
	table mmu.Table
	pages map[uint64]*page
	walks physPages // of page tables, where each read takes long
}

// physPages is physical memory that is read by pages, once.
type physPages struct {
	phys  io.ReaderAt
	pages map[uint64]*page
}

// ReadAt reads within a page.
func (p *physPages) ReadAt(b []byte, phys int64) (int, error) {
	number, off := uint64(phys)/pageSize, uint64(phys)%pageSize
	if off+uint64(len(b)) > pageSize {
		return p.phys.ReadAt(b, phys)
	}
	pg, ok := p.pages[number]
	if !ok {
		pg = new(page)
		if n, err := p.phys.ReadAt(pg[:], phys-int64(off)); n < pageSize {
			if err == io.EOF { // the memory may end within the page
				return p.phys.ReadAt(b, phys)
			}
			return 0, err
		}
		if len(p.pages) >= maxPages {
			clear(p.pages)
		}
		p.pages[number] = pg
	}
	return copy(b, pg[off:]), nil
}

type page [pageSize]byte

const pageSize = 4096

// maxPages limits the memory that a look keeps: 64 MB.
const maxPages = 16 << 10

// Look returns a look at the kernel's address space.
func (k *Kernel) Look() *Look { return k.In(k.table) }

// In returns a look at another address space, such as that of a process.
func (k *Kernel) In(t mmu.Table) *Look {
	return &Look{K: k, table: t, pages: map[uint64]*page{}, walks: physPages{k.phys, map[uint64]*page{}}}
}

// ReadError reports memory of the kernel that cannot be read.
type ReadError struct {
	Addr  uint64
	Cause error
}

func (e *ReadError) Error() string {
	// What causes it names the address, or the guest-physical one.
	return fmt.Sprintf("read the kernel's memory at %#x: %v", e.Addr, e.Cause)
}

func (e *ReadError) Unwrap() error { return e.Cause }

// Outcome is that of the cause, BadInput if it has none: the address is one that a user
// gave, or that the guest's memory had.
func (e *ReadError) Outcome() outcome.Kind {
	return outcome.Of(outcome.Default(outcome.BadInput, e.Cause))
}

// Read fills p from a virtual address on.
func (l *Look) Read(p []byte, addr uint64) error {
	for len(p) > 0 {
		pg, err := l.page(addr / pageSize)
		if err != nil {
			return &ReadError{addr, err}
		}
		n := copy(p, pg[addr%pageSize:])
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

func (l *Look) page(number uint64) (*page, error) {
	if pg, ok := l.pages[number]; ok {
		return pg, nil
	}
	var tables io.ReaderAt = l.K.phys
	if l.K.slow {
		tables = &l.walks
	}
	w, err := l.table.Walk(tables, number*pageSize)
	if err != nil {
		return nil, err
	}
	pg := new(page)
	if err := mmu.Read(l.K.phys, pg[:], w.Phys); err != nil {
		return nil, err
	}
	if len(l.pages) >= maxPages {
		clear(l.pages)
	}
	l.pages[number] = pg
	return pg, nil
}

// Fresh forgets what was read.
func (l *Look) Fresh() {
	clear(l.pages)
	clear(l.walks.pages)
}

// Uint reads an unsigned number of 1, 2, 4 or 8 bytes.
func (l *Look) Uint(addr uint64, size int) (uint64, error) {
	var b [8]byte
	if size < 1 || size > 8 {
		return 0, &ReadError{addr, fmt.Errorf("a number of %d bytes", size)}
	}
	// Most numbers do not cross a page.
	err := l.Read(b[:size], addr)
	return binary.LittleEndian.Uint64(b[:]), err
}

// Pointer reads an unsigned long.
func (l *Look) Pointer(addr uint64) (uint64, error) { return l.Uint(addr, l.K.Word()) }

// CString reads a string up to its NUL, at most max bytes. It is not cleaned.
func (l *Look) CString(addr uint64, max int) (string, error) {
	b := make([]byte, 0, 64)
	for len(b) < max {
		n := min(max-len(b), int(pageSize-addr%pageSize), 64)
		part := make([]byte, n)
		if err := l.Read(part, addr); err != nil {
			return string(b), err
		}
		if i := bytes.IndexByte(part, 0); i >= 0 {
			return string(append(b, part[:i]...)), nil
		}
		b, addr = append(b, part...), addr+uint64(n)
	}
	return string(b), nil
}

// Object is a structure in the kernel's memory. After an error its members read as 0:
// see Err.
type Object struct {
	L    *Look
	Type string // without "struct"
	Addr uint64
	err  error
}

// Object returns the structure of a type at an address. Nothing is read yet.
func (l *Look) Object(typ string, addr uint64) *Object { return &Object{L: l, Type: typ, Addr: addr} }

// Err returns the first error.
func (o *Object) Err() error { return o.err }

// Has reports whether the kernel's structure has a member.
func (o *Object) Has(member string) bool {
	_, err := o.L.K.Member(o.Type, member)
	return err == nil
}

// Uint returns a member that is a number, as unsigned, or a pointer. A member may be one
// of a structure in the structure: "thread.sp".
func (o *Object) Uint(member string) uint64 {
	m, err := o.L.K.Member(o.Type, member)
	var v uint64
	if err == nil {
		v, err = o.L.Uint(o.Addr+uint64(m.Offset), min(m.Size, 8))
	}
	if o.err == nil {
		o.err = err
	}
	if err != nil {
		return 0
	}
	if m.Bits > 0 {
		v = v >> m.Shift & (1<<m.Bits - 1)
	}
	return v
}

// Int returns a member that is a number, as signed.
func (o *Object) Int(member string) int64 {
	v := o.Uint(member)
	m, err := o.L.K.Member(o.Type, member)
	if err != nil {
		return 0
	}
	bits := 8 * min(m.Size, 8)
	if m.Bits > 0 {
		bits = m.Bits
	}
	return int64(v<<(64-bits)) >> (64 - bits)
}

// At returns the address of a member.
func (o *Object) At(member string) uint64 {
	m, err := o.L.K.Member(o.Type, member)
	if o.err == nil {
		o.err = err
	}
	return o.Addr + uint64(m.Offset)
}

// String returns a member that is an array of characters.
func (o *Object) String(member string) string {
	m, err := o.L.K.Member(o.Type, member)
	b := make([]byte, min(m.Size, pageSize))
	if err == nil {
		err = o.L.Read(b, o.Addr+uint64(m.Offset))
	}
	if o.err == nil {
		o.err = err
	}
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// Follow returns the structure that a member points to. A null pointer is an error.
func (o *Object) Follow(member, typ string) *Object {
	to := o.L.Object(typ, o.Uint(member))
	if to.err = o.err; to.err == nil && to.Addr == 0 {
		to.err = &ReadError{o.Addr, fmt.Errorf("%s.%s is null", o.Type, member)}
	}
	return to
}

// ErrTorn is wrapped when a list changes while it is read, or is not one.
var ErrTorn = outcome.New(outcome.BadInput, "the list changed while it was read")

// List walks a list from its head, a struct list_head, and calls f with the address of
// each structure, in which the list runs through the member at an offset. It ends with
// ErrTorn when the list does not come back to its head by the way it came: a list of a
// running guest changes, and one of a broken guest may lead anywhere. f ends it by
// returning false.
func (l *Look) List(head uint64, offset int, max int, f func(addr uint64) bool) error {
	word := uint64(l.K.Word())
	prev := head
	at, err := l.Pointer(head)
	for n := 0; err == nil && at != head; n++ {
		if n == max {
			return fmt.Errorf("%w: more than %d entries", ErrTorn, max)
		}
		var back uint64
		if back, err = l.Pointer(at + word); err != nil {
			break
		}
		if back != prev {
			return fmt.Errorf("%w: %#x points back to %#x, not to %#x", ErrTorn, at, back, prev)
		}
		if !f(at - uint64(offset)) {
			return nil
		}
		prev = at
		at, err = l.Pointer(at)
	}
	return err
}
