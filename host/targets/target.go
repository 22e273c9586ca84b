// Package targets holds one row of data for each machine that labctl can boot.
// Nothing else in labctl switches on a board; what is known of an architecture is a
// row of host/arch.
package targets

import "runtime"

// Link is how the agent in the guest reaches the host.
type Link struct {
	// Kind is "virtio" (a virtio-serial port named labctl) or "uart".
	Kind string
	// TTY is the guest's device for a uart, without /dev: "ttyS1".
	TTY string
	// Serial is the index of QEMU's -serial that a uart is wired to.
	Serial int
}

// Target is one machine.
type Target struct {
	Name    string // "amd64", "raspi3b": what --arch or --board is given
	Summary string
	Arch    string // GOARCH of guest binaries, the name of a row of host/arch
	Board   bool   // named by --board; --arch names the plain rows

	Binary    string // QEMU's binary
	Package   string // the Debian package that has it
	Since     string // the first QEMU with this machine, where labctl also works with older ones
	Machine   string // -machine
	CPU       string // -cpu under emulation; "host" replaces it under KVM
	TCGThread string // -accel tcg,thread=; empty leaves QEMU's choice
	// KVM says that the machine can run under KVM, with these options to
	// -machine. Boards cannot: their CPU and devices are emulated as a whole.
	KVM        bool
	KVMOptions []string

	// CPUs and MemoryMB are defaults; a fixed board takes no others.
	CPUs     int
	MemoryMB int
	Fixed    bool

	// ConsoleSerial is the index of the -serial that carries kernel messages.
	ConsoleSerial int
	// Console is the kernel's command line for its console.
	Console []string
	// Append is what this machine needs on the command line besides.
	Append []string

	Links []Link // in order of preference
	DTB   string // device tree to ask of the kernel's package, under its vendor folder

	// PVH says that QEMU's machine starts a vmlinux by its PVH note, without the
	// kernel's own unpacking, which is slow under emulation (docs/bench.md).
	PVH bool

	PCI      bool // has a PCI bus, so virtio-pci devices work
	Snapshot bool // its state can be saved and restored

	// Features are the kernel features (kconfig/features.yaml) that a boot needs.
	Features []string
}

