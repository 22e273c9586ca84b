package kernel

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stampsFile says which files were whole when they were last read, so that not
// every start reads 40 MB again. It is worth no more than the hash it spares: a
// file that was touched since, in whatever way, is hashed anew.
const stampsFile = "stamps.json"

// settled is how old a file's change must be before its stamp is believed.
const settled = time.Second

// stamp tells a file from what is later written in its place. The change time is
// the kernel's own and cannot be set back by touch or tar.
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

// known says whether the file was hashed as it is now.
func (k *Kernel) known(name string, st fs.FileInfo, sum string) bool {
	now, ok := stampOf(st, sum)
	return ok && k.stamps()[name] == now
}

// remember keeps the stamp of a file that was hashed, with st from before the
// hashing. Two processes may write at once: one of the stamps is lost then, which
// costs a hash.
func (k *Kernel) remember(name string, st fs.FileInfo, sum string) {
	now, ok := stampOf(st, sum)
	// The clock of file times ticks in milliseconds: what is written in the same
	// tick looks the same.
	if !ok || time.Since(time.Unix(0, now.Ctime)) < settled {
		return
	}
	all := k.stamps()
	if all == nil {
		all = map[string]stamp{}
	}
	all[name] = now
	_ = writeJSON(filepath.Join(k.Dir, stampsFile), all) // a cache that is read-only hashes each time
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
