package machine

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

// findModules finds the modules that were asked for, and what they depend on.
func (m *Machine) findModules(env Env) error {
	names := m.spec.Modules
	if len(names) == 0 {
		return nil
	}
	var err error
	if m.extra, err = m.Kernel.Modules(names...); err != nil {
		return fmt.Errorf("--module: %w", err)
	}
	var builtIn []string
	for _, mod := range m.extra {
		if mod.BuiltIn {
			builtIn = append(builtIn, mod.Name)
		}
	}
	if len(builtIn) > 0 {
		env.say("--module: built into kernel %s: %s", m.Kernel, strings.Join(builtIn, ", "))
	}
	return nil
}

// insertModules brings the modules that were asked for to a guest and inserts them. They
// are not part of its initramfs: a machine that starts from a template has them as
// quickly, and needs no template of its own.
func (m *Machine) insertModules(ctx context.Context, v *vm.VM) error {
	if len(m.extra) == 0 {
		return nil
	}
	files, err := modulesTar(m.extra)
	if err != nil {
		return fmt.Errorf("--module: %w", err)
	}
	c := v.Agent()
	if _, err := c.Unpack(ctx, path.Join("/lib/modules", m.Kernel.Release), bytes.NewReader(files)); err != nil {
		return fmt.Errorf("send modules to the guest: %w", err)
	}
	argv := []string{"/labctl/modprobe", "-a"}
	for _, mod := range m.extra {
		argv = append(argv, mod.Name)
	}
	var said bytes.Buffer
	res, err := c.Exec(ctx, wire.ExecParams{Argv: argv, Dir: "/"}, agent.IO{Stdout: &said, Stderr: &said})
	if err != nil {
		return fmt.Errorf("insert modules: %w", err)
	}
	if !res.Exited || res.Code != 0 {
		return outcome.As(outcome.CannotRun, fmt.Errorf("--module %s: %s", strings.Join(m.spec.Modules, ","), text.Line(strings.TrimSpace(said.String()), 500)))
	}
	return nil
}

// modulesTar writes modules as they are below /lib/modules/RELEASE, with the lists that
// modprobe reads (modules.dep(5)). They are in load order: what one needs is before it.
func modulesTar(modules []kernel.Module) ([]byte, error) {
	var buf bytes.Buffer
	t := tar.NewWriter(&buf)
	add := func(name string, data []byte) error {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	files := map[string]string{} // of each module
	for _, mod := range modules {
		files[mod.Name] = mod.File
	}
	var dep, builtin strings.Builder
	for _, mod := range modules {
		if mod.BuiltIn {
			fmt.Fprintf(&builtin, "kernel/%s.ko\n", mod.Name)
			continue
		}
		dep.WriteString(mod.File + ":")
		for _, name := range mod.Needs {
			dep.WriteString(" " + files[name])
		}
		dep.WriteByte('\n')
		if err := add(mod.File, mod.Data); err != nil {
			return nil, err
		}
	}
	if err := add("modules.dep", []byte(dep.String())); err != nil {
		return nil, err
	}
	if err := add("modules.builtin", []byte(builtin.String())); err != nil {
		return nil, err
	}
	return buf.Bytes(), t.Close()
}
