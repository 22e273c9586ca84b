package kbuild

import (
	"labctl/host/arch"
	"labctl/host/nearest"
)

func archOf(name string) (arch.Arch, error) {
	if a, ok := arch.Find(name); ok {
		return a, nil
	}
	return arch.Arch{}, nearest.Unknown("architecture", name, arch.Names())
}
