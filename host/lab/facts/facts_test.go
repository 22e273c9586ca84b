package facts

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/lab/expr"
	"labctl/host/lab/result"
	"labctl/host/targets"
	"labctl/labs"
)

// fake is a kernel with three symbols and one structure:
//
//	struct task_struct { int pid; union { long a; char b; }; };
func fake(t *testing.T, withBTF bool) *kernel.Kernel {
	t.Helper()
	k := &kernel.Kernel{Dir: t.TempDir(), Release: "1.2-test", Files: map[string]kernel.File{}}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(k.Dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	symbols := []byte("ffffffff81000000 T _text\nffffffff81000010 t do_exit_late\nffffffff81000020 T do_exit")
	write("kallsyms-1", symbols)
	// As host/kernel seals what it has derived from an image.
	write("kallsyms-1.sum", fmt.Appendf(nil, `{"sha256": "%x", "size": %d}`, sha256.Sum256(symbols), len(symbols)))
	if !withBTF {
		return k
	}
	integer := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	long, char := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}, &btf.Int{Name: "char", Size: 1}
	task := &btf.Struct{Name: "task_struct", Size: 16, Members: []btf.Member{
		{Name: "pid", Type: integer},
		{Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "a", Type: long}, {Name: "b", Type: char}}}, Offset: 64},
	}}
	b, err := btf.NewBuilder([]btf.Type{task}, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	write("btf", blob)
	sum := sha256.Sum256(blob)
	k.Files["btf"] = kernel.File{Size: int64(len(blob)), SHA256: hex.EncodeToString(sum[:])}
	return k
}

func TestOf(t *testing.T) {
	arm64, _ := targets.Find("arm64")
	raspi, _ := targets.Find("raspi3b")
	asks := expr.Asks{
		Symbols: []string{"_text", "do_exit", "exit", "do_exit_lat"},
		Members: []string{"task_struct.pid", "task_struct.b", "task_struct.none", "nosuch.pid"},
	}
	want := result.Kernel{
		Release: "1.2-test", Arch: "arm64", CPUs: 2, BTF: true, Config: map[string]string{},
		Symbols: map[string]bool{"_text": true, "do_exit": true, "exit": false, "do_exit_lat": false},
		Members: map[string]result.Member{
			"task_struct.pid": {There: true, Offset: 0, Size: 4}, "task_struct.b": {There: true, Offset: 8, Size: 1},
			"task_struct.none": {}, "nosuch.pid": {},
		},
	}
	with := fake(t, true)
	for range 2 { // from the files, and then from memory
		got, err := Of(t.Context(), with, arm64, asks)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("with BTF: -want +got\n%s", d)
		}
	}
	want.BTF, want.Board, want.CPUs = false, "raspi3b", int64(raspi.CPUs)
	for name := range want.Members {
		want.Members[name] = result.Member{}
	}
	got, err := Of(t.Context(), fake(t, false), raspi, asks)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("without: -want +got\n%s", d)
	}
}

func TestOfErrors(t *testing.T) {
	arm64, _ := targets.Find("arm64")
	k := fake(t, true)
	btf := filepath.Join(k.Dir, "btf")
	if err := os.WriteFile(btf, []byte("no BTF"), 0o644); err != nil {
		t.Fatal(err)
	}
	var damaged *kernel.CorruptError
	if _, err := Of(t.Context(), k, arm64, expr.Asks{Members: []string{"a.b"}}); !errors.As(err, &damaged) || damaged.File != btf {
		t.Errorf("Of with a broken BTF = %v, want %s named as damaged", err, btf)
	}
}

// TestMissingWhen: a need in the words of an expression, of a lab that has one.
func TestMissingWhen(t *testing.T) {
	l, err := lab.One(labs.FS, "M10")
	if err != nil {
		t.Fatal(err)
	}
	if asks := l.Asks().Config; !slices.Contains(asks, "ARM64_64K_PAGES") {
		t.Fatalf("the lab asks for %q; want ARM64_64K_PAGES among them", asks)
	}
	arm64, _ := targets.Find("arm64")
	all := map[string]string{"PROC_PAGE_MONITOR": "y", "HUGETLBFS": "y", "TRANSPARENT_HUGEPAGE": "y", "ARM64_64K_PAGES": ""}
	if got := Missing(l.Needs, &result.Kernel{Config: all}, arm64); got != nil {
		t.Errorf("missing with pages of 4 KB: %q; want nothing", got)
	}
	all["ARM64_64K_PAGES"] = "y"
	if got := Missing(l.Needs, &result.Kernel{Config: all}, arm64); len(got) != 1 || got[0] != l.Needs.WhyNot.EN {
		t.Errorf("missing with pages of 64 KB: %q; want %q", got, l.Needs.WhyNot.EN)
	}
}

func TestMissing(t *testing.T) {
	arm64, _ := targets.Find("arm64")
	raspi, _ := targets.Find("raspi3b")
	k := &result.Kernel{
		Config:  map[string]string{"KCMP": "y", "PSI": "", "HZ": "250"},
		Symbols: map[string]bool{"do_exit": true}, Members: map[string]result.Member{"a.b": {There: true}},
	}
	for _, tt := range []struct {
		name  string
		needs lab.Needs
		on    targets.Target
		want  []string
	}{
		{"nothing", lab.Needs{}, arm64, nil},
		{"all there", lab.Needs{Config: []string{"KCMP", "KCMP=y", "HZ"}, Symbols: []string{"do_exit"}, Members: []string{"a.b"}, CPUs: 8, MemoryMB: 4096, NUMANodes: 1}, arm64, nil},
		{"option", lab.Needs{Config: []string{"PSI", "NONE"}}, arm64, []string{"it needs CONFIG_PSI, which this kernel does not set", "it needs CONFIG_NONE, which this kernel does not set"}},
		{"value", lab.Needs{Config: []string{"KCMP=m"}}, arm64, []string{`it needs CONFIG_KCMP=m, this kernel has "y"`}},
		{"symbol", lab.Needs{Symbols: []string{"nosuch"}}, arm64, []string{"it needs the kernel symbol nosuch, which this kernel does not have"}},
		{"member", lab.Needs{Members: []string{"a.c"}}, arm64, []string{"it needs a.c, which this kernel's types do not have"}},
		{"board", lab.Needs{NotOn: []string{"raspi3b"}}, raspi, []string{"it does not run on raspi3b"}},
		{"another board", lab.Needs{NotOn: []string{"raspi3b"}}, arm64, nil},
		{"size of a board", lab.Needs{CPUs: 64, MemoryMB: 1 << 20}, raspi, []string{"it needs 64 CPUs, raspi3b has 4", "it needs 1048576 MB of memory, raspi3b has 1024"}},
		{"nodes", lab.Needs{NUMANodes: 2}, arm64, nil},
		{"nodes of a board", lab.Needs{NUMANodes: 2}, raspi, []string{"it needs 2 NUMA nodes, raspi3b has one"}},
		{"files are not known yet", lab.Needs{Files: []string{"/proc/x"}}, arm64, nil},
	} {
		if d := cmp.Diff(tt.want, Missing(tt.needs, k, tt.on)); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
	}
}
