package kbuild

import (
	"slices"
	"strings"
	"testing"

	"labctl/kconfig"
)

// fakeCompiler accepts and builds what is listed; "-a -b" is -a and -b together.
type fakeCompiler []string

func (c fakeCompiler) takes(options ...string) bool {
	return slices.Contains(c, strings.Join(options, " ")) || !slices.ContainsFunc(options, func(o string) bool { return !slices.Contains(c, o) })
}

func (c fakeCompiler) builds(program string) bool {
	return slices.ContainsFunc(c, func(s string) bool { return strings.Contains(program, s) })
}

// Compilers, as seen by the fixes' conditions.
var (
	gcc8  = fakeCompiler{"-fcommon", "-std=gnu11", "-fcf-protection=none", "-Wa,-mx86-used-note=no", "enum { false", "__CET__"}
	gcc12 = append(slices.Clone(gcc8), "-Wno-error=use-after-free", "-fno-reorder-blocks-and-partition", "-fno-optimize-sibling-calls")
	// Arm compilers: configured without an FPU for -march=armv7-a, and the usual one.
	armhf = fakeCompiler{"-fcommon", "-msoft-float -march=armv7-a"}
	armel = fakeCompiler{"-fcommon", "-msoft-float", "-march=armv7-a"}
	// Ubuntu's marks branch targets; gcc 15's C has false as a word.
	ubuntu = slices.DeleteFunc(slices.Clone(gcc12), func(s string) bool { return s == "__CET__" })
	gcc15  = slices.DeleteFunc(slices.Clone(gcc12), func(s string) bool { return s == "enum { false" })
)

// Trees: the files that the fixes' conditions check, as in these series.
var (
	tree414 = map[string]string{
		"scripts/dtc/dtc-lexer.l":           "%{\nYYLTYPE yylloc;\n%}\n",
		"tools/lib/subcmd/subcmd-util.h":    "\tvoid *ret = realloc(ptr, size);\n\tif (!ret && !size)\n\t\tret = realloc(ptr, 1);\n",
		"include/linux/stddef.h":            "enum {\n\tfalse\t= 0,\n\ttrue\t= 1\n};\n",
		"arch/x86/boot/compressed/Makefile": "KBUILD_CFLAGS := -m64 -O2\n",
		"arch/x86/Makefile":                 "KBUILD_CFLAGS += -mno-sse\n",
		"Makefile":                          "KBUILD_CFLAGS := -Wall -std=gnu89\n",
		"tools/objtool/elf.c":               "\tif (!symtab) {\n\t\tWARN(\"missing symbol table\");\n\t\treturn -1;\n\t}\n\tcoldstr = strstr(sym->name, \".cold.\");\n",
		"kernel/fork.c":                     "\treturn _do_fork(clone_flags, newsp, 0, parent_tidptr, child_tidptr, tls);\n",
		"arch/arm/Makefile":                 "arch-$(CONFIG_CPU_32v7)\t:=$(call cc-option,-march=armv7-a,-march=armv5t)\n",
		"arch/x86/entry/Makefile":           "obj-y\t\t\t\t:= entry_$(BITS).o thunk_$(BITS).o syscall_$(BITS).o\n",
		"arch/x86/kernel/smpboot.c":         "static void notrace start_secondary(void *unused)\n{\n\tboot_init_stack_canary();\n}\n",
		"arch/x86/kernel/vmlinux.lds.S":     "SECTIONS\n",
		"include/asm-generic/vmlinux.lds.h": "#define DISCARDS\n",
		"arch/x86/tools/relocs.c":           "case R_X86_64_PC32:\ncase R_X86_64_PLT32:\n",
	}
	tree612 = map[string]string{
		"scripts/dtc/dtc-lexer.l":           "%{\nextern YYLTYPE yylloc;\n%}\n",
		"tools/lib/subcmd/subcmd-util.h":    "\tvoid *ret = realloc(ptr, size);\n\tif (!ret)\n\t\tdie(\"x\");\n",
		"include/linux/stddef.h":            "enum {\n\tfalse\t= 0,\n\ttrue\t= 1\n};\n",
		"arch/x86/boot/compressed/Makefile": "KBUILD_CFLAGS += -std=gnu11\n",
		"arch/x86/Makefile":                 "KBUILD_CFLAGS += $(call cc-option,-fcf-protection=none)\n",
		"Makefile":                          "KBUILD_CFLAGS += -std=gnu11\n",
		"tools/objtool/elf.c":               "\tif (symtab) {\n\t}\n\tcoldstr = strstr(sym->name, \".cold\");\n",
		"kernel/fork.c":                     "\treturn kernel_clone(&args);\n",
		"arch/arm/Makefile":                 "arch-$(CONFIG_CPU_32v7)\t:=-march=armv7-a\n",
		"arch/x86/entry/Makefile":           "obj-$(CONFIG_PREEMPTION)\t+= thunk.o\n",
		"arch/x86/kernel/smpboot.c":         "\tcpu_init_stack_canary(cpu, idle);\n",
		"arch/x86/kernel/vmlinux.lds.S":     "SECTIONS\n",
		"include/asm-generic/vmlinux.lds.h": "\t*(.note.gnu.property)\n",
		"arch/x86/tools/relocs.c":           "case R_X86_64_PC32:\ncase R_X86_64_PLT32:\n",
	}
)

