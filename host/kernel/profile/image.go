package profile

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"

	"labctl/guest/ksym"
	"labctl/host/kernel"
	"labctl/host/kernel/ctype"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/scratch"
	"labctl/host/text"
)

// structs are those whose layout is kept: what labs teach of tasks.
var structs = []string{
	"clone_args", "cred", "files_struct", "fs_struct", "kernel_clone_args", "kthread_create_info", "mm_struct",
	"nsproxy", "pid", "sighand_struct", "signal_struct", "task_struct", "thread_info",
}

// subjects are in the prototype of a function that deals with tasks.
var subjects = []string{"struct task_struct *", "struct kernel_clone_args *"}

// glue begins the names of functions that tracepoints are made of.
var glue = []string{
	"__bpf_trace_", "__traceiter_", "__probestub_", "perf_trace_", "do_perf_trace_", "trace_event_raw_event_", "do_trace_event_raw_event_",
	"trace_raw_output_", "btf_trace_", "__do_trace_",
}

// noCalls are what else begins as a system call does: the entry of numbers without a call, the table,
// and functions of frame buffers and of drivers.
var noCalls = []string{"ni_syscall", "call_table", "copyarea", "fillrect", "imageblit", "info", "info_parse_param"}

// tracepointMarks begin the symbols of a tracepoint. The first is a function, from
// 5.10: data is in a table by CONFIG_KALLSYMS_ALL alone, and __tracepoint_ext_
// of 7.x is another name of the same.
var tracepointMarks = []string{"__traceiter_", "__tracepoint_"}

// padding begins the names of what x86 kernels put before a function (6.2 and on).
const padding = "__pfx_"

// file is the cache beside the kernel; the number rises with what is in it.
const file = "profile-1.json"

// making lets one profile be made at a time: it takes a second and 200 MB.
var making sync.Mutex

// JSON gives the bytes of kernel.json of a kernel. They are made once, from the
// image, and kept beside it; later calls read a file of some 150 KB.
func JSON(ctx context.Context, k *kernel.Kernel) ([]byte, error) {
	path := filepath.Join(k.Dir, file)
	if b, ok := cached(path, k); ok {
		return b, nil
	}
	making.Lock()
	defer making.Unlock()
	if b, ok := cached(path, k); ok {
		return b, nil
	}
	p, err := Of(ctx, k)
	if err != nil {
		return nil, err
	}
	b, err := Encode(p)
	if err != nil {
		return nil, fmt.Errorf("profile of kernel %s: %w", k, err)
	}
	// A cache that cannot be written costs time on the next call, no more.
	if err := scratch.Write(path, b, 0o644); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("profile of kernel %s: %w", k, err))
	}
	return b, nil
}

// cached reads the file, which is whole or not there, and is believed when its
// head names the very image.
func cached(path string, k *kernel.Kernel) ([]byte, bool) {
	b, err := os.ReadFile(path)
	sum := k.ImageSHA256()
	return b, err == nil && sum != "" && bytes.Contains(b[:min(len(b), 1024)], []byte(sum))
}

// Of makes the profile of a kernel. What the image does not have is a gap.
func Of(ctx context.Context, k *kernel.Kernel) (*Profile, error) {
	p := &Profile{Schema: Schema, Release: text.Line(k.Release, maxName), Arch: k.Arch, SHA256: k.ImageSHA256()}
	functions := map[string]Function{}
	symbols, err := k.Kallsyms(ctx)
	switch {
	case errors.Is(err, image.ErrNoKallsyms):
		p.gap(err)
	case err != nil:
		return nil, err
	default:
		p.readSymbols(symbols, functions)
	}
	spec, err := k.Types(ctx)
	var corrupt *kernel.CorruptError
	switch {
	case errors.As(err, &corrupt), ctx.Err() != nil:
		return nil, cmp.Or(ctx.Err(), err)
	case err != nil:
		p.gap(err)
	case spec != nil:
		if err := p.readTypes(spec, functions); err != nil {
			return nil, outcome.Default(outcome.BadInput, fmt.Errorf("profile of kernel %s: %w", k, err))
		}
	}
	p.Functions = sorted(functions)
	return p, p.check()
}

