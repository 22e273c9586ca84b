// Package slurm gives the shards of a matrix to Slurm: an array of jobs, and one that
// merges what they leave.
package slurm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"labctl/host/outcome"
	"labctl/host/text"
)

// Array is a matrix as an array of jobs. Its directory is one that all nodes and the
// submitting host reach by the same path.
type Array struct {
	Name   string   // of the jobs
	Labctl string   // the path of labctl on the nodes
	Dir    string   // absolute; has shard-1, shard-2, … and merged
	Shards int      // tasks of the array
	Whole  string   // the directory in Dir of what is merged; merged if empty
	Args   []string // of labctl matrix run, without --shard, --out and --resume
	Merge  []string // of labctl matrix merge, without --out
	Sbatch []string // more of sbatch's, for the array
}

// Jobs are what was submitted.
type Jobs struct {
	Array  string `json:"array"`
	Merge  string `json:"merge"`
	Tasks  int    `json:"tasks"`
	Dir    string `json:"dir"`
	Merged string `json:"merged"`
}

// Merged is the name in Dir of what is merged.
func (a *Array) Merged() string { return cmp.Or(a.Whole, "merged") }

// Script is what a task of the array runs. A task that Slurm has started before, on a
// node that failed, goes on where it was.
func (a *Array) Script() string {
	return fmt.Sprintf(`#!/bin/sh
shard=%s/shard-$SLURM_ARRAY_TASK_ID
resume=
if [ -e "$shard/plan.json" ]; then resume=--resume; fi
exec %s matrix run --shard "$SLURM_ARRAY_TASK_ID/%d" --out "$shard" $resume %s
`, quote(a.Dir), quote(a.Labctl), a.Shards, quoteAll(a.Args))
}

// MergeScript is what runs when all tasks have ended, however they did. A shard that is
// not whole fails it.
func (a *Array) MergeScript() string {
	return fmt.Sprintf("#!/bin/sh\nexec %s matrix merge --out %s/%s %s %s/shard-*/\n", quote(a.Labctl), quote(a.Dir), quote(a.Merged()), quoteAll(a.Merge), quote(a.Dir))
}

// Options are sbatch's for the array, MergeOptions for what follows the job id array.
func (a *Array) Options() []string {
	return append([]string{
		"--parsable", "--job-name=" + a.Name, fmt.Sprintf("--array=1-%d", a.Shards),
		"--requeue", "--open-mode=append", "--output=" + logName(a.Dir, "shard-%a.log"),
	}, a.Sbatch...)
}

func (a *Array) MergeOptions(array string) []string {
	return []string{
		"--parsable", "--job-name=" + a.Name + "-merge", "--dependency=afterany:" + array,
		"--requeue", "--open-mode=append", "--output=" + logName(a.Dir, "merge.log"),
	}
}

// logName is a file in a directory as sbatch takes it, to which a % is special.
func logName(dir, name string) string {
	return filepath.Join(strings.ReplaceAll(dir, "%", "%%"), name)
}

// Submit gives the jobs to Slurm.
func (a *Array) Submit(ctx context.Context) (*Jobs, error) {
	array, err := sbatch(ctx, a.Options(), a.Script())
	if err != nil {
		return nil, err
	}
	merge, err := sbatch(ctx, a.MergeOptions(array), a.MergeScript())
	if err != nil {
		return nil, fmt.Errorf("%w; job %s runs all the same: scancel %s ends it", err, array, array)
	}
	return &Jobs{array, merge, a.Shards, a.Dir, filepath.Join(a.Dir, a.Merged())}, nil
}

// jobID is what sbatch --parsable prints: a job id, and of a federation the cluster.
var jobID = regexp.MustCompile(`^([0-9]{1,20})(;[^\n]{0,200})?\n?$`)

func sbatch(ctx context.Context, options []string, script string) (string, error) {
	c := exec.CommandContext(ctx, "sbatch", options...)
	var out, said bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(script), &out, &said
	err := c.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", outcome.Hostf("no sbatch on PATH: submit where Slurm's commands are (Debian: slurm-client)")
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", outcome.Hostf("sbatch: %s: %w", text.Line(strings.TrimSpace(said.String()), 300), err)
	}
	m := jobID.FindStringSubmatch(out.String())
	if m == nil {
		return "", outcome.Hostf("sbatch printed no job id but %q", text.Line(out.String(), 100))
	}
	return m[1], nil
}

// quote is a word for sh.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._=:,@%+-", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func quoteAll(words []string) string {
	var out []string
	for _, w := range words {
		out = append(out, quote(w))
	}
	return strings.Join(out, " ")
}
