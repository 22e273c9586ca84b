package kern

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"

	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/kernel/ctype"
	"labctl/host/nearest"
	"labctl/host/outcome"
)

// layoutsFile is derived from the kernel's BTF, and named after what is wanted of it.
var layoutsFile = sync.OnceValue(func() string {
	sum := sha256.Sum256(fmt.Append(nil, wanted))
	return fmt.Sprintf("layouts-%x.json", sum[:6])
})

// wanted lists the members that this tree of packages reads. They are looked up once for
// each kernel and kept, since parsing BTF takes tens of milliseconds. Not every kernel has
// all of them; others are looked up in the BTF when they are asked for.
var wanted = map[string]string{
	"task_struct": `pid tgid comm state __state exit_state flags cpu on_cpu prio static_prio normal_prio rt_priority policy
		real_parent group_leader tasks thread_node signal stack mm active_mm thread_info
		thread.sp thread.cpu_context.fp thread.cpu_context.sp thread.cpu_context.pc worker_private nvcsw nivcsw blocked_on start_time`,
	"kmem_cache":          "size oo.x",
	"mutex":               "owner.counter wait_list",
	"mutex_waiter":        "list task",
	"kthread":             "full_name",
	"thread_info":         "cpu cpu_context.fp cpu_context.sp cpu_context.pc",
	"signal_struct":       "thread_head nr_threads",
	"inactive_task_frame": "bp ret_addr",
	"pt_regs":             "ip cs sp bp pc pstate regs stackframe",
	"rq":                  "curr idle cpu",
	"list_head":           "next prev",

	"orc_entry": "sp_offset bp_offset sp_reg bp_reg type signal end",

	"module": `list name state refcnt.counter init_layout.base core_layout.base init_layout.size core_layout.size mem
		kallsyms source_list target_list taints arch.num_orcs arch.orc_unwind_ip arch.orc_unwind`,
	"module_memory": "base size",
	"module_use":    "source_list target_list source target",
	"mod_kallsyms":  "symtab num_symtab strtab typetab",

	"printk_ringbuffer":    "desc_ring text_data_ring",
	"prb_desc_ring":        "count_bits descs infos head_id.counter tail_id.counter",
	"prb_desc":             "state_var.counter text_blk_lpos.begin text_blk_lpos.next",
	"prb_data_ring":        "size_bits data head_lpos.counter tail_lpos.counter",
	"printk_info":          "seq ts_nsec text_len facility flags level caller_id dev_info",
	"dev_printk_info":      "subsystem device",
	"mm_struct":            "pgd mmap mm_mt start_brk brk start_stack",
	"maple_tree":           "ma_root ma_flags",
	"maple_node":           "mr64 ma64 alloc slot",
	"maple_range_64":       "pivot slot",
	"maple_arange_64":      "pivot slot",
	"vm_area_struct":       "vm_start vm_end vm_flags vm_pgoff vm_file vm_next vm_mm vm_ops vm_private_data",
	"vm_special_mapping":   "name",
	"vm_operations_struct": "name",
	"file":                 "f_path.dentry f_path.mnt f_inode",
	"dentry":               "d_name.name d_name.len d_parent d_inode d_op d_hash.pprev",
	"dentry_operations":    "d_dname",
	"inode":                "i_ino i_sb",
	"super_block":          "s_dev s_root",
	"mount":                "mnt mnt_mountpoint mnt_parent",
	"vfsmount":             "mnt_root",
	"page":                 "flags _refcount.counter _mapcount.counter compound_head compound_info",
	"folio":                "_large_mapcount.counter _entire_mapcount.counter",
	"mem_section":          "section_mem_map",
}

