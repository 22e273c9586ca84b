package matrix

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"labctl/host/outcome"
)

// Part is the matrix of a directory, to be merged.
type Part struct {
	Dir string
	*Results
}

// Merge joins the shards of one plan. It is an error when they are of several
// plans, when a cell is in two of them, and when one is in none.
func Merge(parts []Part) (_ *Results, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if len(parts) == 0 {
		return nil, errors.New("merge: no directories")
	}
	first := parts[0]
	all := &Results{Name: first.Name, Labctl: first.Labctl, Started: first.Started, Plan: first.Plan}
	of := map[string]string{} // directory of each cell
	for _, p := range parts {
		if p.Name != first.Name {
			return nil, fmt.Errorf("merge: %s has the plan %q, %s the plan %q", first.Dir, first.Name, p.Dir, p.Name)
		}
		if err := sameCells(first.Plan, p.Plan); err != nil {
			return nil, fmt.Errorf("merge %s with %s: %w", first.Dir, p.Dir, err)
		}
		if !slices.Equal(first.Costs, p.Costs) {
			return nil, fmt.Errorf("merge %s with %s: their shards were divided by other costs of cells; run both with the same --weights", first.Dir, p.Dir)
		}
		for _, r := range p.Results.Results {
			id := r.Cell.ID()
			if of[id] != "" {
				return nil, fmt.Errorf("merge: cell %s is in %s and in %s", id, of[id], p.Dir)
			}
			of[id] = p.Dir
			all.Results = append(all.Results, r)
		}
		if p.Started.Before(all.Started) {
			all.Started = p.Started
		}
		all.Seconds = max(all.Seconds, p.Seconds)
		all.CPUSeconds += p.CPUSeconds
		if len(parts) == 1 {
			all.CPUs = p.CPUs
		}
	}
	var missing []string
	for _, c := range all.Plan {
		if id := c.ID(); of[id] == "" {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("merge: %d of %d cells are missing (%s)%s", len(missing), len(all.Plan), few(missing), absent(parts))
	}
	all.Results = Sorted(all.Plan, all.Results)
	return all, nil
}

// few names the first of many.
func few(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// absent names the shards that are not there at all, where the directories tell.
func absent(parts []Part) string {
	sh := mustShard(parts[0].Shard)
	there := map[int]bool{}
	for _, p := range parts {
		s := mustShard(p.Shard)
		if s.Of != sh.Of {
			return ""
		}
		there[s.Index] = true
	}
	var names []string
	for i := 1; i <= sh.Of; i++ {
		if !there[i] {
			names = append(names, Shard{i, sh.Of}.String())
		}
	}
	if len(names) == 0 {
		return "; run them by --resume in their folders"
	}
	return "; no directory has shard " + few(names)
}

// CopyRecords brings the run records of a part into dir, under the names that
// they have. Whatever is neither a file nor a directory is an error: a record has
// nothing else, and a link could lead anywhere.
func CopyRecords(dir string, p Part) error {
	for _, r := range p.Results.Results {
		if r.Record == "" {
			continue
		}
		if err := copyTree(p.Dir, dir, r.Record); err != nil {
			return outcome.Default(outcome.BadInput, fmt.Errorf("copy the record of %s: %w", r.Cell.ID(), err))
		}
	}
	return nil
}

func copyTree(from, to, name string) error {
	src, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	return fs.WalkDir(src.FS(), filepath.ToSlash(name), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return dst.MkdirAll(path, 0o755)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder", path)
		}
		return copyFile(src, dst, path)
	})
}

func copyFile(src, dst *os.Root, name string) (err error) {
	in, err := src.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// Count is how many results have each outcome, and how many are flaky.
func (r *Results) Count() (by map[outcome.Kind]int, flaky int) {
	by = map[outcome.Kind]int{}
	for _, res := range r.Results {
		by[res.Status]++
		if res.Flaky {
			flaky++
		}
	}
	return by, flaky
}

// Worst is the outcome that tells most against a matrix.
func (r *Results) Worst() outcome.Kind {
	var kinds []outcome.Kind
	for _, res := range r.Results {
		kinds = append(kinds, res.Status)
	}
	return outcome.Worst(kinds...)
}
