package profile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel/ctype"
)

func sample() *Profile {
	p := &Profile{
		Schema: Schema, Release: "6.12.0-x", Arch: "arm64", SHA256: strings.Repeat("ab", 32), BTF: true, Symbols: true, Gaps: []string{"no such thing"},
		Structs:     []Struct{{"task_struct", 64, []Member{{"__state", "unsigned int", 24, 4, 0, 0}, {"flag", "unsigned int", 28, 4, 1, 3}}}},
		Tracepoints: []string{"sched_process_fork", "sched_switch"}, Syscalls: []string{"clone", "clone3"},
		Functions: []Function{{"do_exit", "void do_exit(long int)", ""}, {"kernel_clone", "", "creation"}},
	}
	p.Known.Symbols, p.Known.Types = 10, 9
	return p
}

func TestRoundTrip(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kernel.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Errorf("Read(Encode(p)) differs (-want +got):\n%s", diff)
	}
}

func TestDecodeErrors(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for _, tt := range []struct{ old, with, want string }{
		{`{"schema"`, `["schema"`, "invalid character"},
		{"labctl/kernel/v1", "labctl/kernel/v2", `schema is "labctl/kernel/v2", this labctl reads "labctl/kernel/v1"`},
		{`"btf"`, `"btfs"`, "unknown field"},
		{good, good + "{}", "after top-level value"},
		{`"abab`, `"xyab`, "64 hexadecimal digits"},
		{`"arm64"`, `"arm 64"`, "want a GOARCH"},
		{`"6.12.0-x"`, `"6.12 \u001b[2J"`, "what uname -r prints"},
		{`"no such thing"`, `"\u001b[2J"`, "not a line of text"},
		{`"sched_switch"`, `"sched_process_fork"`, "not sorted, or duplicate"},
		{`"clone3"`, `"clone 3"`, "is not a valid name"},
		{`"offset":24`, `"offset":-1`, "invalid offset or size -1"},
		{`"size":64`, `"size":99999999`, "size 99999999"},
		{`"flag"`, `"__state"`, "duplicate"},
		{`"family":"creation"`, `"family":""`, "want a prototype or a family"},
		{`"void do_exit(long int)"`, `"void\u0007"`, "want a prototype or a family, as text"},
		{`"symbols":10`, `"symbols":-10`, "negative count"},
	} {
		text := strings.Replace(good, tt.old, tt.with, 1)
		if text == good {
			t.Fatalf("%s is not in the sample", tt.old)
		}
		if _, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("Decode with %s = %v; want %q", tt.with, err, tt.want)
		}
	}
	if _, err := Decode(make([]byte, format.Max+1)); err == nil || !strings.Contains(err.Error(), "more than 4 MB") {
		t.Errorf("Decode of too much = %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"labctl/kernel/v1","sha256":"","structs":[{"members":[{"bits":1e99}]}]}`))
	f.Add([]byte(`{"schema":"labctl/kernel/v1","structs":null,"functions":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Errorf("what was read is not read back: %v", err)
		}
		p.Struct("task_struct")
	})
}

func TestReadSymbols(t *testing.T) {
	for _, tt := range []struct {
		name, arch, text                string
		tracepoints, syscalls, families string
		functions                       int
	}{
		{
			"today", "amd64",
			`1 T __x64_sys_clone
1 t __pfx___x64_sys_clone
1 T __x64_sys_read
1 T __x64_sys_ni_syscall
1 W __x64_sys_kcmp
1 T sys_fillrect
1 T kernel_clone
1 t copy_process.isra.0
1 t copy_process.cold
1 T __traceiter_sched_switch
1 D __tracepoint_sched_switch
1 D __tracepoint_ext_sched_switch
1 T entry_SYSCALL_64
bad line
`, "sched_switch", "clone read", "__x64_sys_clone:clone copy_process:copy kernel_clone:creation", 7,
		},
		{
			"before 4.17", "amd64",
			`1 T sys_clone
1 T SyS_clone
1 T sys_fork
1 T sys_ni_syscall
1 W sys_kcmp
1 t sys_off_notify
1 T _do_fork
1 D __tracepoint_sched_switch
`, "sched_switch", "clone fork", "SyS_clone:clone _do_fork:creation sys_clone:clone sys_fork:fork", 6,
		},
		{"arm", "arm", "c1 T sys_fork\nc1 T sys_call_table\nc1 T sys_copyarea\n", "", "fork", "sys_fork:fork", 3},
		{"unknown", "riscv64", "1 T __riscv_sys_read\n1 T kernel_clone\n", "", "", "kernel_clone:creation", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, functions := &Profile{Arch: tt.arch}, map[string]Function{}
			p.readSymbols([]byte(tt.text), functions)
			var families []string
			for _, f := range sorted(functions) {
				families = append(families, f.Name+":"+f.Family)
			}
			if got := strings.Join(p.Tracepoints, " "); got != tt.tracepoints {
				t.Errorf("tracepoints = %s; want %s", got, tt.tracepoints)
			}
			if got := strings.Join(p.Syscalls, " "); got != tt.syscalls {
				t.Errorf("system calls = %s; want %s", got, tt.syscalls)
			}
			if got := strings.Join(families, " "); got != tt.families {
				t.Errorf("families = %s; want %s", got, tt.families)
			}
			if p.Known.Symbols != tt.functions {
				t.Errorf("functions = %d; want %d", p.Known.Symbols, tt.functions)
			}
		})
	}
}

func TestReadTypes(t *testing.T) {
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	long := &btf.Int{Name: "long int", Size: 8, Encoding: btf.Signed}
	task := &btf.Struct{Name: "task_struct", Size: 48}
	task.Members = []btf.Member{
		{Name: "state", Type: &btf.Volatile{Type: long}},
		{Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "a", Type: long}, {Name: "b", Type: u32}}}, Offset: 64},
		{Name: "in_iowait", Type: u32, Offset: 130, BitfieldSize: 1},
		{Name: "parent", Type: &btf.Pointer{Target: task}, Offset: 192},
		{Name: "last", Type: &btf.Array{Type: long, Index: u32, Nelems: 0}, Offset: 256},
	}
	proto := func(ret btf.Type, params ...btf.Type) *btf.FuncProto {
		p := &btf.FuncProto{Return: ret}
		for _, t := range params {
			p.Params = append(p.Params, btf.FuncParam{Name: "x", Type: t})
		}
		return p
	}
	pointer := &btf.Pointer{Target: task}
	var types []btf.Type
	for _, f := range []*btf.Func{
		{Name: "wake_up", Type: proto(u32, pointer)},
		{Name: "find_task", Type: proto(&btf.Pointer{Target: &btf.Const{Type: task}}, long)},
		{Name: "get_task", Type: proto(pointer)},
		{Name: "by_value", Type: proto(&btf.Void{}, long)},
		{Name: "copy_process", Type: proto(long, long)},
		{Name: "__traceiter_x", Type: proto(long, pointer)},
	} {
		types = append(types, f)
	}
	b, err := btf.NewBuilder(append([]btf.Type{task}, types...), nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := ctype.Read(blob)
	if err != nil {
		t.Fatal(err)
	}
	p, functions := &Profile{}, map[string]Function{"copy_process": {Name: "copy_process", Family: "copy"}}
	if err := p.readTypes(spec, functions); err != nil {
		t.Fatal(err)
	}
	want := []Struct{{"task_struct", 48, []Member{
		{"state", "volatile long int", 0, 8, 0, 0}, {"a", "long int", 8, 8, 0, 0}, {"b", "unsigned int", 8, 4, 0, 0},
		{"in_iowait", "unsigned int", 16, 4, 1, 2}, {"parent", "struct task_struct *", 24, 8, 0, 0}, {"last", "long int [0]", 32, 0, 0, 0},
	}}}
	if diff := cmp.Diff(want, p.Structs); diff != "" {
		t.Errorf("structs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Function{
		{"copy_process", "long int copy_process(long int)", "copy"},
		{"find_task", "const struct task_struct *find_task(long int)", ""},
		{"get_task", "struct task_struct *get_task(void)", ""},
		{"wake_up", "unsigned int wake_up(struct task_struct *)", ""},
	}, sorted(functions)); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
	if p.Known.Types != 6 {
		t.Errorf("functions with types = %d; want 6", p.Known.Types)
	}
}
