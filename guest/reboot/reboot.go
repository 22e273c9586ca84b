// Package reboot is the guest's reboot: it restarts the machine, which ends the guest.
//
// Synopsis:
//
//	reboot [-f] [-n]
//
// Busybox's asks init for that, which labinit does not do, and u-root has none.
package reboot

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Main runs the command and returns its exit status. It does not return when the machine
// restarts.
func Main(args []string, stderr io.Writer) int {
	return run(args, stderr, unix.Sync, func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) })
}

func run(args []string, stderr io.Writer, sync func(), restart func() error) int {
	write := true
	for _, a := range args[1:] {
		switch a {
		case "-f": // there is nobody to ask
		case "-n":
			write = false
		default:
			fmt.Fprintf(stderr, "reboot: %q is not known\nusage: reboot [-f] [-n], -n without writing to disks first\n", a)
			return 2
		}
	}
	if write {
		sync()
	}
	if err := restart(); err != nil {
		fmt.Fprintf(stderr, "reboot: %v\n", err)
		return 1
	}
	return 0
}
