package program

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// Directories of the guest; their paths do not depend on paths on the host.
const (
	// WorkDir is the directory of a Go test's module.
	WorkDir = "/labctl/work"
	// outDir has the output files requested by a Go test's flags, in one directory
	// per flag. Both are below JobOptions.Root.
	outDir = "/labctl/out"
)

// Output is a path named by the user that the guest may fill: nothing else is copied
// back.
type Output struct {
	Flag  string // flag that named it: "--get", "-test.coverprofile"
	Guest string // absolute
	Host  string // absolute
	// File and Directory report what it may be in the guest.
	File, Folder bool
	// Must reports whether it is an error if the guest does not have it.
	Must bool
	// Corpus reports whether it is a directory of fuzz inputs: only new inputs are
	// copied back, and nothing on this host is changed.
	Corpus bool
}

// maxTestName limits the name of a fuzz test, in bytes.
const maxTestName = 250

// isCorpusFile reports whether name has the form of Go's fuzz inputs: the test and a
// hash (internal/fuzz, writeToCorpus).
func isCorpusFile(name string) bool {
	test, hash, _ := strings.Cut(name, "/")
	other := func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r) }
	return strings.HasPrefix(test, "Fuzz") && len(test) <= maxTestName && strings.IndexFunc(test, other) < 0 &&
		len(hash) == 16 && strings.Trim(hash, "0123456789abcdef") == ""
}

// testOutputs are the flags of a Go test binary that name output files (testing.Init;
// `go help testflag`). Those with inOutputDir are relative to -test.outputdir, the
// others to the working directory.
var testOutputs = map[string]struct{ folder, inOutputDir, corpus bool }{
	"coverprofile": {inOutputDir: true},
	"cpuprofile":   {inOutputDir: true},
	"memprofile":   {inOutputDir: true},
	"blockprofile": {inOutputDir: true},
	"mutexprofile": {inOutputDir: true},
	"trace":        {inOutputDir: true},
	"testlogfile":  {},
	"gocoverdir":   {folder: true},
	"fuzzcachedir": {folder: true, corpus: true},
}

// TestOutputs returns the files and directories that args tell a Go test to write, and
// the arguments for the guest, with those paths replaced by the guest's. Relative paths
// are relative to hostDir on the host; the test runs in guestDir in the guest, and
// writes below root what its flags name. Devices on this host (/dev/null) are left alone. A fuzz test also writes below its testdata.
func TestOutputs(args []string, hostDir, guestDir, root string) (outs []Output, guest []string) {
	guest = append(guest, args...)
	type flag struct {
		name, value string
		set         func(string)
	}
	var found []flag
	outputDir := ""
	fuzzes := false
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		bare, isFlag := strings.CutPrefix(args[i], "-")
		name, ok := strings.CutPrefix(strings.TrimPrefix(bare, "-"), "test.")
		if !isFlag || !ok {
			continue
		}
		name, value, given := strings.Cut(name, "=")
		_, known := testOutputs[name]
		if !known && name != "outputdir" && name != "fuzz" {
			continue
		}
		at, before := i, args[i][:len(args[i])-len(value)]
		if !given {
			if i++; i == len(args) {
				break
			}
			at, before, value = i, "", args[i]
		}
		set := func(v string) { guest[at] = before + v }
		switch {
		case value == "":
		case name == "fuzz":
			fuzzes = true
		case name == "outputdir":
			outputDir = value
			set(path.Join("/", root, outDir))
		default:
			found = append(found, flag{name, value, set})
		}
	}
	for _, f := range found {
		spec := testOutputs[f.name]
		in := ""
		if spec.inOutputDir {
			in = outputDir
		}
		o := Output{
			Flag: "-test." + f.name, Host: below(hostDir, in, f.value),
			File: !spec.folder, Folder: spec.folder, Corpus: spec.corpus,
		}
		if fi, err := os.Stat(o.Host); err == nil && !fi.Mode().IsRegular() && !fi.IsDir() {
			continue
		}
		o.Guest = path.Join("/", root, outDir, f.name)
		if o.File {
			o.Guest = path.Join(o.Guest, filepath.Base(o.Host))
		}
		f.set(o.Guest)
		outs = append(outs, o)
	}
	if fuzzes {
		outs = append(outs, Output{
			Flag: fuzzFlag, Guest: path.Join(guestDir, fuzzDir), Host: filepath.Join(hostDir, fuzzDir),
			Folder: true, Corpus: true,
		})
	}
	return outs, guest
}

const fuzzFlag = "-test.fuzz"

// fuzzDir is where Go's fuzzing stores failing inputs, in the package's directory
// (internal/fuzz).
const fuzzDir = "testdata/fuzz"

// below joins paths; an absolute path discards those before it.
func below(paths ...string) (out string) {
	for _, p := range paths {
		if filepath.IsAbs(p) {
			out = p
		} else {
			out = filepath.Join(out, p)
		}
	}
	return filepath.Clean(out)
}
