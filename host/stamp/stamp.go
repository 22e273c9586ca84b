// Package stamp tells a file from anything that was written to it, or put in its
// place, later, without reading it.
package stamp

import (
	"io/fs"
	"syscall"
	"time"
)

// Stamp is a state of a file. The change time is set by the kernel; touch and tar
// cannot set it back. Comparable by ==.
type Stamp struct {
	Size   int64  `json:"size"`
	Inode  uint64 `json:"inode"`
	Device uint64 `json:"device"`
	Mtime  int64  `json:"mtime"` // ns
	Ctime  int64  `json:"ctime"` // ns
}

// Of returns the stamp of a file; false if its file system has none.
func Of(fi fs.FileInfo) (Stamp, bool) {
	s, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return Stamp{}, false
	}
	return Stamp{Size: s.Size, Inode: s.Ino, Device: uint64(s.Dev), Mtime: s.Mtim.Nano(), Ctime: s.Ctim.Nano()}, true
}

// settled is the age of a file's last change from which on its stamp tells it from
// later ones: file times have a granularity of milliseconds, and writes within one
// tick look the same.
const settled = time.Second

// Settled reports whether the stamp is old enough to be relied upon.
func (s Stamp) Settled() bool { return time.Since(time.Unix(0, s.Ctime)) >= settled }
