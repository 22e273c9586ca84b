package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"labctl/host/outcome"
	"labctl/host/registry"
	"labctl/host/strictjson"
	"labctl/host/vm"
	"labctl/host/vm/warm"
)

// maxSpec limits a stored Spec, in bytes.
const maxSpec = 1 << 20

// Save stores the machine as it is now, with v running from it, under a name, for
// Spec.From. v goes on.
func (m *Machine) Save(ctx context.Context, v *vm.VM, name string) error {
	if err := registry.CheckName(name); err != nil {
		return err
	}
	if v.TemplateRAM() == nil {
		return outcome.Inputf("a machine that was booted cold cannot be saved: a checkpoint has what differs from a template")
	}
	spec := m.spec
	spec.Arch, spec.Board, spec.From, spec.Held, spec.Patience, spec.Features = m.Target.Arch, "", "", false, 0, nil
	if m.Target.Board {
		spec.Board = m.Target.Name
	}
	spec.Kernel = m.Kernel.Ref.String()
	if path := m.Kernel.Ref.Path; path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return outcome.Default(outcome.HostLacks, err)
		}
		spec.Kernel = abs
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	store, err := warm.OpenCheckpoints()
	if err != nil {
		return err
	}
	i := m.Entry(v)
	info := warm.CheckpointInfo{
		Spec: text, Template: v.Template(), Target: i.Target, Kernel: i.Kernel.Release, CPUs: i.CPUs, MemoryMB: i.MemoryMB,
		BootSeconds: v.Outlet().Pace.Seconds(),
	}
	return store.Save(ctx, name, info, v.TemplateRAM(), func(f *os.File) error { return v.Checkpoint(ctx, f) })
}

// from makes a spec that names a checkpoint that of the machine that was saved.
func (s *Spec) from() error {
	if s.From == "" || s.saved != nil {
		return nil
	}
	if err := registry.CheckName(s.From); err != nil {
		return err
	}
	for flag, set := range map[string]bool{
		"arch": s.Arch != "", "board": s.Board != "", "kernel": s.Kernel != "", "smp": s.CPUs != 0, "mem": s.MemoryMB != 0, "numa": s.Nodes != 0,
		"append": len(s.Append) > 0, "module": len(s.Modules) > 0, "cold": s.Cold,
	} {
		if set {
			return outcome.Inputf("--from %s: the machine is as it was saved; omit --%s", s.From, flag)
		}
	}
	store, err := warm.OpenCheckpoints()
	if err != nil {
		return err
	}
	saved, err := store.Open(s.From)
	if err != nil {
		return err
	}
	var spec Spec
	if err := (strictjson.Format{Max: maxSpec}).Decode(saved.Spec, &spec); err != nil {
		return outcome.Inputf("checkpoint %s is of another labctl: %v", s.From, err)
	}
	spec.From, spec.Held, spec.Patience, spec.Features, spec.saved = s.From, s.Held, s.Patience, s.Features, saved
	*s = spec
	return nil
}

// bootFrom starts the machine from its checkpoint.
func (m *Machine) bootFrom(ctx context.Context, cfg vm.Config) (*vm.VM, error) {
	c := m.spec.saved
	cfg.Window = m.window()
	key, err := m.key(cfg)
	if err != nil {
		return nil, err
	}
	if key != c.Template {
		return nil, outcome.Inputf("checkpoint %s was saved with another labctl, QEMU or kernel than there is now; save it again", c.Name)
	}
	cfg.Snapshot = &vm.Snapshot{
		Key: c.Template, RAM: c.RAM(), State: c.State(), Stopped: true,
		BootTime: time.Duration(c.BootSeconds * float64(time.Second)),
	}
	cfg.Autopsy, cfg.Held = m.Autopsy(c.Template), m.spec.Held
	v, err := vm.Boot(ctx, cfg)
	if err != nil && vm.IsRestoreError(err) && ctx.Err() == nil {
		return nil, fmt.Errorf("checkpoint %s cannot be restored: %w", c.Name, err)
	}
	return v, err
}
