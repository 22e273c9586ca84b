package debian

import "labctl/host/outcome"

// ErrHostLacks means that this host lacks a program, a setting or a keyring that
// labctl cannot provide. The error that wraps it names the thing and the remedy.
var ErrHostLacks = outcome.New(outcome.HostLacks, "this host lacks something")

// Stage is a stage of a pull, in the order of the constants.
type Stage string

const (
	StageWait     Stage = "wait"     // waiting for another pull of the same kernel; Note names it
	StageDamaged  Stage = "damaged"  // a cached kernel is damaged and is pulled again; Note has the details
	StageIndex    Stage = "index"    // fetching the suite's package index; Total unknown
	StageDownload Stage = "download" // fetching packages
	StageUnpack   Stage = "unpack"   // unpacking packages; bytes of the packages read
	StageInspect  Stage = "inspect"  // decompressing the image and reading its BTF
	StageTypes    Stage = "types"    // making types of DWARF
	StageDone     Stage = "done"
)

// Progress is a progress report of a pull. Done and Total are bytes of this stage;
// Total is 0 if it is not known.
type Progress struct {
	Stage Stage
	Done  int64
	Total int64
	Note  string
}
