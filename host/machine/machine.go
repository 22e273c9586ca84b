// Package machine turns names into a booted guest: a target, a kernel, an agent link
// that both support, the modules for it, an initramfs and an accelerator.
package machine

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"labctl/guest/wire"
	"labctl/host/image/initramfs"
	"labctl/host/kernel"
	"labctl/host/kernel/check"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/record"
	"labctl/host/registry"
	"labctl/host/targets"
	"labctl/host/vm"
	"labctl/host/vm/accel"
	"labctl/host/vm/qemu"
	"labctl/host/vm/warm"
)

// Spec is the user's request. Zero values mean the defaults.
type Spec struct {
	Arch     string // GOARCH; default: the board's or the host's
	Board    string
	Kernel   string // as accepted by kernel.ParseRef; default: the newest cached long-term series
	CPUs     int
	MemoryMB int
	Nodes    int      `json:",omitempty"` // NUMA nodes; 0 is 1
	Append   []string // more kernel arguments
	Commands bool     // u-root's shell and commands in the initramfs
	Modules  []string // to be inserted after the boot, with their dependencies
	Features []string // of kconfig/features.yaml, in addition to the target's
	Patience float64  // see vm.Config
	Cold     bool     // cold boot, without a template
	From     string   // a checkpoint to start from; it has settled all above but Features and Patience

	// Held has the machine of a checkpoint stand still until vm.VM.Wake: a debugger's way
	// back.
	Held bool

	saved *warm.Checkpoint // From, once it was opened
}

// MinNodeMB is the memory of a NUMA node at least.
const MinNodeMB = 128

// Env has the caches to use and the functions to call on progress.
type Env struct {
	Cache *kernel.Cache
	Say   func(line string)
	Pull  func(what string, p kernel.Progress) // what names the kernel
	Spool *vm.Spool                            // for Boot's logs; nil: write them to files directly
	Warm  func()                               // called when the machine's template exists, so that others can start from it
}

// PullOf returns Pull for one kernel.
func (e Env) PullOf(ref kernel.Ref, arch string) func(kernel.Progress) {
	return e.pull(fmt.Sprintf("kernel %s for %s", ref, arch))
}

func (e Env) pull(what string) func(kernel.Progress) {
	if e.Pull == nil {
		return nil
	}
	return func(p kernel.Progress) { e.Pull(what, p) }
}

// Machine is a guest that can be booted.
type Machine struct {
	Target  targets.Target
	Kernel  *kernel.Kernel
	Link    targets.Link
	Verdict accel.Verdict
	QEMU    string // version

	spec    Spec
	image   string
	initrd  string
	dtb     string
	modules []initramfs.Module // for the link, in the initramfs
	extra   []kernel.Module    // that were asked for, in load order
}

// FindTarget returns the target for --arch and --board.
func FindTarget(arch, board string) (targets.Target, error) {
	name, flag := arch, "--arch"
	if board != "" {
		name, flag = board, "--board"
	}
	if name == "" {
		return targets.Host(), nil
	}
	var known []string
	for _, t := range targets.All {
		if t.Board == (board != "") {
			known = append(known, t.Name)
		}
	}
	t, ok := targets.Find(name)
	switch {
	case ok && t.Board && board == "":
		return t, outcome.Inputf("--arch %s: this is a board; use --board %s", name, name)
	case ok && !t.Board && board != "":
		return t, outcome.Inputf("--board %s: this is an architecture; use --arch %s", name, name)
	case !ok:
		return t, nearest.Unknown(flag, name, known)
	case board != "" && arch != "" && arch != t.Arch:
		return t, outcome.Inputf("--board %s is %s, not --arch %s; omit --arch", board, t.Arch, arch)
	}
	return t, nil
}

