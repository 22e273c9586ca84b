// Package kbuild builds kernels from source: a tree, a tarball or Debian's
// linux-source package, configured with the fragments in kconfig/.
//
// It uses the tree's own tools: scripts/kconfig/merge_config.sh merges the
// fragments into allnoconfig, make olddefconfig sets the remaining options, and
// make builds out of tree. Every requested option is then checked in the result;
// an option that was dropped is an error that names the unmet dependency.
//
// A build uses three directories of the cache, each locked by one process at a
// time: kernels/src/ has the sources that labctl unpacked, kernels/obj/NAME-ARCH
// the objects, which the next build of that name reuses, and
// kernels/build/NAME-ARCH the finished kernel.
package kbuild

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"labctl/host/arch"
	"labctl/host/cachedir"
	"labctl/host/kernel"
	"labctl/host/kernel/check"
	"labctl/host/kernel/debian"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/targets"
	"labctl/host/text"
)

// recipe is part of every key; increment it when the build steps change.
const recipe = "2"

// Builder builds kernels into a cache. Several processes may build at the same
// time.
type Builder struct {
	cache            *kernel.Cache
	sources, objects string

	// Say is called with messages about the build's steps, Pull with the progress
	// of apt, Made with the progress of make. Each may be nil.
	Say  func(line string)
	Pull func(what string, p debian.Progress)
	Made func(Progress)
}

// Progress is the progress of make.
type Progress struct {
	Arch   string
	Done   int    // objects
	Total  int    // estimated from an earlier build; 0 without one
	Object string // the most recent one
}

// Request describes a kernel to build.
type Request struct {
	Name   string // default: PROFILE-SERIES
	Arch   string
	Source Source
	Fresh  bool // check Debian for a newer source package
	Plan   *Plan
	Jobs   int // 0: one per CPU
}

// New returns a builder that stores kernels in cache.
func New(cache *kernel.Cache) (*Builder, error) {
	b := &Builder{cache: cache}
	b.sources, b.objects = cache.BuildDirs()
	for _, dir := range []string{b.sources, b.objects} {
		if err := cachedir.Make(dir, 0o755); err != nil {
			return nil, fmt.Errorf("prepare to build: %w", err)
		}
	}
	b.Say = func(string) {}
	b.Pull = func(string, debian.Progress) {}
	b.Made = func(Progress) {}
	return b, nil
}

// Result is a kernel that was built or found in the cache.
type Result struct {
	*kernel.Kernel
	Cached  bool   `json:"cached"`  // a cached build with the same key was used
	Objects string `json:"objects"` // directory of the objects, with vmlinux and its symbols
}

// job is a running build.
type job struct {
	*Builder
	Request
	arch    arch.Arch
	tree    *tree
	obj     string // directory of the objects
	options []Option
	fixes   []fix
	kconfig *rules // nil until they are read
	built   kernel.Built
	log     *os.File
}

// Build builds a kernel, or returns a cached build with the same key.
func (b *Builder) Build(ctx context.Context, req Request) (*Result, error) {
	a, err := archOf(req.Arch)
	if err != nil {
		return nil, err
	}
	if req.Name != "" {
		if err := kernel.ValidBuildName(req.Name); err != nil {
			return nil, err
		}
	}
	wantBTF := slices.ContainsFunc(req.Plan.Options, func(o Option) bool { return o.Name == "DEBUG_INFO_BTF" && o.Value == "y" })
	if err := checkTools(ctx, a, wantBTF); err != nil {
		return nil, fmt.Errorf("build for %s: %w", a.Name, err)
	}
	t, err := b.open(ctx, req.Source, req.Fresh)
	if err != nil {
		return nil, err
	}
	if req.Name == "" {
		req.Name = defaultName(req.Plan, t.source.Release)
	}
	j := &job{Builder: b, Request: req, arch: a, tree: t, obj: filepath.Join(b.objects, req.Name+"-"+a.Name)}
	res, err := j.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("build kernel %s for %s: %w", req.Name, a.Name, err)
	}
	return res, nil
}

var series = regexp.MustCompile(`^[0-9]+\.[0-9]+`)

