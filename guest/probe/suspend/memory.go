package suspend

import (
	"encoding/binary"
	"time"
	"unsafe"

	"labctl/guest/rawclone"

	"golang.org/x/sys/unix"
)

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

// number reads a signed machine word.
func number(b []byte) int64 {
	if len(b) == 4 {
		return int64(int32(binary.NativeEndian.Uint32(b)))
	}
	return int64(binary.NativeEndian.Uint64(b))
}

// timespec reserves a struct timespec of two machine words, as the system calls
// without "64" in their names take it.
func timespec(p *rawclone.Program, d time.Duration) rawclone.Word {
	ts := unix.NsecToTimespec(int64(d))
	w := p.Buffer(int(unsafe.Sizeof(ts)))
	copy(p.Bytes(w, int(unsafe.Sizeof(ts))), unsafe.Slice((*byte)(unsafe.Pointer(&ts)), unsafe.Sizeof(ts)))
	return w
}