// Prepare finds or creates everything that a boot needs.
func Prepare(ctx context.Context, env Env, spec Spec) (*Machine, error) {
	if err := Settle(env, &spec); err != nil { // opens a checkpoint, too
		return nil, err
	}
	m := &Machine{spec: spec}
	var err error
	if m.Target, err = FindTarget(spec.Arch, spec.Board); err != nil {
		return nil, err
	}
	t := m.Target
	if t.Fixed && (spec.CPUs > 0 && spec.CPUs != t.CPUs || spec.MemoryMB > 0 && spec.MemoryMB != t.MemoryMB) {
		return nil, outcome.Inputf("--board %s always has %d CPUs and %d MB of memory; omit --smp and --mem", t.Name, t.CPUs, t.MemoryMB)
	}
	if t.Fixed && spec.Nodes > 1 {
		return nil, outcome.Inputf("--board %s has one node; omit --numa", t.Name)
	}
	if cpus := cmp.Or(spec.CPUs, t.CPUs); spec.Nodes > 1 && cpus%spec.Nodes != 0 {
		return nil, outcome.Inputf("--numa %d: %d CPUs cannot be divided among so many nodes; give --smp, a multiple of %d", spec.Nodes, cpus, spec.Nodes)
	}
	if mem := cmp.Or(spec.MemoryMB, t.MemoryMB); spec.Nodes > 1 && (mem%spec.Nodes != 0 || mem/spec.Nodes < MinNodeMB) {
		return nil, outcome.Inputf("--numa %d: %d MB cannot be divided among so many nodes; give --mem, a multiple of %d from %d on", spec.Nodes, mem, spec.Nodes, spec.Nodes*MinNodeMB)
	}
	if err := targets.CheckSize(spec.CPUs, spec.MemoryMB); err != nil {
		return nil, outcome.Inputf("--%v", err)
	}
	// Check QEMU first: without it there is no point in downloading anything.
	if m.QEMU, err = qemu.Version(t.Binary); err != nil {
		return nil, err
	}
	if err := checkQEMU(t, m.QEMU); err != nil {
		return nil, err
	}
	if m.Kernel, err = findKernel(ctx, env, spec.Kernel, t.Arch); err != nil {
		return nil, err
	}
	err = m.readKernel(ctx, env)
	var damaged *kernel.CorruptError
	if errors.As(err, &damaged) { // a file that is not read at every start
		if m.Kernel, err = env.Cache.Repair(ctx, m.Kernel, env.PullOf(m.Kernel.Ref, t.Arch)); err != nil {
			return nil, err
		}
		err = m.readKernel(ctx, env)
	}
	if err != nil {
		return nil, err
	}
	if err := m.findModules(env); err != nil {
		return nil, err
	}
	if !t.KVM {
		m.Verdict = accel.Verdict{Arch: t.Arch, Accel: "tcg", Reason: t.Name + " is emulated as a whole", QEMU: m.QEMU}
	} else if m.Verdict, err = accel.Best(ctx, t.Binary, t.Arch); err != nil {
		return nil, err
	}
	if err := m.buildInitrd(ctx, env, m.bootFiles()); err != nil {
		return nil, err
	}
	return m, m.checkMemory()
}

// checkMemory rejects a machine whose memory cannot hold the kernel and, twice, the
// initramfs: it is there until all its files are.
func (m *Machine) checkMemory() error {
	image, err := loaded(m.image)
	if err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	initrd, err := os.Stat(m.initrd)
	if err != nil {
		return outcome.Default(outcome.HostLacks, err)
	}
	const mb = 1 << 20
	has := int64(cmp.Or(m.spec.MemoryMB, m.Target.MemoryMB)) * mb
	if takes := image + 2*initrd.Size(); takes > has {
		// What is offered has room for all that a kernel makes, too.
		return outcome.Inputf("--mem %d: too little memory: kernel %s takes %d MB and its initramfs %d until it is unpacked; give %d or more",
			has/mb, m.Kernel, image/mb, 2*initrd.Size()/mb, (takes/mb+32+63)/64*64)
	}
	return nil
}

