package profile

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"

	"labctl/guest/ksym"
	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/kernel/ctype"
	"labctl/host/kernel/image"
	"labctl/host/outcome"
	"labctl/host/text"
)

// structs lists the structs whose layout is recorded: those that the labs cover.
var structs = []string{
	"clone_args", "cred", "files_struct", "fs_struct", "kernel_clone_args", "kthread_create_info", "mm_struct",
	"nsproxy", "pid", "sighand_struct", "signal_struct", "task_struct", "thread_info",
}

// subjects are the types in the prototype of a function that works on tasks.
var subjects = []string{"struct task_struct *", "struct kernel_clone_args *"}

// glue are the prefixes of functions that implement tracepoints.
var glue = []string{
	"__bpf_trace_", "__traceiter_", "__probestub_", "perf_trace_", "do_perf_trace_", "trace_event_raw_event_", "do_trace_event_raw_event_",
	"trace_raw_output_", "btf_trace_", "__do_trace_",
}

// noCalls are names that start like a system call but are not one: the entry for
// unassigned numbers, the table, and functions of frame buffers and drivers.
var noCalls = []string{"ni_syscall", "call_table", "copyarea", "fillrect", "imageblit", "info", "info_parse_param"}

// tracepointMarks are the prefixes of a tracepoint's symbols. The first is a
// function, since 5.10; the second is data, which is in kallsyms only with
// CONFIG_KALLSYMS_ALL. __tracepoint_ext_ of 7.x is another name for the same.
var tracepointMarks = []string{"__traceiter_", "__tracepoint_"}

// padding is the prefix of the symbols for the padding before functions in x86
// kernels (since 6.2).
const padding = "__pfx_"

// file is the cached profile in the kernel's directory; increment the number when
// its contents change.
const file = "profile-1.json"

// making serializes the computation of profiles, which takes a second and 200 MB.
var making sync.Mutex

// JSON returns a kernel's profile encoded as kernel.json. It is computed from the
// image once and cached next to it; later calls read a file of some 150 KB.
func JSON(ctx context.Context, k *kernel.Kernel) ([]byte, error) {
	making.Lock()
	defer making.Unlock()
	return k.DerivedData(file, func() ([]byte, error) {
		p, err := Of(ctx, k)
		if err != nil {
			return nil, err
		}
		b, err := Encode(p)
		if err != nil {
			return nil, fmt.Errorf("profile of kernel %s: %w", k, err)
		}
		return b, nil
	})
}

// Of computes the profile of a kernel. What the image lacks is reported in Gaps.
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

// readSymbols extracts tracepoints, system calls and function families from text
// in the form of /proc/kallsyms.
func (p *Profile) readSymbols(kallsyms []byte, functions map[string]Function) {
	p.Symbols = true
	marked := map[string][]string{} // by tracepoint mark or system call prefix
	calls := ksym.TablePrefixes(p.Arch)
	wanted := slices.Concat(tracepointMarks, calls)
	for sc := bufio.NewScanner(bytes.NewReader(kallsyms)); sc.Scan(); {
		_, rest, _ := strings.Cut(sc.Text(), " ")
		kind, name, _ := strings.Cut(rest, " ")
		if !isName(name) || len(kind) != 1 {
			continue
		}
		for _, prefix := range wanted {
			// A weak symbol is a system call that this kernel was built without.
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

// set returns the names without compiler suffixes, sorted and without duplicates.
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

// readTypes extracts struct layouts and prototypes from BTF.
func (p *Profile) readTypes(spec *btf.Spec, functions map[string]Function) error {
	p.BTF = true
	for _, name := range structs {
		found, err := ctype.Structs(spec, name)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			p.Structs = append(p.Structs, layout(found[0], arch.Bits(p.Arch)))
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
		// Static functions may share a name: use the first.
		if known.Proto == "" && (family || deals && !made) && isText(proto) {
			known.Name, known.Proto = name, proto
			functions[name] = known
		}
	}
	return nil
}

// layout returns a struct's layout without members that are not valid in a profile.
func layout(s *btf.Struct, bits int) Struct {
	out := Struct{Name: s.Name, Size: int(s.Size)}
	for _, m := range ctype.Members(s, bits) {
		typ := ctype.String(m.Type, "")
		if isName(m.Name) && isText(typ) && len(out.Members) < maxMembers {
			out.Members = append(out.Members, Member{m.Name, typ, m.Offset, m.Size, m.Bits, m.Shift})
		}
	}
	return out
}
