package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/vm/agent"
)

// JobOptions are the options for running a program in a guest.
type JobOptions struct {
	Env   []string // K=V, or K for this process's value
	Files []string // HOST[:GUEST]: files and directories to copy to the guest
	Gets  []string // GUEST[:HOST]: files and directories to copy back
	Dir   string   // working directory in the guest
	Cwd   string   // working directory of a test on the host; empty: this process's
	// Root is the directory of the guest for this job's files, in a machine that has
	// others'. The program runs in a directory below it. Empty stands for a machine of
	// the job's own.
	Root string
}

// Job is everything needed to run a program in a guest once.
type Job struct {
	Name    string // of the program, as the user typed it
	Params  wire.ExecParams
	Bundle  Bundle
	Outputs []Output
	// NoInput leaves standard input for the job that follows.
	NoInput bool
}

// NewJob plans the run of a program with the arguments argv[1:]. Errors are about the
// user's input.
func NewJob(prog *Program, argv []string, o JobOptions) (_ *Job, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	j, err := newJob(prog, argv, o)
	return j, outcome.Default(outcome.BadInput, err)
}

func newJob(prog *Program, argv []string, o JobOptions) (*Job, error) {
	cwd := o.Cwd
	if cwd == "" {
		var err error
		if cwd, err = os.Getwd(); err != nil {
			return nil, err
		}
	}
	prog.below(o.Root)
	args := argv[1:]
	start := []string{prog.Argv0}
	if prog.Script {
		start = []string{Shell, prog.Argv0}
	}
	j := &Job{Name: argv[0], Bundle: Bundle{keep: o.Root != ""}, Params: wire.ExecParams{Argv: append(start, args...), Dir: "/"}}
	if prog.File != "" {
		if err := j.Bundle.AddProgram(prog); err != nil {
			return nil, err
		}
	}
	switch {
	case o.Dir != "":
		j.Params.Dir = path.Join("/", o.Dir)
		j.Bundle.AddFolder(j.Params.Dir)
	case prog.Test:
		root, isStd := testRoot(cwd)
		rel, err := filepath.Rel(root, cwd)
		if err != nil {
			return nil, err
		}
		work := path.Join("/", o.Root, WorkDir)
		j.Params.Dir = path.Join(work, rel)
		if err := j.Bundle.AddAbove(root, cwd, work, MaxTestFiles); err != nil {
			return nil, err
		}
		if err := j.Bundle.AddTestDir(root, cwd, j.Params.Dir, MaxTestFiles); err != nil {
			return nil, err
		}
		if isStd {
			if err := j.Bundle.Add(filepath.Join(root, zones), path.Join(work, zones)); err != nil {
				return nil, err
			}
			j.Params.Env = append(j.Params.Env, "GOROOT="+work)
		}
	case o.Root != "":
		j.Params.Dir = path.Join("/", o.Root, "work")
		j.Bundle.AddFolder(j.Params.Dir)
	}
	for _, f := range o.Files {
		if err := j.Bundle.addNamed(f, j.Params.Dir); err != nil {
			return nil, fmt.Errorf("--file %s: %w", f, err)
		}
	}
	for _, g := range o.Gets {
		out, err := getOutput(g, j.Params.Dir)
		if err != nil {
			return nil, err
		}
		j.Outputs = append(j.Outputs, out)
	}
	if prog.File != "" && !prog.Script {
		outs, args := TestOutputs(args, cwd, j.Params.Dir, o.Root)
		if err := j.Bundle.AddOutputs(outs, MaxTestFiles); err != nil {
			return nil, err
		}
		j.Params.Argv = append(j.Params.Argv[:1], args...)
		j.Outputs = append(j.Outputs, outs...)
	}
	for _, kv := range o.Env {
		name, _, given := strings.Cut(kv, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %s: want K=V or K", kv)
		}
		if !given {
			value, there := os.LookupEnv(name)
			if !there {
				continue
			}
			kv = name + "=" + value
		}
		j.Params.Env = append(j.Params.Env, kv)
	}
	return j, nil
}

// CheckFile says what is wrong with a file of JobOptions.Files.
func CheckFile(file string) (err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	var b Bundle
	return b.addNamed(file, "/")
}

// addNamed adds what HOST[:GUEST] names; dir is the guest's working directory.
func (b *Bundle) addNamed(file, dir string) error {
	host, guest, _ := strings.Cut(file, ":")
	if host == "" {
		return errors.New("want HOST or HOST:GUEST")
	}
	if guest == "" || strings.HasSuffix(guest, "/") {
		guest += filepath.Base(host)
	}
	return b.Add(host, inGuest(dir, guest))
}

func inGuest(dir, name string) string {
	if !path.IsAbs(name) {
		name = path.Join(dir, name)
	}
	return path.Clean(name)
}

// getOutput parses --get. If HOST is a directory, or ends in a slash, the file keeps
// its name, as with cp.
func getOutput(flag, dir string) (Output, error) {
	guest, host, _ := strings.Cut(flag, ":")
	o := Output{Flag: "--get", Guest: inGuest(dir, guest), File: true, Folder: true, Must: true}
	base := path.Base(o.Guest)
	if guest == "" || base == "/" {
		return o, fmt.Errorf("--get %s: want GUEST or GUEST:HOST, and not the guest's root", flag)
	}
	if host == "" {
		host = base
	} else if fi, err := os.Stat(host); strings.HasSuffix(host, "/") || err == nil && fi.IsDir() {
		host = filepath.Join(host, base)
	}
	var err error
	if o.Host, err = filepath.Abs(host); err != nil {
		return o, err
	}
	// Check before the run rather than after it.
	if dir := filepath.Dir(o.Host); bounded.CheckDir(dir) != nil {
		return o, fmt.Errorf("--get %s: %s: %w", flag, dir, bounded.CheckDir(dir))
	}
	return o, nil
}

// LeftOut names the links to directories that the guest does not get, in one line; it is
// nil if there are none.
func (j *Job) LeftOut() error {
	links := j.Bundle.Left
	if len(links) == 0 {
		return nil
	}
	more := ""
	if n := len(links) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return outcome.Inputf("%s%s: links to directories outside of the module are not followed; give them with --file DIR:GUEST", links[0], more)
}

// Commands reports whether the program needs u-root's commands in the guest: it is one
// of them, a script, or a test, which may run anything.
func (p *Program) Commands() bool { return p.File == "" || p.Test || p.Script }

// Run runs a job whose Bundle is in the guest, until ctx ends. If the guest cannot start the program,
// the error is an *outcome.NotRunError.
func (j *Job) Run(ctx context.Context, c *agent.Client, std agent.IO) (wire.ExecResult, error) {
	res, err := c.Exec(ctx, j.Params, std)
	var refused *agent.GuestError
	if errors.As(err, &refused) && res.Errno != 0 {
		return res, &outcome.NotRunError{Name: j.Name, Errno: syscall.Errno(res.Errno)}
	}
	return res, err
}

// Fetch copies back the job's outputs.
func (j *Job) Fetch(ctx context.Context, c *agent.Client) (left string, err error) {
	return Fetch(ctx, c, j.Outputs)
}
