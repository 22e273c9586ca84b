package kbuild

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/outcome"
)

// tool is a program that a build needs.
type tool struct{ program, pkg string }

// missing returns the programs missing on this host for a build for an
// architecture, and the Debian packages that contain them. wantBTF adds pahole,
// which generates BTF.
func missing(a arch.Arch, wantBTF bool, look func(string) (string, error), builds func(program string) bool) (programs, packages []string) {
	tools := []tool{
		{"make", "make"}, {"gcc", "gcc"}, {"ld", "binutils"}, {"flex", "flex"}, {"bison", "bison"}, {"bc", "bc"},
		{"perl", "perl"}, {"tar", "tar"}, {"xz", "xz-utils"},
	}
	if !a.Native() {
		tools = append(tools, tool{a.CrossCompile() + "gcc", a.CrossPackage()})
	}
	if wantBTF {
		tools = append(tools, tool{"pahole", "dwarves"})
	}
	for _, t := range tools {
		if _, err := look(t.program); err != nil {
			programs, packages = append(programs, t.program), append(packages, t.pkg)
		}
	}
	if slices.Contains(programs, "gcc") {
		return append(programs, "libc's headers"), append(packages, "libc6-dev")
	}
	if a.Build.Objtool && !builds("#include <gelf.h>\n") {
		programs, packages = append(programs, "gelf.h"), append(packages, "libelf-dev")
	}
	return programs, packages
}

// checkTools checks that the programs for a build are installed. The error wraps
// kernel.ErrHostLacks and says in one line what to install.
func checkTools(ctx context.Context, a arch.Arch, wantBTF bool) error {
	host := compiler{ctx: ctx, command: []string{"gcc"}}
	programs, packages := missing(a, wantBTF, exec.LookPath, func(p string) bool { return host.builds(p) })
	if len(programs) == 0 {
		return nil
	}
	sudo := ""
	if os.Geteuid() != 0 {
		sudo = "sudo "
	}
	return fmt.Errorf("%w: %s; on Debian: %sapt-get install %s", kernel.ErrHostLacks, strings.Join(programs, ", "), sudo, strings.Join(packages, " "))
}

// compiler is a C compiler whose version and abilities can be tested.
type compiler struct {
	ctx     context.Context
	command []string
}

func (c compiler) run(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.ctx, c.command[0], slices.Concat(c.command[1:], args)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	return out.String(), err
}

// version returns the first line of the compiler's --version.
func (c compiler) version() (string, error) {
	out, err := c.run("", "--version")
	line, _, _ := strings.Cut(out, "\n")
	if err != nil || line == "" {
		return "", outcome.Hostf("run %s --version: %w", c.command[0], err)
	}
	return line, nil
}

// takes reports whether the compiler accepts the options.
func (c compiler) takes(options ...string) bool {
	_, err := c.run("", slices.Concat(options, []string{"-Werror", "-S", "-x", "c", "-", "-o", "/dev/null"})...)
	return err == nil
}

// builds reports whether the compiler can build a program.
func (c compiler) builds(program string) bool {
	_, err := c.run(program, "-S", "-x", "c", "-", "-o", "/dev/null")
	return err == nil
}
