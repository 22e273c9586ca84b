package kern

import (
	"iter"

	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/stack"
	"labctl/host/text"
)

// Global is a variable of the kernel's whose type BTF does not have: to 5.x it has none of
// variables, later those of each CPU's own ones.
type Global struct {
	Name   string
	Type   string // in C
	PerCPU bool
	// Of and By are for the head of a list: of which structures, through which member.
	Of, By string
}

// Globals lists well-known variables.
var Globals = []Global{
	{Name: "init_task", Type: "struct task_struct"},
	{Name: "init_mm", Type: "struct mm_struct"},
	{Name: "init_cred", Type: "struct cred"},
	{Name: "init_files", Type: "struct files_struct"},
	{Name: "init_fs", Type: "struct fs_struct"},
	{Name: "init_nsproxy", Type: "struct nsproxy"},
	{Name: "init_pid_ns", Type: "struct pid_namespace"},
	{Name: "init_uts_ns", Type: "struct uts_namespace"},
	{Name: "init_user_ns", Type: "struct user_namespace"},
	{Name: "init_ipc_ns", Type: "struct ipc_namespace"},
	{Name: "init_net", Type: "struct net"},
	{Name: "init_signals", Type: "struct signal_struct"},
	{Name: "init_sighand", Type: "struct sighand_struct"},
	{Name: "init_struct_pid", Type: "struct pid"},
	{Name: "root_task_group", Type: "struct task_group"},
	{Name: "runqueues", Type: "struct rq", PerCPU: true},
	{Name: "modules", Type: "struct list_head", Of: "module", By: "list"},
	{Name: "super_blocks", Type: "struct list_head", Of: "super_block", By: "s_list"},
	{Name: "slab_caches", Type: "struct list_head", Of: "kmem_cache", By: "list"},
	{Name: "workqueues", Type: "struct list_head", Of: "workqueue_struct", By: "list"},
	{Name: "net_namespace_list", Type: "struct list_head", Of: "net", By: "list"},
	{Name: "task_groups", Type: "struct list_head", Of: "task_group", By: "list"},
	{Name: "vmap_area_list", Type: "struct list_head", Of: "vmap_area", By: "list"},
	{Name: "prb", Type: "struct printk_ringbuffer *"},
	{Name: "jiffies_64", Type: "u64"},
	{Name: "system_state", Type: "enum system_states"},
	{Name: "contig_page_data", Type: "struct pglist_data"},
	{Name: "kthreadd_task", Type: "struct task_struct *"},
	{Name: "current_task", Type: "struct task_struct *", PerCPU: true},
	{Name: "file_systems", Type: "struct file_system_type *"},
	{Name: "timekeeper_data", Type: "struct tk_data"},
}

// IsListHead reports whether a variable is known as the head of a list.
func IsListHead(name string) bool {
	for _, g := range Globals {
		if g.Name == name {
			return g.Of != ""
		}
	}
	return false
}

// Variable returns the address of a variable, or of a function. Of one that each CPU has
// its own of, it is the CPU's.
func (l *Look) Variable(name string, cpu int) (uint64, error) {
	addr, ok := l.K.Addr(name)
	if !ok {
		if l.K.noData() {
			return 0, &NoSymbolError{Name: text.Line(name, 80), Kernel: l.K.Image.String(), NoData: true}
		}
		return 0, outcome.Inputf("the kernel has no symbol %s%s", text.Line(name, 80), nearest.Hint(name, l.K.SymbolNames()))
	}
	if !l.K.isPerCPU(name, addr) {
		return addr, nil
	}
	if addr, ok = l.PerCPU(name, cpu); !ok {
		return 0, outcome.Inputf("variable %s of CPU %d: there is no such CPU", text.Line(name, 80), cpu)
	}
	return addr, nil
}

// isPerCPU reports whether a symbol is a per-CPU variable: it is in their section, or, on
// x86 to 6.14, at an offset from its start.
func (k *Kernel) isPerCPU(name string, addr uint64) bool {
	for _, g := range Globals {
		if g.Name == name {
			return g.PerCPU
		}
	}
	if !k.kernelHalf(addr) {
		return true
	}
	lo, ok1 := k.Addr("__per_cpu_start")
	hi, ok2 := k.Addr("__per_cpu_end")
	return ok1 && ok2 && k.kernelHalf(lo) && addr >= lo && addr < hi
}

// Named is a symbol of the kernel's or of a module's, at the address at which it runs.
type Named struct {
	Addr   uint64
	Type   byte
	Name   string
	Module string
}

// AllSymbols returns all symbols of the kernel's image and of its modules.
func (l *Look) AllSymbols() iter.Seq[Named] {
	return func(yield func(Named) bool) {
		for i := range l.K.syms.Len() {
			s := l.K.syms.Symbol(i)
			if !yield(Named{l.K.running(s.Addr), s.Type, s.Name, ""}) {
				return
			}
		}
		mods, _ := l.Modules()
		for _, m := range mods {
			for _, s := range m.load(l) {
				name, err := l.CString(s.name, 512)
				if err == nil && !yield(Named{s.addr, '?', stack.Sanitise(name), m.Name}) {
					return
				}
			}
		}
	}
}

// SymbolNames lists the names of the image's symbols, for messages.
func (k *Kernel) SymbolNames() []string {
	names := make([]string, k.syms.Len())
	for i := range names {
		names[i] = k.syms.Symbol(i).Name
	}
	return names
}
