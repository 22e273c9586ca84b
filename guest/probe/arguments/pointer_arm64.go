package arguments

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// threadPointer is TPIDR_EL0 of a stopped task.
func threadPointer(tid int) (uintptr, error) {
	const regsetTLS = 0x401 // NT_ARM_TLS, include/uapi/linux/elf.h
	var tls [2]uint64       // TPIDR_EL0, and TPIDR2_EL0 where there is one
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&tls)), Len: uint64(unsafe.Sizeof(tls))}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(tid), regsetTLS, uintptr(unsafe.Pointer(&iov)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return uintptr(tls[0]), nil
}
