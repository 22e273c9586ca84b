package kbuild

import (
	"labctl/host/arch"
)

func archOf(name string) (arch.Arch, error) {
	if a, ok := arch.Find(name); ok {
		return a, nil
	}
	return arch.Arch{}, unknown("architecture", name, arch.Names())
}