// All lists every target, plain architectures first.
var All = []Target{
	{
		Name: "amd64", Summary: "x86_64 PC (QEMU q35)", Arch: "amd64",
		Binary: "qemu-system-x86_64", Package: "qemu-system-x86",
		// Kernels copy and clear memory by "rep movsb" where the CPU says that it
		// is fast. Emulated, it goes byte by byte: without it a boot takes a
		// seventh less time.
		// QEMU 7.2 computes the flags of cmpxchg16b from what an instruction before
		// it left behind: an interrupt then saves bits of a pointer as flags, and
		// the kernel goes on with the direction flag set, clearing memory backwards.
		// Linux's allocator uses the instruction; 1 boot in some 50 panicked at a
		// random place. Without it, programs built with GOAMD64=v2 say what they miss.
		Machine: "q35", CPU: "max,-erms,-fsrm,-cx16",
		// With two emulated CPUs in two threads, toggling a trace point while
		// another thread forks ends in "Oops: int3": the patched byte is seen
		// before its handler is (6.12 and 7.2: 5 of 5 runs; 5.10 hangs).
		TCGThread: "single",
		KVM:       true,
		CPUs:      2, MemoryMB: 512,
		Console: []string{"console=ttyS0"},
		// The kernel counts ticks of the timer against loops of its own and panics
		// when they are too few ("IO-APIC + timer doesn't work!"): on a busy host
		// they are. Under KVM it leaves the check out by itself.
		Append: []string{"mitigations=off", "no_timer_check"},
		PVH:    true,
		Links:  []Link{{Kind: "virtio"}, {Kind: "uart", TTY: "ttyS1", Serial: 1}},
		PCI:    true, Snapshot: true,
		Features: []string{"boot", "serial-8250"},
	},
	{
		Name: "arm64", Summary: "Arm 64-bit (QEMU virt)", Arch: "arm64",
		Binary: "qemu-system-aarch64", Package: "qemu-system-arm",
		Machine: "virt", CPU: "cortex-a57",
		// With a thread for each CPU, a trace point that is switched on while the
		// other CPU's code is being translated may stay off there (7.2: three of
		// some twenty first traces after a warm start had no sched_switch).
		TCGThread: "single",
		// The default GICv2 is not there on hosts that have a GICv3 alone.
		KVM: true, KVMOptions: []string{"gic-version=max"},
		CPUs: 2, MemoryMB: 512,
		Console: []string{"console=ttyAMA0"},
		// KASLR forces page table isolation on (arch/arm64/kernel/cpufeature.c),
		// and then QEMU flushes its TLB at every entry and exit of the kernel: a
		// fifth of all time. No secret is kept from a guest's own programs.
		Append: []string{"mitigations=off", "kpti=off"},
		// virt has one UART that Linux sees, so without virtio there is no second road.
		Links: []Link{{Kind: "virtio"}},
		PCI:   true, Snapshot: true,
		Features: []string{"boot", "serial-pl011"},
	},
	{
		Name: "arm", Summary: "Arm 32-bit (QEMU virt)", Arch: "arm",
		Binary: "qemu-system-arm", Package: "qemu-system-arm",
		// Debian's armmp has no large physical addresses, and virt puts the PCI
		// configuration space above 4 GB unless told not to: no virtio then.
		Machine: "virt,highmem=off", CPU: "cortex-a15",
		CPUs: 2, MemoryMB: 512,
		// The early console says what comes before the driver; on a busy host that is
		// longer than the wait for the first line.
		Console: []string{"earlycon", "console=ttyAMA0"},
		Links:   []Link{{Kind: "virtio"}},
		PCI:     true, Snapshot: true,
		Features: []string{"boot", "serial-pl011"},
	},
	{
		Name: "raspi3b", Summary: "Raspberry Pi 3 Model B", Arch: "arm64", Board: true,
		Binary: "qemu-system-aarch64", Package: "qemu-system-arm",
		Machine: "raspi3b", CPU: "cortex-a53",
		// Until the kernel wants them, the firmware's spin table keeps three
		// CPUs busy. In one thread they yield; in threads of their own they
		// take the host's CPUs, and a boot takes three times as long.
		TCGThread: "single",
		CPUs:      4, MemoryMB: 1024, Fixed: true,
		// Linux gives the PL011 to Bluetooth and keeps only the mini UART as a
		// tty. The early console drives the PL011 without a driver, so kernel
		// messages go there to the end and the mini UART is the agent's alone.
		// console=tty0 keeps the kernel from taking the mini UART, which the
		// device tree's stdout-path names, and gives PID 1 a /dev/console.
		Console: []string{"earlycon=pl011,mmio32,0x3f201000", "keep_bootcon", "console=tty0"},
		Links:   []Link{{Kind: "uart", TTY: "ttyS1", Serial: 1}},
		DTB:     "broadcom/bcm2837-rpi-3-b.dtb",
		// No PCI, no PSCI: the kernel halts and QEMU has to be told to quit.
		// A restored machine's timers never fire again (QEMU 7.2).
		Features: []string{"boot", "serial-bcm2835aux"},
	},
	{
		Name: "raspi4b", Summary: "Raspberry Pi 4 Model B", Arch: "arm64", Board: true,
		Binary: "qemu-system-aarch64", Package: "qemu-system-arm", Since: "9.0",
		Machine: "raspi4b", CPU: "cortex-a72",
		TCGThread: "single", // as raspi3b
		CPUs:      4, MemoryMB: 2048, Fixed: true,
		// As raspi3b, with the peripherals elsewhere.
		Console: []string{"earlycon=pl011,mmio32,0xfe201000", "keep_bootcon", "console=tty0"},
		Links:   []Link{{Kind: "uart", TTY: "ttyS1", Serial: 1}},
		DTB:     "broadcom/bcm2711-rpi-4-b.dtb",
		// QEMU (10.0) has no HDMI on this board. Drivers of Debian's kernels touch
		// its registers and die of the bus error.
		Append:   []string{"initcall_blacklist=brcmstb_l2_driver_init,brcmstb_i2c_driver_init,clk_dvp_driver_init"},
		Features: []string{"boot", "serial-bcm2835aux"},
	},
	{
		Name: "raspi2b", Summary: "Raspberry Pi 2 Model B", Arch: "arm", Board: true,
		Binary: "qemu-system-arm", Package: "qemu-system-arm",
		Machine: "raspi2b", CPU: "cortex-a7",
		// In one thread (as raspi3b) it does not come up: the kernel patches its
		// code with all CPUs stopped, and each step of that waits for the turn of
		// each CPU.
		CPUs: 4, MemoryMB: 1024, Fixed: true,
		// The other way round than on a Raspberry Pi 3: no Bluetooth takes the
		// PL011, and the device tree leaves the mini UART off. So the early
		// console has the mini UART and the agent the PL011.
		ConsoleSerial: 1,
		Console:       []string{"earlycon=bcm2835aux,mmio32,0x3f215040", "keep_bootcon", "console=tty0"},
		Links:         []Link{{Kind: "uart", TTY: "ttyAMA0", Serial: 0}},
		DTB:           "bcm2836-rpi-2-b.dtb",
		// No PCI, no PSCI, as on raspi3b; restoring it has not been tried.
		Features: []string{"boot", "serial-pl011", "serial-bcm2835aux"},
	},
}

// Names lists the names of all targets in order.
func Names() []string {
	names := make([]string, len(All))
	for i, t := range All {
		names[i] = t.Name
	}
	return names
}

// Find returns the row of a name.
func Find(name string) (Target, bool) {
	for _, t := range All {
		if t.Name == name {
			return t, true
		}
	}
	return Target{}, false
}

// Host is the plain target of the machine that labctl runs on, amd64 where
// there is none.
func Host() Target {
	if t, ok := Find(runtime.GOARCH); ok {
		return t
	}
	return All[0]
}
