package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
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
	cache string // the cache of an architecture that it has, other than that of most
}{
	{"warm", time.Second, true, "exec -- cat", ""},
	{"making", 6 * time.Second, true, "exec --mem 256 --append labctl.test=N -- cat", ""}, // the template
	{"trace", 2 * time.Second, true, "trace --event sched:sched_switch --stacks --out out -- cat", ""},
	{"build", 2 * time.Second, true, "exec -- ./prog", ""},
	{"lab", 4 * time.Second, false, "lab run P1 --out out", ""},
	{"cold", 5 * time.Second, true, "exec --cold -- cat", ""},
	{"matrix", 5 * time.Second, false, "matrix run --kernels 6.12 --labs P1,P2 --jobs 1 --out out", ""},
	{"check", 4 * time.Second, false, "lab check P1 exercise", ""},
	{"pull", 30 * time.Second, false, "kernel pull 6.12-cloud", "pulled"},
	{"initramfs", 15 * time.Second, true, "exec --cold -- cat", "built"},
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
				if kind.name != "matrix" && kind.name != "pull" {
					on = append(on, "--kernel", "6.12")
				}
				args = slices.Insert(args, at, on...)
				for i, a := range args {
					if a == "out" { // a record is what was asked for, however it ends
						args[i] = filepath.Join(k.records, fmt.Sprint(n))
					}
				}
				k.ready(t, kind.cache, arch)
				k.kill(t, fmt.Sprintf("%s %s after %v", arch, kind.name, wait), k.cacheOf(kind.cache, arch), wait, kind.waits, args...)
			}
		})
	}
	wg.Wait()
	k.clean(t)
	for _, arch := range arches {
		wg.Go(func() {
			k.works(t, arch)
			if *kills >= len(arches)*len(killKinds) { // all kinds were killed
				k.pulls(t, arch)
				k.builds(t, arch)
			}
		})
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
	user                     string // the user's cache
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
	k.user = user.Dir()
	k.borrow(t, k.cache, "kernels", "apt", "initramfs")
	for _, arch := range []string{"amd64", "arm64"} {
		k.borrow(t, k.cacheOf("pulled", arch), "initramfs", "busybox")
		k.borrow(t, k.cacheOf("built", arch), "kernels", "apt", "busybox")
	}
	return k
}

// borrow gives a cache directories of the user's.
func (k *killGround) borrow(t *testing.T, cache string, names ...string) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(k.user, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(k.user, name), filepath.Join(cache, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// cacheOf is the cache of kinds that have another than most, one for each architecture.
func (k *killGround) cacheOf(name, arch string) string {
	if name == "" {
		return k.cache
	}
	return k.cache + "-" + name + "-" + arch
}

// ready takes from a cache what is whole, so that it is made again beside what others left
// when they were killed.
func (k *killGround) ready(t *testing.T, cache, arch string) {
	like := map[string]string{"pulled": "kernels/debian/[^.]*", "built": "initramfs/*.cpio"}[cache]
	if like == "" {
		return
	}
	whole, err := filepath.Glob(filepath.Join(k.cacheOf(cache, arch), like))
	if err != nil {
		t.Error(err)
	}
	for _, name := range whole {
		if err := os.RemoveAll(name); err != nil {
			t.Error(err)
		}
	}
}

// pulls pulls a kernel and boots it, and looks for what pulls that were killed have left.
func (k *killGround) pulls(t *testing.T, arch string) {
	cache := k.cacheOf("pulled", arch)
	out, err := k.commandWith(t, cache, "exec", "--arch", arch, "--kernel", "6.12-cloud", "--", "uname", "-r").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-cloud-"+arch) {
		t.Errorf("the kernel that was pulled for %s: %v\n%s", arch, err, out)
	}
	got := names(t, filepath.Join(cache, "kernels", "debian"))
	if got = slices.DeleteFunc(got, func(name string) bool { return strings.HasPrefix(name, ".lock-") }); len(got) != 1 {
		t.Errorf("left behind of pulls for %s: %q; want one kernel", arch, got)
	}
	if got := names(t, filepath.Join(cache, "apt")); len(got) > 0 {
		t.Errorf("left behind of pulls for %s: %q", arch, got)
	}
}

// builds boots an initramfs that is built beside what builds that were killed have left:
// it has the same bytes as the user's.
func (k *killGround) builds(t *testing.T, arch string) {
	cache := k.cacheOf("built", arch)
	cmd := k.commandWith(t, cache, "exec", "--cold", "--arch", arch, "--kernel", "6.12", "--", "cat")
	cmd.Stdin = strings.NewReader("input\n")
	if out, err := cmd.Output(); err != nil || string(out) != "input\n" {
		t.Errorf("an initramfs that was built for %s: %q, %v", arch, out, err)
	}
	same := 0
	for _, name := range names(t, filepath.Join(cache, "initramfs")) {
		if strings.HasPrefix(name, ".") || strings.Contains(name, "tmp") {
			t.Errorf("left behind of builds for %s: %s", arch, name)
		}
		if !strings.HasSuffix(name, ".cpio") {
			continue
		}
		got, err := os.ReadFile(filepath.Join(cache, "initramfs", name))
		if err != nil {
			t.Error(err)
		}
		want, err := os.ReadFile(filepath.Join(k.user, "initramfs", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, which are not the %d of the user's cache: %v", name, len(got), len(want), err)
		}
		same++
	}
	if same == 0 {
		t.Errorf("no initramfs was built for %s", arch)
	}
}

// names are those in a directory, which need not be there.
func names(t *testing.T, dir string) (all []string) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func (k *killGround) command(t *testing.T, args ...string) *exec.Cmd {
	return k.commandWith(t, k.cache, args...)
}

func (k *killGround) commandWith(t *testing.T, cache string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "labctl", args...)
	cmd.Dir = k.dir
	cmd.Env = append(os.Environ(), "TMPDIR="+k.tmp, "LABCTL_CACHE="+cache, k.mark)
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
func (k *killGround) kill(t *testing.T, what, cache string, wait time.Duration, waits bool, args ...string) {
	cmd := k.commandWith(t, cache, args...)
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
