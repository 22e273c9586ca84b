package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel/internal/synth"
)

// The tests below run the host's apt against a signed archive on a local web
// server. On a host without apt they expect ErrHostLacks.

const (
	image   = "linux-image-7.2.12+deb14-arm64"
	version = "7.2.12-1"
)

func split(payload string) []synth.Package {
	pkgs := []synth.Package{
		{Name: "linux-image-arm64", Version: version, Depends: "linux-base-arm64 (= " + version + "), " + image + " (= " + version + ")", Deb: []byte("meta")},
		{Name: "linux-base-arm64", Version: version, Depends: "linux-base (>= 4.0)", Deb: []byte("meta base")},
		{Name: image, Version: version, Depends: "kmod | x, linux-modules-7.2.12 (= " + version + ")", Deb: []byte("image " + payload)},
		{Name: "linux-modules-7.2.12", Version: version, Deb: []byte("modules " + payload)},
		{Name: "linux-base", Version: "4.12", Deb: []byte("not wanted")},
	}
	return pkgs
}

func newRoot(t *testing.T) *Root {
	return &Root{Dir: filepath.Join(t.TempDir(), "apt", "forky-arm64"), Suite: "forky", Component: "main", Arch: "arm64"}
}

// haveApt reports whether apt is installed; if not, it checks that Resolve reports it.
func haveApt(t *testing.T) bool {
	if _, err := exec.LookPath("apt-get"); err == nil {
		return true
	}
	if _, err := newRoot(t).Resolve(t.Context(), "linux-image-arm64", func(Progress) {}); !errors.Is(err, ErrHostLacks) {
		t.Errorf("without apt: got %v, want ErrHostLacks", err)
	}
	return false
}

func TestRoot(t *testing.T) {
	if !haveApt(t) {
		return
	}
	repo := synth.NewRepo(t, "forky", "arm64", split(strings.Repeat("x", 1<<20))...)
	r := newRoot(t)
	var last Progress
	report := func(p Progress) { last = p }
	pkgs, err := r.Resolve(t.Context(), "linux-image-arm64", report)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range pkgs {
		names = append(names, p.Name+" "+p.Version)
	}
	want := []string{image + " " + version, "linux-base-arm64 " + version, "linux-modules-7.2.12 " + version}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	files, err := r.Download(t.Context(), pkgs, report)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || int64(len(b)) != pkgs[i].Size || sum(b) != pkgs[i].SHA256 {
			t.Errorf("%s: %d bytes, %v; want %d", f, len(b), err, pkgs[i].Size)
		}
	}
	if last.Stage != StageDownload || last.Done != last.Total || last.Total < 2<<20 {
		t.Errorf("last progress %+v", last)
	}
	if repo.HooksRan() {
		t.Error("a hook of the host ran")
	}
	conf, err := os.ReadFile(r.conf())
	if err != nil || !bytes.Contains(conf, []byte(`Acquire::Check-Valid-Until "false";`)) || bytes.Contains(conf, []byte("Invoke")) {
		t.Errorf("apt.conf, %v:\n%s", err, conf)
	}
	if err := r.Drop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Drop: %v", err)
	}
}

