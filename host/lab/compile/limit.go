package compile

import (
	"time"

	"golang.org/x/sys/unix"
)

// limits bound each process of a build, so that source that was written to keep the
// compiler busy costs its author alone: a comparison of structures that contain each
// other twice, 27 deep, compiles for hours. The deadline of the build is much longer,
// for a busy host.
var limits = limit{cpu: 30 * time.Second, data: 2 << 30, file: 256 << 20}

// limit is resources of a process, in bytes and CPU time.
type limit struct {
	cpu        time.Duration
	data, file uint64
}

// set limits a process that was just started, and with it what it will start: go
// reads the packages before it calls the compiler.
func (l limit) set(pid int) error {
	for _, r := range []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CPU, uint64(l.cpu / time.Second)},
		{unix.RLIMIT_DATA, l.data},
		{unix.RLIMIT_FSIZE, l.file},
		{unix.RLIMIT_CORE, 0},
	} {
		var now unix.Rlimit
		if err := unix.Prlimit(pid, r.resource, nil, &now); err != nil {
			return err
		}
		max := min(r.max, now.Max)
		if err := unix.Prlimit(pid, r.resource, &unix.Rlimit{Cur: max, Max: max}, nil); err != nil {
			return err
		}
	}
	return nil
}
