package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"labctl/host/faults"
	"labctl/host/kernel"
	"labctl/host/vm/qemu"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"labctl": main})
}

// TestScript runs labctl as a user would. Scripts under vm/ boot real kernels
// from the user's own cache, so that only the first run downloads; the others
// have an empty cache.
func TestScript(t *testing.T) {
	runScripts(t, "testdata/script", func(env *testscript.Env) {
		env.Setenv("LABCTL_CACHE", filepath.Join(env.WorkDir, "cache"))
	})
}

func TestScriptVM(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, "testdata/vm", func(env *testscript.Env) {
		env.Setenv("LABCTL_CACHE", cache.Dir())
	})
}

func runScripts(t *testing.T, dir string, setup func(*testscript.Env)) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// The guest's programs are built with the caches of this user.
			for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GONOSUMDB", "GOSUMDB", "GOTOOLCHAIN"} {
				if v := goEnv(t, name); v != "" {
					env.Setenv(name, v)
				}
			}
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, "tmp"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "run"))
			setup(env)
			return errors.Join(os.MkdirAll(filepath.Join(env.WorkDir, "tmp"), 0o755), os.Mkdir(filepath.Join(env.WorkDir, "run"), 0o700))
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"disk":       disk,
			"empty":      empty,
			"empty-file": emptyFile,
			"fault":      fault,
			"noqemu":     noQEMU,
			"terminal":   terminal,
			"wrap":       wrap,
		},
	})
}

// mounts reports whether a file system can be mounted here, by trial.
var mounts = sync.OnceValues(func() (bool, error) {
	dir, err := os.MkdirTemp("", "labctl-mounts-")
	if err != nil {
		return false, err
	}
	defer os.Remove(dir)
	if unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k") != nil {
		return false, nil
	}
	return true, unix.Unmount(dir, 0)
})

// condition is of what not every host has: a mount of its own, the board raspi4b, which not every QEMU knows,
// and the debug package of 6.12 for arm, which is 700 MB.
func condition(cond string) (bool, error) {
	switch cond {
	case "mounts": // root in a container may not
		return mounts()
	case "raspi4b":
		return qemu.HasMachine("qemu-system-aarch64", cond)
	case "debug-package":
		cache, err := kernel.Open("")
		if err != nil {
			return false, err
		}
		k, err := cache.Find(kernel.Ref{Suite: "trixie", Series: "6.12"}, "arm")
		if err != nil {
			return false, nil
		}
		path, _ := k.DebugFile()
		return path != "", nil
	}
	return false, fmt.Errorf("condition %q is not known", cond)
}

func goEnv(t *testing.T, name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// fault KERNEL FAULT DIR ARCH...: the source of a program that loads a kernel module
// with a fault, for one kernel, is in the directory.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: fault KERNEL FAULT DIR ARCH...")
	}
	cache, err := kernel.Open(ts.Getenv("LABCTL_CACHE"))
	ts.Check(err)
	ref, err := kernel.ParseRef(args[0])
	ts.Check(err)
	modules := map[string][]byte{}
	for _, arch := range args[3:] {
		k, err := cache.Get(context.Background(), ref, arch, nil)
		ts.Check(err)
		donors, err := k.Modules(faults.Donor)
		ts.Check(err)
		for _, d := range donors {
			if d.Name == faults.Donor {
				modules[arch], err = faults.Build(d.Data, d.Name, faults.Fault(args[1]))
				ts.Check(err)
			}
		}
	}
	ts.Check(faults.WriteProgram(ts.MkAbs(args[2]), modules))
}

