package kbuild

import "runtime"

// Arch is an architecture as a kernel's own build calls it.
type Arch struct {
	Name    string // GOARCH
	Kernel  string // ARCH=
	Source  string // folder below arch/
	Triplet string // of Debian's cross compiler
	Package string // that has it
	Target  string // what make is asked for
	Image   string // where it is then
	DTBs    string // folder of device trees, "" where machines have none
	// ELF says that the build runs objtool, which wants the header of libelf.
	ELF bool
}

var arches = []Arch{
	{Name: "amd64", Kernel: "x86_64", Source: "x86", Triplet: "x86_64-linux-gnu", Package: "gcc-x86-64-linux-gnu",
		Target: "bzImage", Image: "arch/x86/boot/bzImage", ELF: true},
	{Name: "arm64", Kernel: "arm64", Source: "arm64", Triplet: "aarch64-linux-gnu", Package: "gcc-aarch64-linux-gnu",
		Target: "Image", Image: "arch/arm64/boot/Image", DTBs: "arch/arm64/boot/dts"},
	{Name: "arm", Kernel: "arm", Source: "arm", Triplet: "arm-linux-gnueabihf", Package: "gcc-arm-linux-gnueabihf",
		Target: "zImage", Image: "arch/arm/boot/zImage", DTBs: "arch/arm/boot/dts"},
}

// Arches are the names of the architectures that kernels are built for.
func Arches() []string {
	var names []string
	for _, a := range arches {
		names = append(names, a.Name)
	}
	return names
}

func archOf(name string) (Arch, error) {
	for _, a := range arches {
		if a.Name == name {
			return a, nil
		}
	}
	return Arch{}, unknown("architecture", name, Arches())
}

// native says whether this host's own compiler makes such kernels.
func (a Arch) native() bool { return a.Name == runtime.GOARCH }

// prefix is CROSS_COMPILE.
func (a Arch) prefix() string {
	if a.native() {
		return ""
	}
	return a.Triplet + "-"
}

func (a Arch) gcc() string { return a.prefix() + "gcc" }
