package matrix

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/scratch"
)

// PlanFile, in the directory of a matrix, has what is to be done: Results without results. It is
// there from the start.
const PlanFile = "plan.json"

const lockFile = ".lock"

// Folder is the directory of a matrix that runs. One process has it at a time.
type Folder struct {
	Path string
	lock *scratch.Lock
}

// cellFile is a Result as it is kept in CellDir.
type cellFile struct {
	Schema string `json:"schema"`
	Result
}

// Create makes the directory of a matrix that is about to run. r is its plan.
func Create(dir string, r *Results) (_ *Folder, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	for _, sub := range []string{CellDir, RunDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("create matrix: %w", err)
		}
	}
	f, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	for _, name := range []string{PlanFile, File} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("create matrix: %s already holds one; continue it with --resume, or give another --out", dir)
		}
	}
	b, err := Encode(r)
	if err == nil {
		err = scratch.Write(filepath.Join(dir, PlanFile), b, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("create matrix: %w", err)
	}
	return f, nil
}

// Resumable says why the directory of a matrix cannot be taken up with the plan r, nil if it can.
func Resumable(dir string, r *Results) error {
	_, err := resumable(dir, r, false)
	return outcome.Default(outcome.BadInput, err)
}

// resumable returns the plan of a directory that may be taken up with the plan r.
func resumable(dir string, r *Results, changes bool) (old *Results, err error) {
	if err := bounded.CheckDir(dir); err != nil {
		return nil, fmt.Errorf("resume matrix %s: %w; leave --resume out", dir, err)
	}
	b, err := bounded.ReadFile(filepath.Join(dir, PlanFile), format.Max)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("resume matrix: %s holds none; leave --resume out", dir)
	}
	if err == nil {
		old, err = Decode(b)
	}
	if err == nil {
		err = samePlan(old, r, changes)
	}
	if err != nil {
		return nil, fmt.Errorf("resume matrix %s: %w", dir, err)
	}
	return old, nil
}

// Resume takes up the directory of a matrix, whose plan must be r's, and returns the
// results of the cells that ended. Its costs become r's: they have made its shards.
// If the plan may have changed since, as the
// submissions of a class do, r's plan replaces it; a result of a cell that changed is
// not returned.
func Resume(dir string, r *Results, changes bool) (_ *Folder, done []Result, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	old, err := resumable(dir, r, changes)
	if err != nil {
		return nil, nil, err
	}
	if !changes {
		r.Costs = old.Costs
	}
	f, err := open(dir)
	if err != nil {
		return nil, nil, err
	}
	if changes {
		b, err := Encode(r)
		if err == nil {
			err = scratch.Write(filepath.Join(dir, PlanFile), b, 0o644)
		}
		if err != nil {
			f.Close()
			return nil, nil, fmt.Errorf("resume matrix: %w", err)
		}
	}
	for _, i := range r.Mine() {
		res, err := f.read(r.Plan[i])
		switch {
		case errors.Is(err, fs.ErrNotExist), changes && errors.Is(err, errOther):
		case err != nil:
			f.Close()
			return nil, nil, fmt.Errorf("resume matrix: %w; remove the file to run the cell again", err)
		default:
			done = append(done, *res)
		}
	}
	return f, done, nil
}

func mustShard(s string) Shard {
	sh, err := ParseShard(s)
	if err != nil {
		panic(err) // it is made by String
	}
	return sh
}

// samePlan says in one line how b is another plan than a, or another shard of it. If
// the plan may change, only its name and shard are compared.
func samePlan(a, b *Results, changes bool) error {
	switch {
	case a.Name != b.Name:
		return fmt.Errorf("its plan is named %q, this one %q", a.Name, b.Name)
	case a.Shard != b.Shard:
		return fmt.Errorf("it is %s, this run is %s", shardName(a.Shard), shardName(b.Shard))
	case changes:
		return nil
	}
	return sameCells(a.Plan, b.Plan)
}

func shardName(s string) string {
	if s == "" {
		return "the whole plan"
	}
	return "shard " + s
}