// layouts returns the offsets and sizes of the wanted members by "struct.member", and the
// sizes of the structures by their names; none for a kernel whose types are not known.
func layouts(ctx context.Context, image *kernel.Kernel) (map[string]kernel.Member, error) {
	derive, name := image.DerivedData, layoutsFile()
	switch image.TypesFrom() {
	case kernel.TypesPackage: // which may be pulled, and removed, at any time
		name = "debug-" + name
	case kernel.TypesDebuginfo: // not the kernel's own
		derive = func(_ string, make func() ([]byte, error)) ([]byte, error) { return make() }
	}
	data, err := derive(name, func() ([]byte, error) {
		found := map[string]kernel.Member{}
		spec, err := image.KnownTypes(ctx)
		if err != nil {
			return nil, err
		}
		if spec != nil {
			for name, members := range wanted {
				if size, err := sizeOf(spec, name); err == nil {
					found[name] = kernel.Member{Size: size}
				}
				for _, m := range strings.Fields(members) {
					if got, err := member(spec, name, m, arch.Bits(image.Arch)); err == nil {
						found[name+"."+m] = got
					}
				}
			}
		}
		return json.Marshal(found)
	})
	if err != nil {
		return nil, err
	}
	var found map[string]kernel.Member
	if err := json.Unmarshal(data, &found); err != nil {
		return nil, fmt.Errorf("layouts of kernel %s: %w", image, err)
	}
	return found, nil
}

// NoMemberError reports a structure or a member that the kernel does not have.
type NoMemberError struct {
	Type   string
	Member string // "" for the structure itself
	Known  []string
}

func (e *NoMemberError) Error() string {
	if e.Member == "" {
		return fmt.Sprintf("the kernel has no struct or union %s", e.Type)
	}
	return fmt.Sprintf("%s has no member %s%s", e.Type, e.Member, nearest.Hint(e.Member, e.Known))
}

// Outcome is BadInput.
func (e *NoMemberError) Outcome() outcome.Kind { return outcome.BadInput }

// Member returns the place of a member in a structure or union, which is named without
// its keyword: Member("task_struct", "thread.sp").
func (k *Kernel) Member(typ, path string) (kernel.Member, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := typ + "." + path
	if m, ok := k.members[key]; ok {
		if m.Size < 0 {
			return m, &NoMemberError{Type: typ, Member: path}
		}
		return m, nil
	}
	if len(k.members) == 0 {
		return kernel.Member{}, NoTypes(k.Image)
	}
	if isWanted(typ, path) {
		return kernel.Member{}, &NoMemberError{Type: typ, Member: path}
	}
	spec, err := k.types()
	if err != nil {
		return kernel.Member{}, err
	}
	m, err := member(spec, typ, path, k.bits)
	if err == nil {
		k.members[key] = m
	}
	return m, err
}

func isWanted(typ, path string) bool {
	for _, m := range strings.Fields(wanted[typ]) {
		if m == path {
			return true
		}
	}
	return false
}

// Size returns the size of a structure or union, in bytes.
func (k *Kernel) Size(typ string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m, ok := k.members[typ]; ok {
		return m.Size, nil
	}
	if len(k.members) == 0 {
		return 0, NoTypes(k.Image)
	}
	if _, ok := wanted[typ]; ok {
		return 0, &NoMemberError{Type: typ}
	}
	spec, err := k.types()
	if err != nil {
		return 0, err
	}
	return sizeOf(spec, typ)
}

func sizeOf(spec *btf.Spec, name string) (int, error) {
	t, err := ctype.Composite(spec, name)
	if err != nil {
		return 0, err
	}
	if t == nil {
		return 0, &NoMemberError{Type: name}
	}
	return btf.Sizeof(t)
}

// member looks a member up.
func member(spec *btf.Spec, typ, path string, bits int) (out kernel.Member, err error) {
	t, err := ctype.Composite(spec, typ)
	if err != nil {
		return out, err
	}
	if t == nil {
		return out, &NoMemberError{Type: typ}
	}
	within := typ
	for _, name := range strings.Split(path, ".") {
		var found *ctype.Member
		var known []string
		for _, m := range ctype.MembersOf(t, bits) {
			if known = append(known, m.Name); m.Name == name {
				found = &m
				break
			}
		}
		if found == nil {
			return out, &NoMemberError{Type: within, Member: name, Known: known}
		}
		out = kernel.Member{Offset: out.Offset + found.Offset, Size: found.Size, Bits: found.Bits, Shift: found.Shift}
		t, within = btf.UnderlyingType(found.Type), within+"."+name
	}
	return out, nil
}
