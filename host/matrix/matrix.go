// Package matrix is kernels × targets × work as data: the cells of a plan, what
// became of each, and the one directory that they are kept in. Planning, merging and
// comparing start no machine; host/matrix/schedule does.
package matrix

import (
	"strings"
	"time"

	"labctl/host/outcome"
	"labctl/host/record"
)

// Schema is the value of Results.Schema that this package writes. It reads that, and
// earlier ones by upgrade.
const Schema = "labctl/matrix/v2"

// The kinds of work.
const (
	Lab     = "lab"     // Name is the lab's id
	Program = "program" // Name is a program, Go package or directory, as labctl exec takes it
	GoTest  = "gotest"  // Name is a Go package pattern
	Probes  = "probes"  // Name is the probes' names, "fork,vfork"; Args is their parameters as JSON, or nothing
	// Exercise grades a submission: Name is the lab's id, Args the submission's name.
	Exercise = "exercise"
)

var kinds = []string{Lab, Program, GoTest, Probes, Exercise}

// Work is what is done in a cell.
type Work struct {
	Kind string   `json:"kind"`
	Name string   `json:"name"`
	Args []string `json:"args,omitempty"`
	// Files are HOST[:GUEST], what the guest gets besides the program.
	Files []string `json:"files,omitempty"`
}

// Cell is one piece of work on one kernel on one machine.
type Cell struct {
	Kernel string `json:"kernel"` // as --kernel takes it
	Target string `json:"target"` // row of host/targets: "amd64", "raspi3b"
	Work   Work   `json:"work"`

	CPUs     int `json:"cpus,omitempty"`      // 0: the machine's
	MemoryMB int `json:"memory_mb,omitempty"` // 0: the machine's

	Append []string `json:"append,omitempty"` // more kernel arguments
	// Input is a hash of what is worked on, if that may change between a run and its
	// resumption: of an exercise, the submission.
	Input string `json:"input,omitempty"`
}

// ID names a cell in its plan, in reports and across shards: "6.12/arm64/P1".
func (c Cell) ID() string {
	return strings.Join([]string{c.Kernel, c.Target, strings.Join(append([]string{c.Work.Name}, c.Work.Args...), " ")}, "/")
}

// Result is what became of a cell.
type Result struct {
	Cell   Cell         `json:"cell"`
	Status outcome.Kind `json:"status"`
	// How is a finer word for a program's end, if there is one: "does not compile".
	How outcome.How `json:"how,omitempty"`
	// Reason is one clean line: what failed, or why it is not applicable.
	Reason string `json:"reason,omitempty"`
	// Tries is more than 1 when retries were asked for; Flaky says that the
	// last was good and one before was not.
	Tries   int       `json:"tries"`
	Flaky   bool      `json:"flaky,omitempty"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	// CPUSeconds is of QEMU, of whatever else was run for it, and of labctl's own
	// work meanwhile, shared equally among the cells that ran.
	CPUSeconds float64 `json:"cpu_seconds"`

	Kernel record.Kernel `json:"kernel"`           // that was booted
	Record string        `json:"record,omitempty"` // directory of the run record, below the matrix's
	Checks []Check       `json:"checks,omitempty"` // of a lab
	Claims []Check       `json:"claims,omitempty"`

	// Reports are the first of the kernel's on its console, Reported counts them all.
	Reports  []record.Brief `json:"reports,omitempty"`
	Reported int            `json:"reported,omitempty"`
	Output   string         `json:"output,omitempty"` // the end of a program's, clean, at most 4 KiB
}

// Took takes over what the record of the cell's run says of its kernel.
func (r *Result) Took(run *record.Run) {
	r.Kernel, r.Reports, r.Reported = run.Kernel, nil, len(run.Reports)
	for _, c := range run.Reports[:min(len(run.Reports), maxReports)] {
		r.Reports = append(r.Reports, c.Brief())
	}
}

// Check is one check or claim of a lab with its verdict.
type Check struct {
	ID      string `json:"id"`
	Text    string `json:"text"`
	Verdict string `json:"verdict"`        // of host/lab/judge
	Seen    string `json:"seen,omitempty"` // evidence, or what was seen instead
}

// Results is matrix.json: a whole plan, or a shard of it, and what became of it.
type Results struct {
	Schema  string    `json:"schema"`
	Name    string    `json:"name,omitempty"`
	Labctl  string    `json:"labctl"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // wall time; of shards that were merged, the longest's
	// CPUSeconds is of all that the cells of this run took, labctl's own work for
	// them included, CPUs what the run had to spend them on. A run that was resumed
	// counts what it ran itself. CPUs is 0 for shards that were merged.
	CPUSeconds float64 `json:"cpu_seconds"`
	CPUs       int     `json:"cpus,omitempty"`
	Shard      string  `json:"shard,omitempty"` // "2/5"; empty for the whole plan
	Plan       []Cell  `json:"plan"`            // of all shards, in the plan's order
	// Costs are what each cell of the plan was thought to take, in milliseconds, if
	// shards were divided by that. See Shards.
	Costs   []int    `json:"costs,omitempty"`
	Results []Result `json:"results"` // in the plan's order
}