func sameCells(a, b []Cell) error {
	for i := range min(len(a), len(b)) {
		if x, y := a[i], b[i]; !x.Equal(y) {
			if x.ID() == y.ID() {
				return fmt.Errorf("its plan is another: cell %s is of another machine or input", x.ID())
			}
			return fmt.Errorf("its plan is another: cell %d is %s, here it is %s", i+1, x.ID(), y.ID())
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("its plan is another: %d cells, here %d", len(a), len(b))
	}
	return nil
}

func open(dir string) (*Folder, error) {
	lock, err := scratch.TryLock(filepath.Join(dir, lockFile))
	if errors.Is(err, scratch.ErrLocked) {
		return nil, outcome.Inputf("open matrix: another labctl runs the one in %s; wait, or give another --out", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open matrix: %w", err)
	}
	return &Folder{dir, lock}, nil
}

// Close lets others have the directory.
func (f *Folder) Close() error { return f.lock.Release() }

// Record is where the record of one more try of a cell goes: the directory, which
// is not there yet, and its name relative to the matrix's.
func (f *Folder) Record(c Cell) (dir, name string, err error) {
	name, err = f.newRun(c)
	return filepath.Join(f.Path, name), name, err
}

func (f *Folder) newRun(c Cell) (string, error) {
	base := filepath.Join(RunDir, fileName(c.ID()))
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = fmt.Sprintf("%s.%d", base, i)
		}
		_, err := os.Lstat(filepath.Join(f.Path, name))
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", outcome.Default(outcome.HostLacks, fmt.Errorf("make a run record: %w", err))
		}
	}
}

// Keep writes what became of a cell, whole or not at all.
func (f *Folder) Keep(r *Result) error {
	r.clean()
	b, err := json.MarshalIndent(cellFile{Schema, *r}, "", "  ")
	if err == nil {
		err = scratch.Write(f.cell(r.Cell), append(b, '\n'), 0o644)
	}
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("keep cell %s: %w", r.Cell.ID(), err))
	}
	return nil
}

func (f *Folder) cell(c Cell) string {
	return filepath.Join(f.Path, CellDir, fileName(c.ID())+".json")
}

var errOther = errors.New("it is of cell")

func (f *Folder) read(c Cell) (*Result, error) {
	b, err := bounded.ReadFile(f.cell(c), cellFormat.Max)
	if err != nil {
		return nil, err
	}
	r, err := decodeCell(b)
	if err == nil && !r.Cell.Equal(c) {
		err = fmt.Errorf("%w %s", errOther, r.Cell.ID())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.cell(c), err)
	}
	return r, nil
}

// decodeCell reads the bytes of a cell's file, as strictly as Decode.
func decodeCell(b []byte) (*Result, error) {
	var c cellFile
	if err := cellFormat.Decode(b, &c); err != nil {
		return nil, err
	}
	if err := c.Result.Cell.check(); err != nil {
		return nil, err
	}
	if err := c.Result.check(); err != nil {
		return nil, err
	}
	c.clean()
	return &c.Result, nil
}

// Sorted puts results into the plan's order.
func Sorted(plan []Cell, all []Result) []Result {
	place := places(plan)
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Result) int { return place[a.Cell.ID()] - place[b.Cell.ID()] })
	return all
}

var plainID = regexp.MustCompile(`^[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+$`)

// fileName is a cell's id as the name of a file, another for each id.
func fileName(id string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(".+-", r):
			return r
		}
		return '_'
	}, id)
	if len(id) <= 100 && plainID.MatchString(id) {
		return name
	}
	sum := sha256.Sum256([]byte(id))
	return name[:min(len(name), 60)] + "@" + hex.EncodeToString(sum[:6])
}

// SoFar reads the directory of a matrix that may still be running: its plan, and the
// results of the cells that have ended.
func SoFar(dir string) (_ *Results, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	if err := bounded.CheckDir(dir); err != nil {
		return nil, fmt.Errorf("read matrix %s: %w", dir, err)
	}
	b, err := bounded.ReadFile(filepath.Join(dir, PlanFile), format.Max)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read matrix: %s holds none", dir)
	}
	var r *Results
	if err == nil {
		r, err = Decode(b)
	}
	if err != nil {
		return nil, fmt.Errorf("read matrix %s: %w", dir, err)
	}
	f := Folder{Path: dir}
	for _, c := range r.Plan {
		res, err := f.read(c)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errOther):
		case err != nil:
			return nil, fmt.Errorf("read matrix: %w", err)
		default:
			r.Results = append(r.Results, *res)
		}
	}
	return r, nil
}
