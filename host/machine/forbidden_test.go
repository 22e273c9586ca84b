package machine

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
)

// forbiddenEnv tells this test's binary that it is the one whose host forbids reading the
// memory of QEMU's process.
const forbiddenEnv = "LABCTL_TEST_FORBIDDEN"

// TestInspectForbidden is TestInspect on a host that lets labctl not read the memory of its
// QEMU: the kernel forbids it where the program's file may not be read, to all but those
// with CAP_SYS_PTRACE.
func TestInspectForbidden(t *testing.T) {
	real, err := cachedir.Dir()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin, cache := filepath.Join(dir, "bin"), filepath.Join(dir, "cache")
	for _, d := range []string{bin, cache} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"qemu-system-x86_64"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o111); err != nil {
			t.Fatal(err)
		}
		// QEMU looks for its firmware and its modules beside the directory of its program.
		for _, d := range []string{"share", "lib", "lib64"} {
			if err := os.Symlink(filepath.Join(filepath.Dir(filepath.Dir(path)), d), filepath.Join(dir, d)); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	// Kernels are those of the user's cache; templates of this QEMU are of no use to others.
	for _, name := range []string{"kernels", "default-kernels.json", "busybox", "programs", "apt"} {
		if _, err := os.Stat(filepath.Join(real, name)); err == nil {
			if err := os.Symlink(filepath.Join(real, name), filepath.Join(cache, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInspect$/^amd64$", "-test.v", "-test.timeout=20m")
	cmd.Env = append(os.Environ(), forbiddenEnv+"=1", cachedir.Env+"="+cache, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := runWithout(cmd, unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// runWithout runs a command that can have none of the capabilities (capabilities(7)).
func runWithout(cmd *exec.Cmd, caps ...uintptr) (out []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		for _, c := range caps {
			// Only the superuser has them, and may do this.
			if err = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && os.Geteuid() == 0 {
				return
			}
		}
		out, err = cmd.CombinedOutput()
	}()
	<-done
	return out, err
}
