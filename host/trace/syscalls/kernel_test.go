package syscalls_test

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
	"testing"

	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/outside"
	"labctl/host/record"
	"labctl/host/trace/syscalls"
)

// around is what kernels put around the names of the functions that do system calls, and
// programs' headers around those of the calls: chown32 is done by sys_chown where
// sys_chown16 does chown, clock_gettime64 by sys_clock_gettime.
var around = regexp.MustCompile(`^(__(x64|arm64|se|do)_)?(arm64_|x86_)?sys_(arm64_|old_|new)?|^new|(_time)?(16|32|64)?(_64)?(_wrapper)?$`)

// same are calls whose function has another name yet.
var same = map[string]string{
	"umount2": "umount", "_llseek": "llseek", "_newselect": "select", "_sysctl": "sysctl",
	"arm_sync_file_range": "sync_file_range2", "arm_fadvise": "arm_fadvise", "ugetrlimit": "getrlimit",
}

// TestAgainstKernels: the functions in the system-call tables of running kernels, read from
// their memory, have the names that the numbers have here.
func TestAgainstKernels(t *testing.T) {
	for _, at := range []struct{ kernel, arch string }{
		{"5.10", "amd64"}, {"6.12", "amd64"}, {"7.2", "amd64"},
		{"5.10", "arm64"}, {"6.12", "arm64"}, {"7.2", "arm64"},
		{"6.12", "arm"},
	} {
		t.Run(at.kernel+"/"+at.arch, func(t *testing.T) {
			g, uname := open(t, at.kernel, at.arch)
			table := syscalls.Of(uname)
			if table == nil || table.Arch != at.arch {
				t.Fatalf("%q is of %+v; want %s", uname, table, at.arch)
			}
			functions := map[uint64][]string{} // some have several names
			for f := range g.Look().AllSymbols() {
				if strings.Contains(f.Name, "sys_") {
					functions[f.Addr] = append(functions[f.Addr], around.ReplaceAllString(f.Name, ""))
				}
			}
			start, end := find(t, g, table, functions)
			named := 0
			for addr := start; addr < end; addr += uint64(g.Word()) {
				entry, err := g.Look().Pointer(addr)
				if err != nil {
					t.Fatal(err)
				}
				n := int64(addr-start) / int64(g.Word())
				is := functions[entry]
				if is == nil { // behind the table
					break
				}
				call, _ := table.Name(n)
				call = around.ReplaceAllString(call, "")
				switch {
				case slices.Contains(is, "ni_syscall"): // not built in, or none
				case slices.Contains(is, call), slices.Contains(is, same[call]):
					named++
				default:
					t.Errorf("%d: the kernel has %q, the table %q", n, is, call)
				}
			}
			t.Logf("%s: %d calls", uname, named)
			if named < 280 {
				t.Errorf("%d calls of the kernel have the names of the table; want 280 at least", named)
			}
		})
	}
}

// find is where the kernel has its table. One that has symbols of functions alone is
// searched for its first calls.
func find(t *testing.T, g *outside.Guest, table *syscalls.Table, functions map[uint64][]string) (start, end uint64) {
	t.Helper()
	if s := g.Symbols().Named("sys_call_table"); len(s) == 1 {
		_, end, _ := g.Symbols().Covering(s[0].Addr)
		return g.Running(s[0].Addr), g.Running(end)
	}
	const (
		most = 64 << 20 // of an image
		page = 4 << 10
	)
	at, err := g.MustAddr("_text")
	if err != nil {
		t.Fatal(err)
	}
	first, _ := table.Name(0)
	second, _ := table.Name(1)
	b := make([]byte, page)
	for at &^= page - 1; end < most; at, end = at+page, end+page {
		if g.Look().Read(b, at) != nil {
			continue
		}
		for i := 0; i+16 <= page; i += 8 {
			if slices.Contains(functions[binary.LittleEndian.Uint64(b[i:])], first) &&
				slices.Contains(functions[binary.LittleEndian.Uint64(b[i+8:])], second) {
				start = at + uint64(i)
				return start, start + most
			}
		}
	}
	t.Fatal("no table in the kernel's memory")
	return 0, 0
}

func open(t *testing.T, ref, arch string) (_ *outside.Guest, uname string) {
	t.Helper()
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	env := machine.Env{Cache: cache, Say: func(s string) { t.Log(s) }}
	m, err := machine.Prepare(t.Context(), env, machine.Spec{Kernel: ref, Arch: arch})
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Boot(t.Context(), env, record.Dir{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	g, err := outside.Open(t.Context(), v, m.Kernel, nil)
	if err != nil {
		t.Fatal(v.Why(err))
	}
	t.Cleanup(func() { g.Close() })
	h := v.Hello()
	return g, "Linux " + h.Release + " " + h.Machine
}
