package qemu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Defaults disables everything that QEMU adds by default: default devices, the
// user's configuration, a network, a window, and restarting on reset.
type Defaults struct{}

func (Defaults) Args(c *Cmdline) error {
	c.Add("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-no-reboot")
	return nil
}

// Sandbox confines QEMU with seccomp, if the binary and the host support it.
type Sandbox struct{}

const sandboxOn = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

func (Sandbox) Args(c *Cmdline) error {
	f, err := Inspect(c.binary)
	if err != nil {
		return err
	}
	if f.Sandbox {
		c.Add("-sandbox", sandboxOn)
	}
	return nil
}

// Machine is the board.
type Machine struct {
	Type    string   // "q35", "virt", "raspi3b"
	Options []string // "highmem=off"
}

func (m Machine) Args(c *Cmdline) error {
	if m.Type == "" {
		return fmt.Errorf("no machine type")
	}
	c.Add("-machine", strings.Join(append([]string{m.Type}, m.Options...), ","))
	return nil
}

// CPU is the CPU model with its features: "max", "cortex-a72".
type CPU string

func (m CPU) Args(c *Cmdline) error { c.Add("-cpu", string(m)); return nil }

// Accel is the accelerator.
type Accel struct {
	Name string // "tcg", "kvm"
	// Thread is TCG's threading, "single" or "multi"; empty means QEMU's default.
	// amd64 guests with more than one CPU need "single" under TCG: with "multi",
	// QEMU 7.2 breaks the kernel's int3 text patching.
	Thread string
}

func (a Accel) Args(c *Cmdline) error {
	v := a.Name
	if a.Thread != "" && a.Name == "tcg" {
		v += ",thread=" + a.Thread
	}
	c.Add("-accel", v)
	return nil
}

// Memory is the guest's RAM.
type Memory struct {
	MiB int
	// File backs the RAM with a file of that size. With Share the guest's stores
	// are written to it; without, the file is mapped private and is not changed.
	File  string
	Share bool
	// Inherit is an open file, used instead of File; it needs no name.
	Inherit *os.File
}

func (m Memory) Args(c *Cmdline) error {
	if m.MiB <= 0 {
		return fmt.Errorf("memory of %d MiB: want at least 1", m.MiB)
	}
	c.Add("-m", strconv.Itoa(m.MiB)+"M")
	path := Value(m.File)
	if m.Inherit != nil {
		path = fmt.Sprintf("/proc/self/fd/%d", c.File(m.Inherit))
	}
	if path == "" {
		return nil
	}
	if err := c.ID("ram"); err != nil {
		return err
	}
	// A second -machine adds to the first one's options.
	c.Add("-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=%s,share=%s", m.MiB, path, onOff(m.Share)),
		"-machine", "memory-backend=ram")
	return nil
}

// Nodes are NUMA nodes with equal parts of the guest's RAM and CPUs, in order.
type Nodes struct {
	MiB, CPUs, Nodes int
	// Inherit has an open file of each node's memory, or nothing. With Share the guest's
	// stores are written to it.
	Inherit []*os.File
	Share   bool
}

// NodeRAM is the name of a node's memory, in the monitor's memory tree, too.
func NodeRAM(node int) string { return fmt.Sprintf("ram%d", node) }

