package main

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"time"

	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/vm"
)

// logs is where a guest's console goes: to the folder out, or, when that is
// empty, to one that is made at the end, if there is something to look at in it.
// keep is for that end, with the run's error.
func (a *app) logs(env *machine.Env, out, name string) (dir record.Dir, keep func(error) error, err error) {
	if out != "" {
		dir, err = record.Create(out, name, time.Now())
		return dir, func(error) error { return nil }, err
	}
	spool := new(vm.Spool)
	env.Spool = spool
	dir.Path = filepath.Join(os.TempDir(), "labctl-"+name+"-"+rand.Text())
	return dir, func(err error) error {
		if !needsLog(err) {
			return nil
		}
		return spool.Save()
	}, nil
}

// needsLog says whether a run's console is worth keeping.
func needsLog(err error) bool {
	var boot *vm.BootError
	var late *vm.DeadlineError
	var crashed *vm.CrashError
	return errors.As(err, &boot) || errors.As(err, &crashed) || errors.As(err, &late)
}
