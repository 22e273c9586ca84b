package accel

import (
	_ "embed"
	"fmt"
	"strings"

	"labctl/host/vm/qemu"
)

//go:generate sh -c "as --64 -o amd64.o guest/amd64.S && ld -Ttext=0xf0000 --oformat=binary -o guest/amd64.bin amd64.o && chmod 644 guest/amd64.bin && rm amd64.o"
//go:generate sh -c "llvm-mc -triple=aarch64 -filetype=obj -o arm64.o guest/arm64.S && llvm-objcopy -O binary arm64.o guest/arm64.bin && chmod 644 guest/arm64.bin && rm arm64.o"

var (
	//go:embed guest/amd64.bin
	amd64Code []byte
	//go:embed guest/arm64.bin
	arm64Code []byte
)

// guest is a trial guest: firmware that uses the features of a CPU that a kernel
// needs, in the order of a boot, and prints one letter per step.
//
// A guest that merely runs proves little. A host was seen where /dev/kvm can be
// opened and virtual machines be created, but KVM emulates their ring 0: firmware
// runs and prints, but int3, SSE and BMI2 end in "KVM internal error", and loops
// take minutes. Each of the steps E, V and S detects such a host.
type guest struct {
	machine string
	emuCPU  string // -cpu under TCG
	tty     string // console device name in the kernel
	devices []qemu.Device
	exit    int // QEMU's exit status after the last step
	steps   []step
	image   func() []byte
}

type step struct {
	letter byte
	what   string
}

// guests has a row for each architecture that may use KVM. 32-bit Arm guests on a
// 64-bit host use TCG.
var guests = map[string]guest{
	"amd64": {
		machine: "q35",
		emuCPU:  "max",
		tty:     "ttyS0",
		devices: []qemu.Device{qemu.DebugExit{}},
		exit:    0x2a<<1 | 1,
		steps: []step{
			{'R', "first instruction"}, {'L', "long mode and paging"}, {'C', "CPUID"}, {'M', "model-specific registers"},
			{'E', "exceptions and ring 3"}, {'V', "vector instructions"}, {'S', "speed"}, {'T', "timer interrupts"}, {'X', "end"},
		},
		image: func() []byte {
			// 64 KiB that end at 4 GiB; the last 16 bytes start with the
			// instruction at the reset vector, a far jump to f000:0000.
			b := make([]byte, 64<<10)
			copy(b, amd64Code)
			copy(b[len(b)-16:], []byte{0xea, 0, 0, 0, 0xf0})
			return b
		},
	},
	"arm64": {
		// The newest GIC that the accelerator supports: KVM cannot emulate a
		// GICv2 on a host without one.
		machine: "virt,gic-version=max",
		emuCPU:  "max",
		tty:     "ttyAMA0",
		steps: []step{
			{'R', "first instruction"}, {'M', "system registers"}, {'L', "the MMU"},
			{'E', "exceptions and EL0"}, {'V', "vector and atomic instructions"}, {'S', "speed"}, {'T', "virtual timer"}, {'X', "end"},
		},
		image: func() []byte { return arm64Code },
	},
}

// judge returns what is wrong with the guest's output: "" if all letters are there.
func (g guest) judge(said string) string {
	for i, s := range g.steps {
		if i < len(said) && said[i] == s.letter {
			continue
		}
		switch {
		case strings.HasPrefix(said[i:], "?"):
			return "wrong result at " + s.what
		case strings.HasPrefix(said[i:], "!"):
			return fmt.Sprintf("unexpected exception %q at %s", said[i+1:], s.what)
		case i < len(said):
			return fmt.Sprintf("unexpected output %q at %s", said[i:], s.what)
		}
		return "no answer at " + s.what
	}
	if rest := said[len(g.steps):]; rest != "" {
		return fmt.Sprintf("unexpected output %q after the end", rest)
	}
	return ""
}