func (n Nodes) Args(c *Cmdline) error {
	if n.Nodes < 2 || n.MiB%n.Nodes != 0 || n.CPUs%n.Nodes != 0 || len(n.Inherit) != 0 && len(n.Inherit) != n.Nodes {
		return fmt.Errorf("%d MiB of memory and %d CPUs in %d nodes, %d of them with a file: want at least 2 of the same size", n.MiB, n.CPUs, n.Nodes, len(n.Inherit))
	}
	// CPUs of one socket share a cache, which the kernel does not believe of two nodes: it
	// warns ("llc-sibling CPU is not on the same node").
	c.Add("-m", strconv.Itoa(n.MiB)+"M", "-smp", fmt.Sprintf("%d,sockets=%d", n.CPUs, n.Nodes))
	for i := range n.Nodes {
		id := NodeRAM(i)
		if err := c.ID(id); err != nil {
			return err
		}
		backend := fmt.Sprintf("memory-backend-ram,id=%s,size=%dM", id, n.MiB/n.Nodes)
		if len(n.Inherit) > 0 {
			backend = fmt.Sprintf("memory-backend-file,id=%s,size=%dM,mem-path=/proc/self/fd/%d,share=%s", id, n.MiB/n.Nodes, c.File(n.Inherit[i]), onOff(n.Share))
		}
		c.Add("-object", backend,
			"-numa", fmt.Sprintf("node,nodeid=%d,memdev=%s,cpus=%d-%d", i, id, i*n.CPUs/n.Nodes, (i+1)*n.CPUs/n.Nodes-1))
	}
	return nil
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// SMP is the number of CPUs.
type SMP int

func (n SMP) Args(c *Cmdline) error {
	if n < 1 {
		return fmt.Errorf("%d CPUs: want at least 1", int(n))
	}
	c.Add("-smp", strconv.Itoa(int(n)))
	return nil
}

// Kernel is booted by QEMU's built-in loader. Append and other devices' kernel
// arguments are in the order of the devices.
type Kernel struct {
	Image  string // bzImage, Image, zImage, or vmlinux with a PVH note
	Initrd string // optional
	DTB    string // optional
	Append []string
	// Inherit is an open file, used instead of Image and read from its start.
	Inherit *os.File
}

func (k Kernel) Args(c *Cmdline) error {
	image := k.Image
	if k.Inherit != nil {
		image = fmt.Sprintf("/proc/self/fd/%d", c.File(k.Inherit))
	}
	if image == "" {
		return fmt.Errorf("no kernel image")
	}
	c.hasKernel = true
	c.Add("-kernel", image)
	if k.Initrd != "" {
		c.Add("-initrd", k.Initrd)
	}
	if k.DTB != "" {
		c.Add("-dtb", k.DTB)
	}
	c.KernelArgs(k.Append...)
	return nil
}

// Firmware replaces the machine's BIOS with an open file, read from its start.
type Firmware struct{ Inherit *os.File }

func (f Firmware) Args(c *Cmdline) error {
	c.Add("-bios", fmt.Sprintf("/proc/self/fd/%d", c.File(f.Inherit)))
	return nil
}

// Serial is the machine's next UART (-serial), connected to Process.Conn(Name).
type Serial struct {
	Name string
	// Console makes it a kernel console with this name in the guest: "ttyS0",
	// "ttyAMA0", "ttyAMA1,115200".
	Console string
}

func (s Serial) Args(c *Cmdline) error {
	if err := c.Chardev(s.Name); err != nil {
		return err
	}
	c.Add("-serial", "chardev:"+s.Name)
	if s.Console != "" {
		c.KernelArgs("console=" + s.Console)
	}
	return nil
}

// NoSerial leaves the machine's next UART unconnected, for boards whose
// console is a later one.
type NoSerial struct{}

func (NoSerial) Args(c *Cmdline) error { c.Add("-serial", "null"); return nil }

// VirtioSerial is a virtio-serial bus with named ports. The guest finds a port in
// /sys/class/virtio-ports/*/name, the host with Process.Conn of that name.
type VirtioSerial struct {
	Driver string   // "virtio-serial-pci", "virtio-serial-device" for virtio-mmio
	Ports  []string // "labctl"
}

func (v VirtioSerial) Args(c *Cmdline) error {
	if err := c.ID("vser"); err != nil {
		return err
	}
	// Each port has two queues, each with an eventfd that QEMU polls all the time,
	// and the default is 31 ports. Port 0 is reserved for a console.
	c.Add("-device", fmt.Sprintf("%s,id=vser,max_ports=%d", v.Driver, len(v.Ports)+1))
	for _, p := range v.Ports {
		if err := c.Chardev(p); err != nil {
			return err
		}
		c.Add("-device", fmt.Sprintf("virtserialport,bus=vser.0,chardev=%s,name=%s", p, p))
	}
	return nil
}

// Window is a host file that the guest sees as memory: BAR 2 of a PCI device without
// interrupts (QEMU: docs/system/devices/ivshmem.rst).
type Window struct {
	File  *os.File
	Bytes int64 // length of File; a power of two
	// With Share, the guest's stores are written to File. x-ignore-shared then omits
	// the contents from the machine's state, so that a restored machine sees its own
	// File. That one must be private: QEMU requires shared memory at the same
	// address as before, and the BAR has none yet (migration/ram.c, "Mismatched
	// GPAs"). In either case the guest sees what the host writes, except in pages
	// that it has written itself.
	Share bool
}

// WindowDriver is the device's name in QEMU.
const WindowDriver = "ivshmem-plain"

func (w Window) Args(c *Cmdline) error {
	if err := c.ID("window"); err != nil {
		return err
	}
	// An ivshmem device can be saved only with master=on.
	c.Add("-object", fmt.Sprintf("memory-backend-file,id=window,size=%d,mem-path=/proc/self/fd/%d,share=%s", w.Bytes, c.File(w.File), onOff(w.Share)),
		"-device", WindowDriver+",memdev=window,master=on")
	return nil
}

// QMP is the monitor, connected to Process.Conn(QMPName).
type QMP struct{}

// QMPName is the monitor's name for Process.Conn.
const QMPName = "qmp"

func (QMP) Args(c *Cmdline) error {
	if err := c.Chardev(QMPName); err != nil {
		return err
	}
	c.Add("-mon", "chardev="+QMPName+",mode=control")
	return nil
}

// DebugExit lets an x86 guest end QEMU by writing a byte v to port 0xf4: the exit
// status is v<<1|1.
type DebugExit struct{}

// DebugExitPort is DebugExit's I/O port.
const DebugExitPort = 0xf4

func (DebugExit) Args(c *Cmdline) error {
	c.Add("-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", DebugExitPort))
	return nil
}

// Incoming makes QEMU wait for a machine's state, which QMP's migrate-incoming reads
// from "fd:N", where N is the value that *FD is set to. State is a socket or a pipe:
// files are no longer taken so (deprecated in QEMU 9.1, refused by 11.1).
type Incoming struct {
	State *os.File
	FD    *int
}

func (i Incoming) Args(c *Cmdline) error {
	*i.FD = c.File(i.State)
	c.Add("-incoming", "defer")
	return nil
}
