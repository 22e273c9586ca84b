// Package arch has one row for each processor architecture, with the names that
// the kernel, its build, Debian, ELF and kprobe events have for it. Machines, which
// have an architecture and much else, are rows of host/targets.
package arch

import (
	"debug/elf"
	"runtime"
	"strings"
)

// Arch is one architecture.
type Arch struct {
	Name string // GOARCH: "arm64"
	// Machine and Class are in the headers of its ELF files
	// (include/uapi/linux/elf-em.h). Two architectures may share a machine.
	Machine elf.Machine
	Class   elf.Class

	// What follows is known of the architectures that labctl boots: see All.

	Uname   string // what uname -m prints in a kernel of it
	Debian  string // Debian's name (dpkg-architecture -L)
	Triplet string // GNU's name of the target, before the names of Debian's cross tools
	Build   Build
	Entry   Entry
	// ORC says that kernels may unwind their stacks by tables of their own
	// (Documentation/arch/x86/orc-unwinder.rst).
	ORC bool
}

// Build is what the kernel's own build calls the architecture.
type Build struct {
	ARCH   string // make's ARCH=
	Source string // the directory below arch/ (SRCARCH in the kernel's Makefile)
	Target string // what make is asked for
	// Images are where make leaves images in the tree, the one of Target first and
	// then what other builds have.
	Images []string
	DTBs   string // the tree's directory of device trees, empty where machines have none
	// Objtool says that the build runs objtool, which needs the header of libelf.
	Objtool bool
}

// Entry is where a function's arguments are at its entry, by the names that kprobe
// events have for registers (regs_query_register_offset in arch/*/kernel/ptrace.c).
type Entry struct {
	// Args are the registers of the first arguments that are words, in order: the
	// System V ABI of x86-64, AAPCS64 and AAPCS32, which kernels keep.
	Args []string
	Word string // the fetch type of a pointer or unsigned long: "x64"
	// Link is the register of the return address, where a stack that is taken at
	// a function's entry lacks the direct caller: on arm64 the caller's frame
	// record is not written yet when the probe fires. Empty elsewhere.
	Link string
}

// Caller lists fetch arguments, best first, for the return address at a function's
// entry, and none where stacks do not lack the direct caller: "lr=%x30:symbol". The
// fetch type "symbol" is younger than kprobe events themselves.
func (e Entry) Caller() []string {
	if e.Link == "" {
		return nil
	}
	return []string{"lr=" + e.Link + ":symbol", "lr=" + e.Link + ":" + e.Word}
}

// All are the architectures that labctl builds guests for and boots.
var All = []Arch{
	{
		Name: "amd64", Machine: elf.EM_X86_64, Class: elf.ELFCLASS64,
		Uname: "x86_64", Debian: "amd64", Triplet: "x86_64-linux-gnu",
		Build: Build{
			ARCH: "x86_64", Source: "x86",
			Target: "bzImage", Images: []string{"arch/x86/boot/bzImage"}, Objtool: true,
		},
		Entry: Entry{Args: []string{"%di", "%si", "%dx", "%cx", "%r8", "%r9"}, Word: "x64"},
		ORC:   true,
	},
	{
		Name: "arm64", Machine: elf.EM_AARCH64, Class: elf.ELFCLASS64,
		Uname: "aarch64", Debian: "arm64", Triplet: "aarch64-linux-gnu",
		Build: Build{
			ARCH: "arm64", Source: "arm64",
			// QEMU starts an Image without unpacking it first.
			Target: "Image", Images: []string{"arch/arm64/boot/Image", "arch/arm64/boot/Image.gz", "arch/arm64/boot/vmlinuz.efi"},
			DTBs: "arch/arm64/boot/dts",
		},
		Entry: Entry{Args: []string{"%x0", "%x1", "%x2", "%x3", "%x4", "%x5", "%x6", "%x7"}, Word: "x64", Link: "%x30"},
	},
	{
		Name: "arm", Machine: elf.EM_ARM, Class: elf.ELFCLASS32,
		// The kernel writes its own CPU's architecture there (arch/arm/kernel/setup.c).
		Uname: "armv7l", Debian: "armhf", Triplet: "arm-linux-gnueabihf",
		Build: Build{
			ARCH: "arm", Source: "arm",
			Target: "zImage", Images: []string{"arch/arm/boot/zImage", "arch/arm/boot/Image"},
			DTBs: "arch/arm/boot/dts",
		},
		Entry: Entry{Args: []string{"%r0", "%r1", "%r2", "%r3"}, Word: "x32"},
	},
}

// Others are architectures that labctl boots nothing of, for saying what a file is.
var Others = []Arch{
	{Name: "386", Machine: elf.EM_386, Class: elf.ELFCLASS32},
	{Name: "riscv64", Machine: elf.EM_RISCV, Class: elf.ELFCLASS64},
	{Name: "ppc64le", Machine: elf.EM_PPC64, Class: elf.ELFCLASS64},
	{Name: "s390x", Machine: elf.EM_S390, Class: elf.ELFCLASS64},
	{Name: "loong64", Machine: elf.EM_LOONGARCH, Class: elf.ELFCLASS64},
}

// Names lists the names of All in order.
func Names() []string {
	names := make([]string, len(All))
	for i, a := range All {
		names[i] = a.Name
	}
	return names
}

// Find returns the row of All with a GOARCH.
func Find(name string) (Arch, bool) {
	for _, a := range All {
		if a.Name == name {
			return a, true
		}
	}
	return Arch{}, false
}

// OfELF names the architecture of an ELF file by its header, empty when there is no
// row for it. x32 programs have amd64's machine, and no row.
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

// Bits is the size of a word of an architecture (a GOARCH of any row), 64 where
// there is no row.
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

// Native says that this host has the architecture.
func (a Arch) Native() bool { return a.Name == runtime.GOARCH }

// CrossCompile is what stands before the names of the compiler and its tools, make's
// CROSS_COMPILE: "aarch64-linux-gnu-", and nothing on a host of the architecture.
func (a Arch) CrossCompile() string {
	if a.Native() {
		return ""
	}
	return a.Triplet + "-"
}

// CrossPackage is Debian's package of the compiler of CrossCompile for another
// host, whose name cannot have an underscore: "gcc-x86-64-linux-gnu".
func (a Arch) CrossPackage() string { return "gcc-" + strings.ReplaceAll(a.Triplet, "_", "-") }
