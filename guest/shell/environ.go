package shell

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/expand"
)

// Variables that adapt has in place of $0, which the interpreter knows only for a
// whole file at once, and of $$, which is the shell's own pid in its jobs too.
const (
	argv0  = "__sh_name"
	ownPID = "__sh_pid"
)

// environ is what the shell starts with, and variables that are made as they are
// read.
type environ struct {
	vars map[string]expand.Variable
	jobs *jobs
}

func newEnviron(env []string, name string, jobs *jobs) *environ {
	e := &environ{vars: map[string]expand.Variable{}, jobs: jobs}
	for _, kv := range env {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			e.export(name, value)
		}
	}
	e.vars[argv0] = expand.Variable{Set: true, Kind: expand.String, Str: name}
	e.vars[ownPID] = expand.Variable{Set: true, Kind: expand.String, Str: strconv.Itoa(os.Getpid())}
	return e
}

// export is for before the runner starts, as it reads without a lock.
func (e *environ) export(name, value string) {
	e.vars[name] = expand.Variable{Set: true, Exported: true, Kind: expand.String, Str: value}
}

func (e *environ) Get(name string) expand.Variable {
	switch name {
	case "!":
		if pid := e.jobs.last(); pid > 0 {
			return expand.Variable{Set: true, Kind: expand.String, Str: strconv.Itoa(pid)}
		}
		return expand.Variable{}
	case "RANDOM":
		return expand.Variable{Set: true, Kind: expand.String, Str: strconv.Itoa(rand.IntN(1 << 15))}
	}
	return e.vars[name]
}

func (e *environ) Each(f func(name string, v expand.Variable) bool) {
	for name, v := range e.vars {
		if !f(name, v) {
			return
		}
	}
}

// exported returns the environment of a program.
func exported(env expand.Environ) []string {
	vars := map[string]string{}
	env.Each(func(name string, v expand.Variable) bool {
		if v.IsSet() && v.Exported && v.Kind == expand.String {
			vars[name] = v.Str
		} else {
			delete(vars, name)
		}
		return true
	})
	list := make([]string, 0, len(vars))
	for name, value := range vars {
		list = append(list, name+"="+value)
	}
	return list
}
