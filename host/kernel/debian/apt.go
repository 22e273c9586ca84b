// Package debian downloads Debian's kernel packages with apt without changing the
// host: every pull uses a private apt root, which has its own sources, lists,
// cache and status, and runs none of the host's hooks. Only the mirror, the
// keyring and the Acquire settings (proxies and the like) come from the host. apt
// verifies the signature of the suite's index with the keyring, and the checksum
// of every package with the index.
package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"labctl/host/bounded"
	"labctl/host/cachedir"
	"labctl/host/outcome"
)

// Root is a private apt root for one suite and one architecture. It is not safe
// for concurrent use; the caller must lock it.
type Root struct {
	Dir       string // created if missing
	Suite     string // "trixie"
	Component string // "main"
	Arch      string // Debian's name: "arm64"
	Updated   bool   // the index was just fetched; do not fetch it again
}

// Package is a package's entry in the suite's index.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
}

func (r *Root) archives() string     { return filepath.Join(r.Dir, "archives") }
func (r *Root) partialLists() string { return filepath.Join(r.Dir, "state/lists/partial") }
func (r *Root) conf() string         { return filepath.Join(r.Dir, "apt.conf") }

// archive returns the path where apt stores a package of an architecture or of
// "all".
func (r *Root) archive(p Package, arch string) string {
	// apt quotes the colon of an epoch.
	return filepath.Join(r.archives(), fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), arch))
}

// setUp writes the root's configuration from the host's current settings and
// returns the keyring files that it trusts. Lists and partial downloads of earlier
// runs are kept, so that apt can resume.
func (r *Root) setUp(ctx context.Context) (keyrings []string, err error) {
	host, err := readHost(ctx)
	if err != nil {
		return nil, err
	}
	src, err := host.origin(os.Getenv("LABCTL_DEBIAN_MIRROR"))
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"archives/partial", "cache", "state/lists/partial", "etc/none"} {
		if err := cachedir.Make(filepath.Join(r.Dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("create apt root: %w", err)
		}
	}
	trusted, trustedParts := filepath.Join(r.Dir, "etc/none/trusted.gpg"), filepath.Join(r.Dir, "etc/none")
	signedBy := src.keyrings
	if src.keyBlock != "" {
		signedBy = []string{filepath.Join(r.Dir, "etc/mirror.asc")}
		if err := os.WriteFile(signedBy[0], []byte(src.keyBlock), 0o644); err != nil {
			return nil, fmt.Errorf("create apt root: %w", err)
		}
	}
	options := "arch=" + r.Arch
	if len(signedBy) > 0 {
		options += " signed-by=" + strings.Join(signedBy, ",")
		keyrings = signedBy
	} else {
		trusted, trustedParts = host.trusted, host.trustedParts
		for _, pattern := range []string{trusted, trustedParts + "/*.gpg", trustedParts + "/*.asc"} {
			found, _ := filepath.Glob(pattern)
			keyrings = append(keyrings, found...)
		}
	}

	var b strings.Builder
	set := func(key, val string) { fmt.Fprintf(&b, "%s \"%s\";\n", key, val) }
	for _, o := range host.acquire {
		set(o.key, o.value)
	}
	for _, o := range []struct{ key, value string }{
		{"Dir::State", filepath.Join(r.Dir, "state")},
		{"Dir::State::status", filepath.Join(r.Dir, "state/status")},
		{"Dir::Cache", filepath.Join(r.Dir, "cache")},
		{"Dir::Cache::archives", r.archives()},
		{"Dir::Log", filepath.Join(r.Dir, "state")},
		{"Dir::Etc", filepath.Join(r.Dir, "etc")},
		{"Dir::Etc::main", "none/apt.conf"},
		{"Dir::Etc::parts", "none"}, // that is where the host's hooks are
		{"Dir::Etc::sourcelist", filepath.Join(r.Dir, "etc/sources.list")},
		{"Dir::Etc::sourceparts", filepath.Join(r.Dir, "etc/none")},
		{"Dir::Etc::preferences", filepath.Join(r.Dir, "etc/none/preferences")},
		{"Dir::Etc::preferencesparts", filepath.Join(r.Dir, "etc/none")},
		{"Dir::Etc::trusted", trusted},
		{"Dir::Etc::trustedparts", trustedParts},
		{"APT::Architecture", r.Arch},
		{"APT::Architectures", r.Arch},
		// As root, apt would download as the user _apt, who has no access to a
		// private directory.
		{"APT::Sandbox::User", "root"},
		// A partly fetched index must count as an error.
		{"APT::Update::Error-Mode", "any"},
		{"Acquire::Languages", "none"},
		{"Acquire::AllowInsecureRepositories", "false"},
		{"Acquire::AllowWeakRepositories", "false"},
		{"Acquire::AllowDowngradeToInsecureRepositories", "false"},
		{"APT::Get::AllowUnauthenticated", "false"},
	} {
		set(o.key, o.value)
	}
	files := map[string]string{
		r.conf():                                 b.String(),
		filepath.Join(r.Dir, "state/status"):     "",
		filepath.Join(r.Dir, "etc/sources.list"): fmt.Sprintf("deb [%s] %s %s %s\n", options, src.uri, r.Suite, r.Component),
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("create apt root: %w", err)
		}
	}
	return keyrings, r.forgetRefused()
}

