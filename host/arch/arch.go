// Package arch has one row per processor architecture, with its names in the kernel,
// the kernel's build, Debian, ELF and kprobe events. Machines are rows of
// host/targets.
package arch

import (
	"debug/elf"
	"runtime"
	"strings"
)

// Arch is one architecture.
type Arch struct {
	Name string // GOARCH: "arm64"
	// Machine and Class are the values in ELF headers
	// (include/uapi/linux/elf-em.h). Two architectures may share a machine.
	Machine elf.Machine
	Class   elf.Class

	// The following fields are set only for the architectures in All.

	Uname   string // as printed by uname -m
	Debian  string // Debian's name (dpkg-architecture -L)
	Triplet string // GNU triplet, the prefix of Debian's cross tools
	Build   Build
	Entry   Entry
	// KernelStack is the size of a task's kernel stack with pages of 4 KB, in bytes
	// (THREAD_SIZE in arch/*/include/asm/).
	KernelStack int
	// ORC reports whether kernels may unwind stacks with ORC tables
	// (Documentation/arch/x86/orc-unwinder.rst).
	ORC bool
	// Unwinders are the options any of which lets the kernel unwind its stacks; none if
	// it always can.
	Unwinders []string
}

// Build has the architecture's names in the kernel's build.
type Build struct {
	ARCH   string // make's ARCH=
	Source string // the directory below arch/ (SRCARCH in the kernel's Makefile)
	Target string // make target of the image
	// Images are the paths of images in a built tree, that of Target first, then
	// those of other builds.
	Images []string
	DTBs   string // the tree's directory of device trees, "" if machines have none
	// Objtool reports whether the build runs objtool, which needs libelf's header.
	Objtool bool
}

// Entry describes the registers at a function's entry, by their names in kprobe
// events (regs_query_register_offset in arch/*/kernel/ptrace.c).
type Entry struct {
	// Args are the registers of the first word-sized arguments, in order, according
	// to the System V ABI of x86-64, AAPCS64 and AAPCS32, which kernels follow.
	Args []string
	Word string // fetch type of a pointer or unsigned long: "x64"
	// Link is the register with the return address, if a stack trace taken at a
	// function's entry lacks the direct caller: on arm64 and arm the frame record
	// that leads to it is not written yet when the probe fires. Otherwise empty.
	Link string
	// FrameLink is Link for kernels that walk frame pointers and have another way
	// (FRAME_POINTER without UNWINDER_ORC): the place of the return address on the stack.
	FrameLink string
}

// EntryOf returns the registers at a function's entry on an architecture, with the Link of
// a kernel that walks frame pointers or of another.
func EntryOf(goarch string, framePointers bool) (Entry, bool) {
	row, ok := Find(goarch)
	e := row.Entry
	if framePointers && e.FrameLink != "" {
		e.Link = e.FrameLink
	}
	return e, ok
}

// Names of the fields that Caller fetches.
const (
	LinkField  = "lr" // from the link register
	FrameField = "ra" // from the stack
)

// IsCaller reports whether a field of a probe's event is what Caller fetches.
func IsCaller(field string) bool { return field == LinkField || field == FrameField }

// Caller returns fetch arguments for the return address at a function's entry, best
// first: "lr=%x30:symbol". It returns none if stack traces include the direct caller.
// The fetch type "symbol" is newer than kprobe events.
func (e Entry) Caller() []string {
	if e.Link == "" {
		return nil
	}
	at := LinkField + "=" + e.Link
	if e.Link == e.FrameLink {
		at = FrameField + "=" + e.Link
	}
	return []string{at + ":symbol", at + ":" + e.Word}
}

