package kern

import (
	"bytes"

	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/outside/mmu"
)

// PerCPU returns the address of a CPU's own copy of a per-CPU variable. It reports false
// if the kernel has no such variable, or no such CPU.
func (l *Look) PerCPU(name string, cpu int) (uint64, bool) {
	k := l.K
	at, ok1 := k.Addr(name)
	offsets, ok2 := k.Addr("__per_cpu_offset")
	if !ok1 || !ok2 || cpu < 0 || cpu >= maxCPUs {
		return 0, false
	}
	off, err := l.Pointer(offsets + uint64(cpu*k.Word()))
	if err != nil || !l.present(cpu) {
		return 0, false
	}
	addr := at + off
	if k.bits == 32 {
		addr &= 0xffffffff
	}
	return addr, true
}

const maxCPUs = 4096

// present reports whether a CPU is in __cpu_possible_mask. Those that are not have an
// offset, too, of memory that is not theirs (setup_per_cpu_areas).
func (l *Look) present(cpu int) bool {
	mask, ok := l.K.Addr("__cpu_possible_mask")
	if !ok {
		return cpu == 0
	}
	b, err := l.Uint(mask+uint64(cpu/8), 1)
	return err == nil && b>>(cpu%8)&1 != 0
}

// InitTask returns the address of the idle task of the first CPU, at which the list of
// tasks starts.
func (k *Kernel) InitTask() (uint64, error) {
	if k.anchor.InitTask != 0 {
		return k.anchor.InitTask, nil
	}
	if !k.HasTypes() {
		return 0, NoTypes(k.Image)
	}
	return 0, outcome.Inputf("kernel %s: its first task is not found: it has symbols of functions only (no CONFIG_KALLSYMS_ALL)%s", k.Image, getsOthers(k.Image.DebugCommand()))
}

// idleName is the name of the first CPU's idle task (init/init_task.c, and init_idle in
// kernel/sched/core.c).
const idleName = "swapper/0\x00"

// isInitTask reports whether the idle task of the first CPU is at an address: by its name,
// its number 0, and a list of tasks that leads from it to others.
func (k *Kernel) isInitTask(addr uint64) bool {
	tasks, err := k.Member("task_struct", "tasks")
	if addr == 0 || addr%16 != 0 || err != nil {
		return false
	}
	l := k.Look()
	o := l.Object("task_struct", addr)
	if o.String("comm")+"\x00" != idleName || o.Uint("pid") != 0 || o.Uint("tgid") != 0 || o.Err() != nil {
		return false
	}
	n := 0
	err = l.List(addr+uint64(tasks.Offset), tasks.Offset, 2, func(uint64) bool { n++; return false })
	return err == nil && n > 0
}

// findInitTask finds the idle task of the first CPU in the data of a kernel that has no
// symbols of it, 0 if it does not.
func (k *Kernel) findInitTask() uint64 {
	comm, err := k.Member("task_struct", "comm")
	if err != nil {
		return 0
	}
	const most, step = 64 << 20, 1 << 20
	name := []byte(idleName)
	buf := make([]byte, step+16)
	text, _ := k.link(kernel.TextSymbol)
	for off := uint64(0); off < most; off += step {
		if mmu.Read(k.phys, buf, k.anchor.Phys+off) != nil {
			break
		}
		for at := 0; ; at++ {
			i := bytes.Index(buf[at:], name)
			if i < 0 {
				break
			}
			at += i
			if addr := k.running(text+off+uint64(at)) - uint64(comm.Offset); k.isInitTask(addr) {
				return addr
			}
		}
	}
	return 0
}
