package creation

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/kernel"
)

// members makes facts of "struct.member" and offsets.
func members(m map[string]int) map[string]kernel.Member {
	out := map[string]kernel.Member{}
	for name, off := range m {
		out[name] = kernel.Member{Offset: off, Size: 8}
	}
	return out
}

var (
	structParam = []kernel.Param{{Name: "args", Type: "struct kernel_clone_args *"}}
	valueParam  = []kernel.Param{{Name: "clone_flags", Type: "long unsigned int"}}
)

// Offsets are those of Debian's kernels.
var (
	facts510 = &kernel.Facts{HasBTF: true, Params: map[string][]kernel.Param{"kernel_clone": structParam},
		Members: members(map[string]int{
			"kernel_clone_args.flags": 0, "kernel_clone_args.exit_signal": 32, "kernel_clone_args.stack": 40, "kernel_clone_args.stack_size": 48,
			"kthread_create_info.threadfn": 0, "kthread_create_info.data": 8,
		})}
	facts612 = &kernel.Facts{HasBTF: true, Params: map[string][]kernel.Param{"kernel_clone": structParam},
		Members: members(map[string]int{
			"kernel_clone_args.flags": 0, "kernel_clone_args.exit_signal": 40, "kernel_clone_args.stack": 48, "kernel_clone_args.stack_size": 56,
			"kernel_clone_args.fn": 96, "kernel_clone_args.fn_arg": 104,
			"kthread_create_info.full_name": 0, "kthread_create_info.threadfn": 8, "kthread_create_info.data": 16,
		})}
)

// linked returns each probe with the two ways to fetch arm's link register.
func linked(specs ...string) (out []string) {
	for _, s := range specs {
		out = append(out, s+" lr=%lr:symbol", s+" lr=%lr:x32")
	}
	return out
}

// withoutOlder returns alternatives as text. It checks that those for kernels without the
// fetch types x8 to x64 come last, and leaves them out.
func withoutOlder(t *testing.T, all []wire.KprobeTry) (out []string) {
	t.Helper()
	var older, want []string
	for _, a := range all {
		text := a.Symbol + " " + strings.Join(a.Args, " ")
		if !strings.Contains(text, ":x") {
			older = append(older, text)
			continue
		}
		if len(older) > 0 {
			t.Errorf("%s comes after %s", text, older[0])
		}
		out = append(out, text)
		if a.Symbol != "kernel_clone" {
			want = append(want, strings.ReplaceAll(text, ":x", ":u"))
		}
	}
	if d := cmp.Diff(want, older); d != "" {
		t.Errorf("for older kernels: -want +got\n%s", d)
	}
	return out
}

func TestProbeOfTheCreationFunction(t *testing.T) {
	for _, c := range []struct {
		name, arch string
		facts      *kernel.Facts
		want       []string // the alternatives in order: symbol and arguments
	}{
		{"5.10", "amd64", facts510, []string{
			"kernel_clone flags=+0(%di):x64 exit_signal=+32(%di):s32 stack=+40(%di):x64 stack_size=+48(%di):x64 kt_threadfn=+0(+48(%di)):x64 kt_data=+8(+48(%di)):x64",
			"kernel_clone flags=+0(%di):x64 exit_signal=+32(%di):s32 stack=+40(%di):x64 stack_size=+48(%di):x64",
			"_do_fork clone_flags=%di:x64 flags=+0(%di):x64",
			"do_fork clone_flags=%di:x64 kt_threadfn=+0(%dx):x64 kt_data=+8(%dx):x64",
			"do_fork clone_flags=%di:x64",
		}},
		{"6.12", "arm64", facts612, []string{
			"kernel_clone flags=+0(%x0):x64 exit_signal=+40(%x0):s32 fn=+96(%x0):x64 fn_arg=+104(%x0):x64 stack=+48(%x0):x64 stack_size=+56(%x0):x64 kt_threadfn=+8(+104(%x0)):x64 kt_data=+16(+104(%x0)):x64 kt_name=+0(+0(+104(%x0))):string lr=%x30:symbol",
			"kernel_clone flags=+0(%x0):x64 exit_signal=+40(%x0):s32 fn=+96(%x0):x64 fn_arg=+104(%x0):x64 stack=+48(%x0):x64 stack_size=+56(%x0):x64 kt_threadfn=+8(+104(%x0)):x64 kt_data=+16(+104(%x0)):x64 kt_name=+0(+0(+104(%x0))):string lr=%x30:x64",
			"kernel_clone flags=+0(%x0):x64 exit_signal=+40(%x0):s32 fn=+96(%x0):x64 fn_arg=+104(%x0):x64 stack=+48(%x0):x64 stack_size=+56(%x0):x64 lr=%x30:symbol",
			"kernel_clone flags=+0(%x0):x64 exit_signal=+40(%x0):s32 fn=+96(%x0):x64 fn_arg=+104(%x0):x64 stack=+48(%x0):x64 stack_size=+56(%x0):x64 lr=%x30:x64",
			"_do_fork clone_flags=%x0:x64 flags=+0(%x0):x64 lr=%x30:symbol",
			"_do_fork clone_flags=%x0:x64 flags=+0(%x0):x64 lr=%x30:x64",
			"do_fork clone_flags=%x0:x64 kt_threadfn=+8(%x2):x64 kt_data=+16(%x2):x64 kt_name=+0(+0(%x2)):string lr=%x30:symbol",
			"do_fork clone_flags=%x0:x64 kt_threadfn=+8(%x2):x64 kt_data=+16(%x2):x64 kt_name=+0(+0(%x2)):string lr=%x30:x64",
			"do_fork clone_flags=%x0:x64 lr=%x30:symbol",
			"do_fork clone_flags=%x0:x64 lr=%x30:x64",
		}},
		{"no BTF", "arm", nil, linked(
			"kernel_clone flags=+0(%r0):x64",
			"_do_fork clone_flags=%r0:x32 flags=+0(%r0):x64",
			"do_fork clone_flags=%r0:x32",
		)},
		{"a _do_fork of known type: struct", "amd64",
			&kernel.Facts{Params: map[string][]kernel.Param{"_do_fork": structParam}, Members: members(map[string]int{"kernel_clone_args.flags": 0, "kernel_clone_args.exit_signal": 32})},
			[]string{
				"kernel_clone flags=+0(%di):x64 exit_signal=+32(%di):s32",
				"_do_fork flags=+0(%di):x64 exit_signal=+32(%di):s32",
				"do_fork clone_flags=%di:x64",
			}},
		{"a _do_fork of known type: by value, with kthread's structure", "arm",
			&kernel.Facts{Params: map[string][]kernel.Param{"_do_fork": valueParam}, Members: members(map[string]int{"kthread_create_info.threadfn": 0, "kthread_create_info.data": 4})},
			linked(
				"kernel_clone flags=+0(%r0):x64",
				"_do_fork clone_flags=%r0:x32 kt_threadfn=+0(%r2):x32 kt_data=+4(%r2):x32",
				"_do_fork clone_flags=%r0:x32",
				"do_fork clone_flags=%r0:x32 kt_threadfn=+0(%r2):x32 kt_data=+4(%r2):x32",
				"do_fork clone_flags=%r0:x32",
			)},
		{"a _do_fork of known type: by value", "amd64", &kernel.Facts{Params: map[string][]kernel.Param{"_do_fork": valueParam}}, []string{
			"kernel_clone flags=+0(%di):x64",
			"_do_fork clone_flags=%di:x64",
			"do_fork clone_flags=%di:x64",
		}},
	} {
		probes, err := Probes(c.arch, c.facts, false)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := withoutOlder(t, probes[0].Alternatives)
		if d := cmp.Diff(c.want, got); d != "" || probes[0].Event != EventClone || probes[0].Optional {
			t.Errorf("%s: %s, optional %v: -want +got\n%s", c.name, probes[0].Event, probes[0].Optional, d)
		}
	}
}