// All lists the architectures that labctl builds guests for and boots.
var All = []Arch{
	{
		Name: "amd64", Machine: elf.EM_X86_64, Class: elf.ELFCLASS64,
		Uname: "x86_64", Debian: "amd64", Triplet: "x86_64-linux-gnu",
		KernelStack: 16 << 10,
		Build: Build{
			ARCH: "x86_64", Source: "x86",
			Target: "bzImage", Images: []string{"arch/x86/boot/bzImage"}, Objtool: true,
		},
		Entry: Entry{Args: []string{"%di", "%si", "%dx", "%cx", "%r8", "%r9"}, Word: "x64", FrameLink: "$stack0"},
		ORC:   true, Unwinders: []string{"UNWINDER_ORC", "FRAME_POINTER"},
	},
	{
		Name: "arm64", Machine: elf.EM_AARCH64, Class: elf.ELFCLASS64,
		Uname: "aarch64", Debian: "arm64", Triplet: "aarch64-linux-gnu",
		KernelStack: 16 << 10,
		Build: Build{
			ARCH: "arm64", Source: "arm64",
			// QEMU boots an Image without decompressing it first.
			Target: "Image", Images: []string{"arch/arm64/boot/Image", "arch/arm64/boot/Image.gz", "arch/arm64/boot/vmlinuz.efi"},
			DTBs: "arch/arm64/boot/dts",
		},
		Entry: Entry{Args: []string{"%x0", "%x1", "%x2", "%x3", "%x4", "%x5", "%x6", "%x7"}, Word: "x64", Link: "%x30"},
	},
	{
		Name: "arm", Machine: elf.EM_ARM, Class: elf.ELFCLASS32,
		// The kernel reports the CPU's architecture (arch/arm/kernel/setup.c).
		Uname: "armv7l", Debian: "armhf", Triplet: "arm-linux-gnueabihf",
		KernelStack: 8 << 10,
		Build: Build{
			ARCH: "arm", Source: "arm",
			Target: "zImage", Images: []string{"arch/arm/boot/zImage", "arch/arm/boot/Image"},
			DTBs: "arch/arm/boot/dts",
		},
		Entry:     Entry{Args: []string{"%r0", "%r1", "%r2", "%r3"}, Word: "x32", Link: "%lr"},
		Unwinders: []string{"ARM_UNWIND", "FRAME_POINTER"},
	},
}

// Others lists architectures that labctl does not boot, used to identify files.
var Others = []Arch{
	{Name: "386", Machine: elf.EM_386, Class: elf.ELFCLASS32},
	{Name: "riscv64", Machine: elf.EM_RISCV, Class: elf.ELFCLASS64},
	{Name: "ppc64le", Machine: elf.EM_PPC64, Class: elf.ELFCLASS64},
	{Name: "s390x", Machine: elf.EM_S390, Class: elf.ELFCLASS64},
	{Name: "loong64", Machine: elf.EM_LOONGARCH, Class: elf.ELFCLASS64},
}

// Names returns the names of All in order.
func Names() []string {
	names := make([]string, len(All))
	for i, a := range All {
		names[i] = a.Name
	}
	return names
}

// Find returns the row of All for a GOARCH.
func Find(name string) (Arch, bool) {
	for _, a := range All {
		if a.Name == name {
			return a, true
		}
	}
	return Arch{}, false
}

// OfELF returns the name of an ELF file's architecture according to its header, "" if
// there is no row for it. x32 programs have amd64's machine, and no row.
func OfELF(machine elf.Machine, class elf.Class) string {
	for _, rows := range [][]Arch{All, Others} {
		for _, a := range rows {
			if a.Machine == machine && a.Class == class {
				return a.Name
			}
		}
	}
	return ""
}

// Bits returns the word size of an architecture (a GOARCH of any row), 64 if there is
// no row.
func Bits(name string) int {
	for _, rows := range [][]Arch{All, Others} {
		for _, a := range rows {
			if a.Name == name && a.Class == elf.ELFCLASS32 {
				return 32
			}
		}
	}
	return 64
}

// Native reports whether this host has the architecture.
func (a Arch) Native() bool { return a.Name == runtime.GOARCH }

// CrossCompile returns make's CROSS_COMPILE, the prefix of the compiler and its tools:
// "aarch64-linux-gnu-", or "" on a host of the architecture.
func (a Arch) CrossCompile() string {
	if a.Native() {
		return ""
	}
	return a.Triplet + "-"
}

// CrossPackage returns the Debian package of the cross compiler, whose name cannot
// contain an underscore: "gcc-x86-64-linux-gnu".
func (a Arch) CrossPackage() string { return "gcc-" + strings.ReplaceAll(a.Triplet, "_", "-") }
