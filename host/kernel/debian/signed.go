package debian

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"labctl/host/bounded"
	"labctl/host/outcome"
)

// Bounds on a detached signature and on a keyring of a user's, in bytes. kernel.org's
// signatures have less than 1 KB.
const (
	maxSignature = 64 << 10
	maxKeyring   = 16 << 20
)

// Signed checks a detached signature, armored or not, against the keys of a keyring, and
// returns who made it: a user ID with the fingerprint of the key.
func Signed(signed io.Reader, signature, keyring string) (by string, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if _, err := bounded.ReadFile(keyring, maxKeyring); err != nil {
		return "", fmt.Errorf("keyring: %w", err)
	}
	keys, err := readKeys([]string{keyring})
	if err != nil {
		return "", err
	}
	sig, err := bounded.ReadFile(signature, maxSignature)
	if err != nil {
		return "", fmt.Errorf("signature: %w", err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(sig), []byte("-----BEGIN")) {
		block, err := armor.Decode(bytes.NewReader(sig))
		if err == nil {
			sig, err = io.ReadAll(block.Body)
		}
		if err != nil {
			return "", fmt.Errorf("signature %s: %w", signature, err)
		}
	}
	_, signer, err := openpgp.VerifyDetachedSignature(keys, signed, bytes.NewReader(sig), nil)
	if err != nil {
		who := "an unknown key"
		if ids := signers(sig); len(ids) > 0 {
			who = ids[0]
		}
		if fault := signatureFault(err, keyring, who, ""); fault != nil {
			return "", fmt.Errorf("it is %w", fault)
		}
		return "", fmt.Errorf("signature %s: %w", signature, err)
	}
	by = fmt.Sprintf("%X", signer.PrimaryKey.Fingerprint)
	if id := signer.PrimaryIdentity(); id != nil {
		by = id.Name + ", " + by
	}
	return by, nil
}

// Decompress returns what a file with this suffix, such as .xz, holds; the file itself for
// others.
func Decompress(suffix string, r io.Reader) (io.ReadCloser, error) { return decompressor(suffix, r) }