// Resolve fetches the suite's index and resolves a meta package: it returns
// every package named linux-* that the meta package depends on at an exact
// version, recursively. Up to 6.12 that is one image package; from 7.x it is an
// image package that depends on its parts. The image package comes first.
func (r *Root) Resolve(ctx context.Context, meta string, report func(Progress)) (_ []Package, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err) // problems with the archive are not the user's
	if err := r.update(ctx, report); err != nil {
		return nil, err
	}
	first, err := r.show(ctx, []exactDep{{name: meta}})
	if err != nil {
		return nil, err
	}
	var pkgs []Package
	seen := map[string]bool{meta: true}
	for next := exactKernelDeps(first[0]); len(next) > 0; {
		var ask []exactDep
		for _, d := range next {
			if !seen[d.name] {
				seen[d.name], ask = true, append(ask, d)
			}
		}
		if next = nil; len(ask) == 0 {
			break
		}
		if len(pkgs)+len(ask) > 32 {
			return nil, fmt.Errorf("package %s depends on more than 32 kernel packages", meta)
		}
		stanzas, err := r.show(ctx, ask)
		if err != nil {
			return nil, err
		}
		for _, s := range stanzas {
			p, err := packageOf(s)
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(p.Name, "linux-image-") {
				pkgs = append([]Package{p}, pkgs...)
			} else {
				pkgs = append(pkgs, p)
			}
			next = append(next, exactKernelDeps(s)...)
		}
	}
	if len(pkgs) == 0 || !strings.HasPrefix(pkgs[0].Name, "linux-image-") {
		return nil, fmt.Errorf("package %s of %s does not depend on an image package", meta, r.Suite)
	}
	return pkgs, nil
}

// update fetches the suite's index.
func (r *Root) update(ctx context.Context, report func(Progress)) error {
	if r.Updated {
		return nil
	}
	report(Progress{Stage: StageIndex})
	keyrings, err := r.setUp(ctx)
	if err != nil {
		return err
	}
	err = r.apt(ctx, "apt-get", []string{"-q", "update"}, func(float64) { report(Progress{Stage: StageIndex}) }, nil)
	if err != nil && ctx.Err() == nil {
		if why := r.refusedIndex(keyrings); why != nil {
			err = why
		}
	}
	if err != nil {
		return fmt.Errorf("fetch the index of %s: %w", r.Suite, err)
	}
	return nil
}

// show returns one stanza per package, in the order of deps.
func (r *Root) show(ctx context.Context, deps []exactDep) ([]map[string]string, error) {
	args := []string{"show", "--no-all-versions", "--"}
	for _, d := range deps {
		args = append(args, d.spec())
	}
	var out bytes.Buffer
	if err := r.apt(ctx, "apt-cache", args, nil, &out); err != nil {
		if strings.Contains(err.Error(), "No packages found") { // of none of them
			return nil, &MissingError{Package: deps[0].spec(), Suite: r.Suite}
		}
		return nil, fmt.Errorf("look up %s in %s: %w", args[len(args)-1], r.Suite, err)
	}
	byName := map[string]map[string]string{}
	for _, s := range parseControl(out.String()) {
		if byName[s["Package"]] == nil {
			byName[s["Package"]] = s
		}
	}
	stanzas := make([]map[string]string, len(deps))
	for i, d := range deps {
		s := byName[d.name]
		if s == nil || (d.version != "" && s["Version"] != d.version) {
			return nil, &MissingError{Package: d.spec(), Suite: r.Suite}
		}
		stanzas[i] = s
	}
	return stanzas, nil
}

// MissingError is a package that the suite's index does not have.
type MissingError struct{ Package, Suite string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("package %s is not in %s", e.Package, e.Suite)
}

// Outcome is HostLacks: the archive is not what the user named.
func (e *MissingError) Outcome() outcome.Kind { return outcome.HostLacks }

// Download fetches the packages and returns their files, in the order of pkgs. It
// resumes a partial download; if that fails, it starts again from scratch.
func (r *Root) Download(ctx context.Context, pkgs []Package, report func(Progress)) (_ []string, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err)
	var total int64
	args := []string{"-q", "download", "--"}
	for _, p := range pkgs {
		total += p.Size
		args = append(args, exactDep{p.Name, p.Version}.spec())
	}
	progress := func(percent float64) {
		report(Progress{Stage: StageDownload, Done: int64(percent / 100 * float64(total)), Total: total})
	}
	progress(0)
	err = r.apt(ctx, "apt-get", args, progress, nil)
	if err != nil && ctx.Err() == nil && r.hasPartial() {
		if err := r.clearArchives(); err != nil {
			return nil, err
		}
		err = r.apt(ctx, "apt-get", args, progress, nil)
	}
	if err != nil && ctx.Err() == nil {
		if why := r.refusedPackage(pkgs); why != nil {
			err = why
		}
	}
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", pkgs[0].Name, err)
	}
	progress(100)
	var files []string
	for _, p := range pkgs {
		for _, arch := range []string{r.Arch, "all"} {
			if f := r.archive(p, arch); fileExists(f) {
				files = append(files, f)
				break
			}
		}
	}
	if len(files) != len(pkgs) {
		return nil, fmt.Errorf("download %s: apt succeeded, but only %d of %d files are in %s", pkgs[0].Name, len(files), len(pkgs), r.archives())
	}
	return files, nil
}

