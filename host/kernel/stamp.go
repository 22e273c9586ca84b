package kernel

import (
	"encoding/json"
	"io/fs"
	"path/filepath"

	"labctl/host/bounded"
	"labctl/host/stamp"
)

// stampsFile records which files matched their hash when last read, so that not
// every start reads 40 MB again. It only saves hashing: a file that was touched
// since, in whatever way, is hashed again.
const stampsFile = "stamps.json"

// hashed is a file whose hash is known, as it was then.
type hashed struct {
	SHA256 string `json:"sha256"`
	stamp.Stamp
}

func stampOf(st fs.FileInfo, sum string) (hashed, bool) {
	s, ok := stamp.Of(st)
	return hashed{sum, s}, ok
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
	if !ok || !now.Settled() {
		return
	}
	all := k.stamps()
	if all == nil {
		all = map[string]hashed{}
	}
	all[name] = now
	_ = writeJSON(filepath.Join(k.Dir, stampsFile), all) // with a read-only cache, each start hashes
}

func (k *Kernel) stamps() map[string]hashed {
	data, err := bounded.ReadFile(filepath.Join(k.Dir, stampsFile), maxMeta)
	if err != nil {
		return nil
	}
	var all map[string]hashed
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	return all
}
