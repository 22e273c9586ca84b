// Package targets has one row of data for each machine that labctl can boot. Nothing
// else in labctl depends on a particular board; architectures are rows of host/arch.
package targets

import (
	"fmt"
	"runtime"
)

// Link is the connection between the agent in the guest and the host.
type Link struct {
	// Kind is "virtio" (a virtio-serial port named labctl) or "uart".
	Kind string
	// TTY is the guest's device for a uart, without /dev: "ttyS1".
	TTY string
	// Serial is the index of QEMU's -serial that a uart is wired to.
	Serial int
}

// What a machine may be given that is not fixed.
const (
	MaxCPUs     = 64
	MinMemoryMB = 64
	MaxMemoryMB = 1 << 20
)

// CheckSize says which of a machine's CPUs and megabytes of memory is out of bounds; 0 stands
// for the machine's own number.
func CheckSize(cpus, memoryMB int) error {
	switch {
	case cpus < 0 || cpus > MaxCPUs:
		return fmt.Errorf("smp %d: want 1 to %d", cpus, MaxCPUs)
	case memoryMB != 0 && (memoryMB < MinMemoryMB || memoryMB > MaxMemoryMB):
		return fmt.Errorf("mem %d: want %d to %d", memoryMB, MinMemoryMB, MaxMemoryMB)
	}
	return nil
}

// CPUFor is a CPU for kernels that set an option.
type CPUFor struct{ Option, CPU string }

// Target is one machine.
type Target struct {
	Name    string // "amd64", "raspi3b": the argument of --arch or --board
	Summary string
	Arch    string // GOARCH of guest binaries, the name of a row of host/arch
	Board   bool   // selected with --board; the plain rows are selected with --arch

	Binary  string // QEMU's binary
	Package string // the Debian package that contains it
	Since   string // the first QEMU version with this machine, if labctl supports older ones
	Machine string // -machine
	CPU     string // -cpu under emulation; replaced with "host" under KVM
	// CPUFor has other CPUs under emulation, by the first of these options that a kernel sets.
	CPUFor    []CPUFor
	TCGThread string // -accel tcg,thread=; empty means QEMU's default
	// KVM reports whether the machine can run under KVM, with KVMOptions added to
	// -machine. Boards cannot: their CPU and devices are emulated as a whole.
	KVM        bool
	KVMOptions []string

	// CPUs and MemoryMB are defaults; a fixed board allows no other values.
	CPUs     int
	MemoryMB int
	Fixed    bool

	// ConsoleSerial is the index of the -serial that carries kernel messages.
	ConsoleSerial int
	// Console has the kernel arguments for the console.
	Console []string
	// Append has the other kernel arguments that this machine needs.
	Append []string

	Links []Link // in order of preference
	DTB   string // device tree in the kernel's package, below its vendor directory

	// PVH reports whether QEMU's machine boots a vmlinux through its PVH note,
	// without the kernel's self-decompression, which is slow under emulation
	// (docs/bench.md).
	PVH bool

	PCI      bool // has a PCI bus, so virtio-pci devices work
	Snapshot bool // its state can be saved and restored

	// BootSeconds and WarmSeconds are what a boot and a lab after a warm start take of
	// an emulating host's CPU time, or a lab on a machine that is always booted takes
	// besides. Plans are divided by their ratios; nothing waits for them.
	BootSeconds, WarmSeconds float64

	// Features are the kernel features (kconfig/features.yaml) that a boot needs.
	Features []string
}

