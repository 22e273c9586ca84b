package shell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// jobFlag starts a shell as a background job of another, which sends a jobState
// on descriptor jobFD.
const (
	jobFlag = "--job"
	jobFD   = 3
)

// jobState is all of a shell that a job starts with: Go cannot fork.
type jobState struct {
	Source string                     `json:"source"`
	Params []string                   `json:"params"`
	Vars   map[string]expand.Variable `json:"vars"`  // $0 and $$ too
	Funcs  string                     `json:"funcs"` // their source
}

// job is what runs in the background, or was stopped.
type job struct {
	number int
	group  *group
	pid    int // of its first process
	source string
	apart  bool          // it has a process group of its own
	said   bool          // that it is stopped
	done   chan struct{} // closed when it has ended
	status int           // valid then
}

// newJob makes a job of processes that were started.
func newJob(g *group, source string, apart bool) *job {
	j := &job{group: g, pid: g.id, source: source, apart: apart, done: make(chan struct{})}
	go func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for !g.is(ended) {
			g.changed.Wait()
		}
		j.status = g.procs[len(g.procs)-1].end
		close(j.done)
	}()
	return j
}

// jobs are those that have not been waited for, by number.
type jobs struct {
	mu      sync.Mutex
	list    []*job
	count   int
	lastPID int
}

func (j *jobs) last() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lastPID
}

func (j *jobs) all() []*job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]*job(nil), j.list...)
}

// find takes a pid, %N, or %% for the latest, of those that are stopped if there are any.
func (j *jobs) find(name string) *job {
	number, isNumber := strings.CutPrefix(name, "%")
	if isNumber && (number == "%" || number == "+" || number == "") {
		var latest *job
		for _, job := range j.all() {
			if latest == nil || job.group.state() == stopped || latest.group.state() != stopped {
				latest = job
			}
		}
		return latest
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return nil
	}
	for _, job := range j.all() {
		if isNumber && job.number == n || !isNumber && job.pid == n {
			return job
		}
	}
	return nil
}

func (j *jobs) add(job *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.enter(job)
	j.lastPID = job.pid
}

// enter numbers a job. The lock is held.
func (j *jobs) enter(job *job) {
	if len(j.list) == 0 {
		j.count = 0
	}
	j.count++
	job.number = j.count
	j.list = append(j.list, job)
}

// of returns the job of a group that was stopped, and whether that is still to be said.
func (j *jobs) of(g *group, source string) (_ *job, say bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range j.list {
		if job.group == g {
			say, job.said = !job.said, true
			return job, say
		}
	}
	job := newJob(g, source, true)
	job.said = true
	j.enter(job)
	return job, true
}

// continued notes that the next stop of a job is to be said.
func (j *jobs) continued(job *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	job.said = false
}

func (j *jobs) forget(job *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, other := range j.list {
		if other == job {
			j.list = append(j.list[:i:i], j.list[i+1:]...)
			return
		}
	}
}

// startJob runs source in a process of its own.
func (s *shell) startJob(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	state := jobState{Source: args[0], Params: args[1:], Vars: map[string]expand.Variable{}}
	hc.Env.Each(func(name string, v expand.Variable) bool {
		if v.IsSet() && !v.ReadOnly {
			state.Vars[name] = v
		} else {
			delete(state.Vars, name)
		}
		return true
	})
	var funcs strings.Builder
	for name, body := range s.runner.Funcs {
		funcs.WriteString(source(&syntax.FuncDecl{Parens: true, Name: &syntax.Lit{Value: name}, Body: body}) + "\n")
	}
	state.Funcs = funcs.String()
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return s.fail(hc, 1, "job: %v", err)
	}
	defer r.Close()
	cmd := program(hc, self(), []string{defaultProgramName, jobFlag})
	cmd.ExtraFiles = []*os.File{r} // becomes jobFD
	if s.interactive {
		// Ctrl-C is for the foreground.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	} else if hc.Stdin == os.Stdin {
		cmd.Stdin = nil // POSIX 2.9.3.1
	}
	if err := cmd.Start(); err != nil {
		w.Close()
		return s.fail(hc, 1, "job: %v", err)
	}
	go func() {
		w.Write(data) // a job that is gone has no use for it
		w.Close()
	}()
	g := newGroup()
	g.mu.Lock()
	g.add(cmd)
	g.mu.Unlock()
	job := newJob(g, args[0], s.interactive)
	s.jobs.add(job)
	if s.interactive {
		fmt.Fprintf(hc.Stderr, "[%d] %d\n", job.number, job.pid)
	}
	return nil
}

