// Package fake is a guest that never ran, for tests: as much of a real kernel in its memory
// as it takes to find that, and what a test puts there. A gdbstub stands for QEMU's: it has
// registers, writes memory, and stops where a test says.
package fake

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"labctl/host/kernel"
	"labctl/host/outside"
	"labctl/host/vm"
)

// Guest is a guest with Debian's 6.12 for amd64. It is a vm.Inspector.
type Guest struct {
	Kernel *kernel.Kernel
	Stub   Stub

	t    testing.TB
	file *os.File
}

const (
	size = 128 << 20
	base = 16 << 20 // physical address of the kernel's first byte
	text = 0xffffffff81000000

	// Free is the physical address from which on memory is free for a test, behind the
	// image.
	Free = 112 << 20
)

// shared is the kernel of all guests: reading its types takes longer than most tests.
var shared = sync.OnceValues(func() (*kernel.Kernel, error) {
	cache, err := kernel.Open("")
	if err != nil {
		return nil, err
	}
	ref, err := kernel.ParseRef("6.12")
	if err != nil {
		return nil, err
	}
	return cache.Get(context.Background(), ref, "amd64", nil)
})

// New makes a guest.
func New(t testing.TB) *Guest {
	t.Helper()
	k, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := &Guest{Kernel: k, t: t, file: os.NewFile(uintptr(fd), "guest")}
	t.Cleanup(func() { f.file.Close() })
	if err := f.file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Put(f.Phys(f.Symbol("linux_banner")), []byte("Linux version "+k.Release+" (fake)\x00"))
	// The kernel's tables, as 2 MB pages: the image, and all memory behind it, since the
	// first byte of the image is at 16 MB in its gigabyte, too.
	root := f.Phys(f.Symbol("init_top_pgt"))
	pud, pmd := uint64(base-0x2000), uint64(base-0x1000)
	f.Word(root+511*8, pud|0x63)
	f.Word(pud+510*8, pmd|0x63)
	for i := uint64(0); i < size>>21; i++ {
		f.Word(pmd+i*8, i<<21|0xe3)
	}
	return f
}

// Load writes the kernel's image to the memory: its code, its data and its tables. It undoes
// what a test has put there.
func (f *Guest) Load() {
	f.t.Helper()
	path, err := f.Kernel.Vmlinux(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	image, err := elf.Open(path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer image.Close()
	root := f.Phys(f.Symbol("init_top_pgt"))
	for _, p := range image.Progs {
		if p.Type != elf.PT_LOAD || p.Vaddr < text || f.Phys(p.Vaddr)+p.Memsz > Free {
			continue // x86 has the first CPU's own variables at 0
		}
		data, err := io.ReadAll(p.Open())
		if err != nil {
			f.t.Fatal(err)
		}
		f.Put(f.Phys(p.Vaddr), data)
	}
	f.Put(root, make([]byte, 4096)) // as a running kernel has it, not one that is just started
	f.Word(root+511*8, uint64(base-0x2000)|0x63)
}

// Symbol is the address of one of the kernel's symbols.
func (f *Guest) Symbol(name string) uint64 {
	f.t.Helper()
	syms, err := f.Kernel.Symbols(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	found := syms.Named(name)
	if len(found) == 0 {
		f.t.Fatalf("kernel %s has no symbol %s", f.Kernel, name)
	}
	return found[0].Addr
}

// Put writes at a physical address. The memory has room for all that tests put there.
func (f *Guest) Put(phys uint64, b []byte) { f.file.WriteAt(b, int64(phys)) }

// Word is Put for a number of eight bytes.
func (f *Guest) Word(phys, v uint64) { f.Put(phys, binary.LittleEndian.AppendUint64(nil, v)) }

// Virt is the virtual address of a physical one.
func (f *Guest) Virt(phys uint64) uint64 { return text - base + phys }

// Phys is the physical address of a virtual one.
func (f *Guest) Phys(virt uint64) uint64 { return virt - text + base }

// Memory is as for vm.Inspector.
func (f *Guest) Memory(context.Context) (*vm.Memory, error) {
	fd, err := unix.Dup(int(f.file.Fd()))
	return &vm.Memory{File: os.NewFile(uintptr(fd), "guest"), Regions: []vm.Region{{Base: 0, Host: 0, Size: size}}}, err
}

// Registers is as for vm.Inspector. They are the stub's.
func (f *Guest) Registers(context.Context) (string, error) {
	return fmt.Sprintf("CPU#0\nRIP=%016x RFL=00000216 [----AP-] CPL=0 II=0 A20=1 SMM=0 HLT=1\nRSP=%016x RBP=%016x\n",
		f.Stub.get("rip"), f.Stub.get("rsp"), f.Stub.get("rbp")), nil
}

// Stop is as for vm.Inspector.
func (f *Guest) Stop(context.Context) (func() error, error) { return func() error { return nil }, nil }

// GDB is as for vm.Inspector.
func (f *Guest) GDB(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	f.t.Cleanup(func() { theirs.Close() })
	go f.Stub.serve(f, theirs)
	return ours, nil
}

// Open finds the kernel in the guest's memory.
func (f *Guest) Open() *outside.Guest {
	f.t.Helper()
	g, err := outside.Open(context.Background(), f, f.Kernel, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { g.Close() })
	return g
}
