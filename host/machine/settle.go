package machine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labctl/host/kernel"
	"labctl/host/kernel/check"
	"labctl/host/outcome"
	"labctl/host/targets"
	"labctl/host/vm/qemu"
)

// Settle chooses the architecture of a machine for which none was asked, where
// the kernel leaves no choice: an image in a file, a source of one architecture.
func Settle(env Env, spec *Spec) error {
	if spec.Kernel == "" || spec.Arch != "" || spec.Board != "" {
		return nil
	}
	ref, err := kernel.ParseRef(spec.Kernel)
	if err != nil {
		return fmt.Errorf("--kernel: %w", err)
	}
	arch, err := env.Cache.ArchOf(ref)
	if err != nil || arch == "" {
		return err
	}
	if _, ok := targets.Find(arch); !ok {
		return outcome.Inputf("--kernel %s: it is an image for %s, which labctl has no machine for", spec.Kernel, arch)
	}
	spec.Arch = arch
	return nil
}

// checkQEMU says whether the installed QEMU has the target's machine.
func checkQEMU(t targets.Target, version string) error {
	if t.Since == "" {
		return nil
	}
	known, err := qemu.HasMachine(t.Binary, t.Machine)
	if err != nil || known {
		return err
	}
	return fmt.Errorf("--board %s: %w: %s %s has no machine of that name; QEMU %s and later have it",
		t.Name, kernel.ErrHostLacks, t.Binary, version, t.Since)
}

// findDTB takes the board's device tree from the kernel, and from another one
// where it comes without.
func (m *Machine) findDTB(env Env) error {
	name := m.Target.DTB
	var err error
	if m.dtb, err = m.Kernel.DTB(name); err == nil {
		return nil
	}
	path, from, lent := env.Cache.LentDTB(m.Kernel, name)
	if lent != nil {
		return outcome.Inputf("--board %s: %v, nor has any other kernel at hand; put the .dtb beside the image, or run: labctl kernel pull 6.12 --arch %s", m.Target.Name, err, m.Target.Arch)
	}
	env.say("kernel %s has no device tree of %s: taking that of %s", m.Kernel, m.Target.Name, from)
	m.dtb = path
	return nil
}

// settleUART names the UART of a link as the kernel will. A board's device tree
// numbers its UARTs, but 8250s are held to that only as far as the kernel was
// built for so many; one that is left over becomes the first
// (serial8250_find_match_or_unused in drivers/tty/serial/8250/8250_core.c).
func (m *Machine) settleUART() {
	number, ok := strings.CutPrefix(m.Link.TTY, "ttyS")
	if !ok || !m.Target.Board {
		return
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return
	}
	uarts, _ := m.Kernel.Option("SERIAL_8250_RUNTIME_UARTS")
	if have, err := strconv.Atoi(uarts); err == nil && have <= n {
		m.Link.TTY = "ttyS0"
	}
}

// Lacks says what keeps a kernel from coming up on a target with the features
// asked for, a line each: nothing to reach labctl by, options that are not set.
func Lacks(t targets.Target, k *kernel.Kernel, features ...string) []string {
	m := &Machine{Target: t, Kernel: k, spec: Spec{Features: features}}
	if err := m.pickLink(Env{}); err != nil {
		return []string{err.Error()}
	}
	var lines []string
	for _, o := range m.missing() {
		lines = append(lines, o.String())
	}
	return lines
}

// missing are the options that the kernel lacks for what is asked of the machine.
func (m *Machine) missing() []check.Missing {
	features := slices.Concat(m.Target.Features, m.spec.Features)
	if m.Link.Kind == "virtio" {
		features = append(features, "virtio-serial")
	}
	return check.Check(m.Kernel.Option, features...)
}

// noVirtio says why a kernel has no virtio-serial port: drivers that it was built
// without, or modules that are not at hand, which err tells of.
func (m *Machine) noVirtio(err error) string {
	var unset []string
	for _, o := range check.Check(m.Kernel.Option, "virtio-serial") {
		if o.Name == "VIRTIO_PCI" || o.Name == "VIRTIO_CONSOLE" {
			unset = append(unset, o.String())
		}
	}
	if len(unset) == 0 {
		return err.Error()
	}
	return strings.Join(unset, "; ")
}

// otherBoards are those of the same architecture that a UART is enough for.
func otherBoards(t targets.Target) string {
	var names []string
	for _, other := range targets.All {
		if other.Arch == t.Arch && other.Name != t.Name && other.Board && other.Links[0].Kind != "virtio" {
			names = append(names, "--board "+other.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; it may on " + strings.Join(names, ", ")
}