// loaded is how much memory a kernel's image takes at least, in bytes. Of an ELF file that
// is not all of it, of one that unpacks itself it is more.
func loaded(image string) (n int64, err error) {
	f, err := elf.Open(image)
	var other *elf.FormatError
	switch {
	case errors.As(err, &other):
		fi, err := os.Stat(image)
		if err != nil {
			return 0, err
		}
		return fi.Size(), nil
	case err != nil:
		return 0, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			n += int64(min(p.Memsz, 1<<30)) // the file is a user's
		}
	}
	return n, nil
}

func (m *Machine) buildInitrd(ctx context.Context, env Env, files []initramfs.File) error {
	img, err := initramfs.Build(ctx, initramfs.Options{
		Arch: m.Target.Arch, Base: m.spec.Commands, Modules: m.modules, Files: files,
		Progress: env.Say, Pull: env.pull("busybox for " + m.Target.Arch),
	})
	if err != nil {
		return err
	}
	m.initrd = img.Path
	return nil
}

// Carries reports whether files had better be in the initramfs than sent to the guest. A
// UART transfers ten bytes per millisecond, and a Go program takes three minutes. A machine
// that starts from a template has its initramfs in that.
func (m *Machine) Carries() bool {
	return m.Link.Kind == "uart" && !m.Warm() && m.spec.saved == nil
}

// Carry puts a tar archive of files into the initramfs of a machine that has not booted.
func (m *Machine) Carry(ctx context.Context, env Env, archive []byte) error {
	return m.buildInitrd(ctx, env, append(m.bootFiles(), initramfs.File{Path: wire.CarriedFile, Mode: 0o600, Data: archive}))
}

// readKernel takes what the machine needs from its kernel: image, device tree, drivers of
// the link, configuration.
func (m *Machine) readKernel(ctx context.Context, env Env) (err error) {
	t := m.Target
	m.modules = nil
	if m.image, err = m.Kernel.Boot(ctx); err != nil {
		return err
	}
	if t.PVH {
		if path, ok := m.Kernel.PVH(ctx); ok {
			m.image = path
		}
	}
	if m.image == m.Kernel.Path && m.Kernel.IsELF() {
		return outcome.Inputf("--kernel %s: a vmlinux without a PVH entry, which QEMU cannot boot; use the bzImage or Image built from it", m.image)
	}
	for _, c := range t.CPUFor {
		if v, _ := m.Kernel.Option(c.Option); v == "y" {
			m.Target.CPU = c.CPU
			break
		}
	}
	if t.DTB != "" {
		if err := m.findDTB(env); err != nil {
			return err
		}
	}
	if err := m.pickLink(env); err != nil {
		return err
	}
	return m.checkConfig(env)
}

// bootFiles returns what a distribution has in /boot and programs look at: the kernel's
// configuration.
func (m *Machine) bootFiles() []initramfs.File {
	config, err := m.Kernel.ConfigText()
	if err != nil || len(config) == 0 || m.Kernel.Release == "" {
		return nil
	}
	return []initramfs.File{{Path: "boot/config-" + m.Kernel.Release, Mode: 0o644, Data: config}}
}

func findKernel(ctx context.Context, env Env, name, arch string) (*kernel.Kernel, error) {
	ref := env.Cache.Default(arch)
	if name != "" {
		var err error
		if ref, err = kernel.ParseRef(name); err != nil {
			return nil, fmt.Errorf("--kernel: %w", err)
		}
	}
	k, err := env.Cache.Get(ctx, ref, arch, env.PullOf(ref, arch))
	if err != nil {
		return nil, err
	}
	if k.Arch != arch {
		return nil, outcome.Inputf("--kernel %s: an image for %s, not for %s", name, k.Arch, arch)
	}
	return k, nil
}

// virtioModules are the modules for a virtio-serial port on PCI; Modules adds their
// dependencies.
var virtioModules = []string{"virtio_pci", "virtio_console"}

