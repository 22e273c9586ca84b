package accel

import (
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
	"labctl/host/vm/qemu"
)

// doubtAfter is how long a verdict against KVM is valid.
const doubtAfter = 24 * time.Hour

// noteName is the name of the file with verdicts in the cache directory.
const noteName = "accel.json"

// key is the state of the host that a verdict depends on.
type key struct {
	QEMU    string      `json:"qemu"`
	ModTime int64       `json:"mod_time"` // of the binary, ns since 1970
	Kernel  string      `json:"kernel"`   // uname -r
	Boot    string      `json:"boot"`     // /proc/sys/kernel/random/boot_id: firmware settings and modules may change between boots
	Device  fs.FileMode `json:"device"`   // of /dev/kvm; 0 when absent
	User    int         `json:"user"`     // effective UID, which decides access to it
}

// kept is the cache file: verdicts by binary and architecture.
type kept map[string]entry

type entry struct {
	Key     key     `json:"key"`
	Verdict Verdict `json:"verdict"`
}

func hostKey(f qemu.Features) key {
	k := key{QEMU: f.Version, ModTime: f.ModTime.UnixNano(), User: os.Geteuid()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		k.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		k.Boot = string(id)
	}
	if st, err := os.Stat(kvmDevice); err == nil {
		k.Device = st.Mode()
	}
	return k
}

// load returns a cached verdict for the same state of the host. An unreadable file
// counts as none.
func load(binary, arch string, k key) (Verdict, bool) {
	var all kept
	if !cachedir.Recall(noteName, &all) {
		return Verdict{}, false
	}
	e, ok := all[name(binary, arch)]
	return e.Verdict, ok && e.holds(arch, k, time.Now())
}

func (e entry) holds(arch string, k key, now time.Time) bool {
	v := e.Verdict
	age := now.Sub(v.When)
	return e.Key == k && v.Arch == arch && age >= 0 && (v.Accel == "kvm" || v.Accel == "tcg" && age < doubtAfter)
}

// store caches a verdict. The file is replaced atomically. Of two concurrent
// processes one may lose its verdict, and will run another trial.
func store(binary string, k key, v Verdict) error {
	all := kept{}
	if !cachedir.Recall(noteName, &all) || all == nil {
		all = kept{}
	}
	all[name(binary, v.Arch)] = entry{k, v}
	return cachedir.Remember(noteName, all)
}

func name(binary, arch string) string { return binary + " " + arch }