func sorted(functions map[string]Function) (all []Function) {
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		all = append(all, functions[name])
	}
	return all
}

func (p *Profile) gap(err error) { p.Gaps = append(p.Gaps, text.Line(err.Error(), 300)) }

// readSymbols takes tracepoints, system calls and families out of a text in the
// form of /proc/kallsyms.
func (p *Profile) readSymbols(kallsyms []byte, functions map[string]Function) {
	p.Symbols = true
	marked := map[string][]string{} // by mark or prefix of a system call
	calls := ksym.TablePrefixes(p.Arch)
	wanted := slices.Concat(tracepointMarks, calls)
	for sc := bufio.NewScanner(bytes.NewReader(kallsyms)); sc.Scan(); {
		_, rest, _ := strings.Cut(sc.Text(), " ")
		kind, name, _ := strings.Cut(rest, " ")
		if !isName(name) || len(kind) != 1 {
			continue
		}
		for _, prefix := range wanted {
			// A weak system call is one that this kernel was built without.
			if tail, ok := strings.CutPrefix(name, prefix); ok && tail != "" && (prefix[0] == '_' && kind != "W" || kind == "T") {
				marked[prefix] = append(marked[prefix], tail)
			}
		}
		if (kind == "T" || kind == "t") && name == ksym.Strip(name) && !strings.HasPrefix(name, padding) {
			p.Known.Symbols++
		}
		if sym, ok := ksym.Family(name); ok && sym.Family != ksym.FamilyEntry && kind != "W" && len(functions) < maxNames {
			base := ksym.Strip(name)
			functions[base] = Function{Name: base, Family: sym.Family}
		}
	}
	for _, mark := range tracepointMarks {
		if len(p.Tracepoints) == 0 {
			p.Tracepoints = set(marked[mark])
		}
	}
	for _, prefix := range calls {
		if len(p.Syscalls) == 0 {
			p.Syscalls = slices.DeleteFunc(set(marked[prefix]), func(name string) bool { return slices.Contains(noCalls, name) })
		}
	}
}

// set is names without a compiler's suffix, sorted, each once.
func set(names []string) []string {
	var out []string
	for _, n := range names {
		if n == ksym.Strip(n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxNames)]
}

// readTypes takes layouts and prototypes out of BTF.
func (p *Profile) readTypes(spec *btf.Spec, functions map[string]Function) error {
	p.BTF = true
	for _, name := range structs {
		found, err := ctype.Structs(spec, name)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			p.Structs = append(p.Structs, layout(found[0]))
		}
	}
	for t, err := range spec.All() {
		if err != nil {
			return fmt.Errorf("read BTF: %w", err)
		}
		fn, ok := t.(*btf.Func)
		if !ok {
			continue
		}
		p.Known.Types++
		if !isName(fn.Name) || len(functions) >= maxNames {
			continue
		}
		name := ksym.Strip(fn.Name)
		known, family := functions[name]
		proto := ctype.String(fn.Type, name)
		deals := slices.ContainsFunc(subjects, func(s string) bool { return strings.Contains(proto, s) })
		made := slices.ContainsFunc(glue, func(g string) bool { return strings.HasPrefix(name, g) })
		// Static functions may share a name: the first stands for them.
		if known.Proto == "" && (family || deals && !made) && isText(proto) {
			known.Name, known.Proto = name, proto
			functions[name] = known
		}
	}
	return nil
}

// layout is a structure without the members that a profile may not have.
func layout(s *btf.Struct) Struct {
	out := Struct{Name: s.Name, Size: int(s.Size)}
	for _, m := range ctype.Members(s) {
		typ := ctype.String(m.Type, "")
		if isName(m.Name) && isText(typ) && len(out.Members) < maxMembers {
			out.Members = append(out.Members, Member{m.Name, typ, m.Offset, m.Size, m.Bits, m.Shift})
		}
	}
	return out
}
