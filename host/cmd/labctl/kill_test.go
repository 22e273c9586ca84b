package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"labctl/host/kernel"
)

var (
	kills    = flag.Int("kills", 8, "how often TestKill kills labctl")
	killSeed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "the seed of TestKill's moments")
)

// killMark is a variable by which the processes of one run are known, QEMU and
// go included.
const killMark = "LABCTL_TEST_RUN="

// killKinds are ways through labctl. Each run is killed before limit, which is more than
// most take on a quiet machine to do what is of interest; one that ends before is no
// fault, unless its program waits for its input.
var killKinds = []struct {
	name  string
	limit time.Duration
	waits bool
	args  string
}{
	{"warm", time.Second, true, "exec -- cat"},
	{"making", 6 * time.Second, true, "exec --mem 256 --append labctl.test=N -- cat"}, // the template
	{"trace", 2 * time.Second, true, "trace --event sched:sched_switch --stacks --out out -- cat"},
	{"build", 2 * time.Second, true, "exec -- ./prog"},
	{"lab", 4 * time.Second, false, "lab run P1 --out out"},
	{"cold", 5 * time.Second, true, "exec --cold -- cat"},
	{"matrix", 5 * time.Second, false, "matrix run --kernels 6.12 --labs P1,P2 --jobs 1 --out out"},
	{"check", 4 * time.Second, false, "lab check P1 exercise"},
}

// TestKill kills labctl with SIGKILL at random moments: nothing that it started
// lives on, no file of it is left, and what it keeps can still be used.
func TestKill(t *testing.T) {
	t.Logf("-seed %d gives the same moments again", *killSeed)
	k := newKillGround(t)
	arches := []string{"amd64", "arm64"}
	var wg sync.WaitGroup
	for _, arch := range arches {
		wg.Go(func() { k.works(t, arch) })
	}
	wg.Wait()
	if t.Failed() {
		t.Fatal("nothing was killed yet")
	}
	for i, arch := range arches {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(*killSeed, uint64(i)))
			for n := i; n < *kills; n += len(arches) {
				kind := killKinds[n/len(arches)%len(killKinds)]
				wait := time.Duration(random.Int64N(int64(kind.limit)))
				args := strings.Fields(strings.ReplaceAll(kind.args, "=N", fmt.Sprint("=", n)))
				at := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "--") })
				if at < 0 {
					at = len(args)
				}
				on := []string{"--arch", arch}
				if kind.name != "matrix" {
					on = append(on, "--kernel", "6.12")
				}
				args = slices.Insert(args, at, on...)
				for i, a := range args {
					if a == "out" { // a record is what was asked for, however it ends
						args[i] = filepath.Join(k.records, fmt.Sprint(n))
					}
				}
				k.kill(t, fmt.Sprintf("%s %s after %v", arch, kind.name, wait), wait, kind.waits, args...)
			}
		})
	}
	wg.Wait()
	k.clean(t)
	for _, arch := range arches {
		wg.Go(func() { k.works(t, arch) })
	}
	wg.Wait()
	k.clean(t)
	// A build that was killed is swept by the next.
	if left, err := os.ReadDir(filepath.Join(k.cache, "build")); err != nil || len(left) > 0 {
		t.Errorf("left behind of builds: %v, %v", left, err)
	}
}

// killGround is where the runs of TestKill are: directories of their own.
type killGround struct {
	dir, tmp, cache, records string
	mark                     string
}

