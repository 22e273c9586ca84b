package cachedir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"time"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/stamp"
)

// SealSuffix makes the name of a file's seal.
const SealSuffix = ".sum"

// ErrNoSeal is what Check returns for a file that is not sealed, or sealed as made from
// something else; ErrChanged for one that is not as it was sealed.
var (
	ErrNoSeal  = outcome.New(outcome.HostLacks, "it was not completed")
	ErrChanged = outcome.New(outcome.HostLacks, "it is not as it was stored")
)

// seal is what a file of the cache must be.
type seal struct {
	From   string `json:"from,omitempty"`
	SHA256 string `json:"sha256"`
	stamp.Stamp
}

// Seal notes what a file is that was just completed, in a file beside it, for Check.
// from identifies what it was made from; it may be empty if the name does.
func Seal(path, from string) error {
	s, err := sealOf(path)
	if err != nil {
		return err
	}
	s.From = from
	return s.write(path)
}

// Check returns nil if a file is as it was sealed. It is read only if it was touched
// since, or copied. The time of the seal's last change is that of the last Check that
// was good, which serves to find the files that are least used.
func Check(path, from string) error {
	want, err := readSeal(path)
	if err != nil || want.From != from {
		return ErrNoSeal
	}
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return ErrNoSeal
	case fi.Size() != want.Size:
		return ErrChanged
	}
	if now, ok := stamp.Of(fi); !ok || now != want.Stamp {
		got, err := sealOf(path)
		if err != nil || got.SHA256 != want.SHA256 {
			return ErrChanged
		}
		got.From = from
		_ = got.write(path) // a read-only cache: it is read each time
	}
	now := time.Now()
	_ = os.Chtimes(path+SealSuffix, now, now)
	return nil
}

func readSeal(path string) (s seal, err error) {
	data, err := bounded.ReadFile(path+SealSuffix, maxNote)
	if err != nil || json.Unmarshal(data, &s) != nil {
		return seal{}, ErrNoSeal
	}
	return s, nil
}

func sealOf(path string) (s seal, err error) {
	f, err := bounded.Open(path)
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