// with returns a tree with other file contents.
func with(tree map[string]string, file, text string) map[string]string {
	out := map[string]string{file: text}
	for name, t := range tree {
		if name != file {
			out[name] = t
		}
	}
	return out
}

func TestFixes(t *testing.T) {
	stacks := []string{"cold-parts", "clone-tail-call"}
	all := append([]string{"dtc-yylloc", "subcmd-use-after-free", "thunk-symtab", "canary-at-start", "orphan-property"}, stacks...)
	for _, tt := range []struct {
		name         string
		tree         map[string]string
		arch         string
		host, target fakeCompiler
		want         []string
	}{
		{"4.14, gcc 12", tree414, "amd64", gcc12, gcc12, all},
		{"4.14, gcc 8 has no such warning", tree414, "amd64", gcc8, gcc8, []string{"dtc-yylloc", "thunk-symtab", "canary-at-start", "orphan-property"}},
		{"4.14, Ubuntu", tree414, "amd64", ubuntu, ubuntu, append([]string{"cf-protection"}, all...)},
		{"4.14, gcc 15", tree414, "amd64", gcc15, gcc15, append([]string{"c23"}, all...)},
		{"4.14 with a later objtool", with(tree414, "tools/objtool/elf.c", "strstr(sym->name, \".cold\")"), "amd64", gcc12, gcc12,
			[]string{"dtc-yylloc", "subcmd-use-after-free", "canary-at-start", "orphan-property", "clone-tail-call"}},
		{"4.14 for arm, Debian's compiler", tree414, "arm", gcc12, armhf, []string{"dtc-yylloc", "hard-float"}},
		{"4.14 for arm, another compiler", tree414, "arm", gcc12, armel, []string{"dtc-yylloc"}},
		{"4.14 for arm64", tree414, "arm64", gcc12, gcc12, []string{"dtc-yylloc"}},
		{"4.14 with the lexer fixed", with(tree414, "scripts/dtc/dtc-lexer.l", "extern YYLTYPE yylloc;\n"), "arm", gcc12, gcc12, nil},
		{"an early 4.14", with(tree414, "arch/x86/tools/relocs.c", "case R_X86_64_PC32:\n"), "amd64", gcc12, gcc12, append(slices.Clone(all), "plt32")},
		{"6.12, gcc 12", tree612, "amd64", gcc12, gcc12, nil},
		{"6.12, gcc 15 on Ubuntu", tree612, "amd64", gcc15, gcc15, nil},
		{"no tree", nil, "amd64", gcc12, gcc12, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeTree(t, dir, tt.tree)
			var got []string
			for _, f := range fixesFor(fixes(), dir, tt.arch, tt.host, tt.target) {
				got = append(got, f.Name)
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(tt.want))
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestFixesKnowRealCompiler checks the C programs in the list with this host's
// compiler, so that a typing error does not make them fail with every compiler.
func TestFixesKnowRealCompiler(t *testing.T) {
	gcc := compiler{ctx: t.Context(), command: []string{"gcc"}}
	if !gcc.builds("int x;") || gcc.builds("int 1x;") || !gcc.takes("-O2") || gcc.takes("-no-such-option") {
		t.Fatal("the host's gcc does not answer as a compiler would")
	}
	for _, f := range fixes() {
		if f.Compiler == nil || f.Compiler.Refuses == "" {
			continue
		}
		// With some options this compiler builds it: an older C, without marks, or
		// under an older version.
		old := compiler{ctx: t.Context(), command: []string{"gcc", "-std=gnu11", "-U__CET__", "-U__GNUC__", "-D__GNUC__=5"}}
		if !old.builds(f.Compiler.Refuses) {
			t.Errorf("%s: gcc -std=gnu11 -U__CET__ -D__GNUC__=5 does not build %q", f.Name, f.Compiler.Refuses)
		}
	}
}

func TestParseFixes(t *testing.T) {
	good := "name: a, symptom: s, why: w, tried: t, cc: [-x]"
	for _, tt := range []struct{ in, want string }{
		{"fixes: [{name: a}]", "fixes[0] a: needs name, symptom, why, tried and tree"},
		{"fixes: [{name: a, symptom: s, why: w, tried: t, tree: [{file: f, has: x}]}]", "changes nothing"},
		{"fixes: [{" + good + ", tree: [{file: ../f, has: x}]}]", "needs file"},
		{"fixes: [{" + good + ", tree: [{file: f}]}]", "has or lacks"},
		{"fixes: [{" + good + ", tree: [{file: f, has: '('}]}]", "missing closing"},
		{"fixes: [{" + good + ", tree: [{file: f, has: x}], arch: [mips]}]", `"mips" is not known`},
		{"fixes: [{" + good + ", tree: [{file: f, has: x}], compiler: {of: mine}}]", "want host or target"},
		{"fixes: [{" + good + ", tree: [{file: f, has: x}], config: [A=y]}]", "not a line of a .config"},
		{"fixes: [{" + good + ", tree: [{file: f, has: x}], version: 4.14}]", "version"},
	} {
		if _, err := parseFixes("c.yaml", []byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.in, err, tt.want)
		}
	}
	if strings.Contains(string(kconfig.Compilers), "KERNELVERSION") {
		t.Error("compilers.yaml asks for a version")
	}
}