func newKillGround(t *testing.T) *killGround {
	user, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	k := &killGround{
		dir: filepath.Join(root, "dir"), tmp: filepath.Join(root, "tmp"), cache: filepath.Join(root, "cache"), records: filepath.Join(root, "records"),
		mark: fmt.Sprintf("%s%d-%d", killMark, os.Getpid(), time.Now().UnixNano()),
	}
	for _, dir := range []string{k.tmp, k.cache, k.records, filepath.Join(k.dir, "prog")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"go.mod":  "module prog\n",
		"main.go": "package main\n\nimport (\n\t\"fmt\"\n\t\"io\"\n\t\"os\"\n)\n\nfunc main() {\n\tfmt.Println(\"built\")\n\tio.Copy(os.Stdout, os.Stdin)\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(k.dir, "prog", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("labctl", "lab", "solve", "P1", filepath.Join(k.dir, "exercise")).CombinedOutput(); err != nil {
		t.Fatalf("labctl lab solve P1: %v\n%s", err, out)
	}
	// Kernels and archives are the user's; templates and notes are this test's.
	for _, name := range []string{"kernels", "apt", "initramfs"} {
		if err := os.MkdirAll(filepath.Join(user.Dir(), name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(user.Dir(), name), filepath.Join(k.cache, name)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k *killGround) command(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "labctl", args...)
	cmd.Dir = k.dir
	cmd.Env = append(os.Environ(), "TMPDIR="+k.tmp, "LABCTL_CACHE="+k.cache, k.mark)
	cmd.WaitDelay = 20 * time.Second // go holds standard error for a while
	return cmd
}

// works runs programs to their end.
func (k *killGround) works(t *testing.T, arch string) {
	for _, prog := range []string{"cat", "./prog"} {
		cmd := k.command(t, "exec", "--arch", arch, "--kernel", "6.12", "--", prog)
		cmd.Stdin = strings.NewReader("input\n")
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if want := map[string]string{"cat": "input\n", "./prog": "built\ninput\n"}[prog]; err != nil || string(out) != want {
			t.Errorf("%s on %s gave %q, %v; want %q\n%s", prog, arch, out, err, want, &said)
		}
	}
}

// kill starts labctl, kills it, and waits for all that it has started to end.
func (k *killGround) kill(t *testing.T, what string, wait time.Duration, waits bool, args ...string) {
	cmd := k.command(t, args...)
	mark := cmd.Env[len(cmd.Env)-1] + "-" + strings.ReplaceAll(what, " ", "-")
	cmd.Env[len(cmd.Env)-1] = mark
	in, err := cmd.StdinPipe() // the program waits for it
	if err != nil {
		t.Error(err)
		return
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	time.Sleep(wait)
	if err := cmd.Process.Kill(); err != nil && waits {
		t.Errorf("%s: %v: it had ended", what, err)
	}
	cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for left := marked(mark); len(left) > 0; left = marked(mark) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Errorf("%s: left running: %q", what, left)
			return
		}
	}
}

// marked lists the command lines of processes with a mark in their environment.
func marked(mark string) (lines []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		env, err := os.ReadFile(filepath.Join(d, "environ"))
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), mark) {
			continue
		}
		if line, err := os.ReadFile(filepath.Join(d, "cmdline")); err == nil && len(line) > 0 {
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

// clean looks for what should not be there.
func (k *killGround) clean(t *testing.T) {
	gc, err := k.command(t, "vm", "gc").CombinedOutput()
	if err != nil {
		t.Errorf("labctl vm gc: %v\n%s", err, gc)
	}
	for dir, may := range map[string][]string{
		k.dir:                        {"prog", "exercise"},
		k.tmp:                        {"goimports"}, // by golang.org/x/tools when it runs in a test binary
		k.cache:                      {"kernels", "apt", "initramfs", "templates", "build", "run", "programs", "busybox", "run", "accel.json", "qemu.json", "qemu-features.json", "default-kernels.json"},
		filepath.Join(k.dir, "prog"): {"go.mod", "main.go"},
	} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if !slices.Contains(may, e.Name()) {
				t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
			}
		}
	}
	whole, _ := filepath.Glob(filepath.Join(k.cache, "templates", "*.json"))
	for _, kind := range []string{"ram", "state", "console", "hits"} {
		if got, _ := filepath.Glob(filepath.Join(k.cache, "templates", "*."+kind)); len(got) != len(whole) {
			t.Errorf("%d files .%s of %d templates", len(got), kind, len(whole))
		}
	}
	if locks, _ := filepath.Glob(filepath.Join(k.cache, "templates", "*.lock")); len(locks) > 0 {
		t.Errorf("left behind: %v", locks)
	}
}
