package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/text"
)

// Shell is the guest's shell, which runs scripts.
const Shell = "/labctl/sh"

// maxScript is the size of the largest script that the guest's shell reads, in bytes.
const maxScript = 8 << 20

// shells are the interpreters that the guest's shell replaces.
var shells = []string{"sh", "ash", "bash", "dash", "ksh", "zsh"}

// FindScript returns a file on this host, whatever its name, as a shell script.
func FindScript(name string) (_ *Program, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file", name)
	}
	if fi.Size() > maxScript {
		return nil, fmt.Errorf("%s: a script of %d bytes, but the guest's shell reads at most %d", name, fi.Size(), maxScript)
	}
	head, err := readHead(name)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return nil, fmt.Errorf("%s: not a shell script: it contains zero bytes", name)
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	return &Program{Argv0: path.Join(progDir, filepath.Base(abs)), File: abs, Script: true}, nil
}

// isScript reports whether a file is a shell script, judging by its first line, or by
// its name if that is inconclusive. A script for another interpreter is an error, since
// the guest has none.
func isScript(name string) (bool, error) {
	head, err := readHead(name)
	if err != nil {
		return false, err
	}
	line, isHash := strings.CutPrefix(string(head), "#!")
	if !isHash {
		return strings.HasSuffix(name, ".sh") && !bytes.HasPrefix(head, []byte("\x7fELF")), nil
	}
	line, _, _ = strings.Cut(line, "\n")
	words := strings.Fields(line)
	if len(words) > 1 && path.Base(words[0]) == "env" {
		words = slices.DeleteFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "-") })
	}
	if len(words) == 0 {
		return false, errors.New("its first line names no interpreter")
	}
	if !slices.Contains(shells, path.Base(words[0])) {
		return false, fmt.Errorf("a script for %s, but the guest has only a shell", text.Line(words[0], 100))
	}
	return true, nil
}

// readHead reads the start of a file, to determine its kind.
func readHead(name string) ([]byte, error) {
	f, err := bounded.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}
