package diff

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"labctl/host/bounded"
	"labctl/host/kernel/profile"
	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/text"
)

// Kernel is one kernel on one machine, and what records report about it.
type Kernel struct {
	Label   string   `json:"label"` // what it is called in this diff: "6.12"
	Release string   `json:"release"`
	Arch    string   `json:"arch"`   // GOARCH
	Target  string   `json:"target"` // host/targets row
	SHA256  string   `json:"sha256"` // of the image
	Records []string `json:"records"`
	Labs    []string `json:"labs,omitempty"` // that have a result, by id
	// Gaps say what the records do not tell, a line each.
	Gaps []string `json:"gaps,omitempty"`

	profile *profile.Profile // empty when there is none
	results []*result.Result
	reports []*judge.Report
}

func (k *Kernel) gap(format string, args ...any) {
	if line := text.Line(fmt.Sprintf(format, args...), 300); !slices.Contains(k.Gaps, line) {
		k.Gaps = append(k.Gaps, line)
	}
}

// Bounds of what is looked for below a directory.
const (
	maxDepth   = 6
	maxRecords = 10_000
)

// found is a record.
type found struct {
	dir  record.Dir
	run  *record.Run
	path int // the argument that it was found below
}

// Load reads records: directories of runs, and directories with such directories in
// them, as labctl lab run --out and labctl matrix leave them. Kernels are in the
// order of the paths, those below one path by their releases, those of a matrix as
// its plan has them. With a single kernel in all of them, each path is a side of its
// own. find gives a lab by its id, to judge by.
//
// A record that cannot be read is a problem, a line; the error says that a path is
// none.
func Load(paths []string, find func(id string) (*lab.Lab, error)) (kernels []*Kernel, problems []string, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	var all []found
	for i, p := range paths {
		dirs, planned, err := records(p)
		if err != nil {
			return nil, nil, err
		}
		var here []found
		for _, dir := range dirs {
			d := record.Dir{Path: dir}
			run, err := d.ReadRun()
			if err != nil {
				problems = append(problems, text.Line(err.Error(), 300))
				continue
			}
			if run.Kernel.SHA256 == "" {
				problems = append(problems, text.Line(fmt.Sprintf("%s: no kernel was booted: %s", dir, run.Outcome.Message), 300))
				continue
			}
			here = append(here, found{d, run, i})
		}
		if !planned {
			slices.SortStableFunc(here, func(a, b found) int {
				if c := natural(a.run.Kernel.Release, b.run.Kernel.Release); c != 0 {
					return c
				}
				return a.run.Started.Compare(b.run.Started)
			})
		}
		all = append(all, here...)
	}
	kernels, of := group(all, false)
	if len(kernels) == 1 && len(paths) > 1 {
		kernels, of = group(all, true)
	}
	for i, f := range all {
		of[i].read(f, find)
	}
	for _, k := range kernels {
		if k.profile == nil {
			k.profile = &profile.Profile{}
			k.gap("no %s in its records: layouts, tracepoints, system calls and functions are not known", record.KernelFile)
		} else if !k.profile.BTF {
			k.gap("its image has no types (BTF): layouts and prototypes are not known")
		}
		slices.Sort(k.Labs)
	}
	return kernels, problems, nil
}

// records finds the directories below path that hold a run, path itself before all.
// Of a matrix that has ended they are those of its results, in the plan's order: a
// cell that was tried again has others, too.
func records(path string) (dirs []string, planned bool, err error) {
	if err := bounded.CheckDir(path); err != nil {
		return nil, false, fmt.Errorf("%s: %w; give the record of a run, or a directory with several", text.Line(path, 200), err)
	}
	all, err := matrix.Read(path)
	switch {
	case err == nil:
		for _, r := range all.Results {
			if r.Record != "" {
				dirs = append(dirs, filepath.Join(path, r.Record))
			}
		}
		return dirs, true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, err
	}
	err = fs.WalkDir(os.DirFS(path), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case strings.Count(name, "/") >= maxDepth:
			return fs.SkipDir
		}
		dir := filepath.Join(path, filepath.FromSlash(name))
		if _, err := os.Lstat(filepath.Join(dir, record.RunFile)); err != nil {
			return nil
		}
		if dirs = append(dirs, dir); len(dirs) > maxRecords {
			return fmt.Errorf("more than %d records", maxRecords)
		}
		return fs.SkipDir
	})
	if err != nil {
		return nil, false, fmt.Errorf("look for records in %s: %w", text.Line(path, 200), err)
	}
	if len(dirs) == 0 {
		return nil, false, fmt.Errorf("%s: no %s in it or below: no run left its record there", text.Line(path, 200), record.RunFile)
	}
	return dirs, false, nil
}

// group makes the kernels that records are of, one of each image on each machine,
// and of each path when they are to be told apart; of has the kernel of each record.
func group(all []found, byPath bool) (kernels, of []*Kernel) {
	type key struct {
		sum, arch, target string
		path              int
	}
	known := map[key]*Kernel{}
	for _, f := range all {
		id := key{f.run.Kernel.SHA256, f.run.Target.Arch, f.run.Target.Name, 0}
		if byPath {
			id.path = f.path
		}
		k := known[id]
		if k == nil {
			k = &Kernel{
				Release: text.Line(f.run.Kernel.Release, 200), Arch: text.Line(id.arch, 40), Target: text.Line(id.target, 40), SHA256: text.Line(id.sum, 80),
			}
			known[id] = k
			kernels = append(kernels, k)
		}
		of = append(of, k)
	}
	return kernels, of
}

// read takes over what a record tells.
func (k *Kernel) read(f found, find func(id string) (*lab.Lab, error)) {
	k.Records = append(k.Records, text.Line(f.dir.Path, 300))
	if k.profile == nil {
		p, err := profile.Read(f.dir.File(record.KernelFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			k.gap("%v", err)
		case p.SHA256 != f.run.Kernel.SHA256:
			k.gap("%s is of another kernel than was booted", f.dir.File(record.KernelFile))
		default:
			k.profile = p
			for _, g := range p.Gaps {
				k.gap("%s", g)
			}
		}
	}
	res, err := result.Read(f.dir.File(result.File))
	if errors.Is(err, fs.ErrNotExist) {
		if id, ok := strings.CutPrefix(f.run.Name, "lab-"); ok {
			o := &f.run.Outcome
			k.gap("lab %s has no result here: %s: %s", id, cmp.Or(string(o.How), string(o.Kind)), o.Message)
		}
		return
	}
	if err != nil {
		k.gap("%v", err)
		return
	}
	id := text.Line(res.Lab, 40)
	k.results = append(k.results, res)
	if !slices.Contains(k.Labs, id) {
		k.Labs = append(k.Labs, id)
	}
	if len(res.Missing) > 0 {
		k.gap("lab %s was not run here: %s", id, res.Missing[0])
	}
	if res.Exercise || len(res.Missing) > 0 {
		return
	}
	l, err := find(res.Lab)
	if err == nil {
		var rep *judge.Report
		if rep, err = judge.Judge(l, res); err == nil {
			k.reports = append(k.reports, rep)
		}
	}
	if err != nil {
		k.gap("lab %s cannot be judged: %v", id, err)
	}
}

// natural orders names with numbers as people do: 6.1 before 6.12, P2 before P10.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, _ := strconv.ParseUint(a[:na], 10, 64)
			y, _ := strconv.ParseUint(b[:nb], 10, 64)
			if x != y {
				if x < y {
					return -1
				}
				return 1
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return strings.Compare(a[:1], b[:1])
		}
		a, b = a[1:], b[1:]
	}
	return strings.Compare(a, b)
}

func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}
