package ksym

import (
	"slices"
	"testing"
)

func TestStrip(t *testing.T) {
	for in, want := range map[string]string{
		"copy_process":                     "copy_process",
		"copy_process.part.5":              "copy_process",
		"copy_process.isra.0.part.0":       "copy_process",
		"el0_svc_common.constprop.0":       "el0_svc_common",
		"io_uring_setup.cold":              "io_uring_setup",
		"foo.llvm.13434523":                "foo",
		"bar.lto_priv.0":                   "bar",
		"a.partial.0":                      "a.partial.0", // not a suffix: another word
		"a.partial.0.part.0":               "a.partial.0",
		".part.0":                          ".part.0",
		".part.0.part.1":                   ".part.0",
		"dump_stack.partial.constprop.0":   "dump_stack.partial",
		"":                                 "",
		"sys_clone.constprop.0.cold.isra.": "sys_clone",
	} {
		if got := Strip(in); got != want {
			t.Errorf("Strip(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFamily(t *testing.T) {
	for name, want := range map[string]string{
		"kernel_clone":                   FamilyCreation,
		"_do_fork":                       FamilyCreation,
		"do_fork":                        FamilyCreation,
		"kernel_clone.part.0":            FamilyCreation,
		"__do_sys_clone":                 "clone",
		"__se_sys_clone":                 "clone",
		"__x64_sys_clone":                "clone",
		"__arm64_sys_clone":              "clone",
		"sys_clone":                      "clone",
		"SyS_clone":                      "clone",
		"__do_sys_clone3":                "clone3",
		"__x64_sys_vfork":                "vfork",
		"sys_fork":                       "fork",
		"stub_clone":                     "clone",
		"kernel_thread":                  FamilyKthread,
		"kthreadd":                       FamilyKthreadd,
		"create_io_thread":               FamilyWorker,
		"copy_process.isra.0":            FamilyCopy,
		"__kthread_create_on_node":       FamilyRequest,
		"entry_SYSCALL_64_after_hwframe": FamilyEntry,
		"el0t_64_sync":                   FamilyEntry,
		"el0_sync":                       FamilyEntry,
		"ret_fast_syscall":               FamilyEntry,
		"ret_from_fork_asm":              FamilyEntry,
		"asm_exc_page_fault":             FamilyEntry,
		"asm_sysvec_call_function":       FamilyEntry,
		"__do_sys_close":                 "",
		"sys_clone4":                     "",
		"do_forks":                       "",
	} {
		got, ok := Family(name)
		if got.Family != want || ok != (want != "") {
			t.Errorf("Family(%q) = %q, %v, want %q", name, got.Family, ok, want)
		}
	}
}

func TestFunctions(t *testing.T) {
	for family, want := range map[string][]string{
		FamilyCreation: {"kernel_clone", "_do_fork", "do_fork"},
		FamilyRequest:  {"__kthread_create_on_node", "kthread_create_on_node"},
		FamilyEntry:    nil,
		"no family":    nil,
	} {
		if got := Functions(family); !slices.Equal(got, want) {
			t.Errorf("Functions(%q) = %q, want %q", family, got, want)
		}
	}
	for _, family := range CreationFamilies {
		if len(Functions(family)) == 0 && !slices.Contains(calls, family) {
			t.Errorf("family %q has no function", family)
		}
	}
}

func TestTablePrefixes(t *testing.T) {
	for arch, want := range map[string][]string{
		"amd64": {"__x64_sys_", "sys_"},
		"arm64": {"__arm64_sys_", "sys_"},
		"arm":   {"sys_"},
	} {
		if got := TablePrefixes(arch); !slices.Equal(got, want) {
			t.Errorf("TablePrefixes(%q) = %q, want %q", arch, got, want)
		}
	}
}
