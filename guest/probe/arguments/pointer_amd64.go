package arguments

import "golang.org/x/sys/unix"

// threadPointer is the FS base of a stopped task.
func threadPointer(tid int) (uintptr, error) {
	var regs unix.PtraceRegs
	err := unix.PtraceGetRegs(tid, &regs)
	return uintptr(regs.Fs_base), err
}
