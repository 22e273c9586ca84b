package qemu

import "testing"

func TestHasMachine(t *testing.T) {
	const help = `Supported machines are:
none                 empty machine
raspi3ap             Raspberry Pi 3A+ (revision 1.0)
raspi3b              Raspberry Pi 3B (revision 1.2)
virt                 QEMU 7.2 ARM Virtual Machine (alias of virt-7.2)
`
	for machine, want := range map[string]bool{"raspi3b": true, "virt": true, "raspi3": false, "raspi4b": false, "Raspberry": false, "": false} {
		if got := hasMachine(help, machine); got != want {
			t.Errorf("hasMachine(%q) = %v; want %v", machine, got, want)
		}
	}
}
