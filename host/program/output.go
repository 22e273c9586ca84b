package program

import (
	"os"
	"path/filepath"
	"strings"
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
}

// testOutputs are the flags of a Go test binary that name what it writes
// (testing.Init; `go help testflag`). Those of -test.outputdir are relative to
// that, the others to the working directory.
var testOutputs = map[string]struct{ folder, inOutputDir bool }{
	"coverprofile": {inOutputDir: true},
	"cpuprofile":   {inOutputDir: true},
	"memprofile":   {inOutputDir: true},
	"blockprofile": {inOutputDir: true},
	"mutexprofile": {inOutputDir: true},
	"trace":        {inOutputDir: true},
	"testlogfile":  {},
	"gocoverdir":   {folder: true},
	"fuzzcachedir": {folder: true},
}

// TestOutputs finds the files and folders that args tell a Go test to write.
// Relative ones are below the folder where the test runs: guestDir there,
// hostDir here. What is on this host, but as a device (/dev/null), is left out.
func TestOutputs(args []string, hostDir, guestDir string) []Output {
	var found []struct{ name, value string }
	var outputDir string
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		flag, isFlag := strings.CutPrefix(args[i], "-")
		name, ok := strings.CutPrefix(strings.TrimPrefix(flag, "-"), "test.")
		if !isFlag || !ok {
			continue
		}
		name, value, given := strings.Cut(name, "=")
		if _, known := testOutputs[name]; !known && name != "outputdir" {
			continue
		}
		if !given {
			if i++; i == len(args) {
				break
			}
			value = args[i]
		}
		if name == "outputdir" {
			outputDir = value
		} else if value != "" {
			found = append(found, struct{ name, value string }{name, value})
		}
	}
	var outs []Output
	for _, f := range found {
		spec := testOutputs[f.name]
		in := ""
		if spec.inOutputDir {
			in = outputDir
		}
		o := Output{
			Flag:  "-test." + f.name,
			Guest: below(guestDir, in, f.value), Host: below(hostDir, in, f.value),
			File: !spec.folder, Folder: spec.folder,
		}
		if fi, err := os.Stat(o.Host); err != nil || fi.Mode().IsRegular() || fi.IsDir() {
			outs = append(outs, o)
		}
	}
	return outs
}

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
