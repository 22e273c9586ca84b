package accel

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/qemu"
)

// doubtAfter is how long a verdict against KVM is believed.
const doubtAfter = 24 * time.Hour

// maxCache bounds the cache file, in bytes.
const maxCache = 1 << 20

// key is all of the host that a verdict rests on.
type key struct {
	QEMU    string      `json:"qemu"`
	ModTime int64       `json:"mod_time"` // of the binary, ns since 1970
	Kernel  string      `json:"kernel"`   // uname -r
	Boot    string      `json:"boot"`     // /proc/sys/kernel/random/boot_id: firmware settings and modules may change between boots
	Device  fs.FileMode `json:"device"`   // of /dev/kvm; 0 when absent
	User    int         `json:"user"`     // effective, who may open it
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

// load finds a verdict for the same host. A file that cannot be read is as
// good as none.
func load(binary, arch string, k key) (Verdict, bool) {
	path, err := cacheFile()
	if err != nil {
		return Verdict{}, false
	}
	e, ok := read(path)[name(binary, arch)]
	return e.Verdict, ok && e.holds(arch, k, time.Now())
}

func (e entry) holds(arch string, k key, now time.Time) bool {
	v := e.Verdict
	age := now.Sub(v.When)
	return e.Key == k && v.Arch == arch && age >= 0 && (v.Accel == "kvm" || v.Accel == "tcg" && age < doubtAfter)
}

// store keeps a verdict. Of two processes at once one may lose its verdict,
// and will try again; the file is whole at any time.
func store(binary string, k key, v Verdict) error {
	path, err := cacheFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("keep the acceleration verdict: %w", err)
	}
	all := read(path)
	if all == nil {
		all = kept{}
	}
	all[name(binary, v.Arch)] = entry{k, v}
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return fmt.Errorf("keep the acceleration verdict: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".accel-*")
	if err != nil {
		return fmt.Errorf("keep the acceleration verdict: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(text, '\n'))
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("keep the acceleration verdict: %w", err)
	}
	return nil
}

func name(binary, arch string) string { return binary + " " + arch }

func read(path string) kept {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCache))
	if err != nil {
		return nil
	}
	return parse(text)
}

func parse(text []byte) kept {
	var all kept
	if json.Unmarshal(text, &all) != nil {
		return nil
	}
	return all
}

func cacheFile() (string, error) {
	if dir := os.Getenv("LABCTL_CACHE"); dir != "" {
		return filepath.Join(dir, "accel.json"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder: %w: set LABCTL_CACHE", err)
	}
	return filepath.Join(dir, "labctl", "accel.json"), nil
}