func TestProbeOfTheRequest(t *testing.T) {
	for arch, want := range map[string][]string{
		"amd64": {
			"__kthread_create_on_node threadfn=%di:x64 data=%si:x64 namefmt=+0(%cx):string threadfn_sym=%di:symbol",
			"__kthread_create_on_node threadfn=%di:x64 data=%si:x64 namefmt=+0(%cx):string",
			"kthread_create_on_node threadfn=%di:x64 data=%si:x64 namefmt=+0(%cx):string threadfn_sym=%di:symbol",
			"kthread_create_on_node threadfn=%di:x64 data=%si:x64 namefmt=+0(%cx):string",
		},
		"arm64": {
			"__kthread_create_on_node threadfn=%x0:x64 data=%x1:x64 namefmt=+0(%x3):string threadfn_sym=%x0:symbol lr=%x30:symbol",
			"__kthread_create_on_node threadfn=%x0:x64 data=%x1:x64 namefmt=+0(%x3):string lr=%x30:x64",
			"kthread_create_on_node threadfn=%x0:x64 data=%x1:x64 namefmt=+0(%x3):string threadfn_sym=%x0:symbol lr=%x30:symbol",
			"kthread_create_on_node threadfn=%x0:x64 data=%x1:x64 namefmt=+0(%x3):string lr=%x30:x64",
		},
	} {
		probes, err := Probes(arch, facts612, false)
		if err != nil {
			t.Fatal(err)
		}
		got := withoutOlder(t, probes[1].Alternatives)
		if d := cmp.Diff(want, got); d != "" || probes[1].Event != EventKthread || !probes[1].Optional {
			t.Errorf("%s: %s, optional %v: -want +got\n%s", arch, probes[1].Event, probes[1].Optional, d)
		}
	}
}

func TestNoProbesOfAnUnknownArchitecture(t *testing.T) {
	_, err := Probes("riscv64", facts612, false)
	want := `plan the trace: no calling convention for architecture "riscv64"`
	if err == nil || err.Error() != want {
		t.Errorf("Probes(riscv64): %v, want %s", err, want)
	}
}

// Every field that Probes fetches and Join reads is in the real traces.
func TestTracesHaveTheFields(t *testing.T) {
	for name, text := range traces(t) {
		if strings.Contains(name, "nobtf") {
			continue
		}
		arch, facts := "amd64", facts612
		if strings.Contains(name, "arm64") {
			arch = "arm64"
		}
		if strings.HasPrefix(name, "5.10") {
			facts = facts510
		} else if strings.HasPrefix(name, "6.1.") {
			continue // its offsets are not among the facts here
		}
		probes, err := Probes(arch, facts, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, probe := range probes {
			_, line, ok := strings.Cut(text, ": "+probe.Event+": (")
			line, _, _ = strings.Cut(line, "\n")
			for _, arg := range probe.Alternatives[0].Args {
				key, _, _ := strings.Cut(arg, "=")
				if !ok || !strings.Contains(line, " "+key+"=") {
					t.Errorf("%s: event %s lacks %s", name, probe.Event, key)
				}
			}
		}
	}
}