// All lists every target, plain architectures first.
var All = []Target{
	{
		Name: "amd64", Summary: "x86_64 PC (QEMU q35)", Arch: "amd64",
		Binary: "qemu-system-x86_64", Package: "qemu-system-x86",
		// Kernels copy and clear memory with "rep movsb" if the CPU reports that it
		// is fast. Emulated, it works byte by byte: without it a boot takes a seventh
		// less time.
		// QEMU 7.2 computes the flags of cmpxchg16b from stale state of an earlier
		// instruction: an interrupt then saves bits of a pointer as flags, and the
		// kernel continues with the direction flag set, clearing memory backwards.
		// Linux's allocator uses the instruction; 1 boot in some 50 panicked at a
		// random point. Without it, programs built with GOAMD64=v2 report what is
		// missing.
		Machine: "q35", CPU: "max,-erms,-fsrm,-cx16",
		// With two emulated CPUs in two threads, toggling a tracepoint while another
		// thread forks results in "Oops: int3": the patched byte becomes visible
		// before its handler (6.12 and 7.2: 5 of 5 runs; 5.10 hangs).
		TCGThread: "single",
		KVM:       true,
		CPUs:      2, MemoryMB: 512,
		Console: []string{"console=ttyS0"},
		// The kernel compares timer ticks with busy loops and panics if there are too
		// few ("IO-APIC + timer doesn't work!"), which happens on a busy host. Under
		// KVM it skips the check by itself.
		Append: []string{"mitigations=off", "no_timer_check"},
		PVH:    true,
		Links:  []Link{{Kind: "virtio"}, {Kind: "uart", TTY: "ttyS1", Serial: 1}},
		PCI:    true, Snapshot: true,
		BootSeconds: 6, WarmSeconds: 2,
		Features: []string{"boot", "serial-8250"},
	},
	{
		Name: "arm64", Summary: "Arm 64-bit (QEMU virt)", Arch: "arm64",
		Binary: "qemu-system-aarch64", Package: "qemu-system-arm",
		Machine: "virt", CPU: "cortex-a57",
		// A Cortex-A57 has pages of 4 and 64 KB alone (ID_AA64MMFR0_EL1.TGran16).
		CPUFor: []CPUFor{{"ARM64_16K_PAGES", "cortex-a76"}},
		// With one thread per CPU, a tracepoint that is enabled while the other CPU's
		// code is being translated may stay disabled there (7.2: three of some twenty
		// first traces after a warm start had no sched_switch).
		TCGThread: "single",
		// The default, GICv2, is not available on hosts that have only a GICv3.
		KVM: true, KVMOptions: []string{"gic-version=max"},
		CPUs: 2, MemoryMB: 512,
		Console: []string{"console=ttyAMA0"},
		// KASLR forces page table isolation on (arch/arm64/kernel/cpufeature.c), and
		// then QEMU flushes its TLB at every kernel entry and exit: a fifth of the
		// total time. The guest's programs are trusted.
		Append: []string{"mitigations=off", "kpti=off"},
		// virt has only one UART that Linux can use, so virtio is required.
		Links: []Link{{Kind: "virtio"}},
		PCI:   true, Snapshot: true,
		BootSeconds: 8, WarmSeconds: 2,
		Features: []string{"boot", "serial-pl011"},
	},
	{
		Name: "arm", Summary: "Arm 32-bit (QEMU virt)", Arch: "arm",
		Binary: "qemu-system-arm", Package: "qemu-system-arm",
		// Debian's armmp does not support large physical addresses, and by default
		// virt puts the PCI configuration space above 4 GB: virtio would not work.
		Machine: "virt,highmem=off", CPU: "cortex-a15",
		CPUs: 2, MemoryMB: 512,
		// The early console prints what precedes the driver; on a busy host the driver
		// is too late for the first line's deadline.
		Console: []string{"earlycon", "console=ttyAMA0"},
		Links:   []Link{{Kind: "virtio"}},
		PCI:     true, Snapshot: true,
		BootSeconds: 11, WarmSeconds: 3,
		Features: []string{"boot", "serial-pl011"},
	},
	{
		Name: "raspi3b", Summary: "Raspberry Pi 3 Model B", Arch: "arm64", Board: true,
		Binary: "qemu-system-aarch64", Package: "qemu-system-arm",
		Machine: "raspi3b", CPU: "cortex-a53",
		// Until the kernel starts them, three CPUs spin in the firmware's spin table.
		// In one thread they yield; in separate threads they use the host's CPUs, and
		// a boot takes three times as long.
		TCGThread: "single",
		CPUs:      4, MemoryMB: 1024, Fixed: true,
		// Linux assigns the PL011 to Bluetooth, so only the mini UART is a tty. The
		// early console uses the PL011 without a driver, so kernel messages always go
		// there and the mini UART is used by the agent only. console=tty0 keeps the
		// kernel from using the mini UART as console, which the device tree's
		// stdout-path names, and provides a /dev/console for PID 1.
		Console: []string{"earlycon=pl011,mmio32,0x3f201000", "keep_bootcon", "console=tty0"},
		Links:   []Link{{Kind: "uart", TTY: "ttyS1", Serial: 1}},
		DTB:     "broadcom/bcm2837-rpi-3-b.dtb",
		// No PCI, no PSCI: the kernel halts, and QMP's quit must end QEMU. After a
		// restore the machine's timers never fire again (QEMU 7.2).
		BootSeconds: 16, WarmSeconds: 2,
		Features: []string{"boot", "serial-bcm2835aux"},
	},
	{
		Name: "raspi4b", Summary: "Raspberry Pi 4 Model B", Arch: "arm64", Board: true,
		Binary: "qemu-system-aarch64", Package: "qemu-system-arm", Since: "9.0",
		Machine: "raspi4b", CPU: "cortex-a72",
		TCGThread: "single", // as for raspi3b
		CPUs:      4, MemoryMB: 2048, Fixed: true,
		// As for raspi3b, with peripherals at other addresses.
		Console: []string{"earlycon=pl011,mmio32,0xfe201000", "keep_bootcon", "console=tty0"},
		Links:   []Link{{Kind: "uart", TTY: "ttyS1", Serial: 1}},
		DTB:     "broadcom/bcm2711-rpi-4-b.dtb",
		// QEMU (10.0) has no HDMI on this board. Drivers in Debian's kernels access
		// its registers and crash with a bus error.
		Append:      []string{"initcall_blacklist=brcmstb_l2_driver_init,brcmstb_i2c_driver_init,clk_dvp_driver_init"},
		BootSeconds: 20, WarmSeconds: 2,
		Features: []string{"boot", "serial-bcm2835aux"},
	},
	{
		Name: "raspi2b", Summary: "Raspberry Pi 2 Model B", Arch: "arm", Board: true,
		Binary: "qemu-system-arm", Package: "qemu-system-arm",
		Machine: "raspi2b", CPU: "cortex-a7",
		// With one thread (as for raspi3b) it does not boot: the kernel patches its
		// code with all CPUs stopped, and each step of that waits for every CPU to be
		// scheduled.
		CPUs: 4, MemoryMB: 1024, Fixed: true,
		// The opposite of a Raspberry Pi 3: Bluetooth does not use the PL011, and the
		// device tree disables the mini UART. So the early console uses the mini UART
		// and the agent the PL011.
		ConsoleSerial: 1,
		Console:       []string{"earlycon=bcm2835aux,mmio32,0x3f215040", "keep_bootcon", "console=tty0"},
		Links:         []Link{{Kind: "uart", TTY: "ttyAMA0", Serial: 0}},
		DTB:           "bcm2836-rpi-2-b.dtb",
		// No PCI, no PSCI, as on raspi3b; restoring has not been tried.
		BootSeconds: 30, WarmSeconds: 3,
		Features: []string{"boot", "serial-pl011", "serial-bcm2835aux"},
	},
	{
		Name: "pc-la57", Summary: "x86_64 PC with page tables of 5 levels", Arch: "amd64", Board: true,
		Binary: "qemu-system-x86_64", Package: "qemu-system-x86",
		// QEMU's "max" has LA57, here as on amd64. But only the code that unpacks a bzImage
		// turns it on (paging_prepare in arch/x86/boot/compressed): by PVH there are 4 levels.
		Machine: "q35", CPU: "max,-erms,-fsrm,-cx16", TCGThread: "single", // as for amd64
		CPUs: 2, MemoryMB: 512,
		Console: []string{"console=ttyS0"},
		Append:  []string{"mitigations=off", "no_timer_check"}, // as for amd64
		Links:   []Link{{Kind: "virtio"}, {Kind: "uart", TTY: "ttyS1", Serial: 1}},
		PCI:     true, Snapshot: true,
		BootSeconds: 10, WarmSeconds: 2,
		Features: []string{"boot", "serial-8250"},
	},
}

// Names returns the names of all targets in order.
func Names() []string {
	names := make([]string, len(All))
	for i, t := range All {
		names[i] = t.Name
	}
	return names
}

// Find returns the target with a name.
func Find(name string) (Target, bool) {
	for _, t := range All {
		if t.Name == name {
			return t, true
		}
	}
	return Target{}, false
}

// Host returns the plain target with this host's architecture, amd64 if there is none.
func Host() Target {
	if t, ok := Find(runtime.GOARCH); ok {
		return t
	}
	return All[0]
}
