package memory

import "golang.org/x/sys/unix"

// The call by which a thread learns what its FS register points to.
const (
	sysArchPrctl = unix.SYS_ARCH_PRCTL
	archGetFS    = 0x1003 // ARCH_GET_FS of arch/x86/include/uapi/asm/prctl.h
)