func (r *Root) hasPartial() bool {
	for _, d := range []string{r.archives(), filepath.Join(r.archives(), "partial")} {
		entries, _ := os.ReadDir(d)
		for _, e := range entries {
			if e.Type().IsRegular() {
				return true
			}
		}
	}
	return false
}

// Drop removes the root with everything downloaded into it: once a kernel is in
// the cache, neither its packages nor the 20 MB of the suite's index are needed.
// An incomplete pull keeps its root, so that the next one can resume.
func (r *Root) Drop() error {
	if err := os.RemoveAll(r.Dir); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("remove apt root: %w", err))
	}
	return nil
}

// clearArchives removes downloaded packages, complete and partial.
func (r *Root) clearArchives() error {
	if err := os.RemoveAll(r.archives()); err != nil {
		return fmt.Errorf("remove downloads: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(r.archives(), "partial"), 0o755); err != nil {
		return fmt.Errorf("remove downloads: %w", err)
	}
	return nil
}

func fileExists(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular()
}

// apt runs an apt program in the root.
func (r *Root) apt(ctx context.Context, prog string, args []string, percent func(float64), stdout io.Writer) error {
	if err := os.MkdirAll(filepath.Join(r.Dir, "cache"), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, prog, args...)
	cmd.Dir = r.archives() // where `apt-get download` writes
	cmd.Env = append(cleanEnv(), "APT_CONFIG="+r.conf())
	cmd.Stdout = stdout
	if percent != nil {
		cmd.Args = append([]string{prog, "-o", "APT::Status-Fd=3"}, args...)
	}
	return run(ctx, cmd, percent)
}

// cleanEnv returns an environment in which apt asks no questions and its messages
// are in the form that this package parses.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "LC_") && !strings.HasPrefix(e, "LANG") && !strings.HasPrefix(e, "APT_CONFIG=") {
			env = append(env, e)
		}
	}
	return append(env, "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
}

// run runs cmd in its own process group. When the context ends, the whole group is
// asked to terminate and then killed, so that none of apt's child processes
// outlives the call. If labctl itself is killed, the kernel terminates apt.
func run(ctx context.Context, cmd *exec.Cmd, percent func(float64)) error {
	// The parent-death signal is tied to the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	stderr := &bounded.Tail{Max: 8 << 10}
	cmd.Stderr = stderr

	done := make(chan struct{})
	if percent == nil {
		close(done)
	} else {
		pr, pw, err := os.Pipe()
		if err != nil {
			return err
		}
		defer pr.Close()
		cmd.ExtraFiles = []*os.File{pw}
		go func() {
			defer close(done)
			readStatus(pr, percent)
		}()
		defer pw.Close()
	}
	if err := cmd.Start(); err != nil {
		for _, f := range cmd.ExtraFiles {
			f.Close()
		}
		<-done
		if errors.Is(err, exec.ErrNotFound) {
			return errNoApt(cmd.Args[0])
		}
		return err
	}
	for _, f := range cmd.ExtraFiles {
		f.Close() // the reader ends when apt and its children have
	}
	err := cmd.Wait()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-done
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		if why := aptErrors(stderr.String()); why != "" {
			return fmt.Errorf("%s: %s", cmd.Args[0], why)
		}
		return fmt.Errorf("%s: %w", cmd.Args[0], err)
	}
	return nil
}

// readStatus parses apt's status lines, "dlstatus:ITEM:PERCENT:TEXT".
func readStatus(r io.Reader, percent func(float64)) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), ":", 4)
		if len(f) < 3 || f[0] != "dlstatus" {
			continue
		}
		if p, err := strconv.ParseFloat(f[2], 64); err == nil && p >= 0 && p <= 100 {
			percent(p)
		}
	}
	io.Copy(io.Discard, r)
}

// aptErrors returns the last of apt's warnings and errors; apt often puts the cause
// in a warning and only the failure in an error. Without either it returns the last
// line of the output.
func aptErrors(stderr string) string {
	var warnings, errs, rest []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if e, ok := strings.CutPrefix(line, "E: "); ok {
			errs = append(errs, e)
		} else if w, ok := strings.CutPrefix(line, "W: "); ok {
			warnings = append(warnings, w)
		} else if line != "" {
			rest = append(rest, line)
		}
	}
	lines := append(warnings, errs...)
	if len(lines) == 0 {
		lines = rest
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// errNoApt returns the error for a host without apt.
func errNoApt(prog string) error {
	return fmt.Errorf("%w: %s is not installed, so labctl cannot pull Debian kernels; use an image file instead: --kernel ./bzImage", ErrHostLacks, prog)
}
