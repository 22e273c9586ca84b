package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/scratch"
)

func (a *app) matrixMerge() *cobra.Command {
	var output matrixOutput
	var out string
	c := &cobra.Command{
		Use:   "merge DIR...",
		Short: "Join the shards of a plan",
		Long: `Join the matrices of several directories, which are the shards of one plan, into one
directory with all run records. It is an error if a cell is in two of them or in none,
or if the plans differ. The exit status is that of labctl matrix run.`,
		Example: "  labctl matrix merge shard-1 shard-2 --out all --junit all.xml",
		Args:    needArgs("the directories of the shards"),
		RunE: func(_ *cobra.Command, dirs []string) error {
			if err := output.check(); err != nil {
				return err
			}
			var parts []matrix.Part
			for _, dir := range dirs {
				r, err := matrix.Read(dir)
				if errors.Is(err, fs.ErrNotExist) {
					err = fmt.Errorf("merge %s: it has no %s, which a run leaves at its end", dir, matrix.File)
				}
				if err != nil {
					return outcome.Default(outcome.BadInput, err)
				}
				parts = append(parts, matrix.Part{Dir: dir, Results: r})
			}
			all, err := matrix.Merge(parts)
			if err != nil {
				return outcome.Default(outcome.BadInput, err)
			}
			dir, err := mergedFolder(out)
			if err != nil {
				return err
			}
			for _, p := range parts {
				if err := matrix.CopyRecords(dir, p); err != nil {
					return err
				}
			}
			if err := matrix.Write(dir, all); err != nil {
				return err
			}
			if err := a.showMatrix(all, dir, output); err != nil {
				return err
			}
			return matrixEnd(all, dir, output)
		},
	}
	c.Flags().StringVar(&out, "out", "", "directory for the whole (default: labctl-out/TIME-matrix)")
	output.flags(c)
	return c
}

// mergedFolder makes the directory that shards are merged into. Nothing may be in it.
func mergedFolder(out string) (_ string, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if out == "" {
		d, err := record.Create("", "matrix", time.Now())
		return d.Path, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", fmt.Errorf("merge: %w", err)
	}
	if there, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(out), "*")); err != nil || len(there) > 0 {
		return "", outcome.Inputf("merge: %s is not empty; give another --out", out)
	}
	return out, nil
}
