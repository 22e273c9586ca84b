package machine

import (
	"errors"
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

// Settle sets the architecture, if none was requested, to that of the kernel if the
// kernel has only one: an image in a file, or a source for one architecture.
func Settle(env Env, spec *Spec) error {
	if err := spec.from(); err != nil {
		return err
	}
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
		return outcome.Inputf("--kernel %s: an image for %s, for which labctl has no machine", spec.Kernel, arch)
	}
	spec.Arch = arch
	return nil
}

// checkQEMU checks that the installed QEMU has the target's machine.
func checkQEMU(t targets.Target, version string) error {
	if t.Since == "" {
		return nil
	}
	known, err := qemu.HasMachine(t.Binary, t.Machine)
	if err != nil || known {
		return err
	}
	return fmt.Errorf("--board %s: %w: %s %s does not have this machine; QEMU %s and later do",
		t.Name, kernel.ErrHostLacks, t.Binary, version, t.Since)
}

// findDTB takes the board's device tree from the kernel, or from another kernel if it
// has none.
func (m *Machine) findDTB(env Env) error {
	name := m.Target.DTB
	var err error
	m.dtb, err = m.Kernel.DTB(name)
	var damaged *kernel.CorruptError
	if err == nil || errors.As(err, &damaged) {
		return err
	}
	path, from, lent := env.Cache.LentDTB(m.Kernel, name)
	if lent != nil {
		return outcome.Inputf("--board %s: %v, nor has any other cached kernel; put the .dtb next to the image, or run: labctl kernel pull 6.12 --arch %s", m.Target.Name, err, m.Target.Arch)
	}
	env.say("kernel %s has no device tree for %s: using that of %s", m.Kernel, m.Target.Name, from)
	m.dtb = path
	return nil
}

// settleUART sets the name of a link's UART to what the kernel will use. A board's
// device tree numbers its UARTs, but for 8250s the kernel uses that number only up to
// the number of UARTs that it was built for; beyond that a UART becomes the first one
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

// Lacks returns what keeps a kernel from booting on a target with the requested
// features, one line each: no link to labctl, options that are not set.
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

// missing returns the options that the kernel lacks for the requested features.
func (m *Machine) missing() []check.Missing {
	features := slices.Concat(m.Target.Features, m.spec.Features)
	if m.Link.Kind == "virtio" {
		features = append(features, "virtio-serial")
	}
	return check.Check(m.Kernel.Option, features...)
}

// noVirtio returns why a kernel has no virtio-serial port: drivers that it was built
// without, or, in err, modules that are not available.
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

// otherBoards returns a hint at boards of the same architecture whose link is a UART.
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
	return "; it may work with " + strings.Join(names, ", ")
}
