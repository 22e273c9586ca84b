package machine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/scratch"
	"labctl/host/vm"
	"labctl/host/vm/agent"
	"labctl/host/vm/qemu"
	"labctl/host/vm/warm"
)

// maxConsole limits the stored console output of a template, in bytes.
const maxConsole = 1 << 20

// Warm reports whether Boot starts from a template.
func (m *Machine) Warm() bool { return m.Target.Snapshot && !m.spec.Cold }

// bootWarm starts from the machine's template, which it creates if necessary. If a
// template cannot be restored it is removed and the machine boots cold: templates only
// save time.
func (m *Machine) bootWarm(ctx context.Context, env Env, cfg vm.Config) (*vm.VM, error) {
	cfg.Window = m.window()
	t, err := m.template(ctx, env, cfg)
	if err == nil {
		if env.Warm != nil {
			env.Warm()
		}
		warmed := cfg
		warmed.Snapshot = &vm.Snapshot{Key: t.Key, RAM: t.RAM(), State: t.State(), BootTime: time.Duration(t.BootSeconds * float64(time.Second))}
		warmed.Autopsy = m.Autopsy(t.Key)
		if warmed.ConsoleBefore, err = t.Console(); err == nil {
			var v *vm.VM
			if v, err = vm.Boot(ctx, warmed); err == nil {
				return v, nil
			}
		}
		var slow *vm.BootError
		if errors.Is(err, syscall.ENOSPC) || errors.As(err, &slow) && slow.Deadline && slow.Phase == vm.PhaseQEMU {
			return nil, err // for want of space or of CPUs on the host: the template is sound
		}
		if dropErr := t.Drop(); dropErr != nil {
			err = errors.Join(err, dropErr)
		}
	}
	var full *scratch.NoSpaceError
	if errors.As(err, &full) {
		env.warn("%v for a template: booting without one", full)
		return vm.Boot(ctx, cfg)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	var boot *vm.BootError
	var crashed *vm.CrashError
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &boot) && !vm.IsRestoreError(err), errors.As(err, &crashed) && t == nil:
		return nil, err // from the boot for the template
	}
	env.say("warm start: %v; falling back to a cold boot", oneLine(err))
	return vm.Boot(ctx, cfg)
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// Template returns the machine's template, and creates it if there is none.
func (m *Machine) Template(ctx context.Context, env Env) (*warm.Template, error) {
	cfg := m.config()
	cfg.Window = m.window()
	return m.template(ctx, env, cfg)
}

// windowBytes is ample for a program, and costs the guest few page tables.
const windowBytes = 32 << 20

// window returns the size of the machine's window, 0 for none. Under KVM the link is
// fast, and an arm64 guest, which maps the memory uncached, might not see what the host
// wrote.
func (m *Machine) window() int64 {
	f, err := qemu.Inspect(m.Target.Binary)
	if err != nil || !f.Window || !m.Target.PCI || m.Verdict.Accel != "tcg" {
		return 0
	}
	return windowBytes
}

// template boots cfg and saves the machine if there is no template yet.
func (m *Machine) template(ctx context.Context, env Env, cfg vm.Config) (*warm.Template, error) {
	store, err := warm.Open("", 0)
	if err != nil {
		return nil, err
	}
	store.Say = env.Cache.Say
	key, err := m.key(cfg)
	if err != nil {
		return nil, err
	}
	mem := cfg.MemoryMB
	if mem == 0 {
		mem = m.Target.MemoryMB
	}
	return store.Get(ctx, key, mem, func(d *warm.Draft) (warm.Info, error) {
		env.say("booting %s on %s once; later starts use a template", m.Kernel, m.Target.Name)
		made := cfg
		if cfg.Nodes > 1 {
			var err error
			if made.NodeRAM, err = vm.NodeMemory(int64(mem)<<20, cfg.Nodes); err != nil {
				return warm.Info{}, err
			}
			defer vm.CloseAll(made.NodeRAM)
		} else {
			made.RAM = d.RAM
		}
		tee := bounded.Writer(d.Console, maxConsole)
		made.Console = tee
		if cfg.Console != nil {
			made.Console = io.MultiWriter(tee, cfg.Console)
		}
		v, err := vm.Boot(ctx, made)
		if err != nil {
			return warm.Info{}, err
		}
		defer v.Close()
		if err := rehearse(v); err != nil {
			return warm.Info{}, v.Why(fmt.Errorf("rehearse: %w", err))
		}
		if err := v.Save(ctx, d.State); err != nil {
			return warm.Info{}, err
		}
		if err := vm.JoinMemory(d.RAM, made.NodeRAM); err != nil {
			return warm.Info{}, err
		}
		cpus := cfg.CPUs
		if cpus == 0 {
			cpus = m.Target.CPUs
		}
		return warm.Info{
			Target: m.Target.Name, Kernel: m.Kernel.Release, CPUs: cpus, MemoryMB: mem,
			Commands: m.spec.Commands, BootSeconds: v.BootTime().Seconds(),
		}, nil
	})
}

// rest is how long a guest gets to finish background work of its boot and of the
// rehearsal. It affects speed only.
const rest = 300 * time.Millisecond

// rehearse makes the agent do once what every start requires of it. What it creates
// and keeps (threads, stacks, memory, its codec's type information) is then in the
// template, and clones do not have to create it under emulation.
func rehearse(v *vm.VM) error {
	entropy := make([]byte, vm.EntropyBytes)
	rand.Read(entropy)
	if _, err := v.Agent().Resume(v.Context(), wire.ResumeParams{UnixNano: time.Now().UnixNano(), Entropy: entropy}); err != nil {
		return err
	}
	var folder bytes.Buffer
	w := tar.NewWriter(&folder)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "run/", Mode: 0o755}), w.Close()); err != nil {
		return err
	}
	if _, err := v.Agent().Unpack(v.Context(), "/", &folder); err != nil {
		return err
	}
	// Without arguments it prints its usage.
	p := wire.ExecParams{Argv: []string{"/labctl/labprobe"}, Dir: "/"}
	if _, err := v.Agent().Exec(v.Context(), p, agent.IO{Stdin: strings.NewReader("")}); err != nil {
		return err
	}
	time.Sleep(rest)
	return nil
}

// key returns a hash of everything that determines the machine: QEMU and its command
// line, the contents of the kernel, and the name of the initramfs, which includes the
// hash of its contents.
func (m *Machine) key(cfg vm.Config) (string, error) {
	f, err := qemu.Inspect(m.Target.Binary)
	if err != nil {
		return "", err
	}
	line, err := vm.CommandLine(cfg)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, s := range []string{"template 3", f.Path, f.Version, f.ModTime.UTC().Format(time.RFC3339Nano), f.Host, line, m.Kernel.Files["vmlinuz"].SHA256} {
		fmt.Fprintf(h, "%d %s\n", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:12]), nil
}