// pickLink selects the target's first link that the kernel has drivers for.
func (m *Machine) pickLink(env Env) error {
	var why []string
	for _, l := range m.Target.Links {
		if l.Kind != "virtio" {
			m.Link = l
			m.settleUART()
			return nil
		}
		pci, _ := m.Kernel.Option("VIRTIO_PCI")
		con, _ := m.Kernel.Option("VIRTIO_CONSOLE")
		if !m.Kernel.HasConfig() || pci == "y" && con == "y" {
			m.Link = l
			return nil
		}
		mods, err := m.Kernel.Modules(virtioModules...)
		var damaged *kernel.CorruptError
		if errors.As(err, &damaged) {
			return err
		}
		if err != nil {
			why = append(why, "virtio-serial: "+m.noVirtio(err))
			continue
		}
		m.Link = l
		for _, mod := range mods {
			if mod.BuiltIn {
				continue
			}
			m.modules = append(m.modules, initramfs.Module{Name: mod.Name, Data: mod.Data})
		}
		return nil
	}
	return outcome.Inputf("kernel %s cannot communicate with labctl on %s: %s%s", m.Kernel, m.Target.Name, strings.Join(why, "; "), otherBoards(m.Target))
}

// checkConfig rejects a kernel that would hang.
func (m *Machine) checkConfig(env Env) error {
	if !m.Kernel.HasConfig() {
		env.say("kernel %s: no configuration to check; booting it anyway", m.Kernel)
		return nil
	}
	if missing := m.missing(); len(missing) > 0 {
		return &check.Error{Kernel: m.Kernel.String(), Missing: missing}
	}
	return nil
}

// warn says what is more than progress.
func (e Env) warn(format string, args ...any) {
	if e.Cache != nil && e.Cache.Say != nil {
		e.Cache.Say(fmt.Sprintf(format, args...))
	}
}

func (e Env) say(format string, args ...any) {
	if e.Say != nil {
		e.Say(fmt.Sprintf(format, args...))
	}
}

