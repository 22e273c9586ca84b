package kbuild

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"labctl/host/bounded"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
)

// kindSigned is before a tarball that must be signed: tar:linux-6.12.tar.xz.
const kindSigned = "tar:"

// KeyringFile is the file of keys in labctl's directory of the user's configuration that
// signed tarballs are held against unless another is named.
const KeyringFile = "kernel-keys.asc"

// keyringOf returns the file of keys.
func keyringOf(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", outcome.Inputf("a signed tarball wants --keyring FILE, the keys that may sign it")
	}
	file := filepath.Join(dir, "labctl", KeyringFile)
	if !regular(file) {
		return "", outcome.Inputf("a signed tarball wants --keyring FILE, the keys that may sign it, or these in %s", file)
	}
	return file, nil
}

// signatureOf finds the signature beside a tarball. Those of kernel.org are of the tar
// archive before its compression, linux-6.12.tar.sign beside linux-6.12.tar.xz, which
// plain says; others are of the file as it is.
func signatureOf(path string) (file string, plain bool, err error) {
	if tar := strings.TrimSuffix(path, filepath.Ext(path)); strings.HasSuffix(tar, ".tar") {
		if file = tar + ".sign"; regular(file) {
			return file, true, nil
		}
	}
	for _, ext := range []string{".sign", ".asc", ".sig"} {
		if file = path + ext; regular(file) {
			return file, false, nil
		}
	}
	return "", false, outcome.Inputf("source %s%s: there is no signature beside it (looked for .sign, .asc and .sig, and for the .tar.sign that kernel.org has)", kindSigned, path)
}

func regular(file string) bool {
	st, err := os.Stat(file)
	return err == nil && st.Mode().IsRegular()
}

// signedBy returns who has signed a tarball.
func signedBy(path, keyring string) (by string, err error) {
	if keyring, err = keyringOf(keyring); err != nil {
		return "", err
	}
	signature, plain, err := signatureOf(path)
	if err != nil {
		return "", err
	}
	f, err := bounded.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var r io.Reader = bufio.NewReaderSize(f, 1<<20)
	if plain {
		z, err := debian.Decompress(filepath.Ext(path), r)
		if err != nil {
			return "", outcome.Inputf("source %s%s: %w", kindSigned, path, err)
		}
		defer z.Close()
		r = z
	}
	limited := &io.LimitedReader{R: r, N: maxTarball}
	by, err = debian.Signed(limited, signature, keyring)
	switch {
	case limited.N == 0:
		return "", outcome.Inputf("source %s%s: %w", kindSigned, path, &bounded.TooLargeError{Max: maxTarball})
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "", outcome.Inputf("source %s%s is cut short", kindSigned, path)
	case err != nil:
		return "", outcome.Inputf("source %s%s: %w", kindSigned, path, err)
	}
	return by, nil
}
