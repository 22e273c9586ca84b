package cachedir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"time"

	"labctl/host/scratch"
	"labctl/host/stamp"
)

// SealSuffix makes the name of a file's seal.
const SealSuffix = ".sum"

// seal is what a file of the cache must be.
type seal struct {
	SHA256 string `json:"sha256"`
	stamp.Stamp
}

// Seal notes what a file is that was just completed, in a file beside it, so that
// Sealed can tell whether it still is that.
func Seal(path string) error {
	s, err := sealOf(path)
	if err != nil {
		return err
	}
	return s.write(path)
}

// Sealed reports whether a file is as it was sealed. It is read only if it was touched
// since, or copied. The time of the seal's last change is that of the last Sealed that
// was true, which serves to find the files that are least used.
func Sealed(path string) bool {
	data, err := os.ReadFile(path + SealSuffix)
	var want seal
	if err != nil || json.Unmarshal(data, &want) != nil {
		return false
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size() != want.Size {
		return false
	}
	if now, ok := stamp.Of(fi); !ok || now != want.Stamp {
		got, err := sealOf(path)
		if err != nil || got.SHA256 != want.SHA256 {
			return false
		}
		_ = got.write(path) // a read-only cache: it is read each time
	}
	now := time.Now()
	_ = os.Chtimes(path+SealSuffix, now, now)
	return true
}

func sealOf(path string) (s seal, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return s, err
	}
	s.Stamp, _ = stamp.Of(fi)
	h := sha256.New()
	_, err = io.Copy(h, f)
	s.SHA256 = hex.EncodeToString(h.Sum(nil))
	return s, err
}

func (s seal) write(path string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return scratch.Write(path+SealSuffix, append(data, '\n'), 0o644)
}