// runJob is the job's side.
func (s *shell) runJob() int {
	s.traps.unhandled()
	f := os.NewFile(jobFD, "job")
	data, err := io.ReadAll(f)
	f.Close()
	var state jobState
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		fmt.Fprintf(s.stderr, "sh: job: %v\n", err)
		return statusUsage
	}
	for name, v := range state.Vars {
		s.env.vars[name] = v
	}
	interp.Params(append([]string{"--"}, state.Params...)...)(s.runner)
	funcs, err := s.parse("job", []byte(state.Funcs))
	if err != nil {
		fmt.Fprintf(s.stderr, "%v\n", err)
		return statusUsage
	}
	s.run(context.Background(), funcs)
	stmts, err := s.parse("job", []byte(state.Source))
	if err != nil {
		fmt.Fprintf(s.stderr, "%v\n", err)
		return statusUsage
	}
	s.execNext = len(stmts) == 1 && s.isProgram(stmts[0])
	return s.leave(s.run(context.Background(), stmts))
}

// wait waits for jobs, all or those named by pid or %N. A signal with a trap
// ends it, as POSIX wants.
func (s *shell) wait(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	list := s.jobs.all()
	status := 0
	if len(args) > 0 {
		list = nil
		for _, name := range args {
			if job := s.jobs.find(name); job != nil {
				list = append(list, job)
				continue
			}
			status = statusNotFound
			fmt.Fprintf(hc.Stderr, "sh: wait: %s: no such job\n", name)
		}
	}
	for _, job := range list {
		select {
		case <-job.done:
			s.jobs.forget(job)
			s.awaitInterrupt(ctx, job.status)
			if len(args) > 0 {
				status = job.status
			}
		case <-ctx.Done():
			return exitStatus(statusInterrupted)
		case sig := <-s.traps.pending:
			s.traps.note(sig)
			return exitStatus(statusSignal + int(sig.(syscall.Signal)))
		}
	}
	return exitStatus(status)
}

// listJobs is the builtin jobs.
func (s *shell) listJobs(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	for _, job := range s.jobs.all() {
		fmt.Fprintf(hc.Stdout, "[%d]  %d %-12s %s\n", job.number, job.pid, s.jobs.word(job), job.source)
	}
	return nil
}

// word says how a job is; one that has ended is forgotten with that.
func (j *jobs) word(job *job) string {
	select {
	case <-job.done:
	default:
		if job.group.state() == stopped {
			return "Stopped"
		}
		return "Running"
	}
	j.forget(job)
	switch {
	case job.status > statusSignal:
		return syscall.Signal(job.status - statusSignal).String()
	case job.status > 0:
		return fmt.Sprintf("Exit %d", job.status)
	}
	return "Done"
}

// kill is the builtin: -l, -SIGNAL or -s SIGNAL, and pids, -groups and %jobs.
func (s *shell) kill(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	sig := syscall.SIGTERM
	if len(args) > 0 && args[0] == "-l" {
		for n := syscall.Signal(1); n < 32; n++ {
			fmt.Fprintf(hc.Stdout, "%2d %s\n", int(n), signalName(n))
		}
		return nil
	}
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && args[0] != "--" {
		name := args[0][1:]
		args = args[1:]
		if (name == "s" || name == "n") && len(args) > 0 {
			name, args = args[0], args[1:]
		}
		var ok bool
		if sig, ok = signalByName(name); !ok {
			return s.fail(hc, 1, "kill: %s: no such signal", name)
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return s.fail(hc, statusUsage, "kill: give a pid or %%JOB")
	}
	var errs []error
	for _, name := range args {
		pid, err := strconv.Atoi(name)
		if strings.HasPrefix(name, "%") {
			job := s.jobs.find(name)
			if job == nil {
				errs = append(errs, fmt.Errorf("kill: %s: no such job", name))
				continue
			}
			if pid, err = job.pid, nil; job.apart {
				pid = -pid
			}
			if job.group.state() == stopped && (sig == unix.SIGTERM || sig == unix.SIGHUP) {
				defer job.group.resume(false) // which it would get only then
			}
		}
		if err != nil {
			err = errors.New("not a pid")
		} else {
			err = syscall.Kill(pid, sig)
		}
		if err == nil && pid == os.Getpid() {
			s.traps.await(sig)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("kill: %s: %w", name, err))
		}
	}
	for _, err := range errs {
		fmt.Fprintf(hc.Stderr, "sh: %v\n", err)
	}
	if len(errs) > 0 {
		return exitStatus(1)
	}
	return nil
}
