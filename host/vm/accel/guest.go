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

// guest is a trial guest: firmware that does, in the order of a boot, what a
// kernel asks of a CPU, and prints one letter a step.
//
// A guest that only answers proves little. A host was seen where /dev/kvm
// opens and makes virtual machines, whose ring 0 KVM then interprets: firmware
// runs and prints, but int3, SSE and BMI2 end in "KVM internal error", and
// loops take minutes. Each of the steps E, V and S finds that host out.
type guest struct {
	machine string
	emuCPU  string // -cpu under TCG
	tty     string // a kernel's name for its console
	devices []qemu.Device
	exit    int // QEMU's status after the last step
	steps   []step
	image   func() []byte
}

type step struct {
	letter byte
	what   string
}

// guests has a row for each architecture that KVM may run. 32-bit Arm guests
// of a 64-bit host are left to TCG.
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
			// 64 KiB end at 4 GiB; the last 16 bytes begin with the reset
			// vector's instruction, which is a far jump to f000:0000.
			b := make([]byte, 64<<10)
			copy(b, amd64Code)
			copy(b[len(b)-16:], []byte{0xea, 0, 0, 0, 0xf0})
			return b
		},
	},
	"arm64": {
		// The best GIC that the accelerator has: KVM cannot make a GICv2 on
		// a host without one.
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

// judge says what the letters leave to be wished for: "" when all came.
func (g guest) judge(said string) string {
	for i, s := range g.steps {
		if i < len(said) && said[i] == s.letter {
			continue
		}
		switch {
		case strings.HasPrefix(said[i:], "?"):
			return "wrong result at " + s.what
		case strings.HasPrefix(said[i:], "!"):
			return fmt.Sprintf("unasked exception %q at %s", said[i+1:], s.what)
		case i < len(said):
			return fmt.Sprintf("unasked output %q at %s", said[i:], s.what)
		}
		return "no answer at " + s.what
	}
	if rest := said[len(g.steps):]; rest != "" {
		return fmt.Sprintf("unasked output %q after the end", rest)
	}
	return ""
}
