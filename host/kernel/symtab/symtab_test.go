package symtab

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const kallsyms = `0000000000000000 A fixed_percpu_data
0000000000035040 A current_task
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000010 t local
not a line
ffffffff81000040 T kernel_clone
ffffffff81000080 t local
ffffffff81000090 T in_a_module	[module]
ffffffff82000000 D init_task
`

func table(t testing.TB, text string, more ...Symbol) *Table {
	t.Helper()
	table, err := Decode(Encode([]byte(text), more...))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestCovering(t *testing.T) {
	table := table(t, kallsyms, Symbol{0xffffffff81500000, 'R', "linux_banner"})
	if table.Len() != 9 {
		t.Fatalf("%d symbols, want 9", table.Len())
	}
	for addr, want := range map[uint64]string{
		0xffffffff81000000: "_text T ffffffff81000010",
		0xffffffff8100000f: "_text T ffffffff81000010",
		0xffffffff81000044: "kernel_clone T ffffffff81000080",
		0xffffffff81500004: "linux_banner R ffffffff82000000",
		0xffffffff82000004: "init_task D 0",
		0x35041:            "current_task A ffffffff81000000",
	} {
		i, end, ok := table.Covering(addr)
		s := table.Symbol(i)
		if got := fmt.Sprintf("%s %c %x", s.Name, s.Type, end); !ok || got != want {
			t.Errorf("Covering(%#x) = %s, %t; want %s", addr, got, ok, want)
		}
	}
	if _, _, ok := (&Table{}).Covering(5); ok {
		t.Error("an empty table covers an address")
	}
}

func TestNamed(t *testing.T) {
	table := table(t, kallsyms)
	for name, want := range map[string][]Symbol{
		"local":        {{0xffffffff81000010, 't', "local"}, {0xffffffff81000080, 't', "local"}},
		"kernel_clone": {{0xffffffff81000040, 'T', "kernel_clone"}},
		"kernel_clon":  nil,
		"zzz":          nil,
		"":             nil,
		"in_a_module":  nil,
	} {
		if diff := cmp.Diff(want, table.Named(name)); diff != "" {
			t.Errorf("Named(%q) (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode([]byte(kallsyms)), uint64(0xffffffff81000044), "local")
	f.Add([]byte(magic+"\x01\x00\x00\x00\x00\x00\x00\x000123456789abcdef"), uint64(3), "")
	f.Fuzz(func(t *testing.T, b []byte, addr uint64, name string) {
		table, err := Decode(b)
		if err != nil {
			return
		}
		if i, _, ok := table.Covering(addr); ok && i >= table.Len() {
			t.Errorf("Covering = %d of %d", i, table.Len())
		}
		table.Named(name)
		for i := range table.Len() {
			table.Symbol(i)
		}
	})
}
