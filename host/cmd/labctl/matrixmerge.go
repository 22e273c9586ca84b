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
					if _, perr := os.Lstat(filepath.Join(dir, matrix.PlanFile)); perr == nil {
						err = fmt.Errorf("merge %s: its run was killed before its end; labctl matrix run --resume --out %s goes on with it", dir, dir)
					}
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
			if err := a.page(dir); err != nil {
				a.report(err)
			}
			if err := os.Remove(filepath.Join(dir, mergingFile)); err != nil {
				return fmt.Errorf("merge: %w", err)
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

// mergingFile is in a directory that shards are merged into, until that is done.
const mergingFile = ".merging"

// mergedFolder makes the directory that shards are merged into. Nothing may be in it, unless
// a merge that was cut short has left it.
func mergedFolder(out string) (_ string, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if out == "" {
		d, err := record.Create("", "matrix", time.Now())
		if err != nil {
			return "", err
		}
		out = d.Path
	} else if err := emptyFolder(out, "merge: "); err != nil {
		return "", err
	}
	if err := scratch.Write(filepath.Join(out, mergingFile), nil, 0o644); err != nil {
		return "", fmt.Errorf("merge: %w", err)
	}
	return out, nil
}

// emptyFolder makes a directory, in which nothing may be but what a merge that was cut short
// has left: that is removed.
func emptyFolder(out, who string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("%s%w", who, err)
	}
	if _, err := os.Lstat(filepath.Join(out, mergingFile)); err == nil {
		for _, name := range []string{matrix.RunDir, matrix.File, record.PageFile, mergingFile} {
			if err := os.RemoveAll(filepath.Join(out, name)); err != nil {
				return fmt.Errorf("%s%w", who, err)
			}
		}
	}
	if there, err := filepath.Glob(filepath.Join(scratch.EscapeGlob(out), "*")); err != nil || len(there) > 0 {
		return outcome.Inputf("%s%s is not empty; give another --out", who, out)
	}
	return nil
}
