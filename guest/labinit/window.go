package labinit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The PCI device whose BAR 2 is the host's memory (QEMU: docs/specs/pci-ids.rst).
const (
	windowVendor = "0x1af4"
	windowDevice = "0x1110"
)

// openWindow maps the memory that the host shares with the guest; nil when the
// machine has none. No driver is needed: sysfs maps a device's BAR
// (Documentation/PCI/sysfs-pci.rst).
func openWindow(devices string) ([]byte, error) {
	all, err := filepath.Glob(filepath.Join(devices, "*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range all {
		if sysfsLine(dir, "vendor") == windowVendor && sysfsLine(dir, "device") == windowDevice {
			return mapWindow(dir)
		}
	}
	return nil, nil
}

func sysfsLine(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b))
}

func mapWindow(dir string) ([]byte, error) {
	// Nobody has enabled a device without a driver.
	if err := os.WriteFile(filepath.Join(dir, "enable"), []byte("1"), 0); err != nil {
		return nil, err
	}
	// Write-combining is normal memory on arm64, where device memory takes no
	// access that is not aligned. There may be no such file for want of the feature.
	f, err := os.OpenFile(filepath.Join(dir, "resource2_wc"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(filepath.Join(dir, "resource2"), os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", fi.Size(), err)
	}
	return mem, nil
}