// wrap FORM KERNEL ARCH FILE: the image of a kernel of the cache, as it is (bare) or in
// another form (xz, uImage, nosymbols), is written to a file.
func wrap(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: wrap FORM KERNEL ARCH FILE")
	}
	cache, err := kernel.Open(ts.Getenv("LABCTL_CACHE"))
	ts.Check(err)
	ref, err := kernel.ParseRef(args[1])
	ts.Check(err)
	k, err := cache.Get(context.Background(), ref, args[2], nil)
	ts.Check(err)
	data, err := os.ReadFile(k.Image())
	ts.Check(err)
	var out bytes.Buffer
	switch args[0] {
	case "bare":
		out.Write(data)
	case "xz":
		w, err := xz.NewWriter(&out)
		ts.Check(err)
		_, err = w.Write(data)
		ts.Check(err)
		ts.Check(w.Close())
	case "uImage": // what mkimage puts before it: magic, length, and the type of a kernel
		head := make([]byte, 64)
		binary.BigEndian.PutUint32(head, 0x27051956)
		binary.BigEndian.PutUint32(head[12:], uint32(len(data)))
		head[30] = 2
		out.Write(append(head, data...))
	case "nosymbols":
		out.Write(withoutSymbols(ts, data))
	default:
		ts.Fatalf("wrap: form %q is not known", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), out.Bytes(), 0o644))
}

// withoutSymbols blanks the index of the tokens of kallsyms' names in a flat image: 256
// ascending offsets of two bytes (scripts/kallsyms.c). The kernel boots, and finds no
// symbol of its own by name.
func withoutSymbols(ts *testscript.TestScript, image []byte) []byte {
	rising := func(b []byte) bool {
		for i := 2; i < 512; i += 2 {
			if d := int(binary.LittleEndian.Uint16(b[i:])) - int(binary.LittleEndian.Uint16(b[i-2:])); d < 2 || d > 64 {
				return false
			}
		}
		return binary.LittleEndian.Uint16(b) == 0
	}
	blanked := 0
	for at := 0; at+512 <= len(image); at += 4 {
		if rising(image[at:]) {
			clear(image[at : at+512])
			blanked++
		}
	}
	if blanked == 0 {
		ts.Fatalf("the image has no index of tokens: is it compressed?")
	}
	return image
}

// disk DIR SIZE: a file system of its own, of a size as of mount(8), is at the directory.
func disk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: disk DIR SIZE")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { ts.Check(unix.Unmount(dir, unix.MNT_DETACH)) })
}

// empty DIR: nothing is left in the directory.
func empty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: empty DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	if err != nil && !os.IsNotExist(err) {
		ts.Fatalf("%v", err)
	}
	for _, e := range entries {
		// golang.org/x/tools makes this directory here when it runs in a test binary.
		if e.Name() != "goimports" {
			ts.Fatalf("%s holds %v, want nothing", args[0], entries)
		}
	}
}

// hangs are reports of a guest whose host has no time for it.
var hangs = regexp.MustCompile(`(?m)^labctl: kernel (?:soft lockup|stall|hung task): .*\n`)

// empty-file FILE...: the files are there, with nothing in them but hangs.
func emptyFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: empty-file FILE...")
	}
	for _, name := range args {
		if text := hangs.ReplaceAllString(ts.ReadFile(name), ""); text != "" {
			ts.Fatalf("%s holds %q, want nothing", name, text)
		}
	}
}

// noqemu: no QEMU of this script's is left. They are told by the script's own
// directory, which is the TMPDIR in their environment.
func noQEMU(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: noqemu")
	}
	if left := qemusOf(ts.Getenv("TMPDIR")); len(left) > 0 {
		ts.Fatalf("QEMU is left behind: %v", left)
	}
}

// qemusOf lists the QEMU processes whose environment has this TMPDIR.
func qemusOf(tmp string) []string {
	var left []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		env, err := os.ReadFile(filepath.Join(d, "environ"))
		if err != nil || !strings.Contains("\x00"+string(env), "\x00TMPDIR="+tmp+"\x00") {
			continue
		}
		cmd, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err == nil && strings.HasPrefix(filepath.Base(strings.SplitN(string(cmd), "\x00", 2)[0]), "qemu-system-") {
			left = append(left, filepath.Base(d))
		}
	}
	return left
}