// defaultName returns PROFILE-SERIES: "lab-6.12".
func defaultName(p *Plan, release string) string {
	name := "own"
	if p.Profile != nil {
		name = p.Profile.Name
	}
	return name + "-" + series.FindString(release)
}

func (j *job) run(ctx context.Context) (*Result, error) {
	target := compiler{ctx: ctx, command: []string{j.arch.CrossCompile() + "gcc"}}
	host := compiler{ctx: ctx, command: []string{"gcc"}}
	j.fixes = fixesFor(fixes(), j.tree.dir, j.arch.Name, host, target)
	if err := j.dropIdleFixes(); err != nil {
		return nil, err
	}
	for _, f := range j.fixes {
		if f.Refuse != "" {
			return nil, outcome.Hostf("this compiler cannot build %s: %s (%s)", j.tree.source.Release, f.Refuse, f.Symptom)
		}
		j.built.Fixes = append(j.built.Fixes, f.Name)
	}
	var err error
	if j.built.Compiler, err = target.version(); err != nil {
		return nil, err
	}
	j.built.Source, j.built.Fragments = j.tree.source, j.Plan.Fragments
	if j.Plan.Profile != nil {
		j.built.Profile = j.Plan.Profile.Name
	}
	if j.built.Key, err = j.key(ctx); err != nil {
		return nil, err
	}
	if k := j.cache.FindBuild(j.Name, j.Arch, j.built.Key); k != nil {
		return &Result{Kernel: k, Cached: true, Objects: j.obj}, nil
	}
	lock, err := j.lock(ctx, j.obj+".lock", "another labctl is building "+j.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if k := j.cache.FindBuild(j.Name, j.Arch, j.built.Key); k != nil {
		return &Result{Kernel: k, Cached: true, Objects: j.obj}, nil
	}
	if err := cachedir.Make(j.obj, 0o755); err != nil {
		return nil, err
	}
	if j.log, err = os.Create(j.obj + ".log"); err != nil {
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	defer j.log.Close()
	if len(j.fixes) > 0 {
		j.Say(fmt.Sprintf("for this tree and compiler: %s (see kconfig/compilers.yaml)", strings.Join(j.built.Fixes, ", ")))
	}
	began := time.Now()
	cfg, err := j.configure(ctx)
	if err != nil {
		return nil, err
	}
	if err := j.make(ctx, cfg); err != nil {
		return nil, err
	}
	j.built.Seconds = time.Since(began).Seconds()
	k, err := j.cache.PutBuild(ctx, j.Name, j.Arch, j.built, func(dir string) error { return j.collect(ctx, cfg, dir) })
	if err != nil {
		return nil, err
	}
	return &Result{Kernel: k, Objects: j.obj}, nil
}

// dropIdleFixes leaves out the fixes that only set options of which the tree has none.
func (j *job) dropIdleFixes() error {
	if !slices.ContainsFunc(j.fixes, fix.onlyConfig) {
		return nil
	}
	kc, err := j.rules()
	if err != nil {
		return err
	}
	j.fixes = slices.DeleteFunc(j.fixes, func(f fix) bool {
		options, err := f.options()
		return err == nil && f.onlyConfig() && len(applicable(kc, options)) == 0
	})
	return nil
}

// rules returns what the tree's Kconfig files define.
func (j *job) rules() (*rules, error) {
	if j.kconfig == nil {
		kc, err := readRules(j.tree.dir, j.arch.Build.Source)
		if err != nil {
			return nil, outcome.Default(outcome.BadInput, err)
		}
		j.kconfig = kc
	}
	return j.kconfig, nil
}

// lock acquires a lock; if another process holds it, lock reports wait.
func (b *Builder) lock(ctx context.Context, path, wait string) (*scratch.Lock, error) {
	lock, err := scratch.TryLock(path)
	if errors.Is(err, scratch.ErrLocked) {
		b.Say("waiting: " + wait)
		lock, err = scratch.TakeLock(ctx, path)
	}
	return lock, err
}

// key returns the hash of all inputs of the build.
func (j *job) key(ctx context.Context) (string, error) {
	type line struct {
		Line    string
		IfKnown bool
	}
	var lines []line
	for _, o := range j.Plan.Options {
		lines = append(lines, line{o.line(), o.IfKnown})
	}
	pahole, _ := compiler{ctx: ctx, command: []string{"pahole"}}.version() // "" without pahole: no BTF
	data, err := json.Marshal(struct {
		Recipe, Source, Arch, Compiler, Pahole string
		Options                                []line
		Fixes                                  []fix
		Features                               []string
	}{recipe, j.tree.source.Hash, j.Arch, j.built.Compiler, pahole, lines, j.fixes, j.features()})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (j *job) features() []string {
	if j.Plan.Profile == nil {
		return nil
	}
	return j.Plan.Profile.FeaturesOf(j.Arch)
}

// args returns the variables passed to every run of make.
func (j *job) args(more ...string) []string {
	cc, hostCC := []string{j.arch.CrossCompile() + "gcc"}, []string{"gcc"}
	var kcflags []string
	for _, f := range j.fixes {
		cc, hostCC, kcflags = append(cc, f.CC...), append(hostCC, f.HostCC...), append(kcflags, f.KCFlags...)
	}
	if _, err := exec.LookPath("ccache"); err == nil {
		cc, hostCC = append([]string{"ccache"}, cc...), append([]string{"ccache"}, hostCC...)
	}
	args := []string{
		"-C", j.tree.dir, "O=" + j.obj, "ARCH=" + j.arch.Build.ARCH, "CROSS_COMPILE=" + j.arch.CrossCompile(),
		"CC=" + strings.Join(cc, " "), "HOSTCC=" + strings.Join(hostCC, " "),
		// Make builds reproducible, also for ccache.
		"KBUILD_BUILD_USER=labctl", "KBUILD_BUILD_HOST=labctl", "KBUILD_BUILD_VERSION=1", "KBUILD_BUILD_TIMESTAMP=" + j.timestamp(),
		"LOCALVERSION=", // no "+" for a tree under git
	}
	if len(kcflags) > 0 {
		args = append(args, "KCFLAGS="+strings.Join(kcflags, " "))
	}
	return append(args, more...)
}

// timestamp returns the tree's time in the format of date(1).
func (j *job) timestamp() string {
	when := time.Unix(0, 0)
	if st, err := os.Stat(filepath.Join(j.tree.dir, "Makefile")); err == nil {
		when = st.ModTime()
	}
	return when.UTC().Format("Mon Jan _2 15:04:05 UTC 2006")
}

// configure merges the options and returns the resulting configuration.
func (j *job) configure(ctx context.Context) (values, error) {
	kc, err := j.rules()
	if err != nil {
		return nil, err
	}
	options := j.Plan.Options
	for _, f := range j.fixes {
		more, err := f.options()
		if err != nil {
			return nil, err
		}
		options = merge(options, more)
	}
	j.options = applicable(kc, options)

	var lines strings.Builder
	for _, o := range j.options {
		fmt.Fprintln(&lines, o.line())
	}
	file := filepath.Join(j.obj, ".config")
	before, _ := os.ReadFile(file)
	work, err := os.MkdirTemp(j.obj, ".configure-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	asked := filepath.Join(work, "asked.config")
	if err := os.WriteFile(asked, []byte(lines.String()), 0o644); err != nil {
		return nil, err
	}
	// merge_config.sh calls plain make, so the variables are passed in the
	// environment; it is run to merge only.
	base := filepath.Join(work, ".config")
	for _, step := range [][]string{
		append(j.args("KCONFIG_CONFIG="+base), "allnoconfig"),
		{},
		append(j.args("KCONFIG_CONFIG="+base), "olddefconfig"),
	} {
		if len(step) == 0 {
			err = j.merge(ctx, work, base, asked)
		} else {
			err = makeRun{step: "configure", dir: j.obj, args: step, log: j.log}.run(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	after, err := os.ReadFile(base)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	cfg := values(kernel.ParseConfig(after))
	lost, lacking := impossible(kc, verify(kc, cfg, j.options))
	for _, l := range slices.Concat(lost, lacking) {
		fmt.Fprintln(j.log, "lost:", l)
	}
	if len(lost) > 0 {
		return nil, &LostError{Release: j.tree.source.Release, Arch: j.Arch, Lost: lost}
	}
	for _, l := range lacking {
		j.Say(fmt.Sprintf("%s cannot have CONFIG_%s on %s, so this kernel lacks it: %s", j.tree.source.Release, l.Name, j.Arch, l.Why))
	}
	lookup := func(option string) (string, bool) { return kernel.Value(cfg, option) }
	var missing []check.Missing
	for _, m := range check.Check(lookup, j.features()...) {
		if kc.attainable(m.Name) {
			missing = append(missing, m)
			continue
		}
		if m.Name == "DEBUG_INFO_BTF" && cfg.detached() {
			continue // see types
		}
		if m.Always && !kc.known(m.Name) {
			continue
		}
		j.Say(fmt.Sprintf("%s has no CONFIG_%s on %s, so this kernel lacks feature %s: %s", j.tree.source.Release, m.Name, j.Arch, m.Feature, m.Why))
	}
	if len(missing) > 0 {
		return nil, &check.Error{Kernel: j.tree.source.Release, Missing: missing}
	}
	// Keep the time of an unchanged file, so that make does not rebuild everything.
	if string(before) != string(after) {
		if err := scratch.Write(file, after, 0o644); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// merge merges a fragment into base with the tree's merge_config.sh.
func (j *job) merge(ctx context.Context, work, base, asked string) error {
	// It writes .config in its output directory, which is base.
	cmd := exec.CommandContext(ctx, "sh", filepath.Join(j.tree.dir, "scripts/kconfig/merge_config.sh"), "-m", "-O", work, base, asked)
	cmd.Dir, cmd.Env = j.tree.dir, makeEnv()
	out, err := cmd.CombinedOutput()
	if _, logErr := j.log.Write(out); err == nil {
		err = logErr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		last := strings.TrimSpace(string(out))
		last = last[strings.LastIndexByte(last, '\n')+1:]
		return &MakeError{Step: "merge the fragments", First: text.Line(last, 240), Log: j.log.Name(), Err: err}
	}
	return nil
}

// make builds the image, the modules and the device trees of labctl's machines.
func (j *job) make(ctx context.Context, cfg values) error {
	jobs := j.Jobs
	if jobs == 0 {
		jobs = runtime.NumCPU()
	}
	goals := []string{j.arch.Build.Target}
	if cfg["MODULES"] == "y" {
		goals = append(goals, "modules")
	}
	goals = append(goals, j.deviceTrees(cfg)...)
	// kernel/bounds.s is the first file that the build of any tree makes: with it, and
	// without vmlinux, one goes on that was interrupted.
	whole := !isFile(filepath.Join(j.obj, "vmlinux")) && !isFile(filepath.Join(j.obj, "kernel/bounds.s"))
	done, total := 0, 0
	if whole { // for an incremental build the number of objects cannot be estimated
		total = estimateOf(j.Arch, len(cfg))
	}
	j.Made(Progress{Arch: j.Arch, Total: total})
	err := makeRun{step: "make", dir: j.obj, args: append(j.args("-j"+strconv.Itoa(jobs)), goals...), log: j.log, count: func(object string) {
		done++
		j.Made(Progress{Arch: j.Arch, Done: done, Total: total, Object: object})
	}}.run(ctx)
	if err != nil {
		return err
	}
	j.built.Objects = done
	if whole {
		remember(j.Arch, len(cfg), done)
	}
	return nil
}

// effort is the number of objects of a build and the number of options set.
type effort struct{ Options, Objects int }

const effortNote = "kernelbuild-%s.json"

func remember(goarch string, options, objects int) {
	_ = cachedir.Remember(fmt.Sprintf(effortNote, goarch), effort{options, objects}) // only an estimate
}

// estimateOf estimates the number of objects from the last full build for an
// architecture; 0 if there was none.
func estimateOf(goarch string, options int) int {
	var e effort
	if !cachedir.Recall(fmt.Sprintf(effortNote, goarch), &e) || e.Options <= 0 || e.Objects <= 0 || e.Objects > 1_000_000 {
		return 0
	}
	return e.Objects * options / e.Options
}

// deviceTrees returns the device trees of labctl's machines that this configuration
// builds, as make targets: "broadcom/bcm2837-rpi-3-b.dtb".
func (j *job) deviceTrees(cfg values) []string {
	var out []string
	if cfg["ARCH_BCM2835"] != "y" {
		return nil
	}
	for _, t := range targets.All {
		if t.Arch != j.Arch || t.DTB == "" {
			continue
		}
		// 32-bit device trees moved into vendor directories in 6.5.
		for _, name := range []string{t.DTB, "broadcom/" + t.DTB} {
			if isFile(filepath.Join(j.tree.dir, j.arch.Build.DTBs, strings.TrimSuffix(name, ".dtb")+".dts")) {
				out = append(out, name)
				break
			}
		}
	}
	return out
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// collect copies the files of the finished kernel to dir.
func (j *job) collect(ctx context.Context, cfg values, dir string) error {
	files := map[string]string{j.arch.Build.Images[0]: "vmlinuz", ".config": "config"}
	for _, dtb := range j.deviceTrees(cfg) {
		files[filepath.Join(j.arch.Build.DTBs, dtb)] = filepath.Join("dtb", dtb)
	}
	for from, to := range files {
		data, err := os.ReadFile(filepath.Join(j.obj, from))
		if err != nil {
			return outcome.Default(outcome.BadInput, fmt.Errorf("missing build output: %w", err))
		}
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	if cfg.detached() {
		j.types(ctx, filepath.Join(dir, "btf"))
	}
	if cfg["MODULES"] != "y" {
		return nil
	}
	stage, err := os.MkdirTemp(j.obj, ".modules-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	// No depmod: dependencies are read from the modules when they are loaded.
	err = makeRun{step: "install the modules", dir: j.obj, log: j.log,
		args: append(j.args("INSTALL_MOD_PATH="+stage, "INSTALL_MOD_STRIP=1", "DEPMOD=true"), "modules_install")}.run(ctx)
	if err != nil {
		return err
	}
	return zipModules(stage, filepath.Join(dir, "modules.zip"))
}

// detached reports whether a kernel's types have to be generated after the build: it
// has debug information, and its tree does not make BTF of it, as before 5.2.
func (v values) detached() bool { return v["DEBUG_INFO"] == "y" && v["DEBUG_INFO_BTF"] != "y" }

// types generates a kernel's BTF from its debug information. A kernel without it has
// fewer arguments and no structures, but is a kernel.
func (j *job) types(ctx context.Context, to string) {
	cmd := exec.CommandContext(ctx, "pahole", "--btf_encode_detached="+to, filepath.Join(j.obj, "vmlinux"))
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	fmt.Fprintf(j.log, "$ %s\n%s", strings.Join(cmd.Args, " "), out)
	if st, statErr := os.Stat(to); err == nil && (statErr != nil || st.Size() == 0) {
		err = errors.New("it wrote no BTF")
	}
	if err != nil {
		os.Remove(to)
		j.Say(fmt.Sprintf("pahole made no BTF of this kernel's debug information, so it lacks struct offsets and prototypes: %v (log: %s)", err, j.log.Name()))
	}
}

// zipModules packs lib/modules/RELEASE below stage, with names relative to it.
func zipModules(stage, to string) error {
	roots, err := filepath.Glob(filepath.Join(stage, "lib", "modules", "*"))
	if err != nil || len(roots) != 1 {
		return outcome.Inputf("modules were installed into %d directories; want one", len(roots))
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	zw := zip.NewWriter(f)
	zw.RegisterCompressor(debian.ZipZstd, zstd.ZipCompressor(zstd.WithEncoderLevel(zstd.SpeedFastest)))
	err = filepath.WalkDir(roots[0], func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() { // build and source are links into the tree
			return err
		}
		name, err := filepath.Rel(roots[0], path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		w, err := zw.CreateHeader(&zip.FileHeader{Name: filepath.ToSlash(name), Method: debian.ZipZstd})
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("pack the modules: %w", err)
	}
	return errors.Join(zw.Close(), f.Close())
}
