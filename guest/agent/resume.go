package agent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// Bounds of ResumeParams.Entropy, in bytes. The kernel's generator has a key of
// 32.
const (
	minEntropy = 32
	maxEntropy = 4 << 10
)

// resume tells a restored guest what it cannot know: the time, and random bytes
// that no other copy of it has. The Hello is the session's, sent again.
func (s *session) resume(p wire.ResumeParams) (any, error) {
	if s.guest.SetClock == nil || s.guest.AddEntropy == nil {
		return nil, errors.New("resume: this agent runs in no guest of its own")
	}
	if n := len(p.Entropy); n < minEntropy || n > maxEntropy {
		return nil, fmt.Errorf("resume: %d bytes of entropy, want %d to %d", n, minEntropy, maxEntropy)
	}
	if p.UnixNano <= 0 {
		return nil, fmt.Errorf("resume: wall clock %d is before 1970", p.UnixNano)
	}
	// Randomness first: no copy of this guest may draw the same.
	if err := s.guest.AddEntropy(p.Entropy); err != nil {
		return nil, fmt.Errorf("resume: add entropy: %w", err)
	}
	if err := s.guest.SetClock(time.Unix(0, p.UnixNano)); err != nil {
		return nil, fmt.Errorf("resume: set clock: %w", err)
	}
	hello := s.hello
	var err error
	hello.HelloSec, err = BootTime()
	return hello, err
}

// SetClock sets CLOCK_REALTIME, which takes CAP_SYS_TIME.
func SetClock(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if ts.Nano() != t.UnixNano() {
		return fmt.Errorf("%s does not fit this guest's 32-bit clock", t.UTC().Format(time.DateOnly))
	}
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// AddEntropy mixes b into the kernel's random number generator, credits it, and
// has new numbers drawn from it at once (random(4), which needs CAP_SYS_ADMIN).
func AddEntropy(b []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	pool := poolInfo(b)
	if err := ioctl(f, unix.RNDADDENTROPY, unsafe.Pointer(unsafe.SliceData(pool))); err != nil {
		return fmt.Errorf("RNDADDENTROPY: %w", err)
	}
	runtime.KeepAlive(pool)
	// Without it a generator that is ready draws on its old key for minutes.
	// Kernels before 4.14 do not know it.
	if err := ioctl(f, unix.RNDRESEEDCRNG, nil); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("RNDRESEEDCRNG: %w", err)
	}
	return nil
}

// poolInfo is struct rand_pool_info of include/uapi/linux/random.h: int
// entropy_count in bits, int buf_size in bytes, the bytes. Its ints have 32 bits
// everywhere; it is made of words for their alignment.
func poolInfo(b []byte) []uint32 {
	words := make([]uint32, 2+(len(b)+3)/4)
	words[0], words[1] = uint32(8*len(b)), uint32(len(b))
	for i := range b {
		words[2+i/4] |= uint32(b[i]) << (8 * (i % 4)) // any order is as random
	}
	return words
}

func ioctl(f *os.File, req uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(req), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