// Only signed contents are used: every way to inject something must fail.
func TestRootVerifies(t *testing.T) {
	if !haveApt(t) {
		return
	}
	flip := func(t *testing.T, name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// at signs in the past, so that a signature can have expired.
	at := func(ago time.Duration) *packet.Config {
		return &packet.Config{Time: func() time.Time { return time.Now().Add(-ago) }}
	}
	edit := func(t *testing.T, name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.Replace(b, []byte("Label: Debian"), []byte("Label: Debiam"), 1), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	type change func(t *testing.T, r *synth.Repo)
	tests := []struct {
		name   string
		change change
		want   string // in labctl's words, whatever apt's are
	}{
		{"no signature", func(t *testing.T, r *synth.Repo) { r.Unsign() }, "it is not signed"},
		{"index changed", func(t *testing.T, r *synth.Repo) { flip(t, r.Path("dists/forky/main/binary-arm64/Packages")) },
			"list of packages does not match its signed Release"},
		{"package changed", func(t *testing.T, r *synth.Repo) { flip(t, r.Path("pool", image+"_"+version+"_arm64.deb")) },
			"the mirror's " + image + " " + version + " has SHA-256 "},
	}
	for name, inline := range map[string]bool{"Release": false, "InRelease": true} {
		file, signature := "dists/forky/"+name, "dists/forky/Release.gpg"
		damaged := "the signature of Release is damaged"
		if inline {
			signature, damaged = file, "InRelease has no signature"
		}
		for _, tt := range []struct {
			name   string
			change change
			want   string
		}{
			{"changed", func(t *testing.T, r *synth.Repo) {
				r.Sign(inline, nil)
				edit(t, r.Path(file))
			}, name + " is not what KEY signed"},
			{"signed by another key", func(t *testing.T, r *synth.Repo) {
				r.Key = synth.NewKey(t, at(time.Minute))
				r.Sign(inline, nil)
			}, name + " is not signed by a key in /"},
			{"with an expired signature", func(t *testing.T, r *synth.Repo) {
				r.Trust(synth.NewKey(t, at(2*time.Hour)))
				how := at(time.Hour)
				how.SigLifetimeSecs = 60
				r.Sign(inline, how)
			}, name + " is signed by KEY, but the signature has expired"},
			{"with a login page for a signature", func(t *testing.T, r *synth.Repo) {
				r.Sign(inline, nil)
				if err := os.WriteFile(r.Path(signature), []byte("<html>who are you?</html>\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}, damaged},
		} {
			tt.name = name + " " + tt.name
			tests = append(tests, tt)
		}
	}
	// Some versions of apt still accept what an expired key signed before it expired.
	tests = append(tests, struct {
		name   string
		change change
		want   string
	}{"signed by an expired key", func(t *testing.T, r *synth.Repo) {
		how := at(2 * time.Hour)
		how.KeyLifetimeSecs = 60
		r.Trust(synth.NewKey(t, how))
		r.Sign(true, nil)
	}, "InRelease is signed by an expired key (KEY)"})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			repo := synth.NewRepo(t, "forky", "arm64", split("payload")...)
			tt.change(t, repo)
			r := newRoot(t)
			pkgs, err := r.Resolve(t.Context(), "linux-image-arm64", func(Progress) {})
			if err == nil {
				_, err = r.Download(t.Context(), pkgs, func(Progress) {})
			}
			want := strings.ReplaceAll(tt.want, "KEY", fmt.Sprintf("%016X", repo.Key.PrimaryKey.KeyId))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// TestRefusalIsOfThisUpdate: leftovers of an earlier update do not affect the error of
// a later one.
func TestRefusalIsOfThisUpdate(t *testing.T) {
	if !haveApt(t) {
		return
	}
	repo := synth.NewRepo(t, "forky", "arm64", split("payload")...)
	repo.Unsign()
	r := newRoot(t)
	lookup := func() error {
		_, err := r.Lookup(t.Context(), "linux-image-arm64", "", func(Progress) {})
		return err
	}
	if err := lookup(); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Fatalf("unsigned: got %v, want that", err)
	}
	repo.Close()
	if err := lookup(); err == nil || strings.Contains(err.Error(), "signed") || !strings.Contains(err.Error(), repo.URL) {
		t.Errorf("without a server: got %v, want apt's own words", err)
	}
}

func TestRootCancelAndResume(t *testing.T) {
	if !haveApt(t) {
		return
	}
	repo := synth.NewRepo(t, "forky", "arm64", split("payload")...)
	r := newRoot(t)
	pkgs, err := r.Resolve(t.Context(), "linux-image-arm64", func(Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var hung atomic.Bool
	release := make(chan struct{})
	repo.Before(func(path string) {
		if strings.Contains(path, image) && hung.CompareAndSwap(false, true) {
			cancel()
			<-release
		}
	})
	began := time.Now()
	_, err = r.Download(ctx, pkgs, func(Progress) {})
	if !errors.Is(err, context.Canceled) || time.Since(began) > 20*time.Second {
		t.Errorf("cancelled download: %v after %v", err, time.Since(began))
	}
	close(release)
	if _, err := r.Download(t.Context(), pkgs, func(Progress) {}); err != nil {
		t.Errorf("download after a cancelled one: %v", err)
	}
}

// The whole process group goes when the context ends.
func TestRunKillsGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("trap '' TERM; sleep 600 & echo $! > %s.new; mv %[1]s.new %[1]s; wait", pidFile))
	done := make(chan error, 1)
	go func() { done <- run(ctx, cmd, nil) }()
	var pid int
	for deadline := time.Now().Add(10 * time.Second); pid == 0; time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(pidFile)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		if time.Now().After(deadline) {
			t.Fatal("the shell did not start")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	gone := false
	for deadline := time.Now().Add(5 * time.Second); !gone && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		gone = errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || zombie(pid)
	}
	if !gone {
		t.Errorf("process %d is still there", pid)
	}
}

// zombie reports whether a process has exited but was not reaped: its parent is gone
// and there may be no init that reaps it.
func zombie(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(state, "Z")
}
