package main

import (
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/vm"
)

// onEach starts a machine of each architecture for f, one after another.
func (b *bench) onEach(f func(arch string, m *machine.Machine, v *vm.VM) error) error {
	cache, err := kernel.Open("")
	if err != nil {
		return err
	}
	env := machine.Env{Cache: cache, Say: func(s string) { b.say("  %s", s) }}
	for _, arch := range b.arches {
		if err := b.on(arch, env, f); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) on(arch string, env machine.Env, f func(string, *machine.Machine, *vm.VM) error) error {
	m, err := machine.Prepare(b.ctx, env, machine.Spec{Arch: arch, Kernel: b.kernel})
	if err != nil {
		return err
	}
	v, err := m.Boot(b.ctx, env, record.Dir{}, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	return f(arch, m, v)
}