// Boot starts the guest, from a template if the machine supports it, and inserts the
// modules that were asked for. If dir has a path, console.log and qemu.txt are written to
// it; console, if set, gets the console live.
func (m *Machine) Boot(ctx context.Context, env Env, dir record.Dir, console io.Writer) (*vm.VM, error) {
	v, err := m.boot(ctx, env, dir, console)
	if err != nil {
		return nil, err
	}
	if m.spec.saved != nil {
		return v, nil // it has them
	}
	if err := m.insertModules(ctx, v); err != nil {
		err = v.Why(err)
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func (m *Machine) boot(ctx context.Context, env Env, dir record.Dir, console io.Writer) (*vm.VM, error) {
	cfg := m.config()
	cfg.Console, cfg.Spool = console, env.Spool
	if dir.Path != "" {
		cfg.ConsoleLog, cfg.CommandLog = dir.File(record.ConsoleFile), dir.File(record.QEMUFile)
		cfg.RegistersLog, cfg.TasksLog = dir.File(record.RegistersFile), dir.File(record.TasksFile)
	}
	cfg.Autopsy = m.Autopsy("")
	if m.spec.saved != nil {
		return m.bootFrom(ctx, cfg)
	}
	if !m.Warm() {
		return vm.Boot(ctx, cfg)
	}
	return m.bootWarm(ctx, env, cfg)
}

// Autopsy returns what looks at a machine that started from a template, or from none, when
// it hangs or has crashed.
func (m *Machine) Autopsy(template string) func(context.Context, vm.Inspector) (vm.Autopsy, error) {
	return func(ctx context.Context, i vm.Inspector) (vm.Autopsy, error) {
		known, _ := outside.Known(template)
		return outside.Autopsy(ctx, i, m.Kernel, known)
	}
}

// config returns the machine's configuration without the settings of a single run.
func (m *Machine) config() vm.Config {
	return vm.Config{
		Target: m.Target, Link: m.Link,
		Image: m.image, Initrd: m.initrd, DTB: m.dtb,
		CPUs: m.spec.CPUs, MemoryMB: m.spec.MemoryMB, Nodes: m.spec.Nodes,
		Accel: m.Verdict.Accel, Append: m.spec.Append, Patience: m.spec.Patience,
	}
}

// Entry describes the machine, with v started from it, for the list of those that run.
func (m *Machine) Entry(v *vm.VM) registry.Info {
	var r record.Run
	m.Describe(&r, nil)
	ref := r.Kernel.Ref
	if path := m.Kernel.Ref.Path; path != "" {
		if abs, err := filepath.Abs(path); err == nil {
			ref = abs // others have other working directories
		}
	}
	return registry.Info{
		Target: m.Target.Name, Arch: m.Target.Arch, Version: m.QEMU, Accel: m.Verdict.Accel, Link: m.Link.Kind, CPUs: r.Target.CPUs, MemoryMB: r.Target.MemoryMB, Commands: m.spec.Commands,
		Kernel:   registry.Kernel{Ref: ref, Source: r.Kernel.Source, Release: r.Kernel.Release, Image: m.Kernel.Image(), SHA256: r.Kernel.SHA256},
		Template: v.Template(),
	}
}

// Joined is a machine that another process has started. Features are those that its
// kernel must have.
func Joined(env Env, info registry.Info, features []string) (*Machine, error) {
	t, ok := targets.Find(info.Target)
	if !ok {
		return nil, outcome.Inputf("machine %s is a %q, which this labctl does not know", info.Name, info.Target)
	}
	m := &Machine{
		Target: t, QEMU: info.Version, Link: targets.Link{Kind: info.Link},
		Verdict: accel.Verdict{Arch: t.Arch, Accel: info.Accel, QEMU: info.Version, Reason: "as it was started"},
		spec:    Spec{CPUs: info.CPUs, MemoryMB: info.MemoryMB, Commands: info.Commands, Features: features},
	}
	ref, err := kernel.ParseRef(info.Kernel.Ref)
	if err == nil {
		m.Kernel, err = env.Cache.Find(ref, t.Arch)
	}
	if err == nil && m.Kernel.Files["vmlinuz"].SHA256 != info.Kernel.SHA256 {
		err = outcome.Inputf("another kernel has taken its place")
	}
	if len(features) == 0 {
		if err != nil { // a program needs to know nothing of it
			m.Kernel = &kernel.Kernel{
				Ref: ref, Source: info.Kernel.Source, Arch: t.Arch, Release: info.Kernel.Release,
				Files: map[string]kernel.File{"vmlinuz": {SHA256: info.Kernel.SHA256}},
			}
		}
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the kernel of machine %s: %w", info.Name, err)
	}
	return m, m.checkConfig(env)
}

// Describe adds a description of this machine to a run record. v may be nil if the boot
// failed.
func (m *Machine) Describe(r *record.Run, v *vm.VM) {
	cpus, mem := m.spec.CPUs, m.spec.MemoryMB
	if cpus == 0 {
		cpus = m.Target.CPUs
	}
	if mem == 0 {
		mem = m.Target.MemoryMB
	}
	r.Target = record.Target{Name: m.Target.Name, Arch: m.Target.Arch, CPUs: cpus, MemoryMB: mem, Link: m.Link.Kind}
	r.Kernel = record.Kernel{
		Ref: m.Kernel.Ref.String(), Source: m.Kernel.Source, Release: m.Kernel.Release,
		Version: m.Kernel.Version, SHA256: m.Kernel.Files["vmlinuz"].SHA256,
	}
	r.QEMU = record.QEMU{Binary: m.Target.Binary, Version: m.QEMU, Accel: m.Verdict.Accel, Reason: m.Verdict.Reason}
	if v != nil {
		for _, t := range v.Timings() {
			r.Phases = append(r.Phases, record.Phase{Name: string(t.Phase), Seconds: t.Took.Seconds()})
		}
	}
}
