package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"labctl/host/kernel"
)

// asStored are files of the cache that are not made from others: what was downloaded,
// what has nothing in it that could be wrong, and seals, without which a file is made
// again, too.
var asStored = regexp.MustCompile(`^(kernels/debian/[^/]*/(vmlinuz|config|btf|modules\.zip|kernel\.json|stamps\.json|dtb/.*)|.*\.(lock|hits|sum)|.*/\.lock-.*)$`)

// TestFlippedBytes changes a byte in every file of a cache that labctl has made from
// others, all at once: the next run has the right result, says what is made again, and
// leaves the cache sound. What is downloaded is damaged in host/kernel's tests.
func TestFlippedBytes(t *testing.T) {
	user, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := kernel.ParseRef("6.12")
	if err != nil {
		t.Fatal(err)
	}
	k, err := user.Get(t.Context(), ref, "amd64", nil)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	dir := filepath.Join(cache, "kernels/debian", filepath.Base(k.Dir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vmlinuz", "config", "btf", "modules.zip", "kernel.json"} {
		if out, err := exec.Command("cp", filepath.Join(k.Dir, name), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	out := t.TempDir()
	labctl := func(args ...string) (stdout, stderr string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "labctl", args...)
		cmd.Dir, cmd.Env = out, append(os.Environ(), "LABCTL_CACHE="+cache, "TMPDIR="+out)
		var said strings.Builder
		cmd.Stderr = &said
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("labctl %s: %v\n%s%s", strings.Join(args, " "), err, b, &said)
		}
		return string(b), said.String()
	}
	runs := 0
	run := func() string {
		t.Helper()
		runs++
		got, said := labctl("trace", "--func", "vfs_read", "--kernel", "6.12", "--arch", "amd64", "--out", filepath.Join(out, fmt.Sprint("trace", runs)), "--", "uname")
		if !strings.HasPrefix(got, "Linux\n") {
			t.Errorf("trace %d printed %q", runs, got)
		}
		return said
	}
	run()
	var flipped []string
	err = filepath.WalkDir(cache, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(cache, path)
		if err != nil || asStored.MatchString(name) {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		flipped = append(flipped, name)
		at := len(b) / 2
		for b[at] == 0 && at > 0 { // of a template's memory something that is in use
			at--
		}
		b[at] ^= 1
		return os.WriteFile(path, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	kinds := []string{"/vmlinux", "/facts-1.json", "/functions-1", "/kallsyms-1", ".ram", ".state", ".console", ".cpio", "/goenv-", "/go.mod", "default-kernels.json", "qemu-features.json"}
	// The verdict on KVM, where there is something to try.
	if _, err := os.Stat("/dev/kvm"); err == nil {
		kinds = append(kinds, "accel.json")
	}
	for _, kind := range kinds {
		if !slices.ContainsFunc(flipped, func(name string) bool { return strings.Contains(name, kind) }) {
			t.Errorf("no file of kind %q in the cache: %q", kind, flipped)
		}
	}
	said := run()
	for _, want := range []string{`vmlinux: .*: made again\n`, `template [0-9a-f]*: .* made again\n`} {
		if !regexp.MustCompile(want).MatchString(said) {
			t.Errorf("after the flips it did not say %q:\n%s", want, said)
		}
	}
	if got, _ := labctl("doctor", "--deep"); strings.Contains(got, "damaged") || strings.Contains(got, "LACKS") {
		t.Errorf("labctl doctor --deep afterwards:\n%s", got)
	}
}
