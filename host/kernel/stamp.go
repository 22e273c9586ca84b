package kernel

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stampsFile records which files matched their hash when last read, so that not
// every start reads 40 MB again. It only saves hashing: a file that was touched
// since, in whatever way, is hashed again.
const stampsFile = "stamps.json"

// settled is the minimum age of a file's last change for its stamp to be trusted.
const settled = time.Second

// stamp distinguishes a file from anything written in its place later. The change
// time is set by the kernel; touch and tar cannot set it back.
type stamp struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Inode  uint64 `json:"inode"`
	Device uint64 `json:"device"`
	Mtime  int64  `json:"mtime"` // ns
	Ctime  int64  `json:"ctime"` // ns
}

func stampOf(st fs.FileInfo, sum string) (stamp, bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}, false
	}
	return stamp{
		SHA256: sum, Size: s.Size, Inode: s.Ino, Device: uint64(s.Dev),
		Mtime: s.Mtim.Nano(), Ctime: s.Ctim.Nano(),
	}, true
}

// known reports whether the file was hashed in its current state.
func (k *Kernel) known(name string, st fs.FileInfo, sum string) bool {
	now, ok := stampOf(st, sum)
	return ok && k.stamps()[name] == now
}

// remember records the stamp of a hashed file; st is from before the hashing. If
// two processes write at once, one of the stamps is lost, which costs another
// hash.
func (k *Kernel) remember(name string, st fs.FileInfo, sum string) {
	now, ok := stampOf(st, sum)
	// File times have a granularity of milliseconds: writes within the same tick look
	// the same.
	if !ok || time.Since(time.Unix(0, now.Ctime)) < settled {
		return
	}
	all := k.stamps()
	if all == nil {
		all = map[string]stamp{}
	}
	all[name] = now
	_ = writeJSON(filepath.Join(k.Dir, stampsFile), all) // with a read-only cache, each start hashes
}

func (k *Kernel) stamps() map[string]stamp {
	data, err := os.ReadFile(filepath.Join(k.Dir, stampsFile))
	if err != nil {
		return nil
	}
	var all map[string]stamp
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	return all
}
