package kern

import (
	"bytes"

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

// FindInitTask finds the idle task of the first CPU in a kernel without symbols of data:
// in its image, by its name, its number 0, and a list of tasks that leads from it to
// others and back.
func (k *Kernel) FindInitTask() (uint64, error) {
	comm, err := k.Member("task_struct", "comm")
	if err != nil {
		return 0, err
	}
	tasks, err := k.Member("task_struct", "tasks")
	if err != nil {
		return 0, err
	}
	const most, step = 64 << 20, 1 << 20
	name := []byte("swapper/0\x00")
	buf := make([]byte, step+16)
	text, _ := k.link("_text")
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
			addr := k.running(text+off+uint64(at)) - uint64(comm.Offset)
			l := k.Look()
			o := l.Object("task_struct", addr)
			n := 0
			if o.Uint("pid") == 0 && o.Uint("tgid") == 0 && o.Err() == nil && addr%16 == 0 &&
				l.List(addr+uint64(tasks.Offset), tasks.Offset, 1<<16, func(uint64) bool { n++; return n < 2 }) == nil && n > 0 {
				return addr, nil
			}
		}
	}
	return 0, outcome.Inputf("kernel %s: its first task is not found: it has symbols of functions only (no CONFIG_KALLSYMS_ALL)", k.Image)
}
