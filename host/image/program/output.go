package program

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// Folders of the guest, in which nothing tells where things are on the host.
const (
	// WorkDir is the folder of a Go test's module.
	WorkDir = "/labctl/work"
	// outDir has what the flags of a Go test make it write, a folder a flag.
	outDir = "/labctl/out"
)

// Output is one path that the user named and that the guest may fill: nothing
// else comes back.
type Output struct {
	Flag  string // what named it: "--get", "-test.coverprofile"
	Guest string // absolute
	Host  string // absolute
	// File and Folder say what it may be in the guest.
	File, Folder bool
	// Must says that it is an error when the guest does not have it.
	Must bool
	// Corpus says that it is a folder of fuzz inputs: of what is in it, new
	// inputs come back, and nothing that is on this host is changed.
	Corpus bool
}

// maxTestName bounds the name of a fuzz test, in bytes.
const maxTestName = 250

// isCorpusFile says whether name is as Go's fuzzing names an input: by the test
// and by a hash (internal/fuzz, writeToCorpus).
func isCorpusFile(name string) bool {
	test, hash, _ := strings.Cut(name, "/")
	other := func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r) }
	return strings.HasPrefix(test, "Fuzz") && len(test) <= maxTestName && strings.IndexFunc(test, other) < 0 &&
		len(hash) == 16 && strings.Trim(hash, "0123456789abcdef") == ""
}

// testOutputs are the flags of a Go test binary that name what it writes
// (testing.Init; `go help testflag`). Those of -test.outputdir are relative to
// that, the others to the working directory.
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

// TestOutputs finds the files and folders that args tell a Go test to write, and
// returns the arguments for the guest, in which those have the guest's paths.
// Relative ones are below hostDir here; the test runs in guestDir there. What is a device on this host
// (/dev/null) is left as it is. A test that fuzzes writes below its testdata, too.
func TestOutputs(args []string, hostDir, guestDir string) (outs []Output, guest []string) {
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
			set(outDir)
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
		o.Guest = path.Join(outDir, f.name)
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

// fuzzDir is where Go's fuzzing leaves inputs that fail, below the package's
// folder (internal/fuzz).
const fuzzDir = "testdata/fuzz"

// below joins paths, of which each starts over when it is absolute.
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
