package debian

import "labctl/host/outcome"

// ErrHostLacks says that this host lacks a program, a setting or a keyring that
// labctl cannot bring itself. The error that wraps it names what and the remedy.
var ErrHostLacks = outcome.New(outcome.HostLacks, "this host lacks something")

// Stage is a step of a pull, in the order of the constants.
type Stage string

const (
	StageWait     Stage = "wait"     // another pull of the same kernel runs; Note says which
	StageDamaged  Stage = "damaged"  // a cached kernel is damaged and is pulled again; Note says what
	StageIndex    Stage = "index"    // fetching the suite's package index; Total unknown
	StageDownload Stage = "download" // fetching packages
	StageUnpack   Stage = "unpack"   // unpacking packages; bytes of the packages read
	StageInspect  Stage = "inspect"  // decompressing the image and reading its types
	StageDone     Stage = "done"
)

// Progress is one report of a pull. Done and Total are bytes of this stage;
// Total is 0 where it is not known.
type Progress struct {
	Stage Stage
	Done  int64
	Total int64
	Note  string
}
