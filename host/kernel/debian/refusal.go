package debian

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgp "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"labctl/host/outcome"
)

// Only apt decides what to trust. This file finds out why apt rejected something,
// since apt's messages vary with its version and with the program that verifies
// signatures for it (gpgv, sqv). apt leaves rejected files in the root; the reason
// is derived from those.

// maxRelease limits the size of a Release file or a signature, in bytes. Debian's
// are 200 kB.
const maxRelease = 16 << 20

// forgetRefused removes rejected files of an earlier update, so that they are not
// mistaken for those of the next.
func (r *Root) forgetRefused() error {
	for _, pattern := range []string{"*Release", "*Release.gpg", "*.FAILED"} {
		files, _ := filepath.Glob(filepath.Join(r.partialLists(), pattern))
		for _, f := range files {
			if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove files of an earlier update: %w", err)
			}
		}
	}
	return nil
}

// refusedIndex returns why apt rejected the suite's index, given the trusted
// keyrings; nil if the reason was not in what the mirror sent.
func (r *Root) refusedIndex(keyrings []string) error {
	name, signed, signature, err := r.release()
	if err != nil {
		return err
	}
	if signature != nil {
		if err := checkSignature(signed, signature, keyrings); err != nil {
			return fmt.Errorf("%s is %w", name, err)
		}
	}
	if lists, _ := filepath.Glob(filepath.Join(r.partialLists(), "*_Packages*.FAILED")); len(lists) > 0 {
		return errors.New("the mirror's list of packages does not match its signed Release: it is being updated, or its response was altered in transit")
	}
	return nil
}

// release returns the Release file that apt did not move to its lists, and the
// packets of its signature, from InRelease or from two files. It returns nothing if
// everything is in the lists.
func (r *Root) release() (name string, signed, signature []byte, err error) {
	text := r.leftover("*_InRelease")
	if text != nil {
		block, _ := clearsign.Decode(text)
		if block == nil {
			return "", nil, nil, errors.New("InRelease has no signature: the response is not a mirror's index (perhaps the login page of a captive portal)")
		}
		signature, err = io.ReadAll(block.ArmoredSignature.Body)
		name, signed = "InRelease", block.Bytes
	} else if signed = r.leftover("*_Release"); signed == nil {
		return "", nil, nil, nil
	} else if text = r.leftover("*_Release.gpg"); text == nil {
		return "", nil, nil, errors.New("it is not signed: the mirror has neither InRelease nor Release.gpg")
	} else {
		var block *armor.Block
		if block, err = armor.Decode(bytes.NewReader(text)); err == nil {
			signature, err = io.ReadAll(block.Body)
		}
		name = "Release"
	}
	if err != nil || len(signers(signature)) == 0 {
		return "", nil, nil, fmt.Errorf("the signature of %s is damaged: cannot parse it", name)
	}
	return name, signed, signature, nil
}

// leftover returns the file of this name, or the name that apt gives it after
// rejecting it.
func (r *Root) leftover(pattern string) []byte {
	for _, p := range []string{pattern + ".FAILED", pattern} {
		if files, _ := filepath.Glob(filepath.Join(r.partialLists(), p)); len(files) > 0 {
			f, err := os.Open(files[0])
			if err != nil {
				return nil
			}
			defer f.Close()
			data, err := io.ReadAll(io.LimitReader(f, maxRelease))
			if err != nil {
				return nil
			}
			return data
		}
	}
	return nil
}

// checkSignature returns what is wrong with a signature, worded to follow "is". It
// returns nil if it finds nothing wrong or cannot read the keys.
func checkSignature(signed, signature []byte, keyrings []string) error {
	keys, err := readKeys(keyrings)
	if err != nil {
		return nil
	}
	where := "the keyrings of this host's apt"
	if len(keyrings) == 1 {
		where = keyrings[0]
	}
	_, _, err = openpgp.VerifyDetachedSignature(keys, bytes.NewReader(signed), bytes.NewReader(signature), nil)
	return signatureFault(err, where, strings.Join(signers(signature), ", "), "; a newer debian-archive-keyring may help")
}

// signatureFault words what is wrong with a signature, to follow "is"; nil for other errors.
func signatureFault(err error, where, by, newer string) error {
	var mismatch pgp.SignatureError
	switch {
	case errors.Is(err, pgp.ErrUnknownIssuer):
		return fmt.Errorf("not signed by a key in %s, but by %s%s", where, by, newer)
	case errors.Is(err, pgp.ErrKeyExpired):
		return fmt.Errorf("signed by an expired key (%s)%s", by, newer)
	case errors.Is(err, pgp.ErrKeyRevoked):
		return fmt.Errorf("signed by a revoked key (%s)%s", by, newer)
	case errors.Is(err, pgp.ErrSignatureExpired):
		return fmt.Errorf("signed by %s, but the signature has expired: the mirror is no longer updated, or this host's clock is wrong", by)
	case errors.As(err, &mismatch):
		return fmt.Errorf("not what %s signed: it was altered or damaged since", by)
	}
	return nil
}

// signers returns the IDs of the keys that made these signatures.
func signers(signature []byte) (ids []string) {
	for packets := packet.NewReader(bytes.NewReader(signature)); ; {
		p, err := packets.Next()
		if err != nil {
			return ids
		}
		if s, ok := p.(*packet.Signature); ok && s.IssuerKeyId != nil {
			ids = append(ids, fmt.Sprintf("%016X", *s.IssuerKeyId))
		}
	}
}

// readKeys reads keyrings, armored or not. Like apt, it treats a missing one as
// empty.
func readKeys(files []string) (openpgp.EntityList, error) {
	var keys openpgp.EntityList
	for _, f := range files {
		data, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
		read := openpgp.ReadKeyRing
		if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
			read = openpgp.ReadArmoredKeyRing
		}
		more, err := read(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("read keyring %s: %w", f, err)
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// ChangedError reports that a package on the mirror differs from the signed index.
type ChangedError struct {
	Package
	Got string // SHA-256 of the downloaded file
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the mirror's %s %s has SHA-256 %s, but its signed index lists %s", e.Name, e.Version, e.Got, e.SHA256)
}

// Outcome is HostLacks.
func (e *ChangedError) Outcome() outcome.Kind { return outcome.HostLacks }

// refusedPackage returns an error for the first downloaded package that differs
// from the index; nil if there is none.
func (r *Root) refusedPackage(pkgs []Package) error {
	for _, p := range pkgs {
		for _, arch := range []string{r.Arch, "all"} {
			f, err := os.Open(r.archive(p, arch) + ".FAILED")
			if err != nil {
				continue
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return nil
			}
			if sum := fmt.Sprintf("%x", h.Sum(nil)); sum != p.SHA256 {
				return &ChangedError{p, sum}
			}
		}
	}
	return nil
}
