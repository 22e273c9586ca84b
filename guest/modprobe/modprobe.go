// Package modprobe is the guest's modprobe: it inserts and removes the modules that
// labctl has brought, with what they depend on.
//
// Synopsis:
//
//	modprobe [-q] [-v] NAME [PARAMETER=VALUE...]
//	modprobe [-q] [-v] -a NAME...
//	modprobe [-q] [-v] -r NAME...
//
// Description:
//
//	labctl's --module brings modules, and a list of what each depends on,
//	modules.dep(5), to /lib/modules/RELEASE. A module that is there already, or that
//	is built into the kernel, is no error; for -r a module that is not there is.
//
// The exit status is 1 where a module could not be inserted or removed, and 2 for usage.
package modprobe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Main is the program with its arguments, args[0] its own name; it gives the exit
// status.
func Main(args []string, stdout, stderr io.Writer) int {
	o, err := parseArgs(args[1:])
	if err != nil {
		fmt.Fprintf(stderr, "modprobe: %v\nusage: modprobe [-q] [-v] [-a | -r] NAME [PARAMETER=VALUE...]\n", err)
		return 2
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		fmt.Fprintf(stderr, "modprobe: uname: %v\n", err)
		return 1
	}
	status := 0
	say := func(err error) {
		status = 1
		if !o.quiet {
			fmt.Fprintf(stderr, "modprobe: %v\n", err)
		}
	}
	t, err := readTree(path.Join("/lib/modules", unix.ByteSliceToString(u.Release[:])))
	if err != nil {
		say(err)
		return status
	}
	for _, name := range o.names {
		steps, err := t.plan(name)
		if err != nil {
			say(err)
			continue
		}
		if o.remove {
			if err := unix.DeleteModule(fold(name), unix.O_NONBLOCK); err != nil {
				say(fmt.Errorf("remove %s: %w", name, err))
			}
			continue
		}
		for i, file := range steps {
			params := ""
			if i == len(steps)-1 {
				params = o.params
			}
			if o.verbose {
				fmt.Fprintf(stdout, "insmod %s %s\n", path.Join(t.dir, file), params)
			}
			if err := insert(path.Join(t.dir, file), params); err != nil {
				say(err)
				break
			}
		}
	}
	return status
}

type options struct {
	names                  []string
	params                 string
	remove, quiet, verbose bool
}

func parseArgs(args []string) (o options, err error) {
	all := false
	for ; len(args) > 0 && strings.HasPrefix(args[0], "-"); args = args[1:] {
		if args[0] == "--" {
			args = args[1:]
			break
		}
		for _, c := range strings.TrimPrefix(args[0], "-") {
			switch c {
			case 'a':
				all = true
			case 'r':
				o.remove = true
			case 'q', 's':
				o.quiet = true
			case 'v':
				o.verbose = true
			case 'b': // there is no list of modules not to load
			default:
				return o, fmt.Errorf("option %q is not known", args[0])
			}
		}
	}
	if len(args) == 0 {
		return o, errors.New("which module?")
	}
	if all || o.remove {
		o.names = args
		return o, nil
	}
	o.names, o.params = args[:1], strings.Join(args[1:], " ")
	return o, nil
}

// tree is what is in a directory of modules.
type tree struct {
	dir     string
	deps    map[string][]string // module → its file, and those it depends on, deepest last
	builtin map[string]bool
}

// maxList is ample for a list of a kernel's modules, in bytes.
const maxList = 4 << 20

func readTree(dir string) (*tree, error) {
	list := func(name string) (string, error) {
		f, err := os.Open(path.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxList))
		return string(b), err
	}
	deps, err := list("modules.dep")
	if err != nil {
		return nil, err
	}
	builtin, err := list("modules.builtin")
	if err != nil {
		return nil, err
	}
	t := &tree{dir: dir, deps: parseDep(deps), builtin: map[string]bool{}}
	for line := range strings.Lines(builtin) {
		t.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return t, nil
}

// parseDep reads modules.dep: "FILE: FILE...", the module's own and those that it needs,
// the last of which is to be inserted first.
func parseDep(text string) map[string][]string {
	deps := map[string][]string{}
	for line := range strings.Lines(text) {
		file, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if name := moduleName(file); ok && name != "" {
			deps[name] = append([]string{file}, strings.Fields(needs)...)
		}
	}
	return deps
}

// moduleName is the kernel's name for the module in a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return fold(name)
}

func fold(name string) string { return strings.ReplaceAll(name, "-", "_") }

// plan returns the files to be inserted for a module, in order; none for one that is
// built in.
func (t *tree) plan(name string) ([]string, error) {
	files, ok := t.deps[fold(name)]
	if !ok {
		if t.builtin[fold(name)] {
			return nil, nil
		}
		return nil, fmt.Errorf("module %s is not in this guest; start it with --module %s", name, name)
	}
	files = slices.Clone(files)
	slices.Reverse(files)
	return files, nil
}

func insert(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), params, 0)
	switch {
	case err == nil || errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("insert %s: a symbol or parameter that it names is not known (dmesg says which)", moduleName(file))
	}
	return fmt.Errorf("insert %s: %w (dmesg may say why)", moduleName(file), err)
}
