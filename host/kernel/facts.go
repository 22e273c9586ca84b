package kernel

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/guest/ksym"
	"labctl/host/arch"
	"labctl/host/kernel/ctype"
	"labctl/host/outcome"
)

// Facts is the type information that labctl uses, read from the BTF in a kernel's
// image without booting it.
type Facts struct {
	// HasBTF reports whether the image contains BTF; without BTF, Members and
	// Params are empty.
	HasBTF bool `json:"has_btf"`
	// Members maps "struct.member" to its offset: "kernel_clone_args.flags".
	// Members of anonymous structs and unions are listed under their own names.
	Members map[string]Member `json:"members"`
	// Params maps a function, such as "kernel_clone", to its parameters in order.
	Params map[string][]Param `json:"params"`
}

// Member is the offset and size of a struct member, in bytes.
type Member struct {
	Offset int `json:"offset"`
	Size   int `json:"size"`
	// Bits and Shift are set for a bit field: the value is Bits wide and starts
	// Shift bits above the lowest bit of the Size bytes at Offset.
	Bits  int `json:"bits,omitempty"`
	Shift int `json:"shift,omitempty"`
}

// Param is one parameter of a kernel function, in C syntax.
type Param = ctype.Param

// The number in factsFile must be incremented when wantedMembers, wantedParams or the
// encoding change.
//
// wantedMembers lists the members that labctl reads. Not every kernel has all of
// them: exit_signal moved from task_struct to signal_struct and back, and state
// became __state in 5.14.
var wantedMembers = []struct {
	name    string
	members string
}{
	{"kernel_clone_args", "flags pidfd child_tid parent_tid exit_signal stack stack_size tls fn fn_arg kthread io_thread user_worker no_files idle cgroup"},
	{"kthread_create_info", "threadfn data node full_name result done"},
	{"task_struct", "pid tgid comm real_parent mm __state state flags stack tasks thread thread_node signal exit_signal"},
}

// wantedParams lists the functions that create tasks, under every name that they
// have had. BTF contains those that the compiler did not inline.
var wantedParams = slices.Concat(ksym.Functions(ksym.FamilyCreation), ksym.Functions(ksym.FamilyRequest), []string{
	"kernel_thread", "copy_process", "create_kthread",
	"__do_sys_clone", "__do_sys_clone3", "user_mode_thread", "create_io_thread",
})

// Facts returns the kernel's type information. The first call parses the BTF,
// which is megabytes, that was extracted when the kernel was added to the cache;
// the result is stored next to it, and later calls read that small file.
func (k *Kernel) Facts(ctx context.Context) (_ *Facts, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	data, err := k.DerivedData(factsFile, func() ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f := &Facts{Members: map[string]Member{}, Params: map[string][]Param{}}
		spec, err := k.Types(ctx)
		if err != nil {
			return nil, err
		}
		if spec != nil {
			if f, err = readFacts(spec, arch.Bits(k.Arch)); err != nil {
				return nil, fmt.Errorf("facts of kernel %s: %w", k, err)
			}
		}
		return json.Marshal(f)
	})
	if err != nil {
		return nil, err
	}
	f := new(Facts)
	if err := json.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("facts of kernel %s: %w", k, err)
	}
	return f, nil
}

// readFacts looks up the wanted types.
func readFacts(spec *btf.Spec, bits int) (*Facts, error) {
	f := &Facts{HasBTF: true, Members: map[string]Member{}, Params: map[string][]Param{}}
	for _, w := range wantedMembers {
		wanted := strings.Fields(w.members)
		structs, err := ctype.Structs(spec, w.name)
		if err != nil {
			return nil, err
		}
		if len(structs) == 0 {
			continue
		}
		for _, m := range ctype.Members(structs[0], bits) {
			if m.Size > 0 && slices.Contains(wanted, m.Name) {
				f.Members[w.name+"."+m.Name] = Member{m.Offset, m.Size, m.Bits, m.Shift}
			}
		}
	}
	for _, name := range wantedParams {
		params, ok, err := ctype.Params(spec, name)
		if err != nil {
			return nil, err
		}
		if ok {
			f.Params[name] = params
		}
	}
	return f, nil
}
