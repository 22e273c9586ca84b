package probe

import (
	"os"
	"path/filepath"
	"testing"

	"labctl/guest/catalogue"
	"labctl/guest/ksym"
	"labctl/host/kernel"
)

// TestNeeds: what a probe needs is a family of system calls that symbols tell.
func TestNeeds(t *testing.T) {
	n := 0
	for _, p := range catalogue.Probes() {
		if p.Needs == "" {
			continue
		}
		n++
		if sym, ok := ksym.Family("__do_sys_" + p.Needs); !ok || sym.Family != p.Needs {
			t.Errorf("probe %s needs %s, which is not a family of guest/ksym", p.Name, p.Needs)
		}
	}
	if n == 0 {
		t.Error("no probe needs a system call that a kernel may lack")
	}
}

// TestLacksNothing: for probes that need no particular system call the kernel's symbols
// are not read.
func TestLacksNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(file, []byte("no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &kernel.Kernel{Dir: filepath.Dir(file)}
	if got, err := Lacks(t.Context(), k, []string{"fork", ""}); err != nil || len(got) != 0 {
		t.Errorf("Lacks of fork: %v, %v; want nothing", got, err)
	}
}
