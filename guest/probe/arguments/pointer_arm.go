package arguments

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// threadPointer is TPIDRURO of a stopped task.
func threadPointer(tid int) (uintptr, error) {
	var tp uintptr
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_THREAD_AREA, uintptr(tid), 0, uintptr(unsafe.Pointer(&tp)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return tp, nil
}
