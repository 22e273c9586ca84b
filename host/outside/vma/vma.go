// Package vma lists the memory areas of a guest's process from outside the guest: what
// /proc/PID/maps shows.
package vma

import (
	"errors"
	"fmt"
	"strings"

	"labctl/host/outcome"
	"labctl/host/outside/kern"
	"labctl/host/text"
)

// Area is a range of a process's addresses.
type Area struct {
	Start  uint64 `json:"start"`
	End    uint64 `json:"end"`
	Flags  uint64 `json:"flags"` // vm_flags
	Offset uint64 `json:"offset"`
	Major  uint64 `json:"major"`
	Minor  uint64 `json:"minor"`
	Inode  uint64 `json:"inode"`
	Name   string `json:"name,omitempty"` // a path, or "[heap]"
	Addr   uint64 `json:"addr"`           // of its struct vm_area_struct

	word int // the kernel's, in bytes
}

// Flags of include/linux/mm.h.
const (
	flagRead     = 1 << 0
	flagWrite    = 1 << 1
	flagExec     = 1 << 2
	flagMayShare = 1 << 7
)

// Perms are the area's permissions as in /proc/PID/maps: "r-xp".
func (a Area) Perms() string {
	b := []byte("---p")
	for i, f := range []uint64{flagRead, flagWrite, flagExec} {
		if a.Flags&f != 0 {
			b[i] = "rwx"[i]
		}
	}
	if a.Flags&flagMayShare != 0 {
		b[3] = 's'
	}
	return string(b)
}

// String is the area's line in /proc/PID/maps (fs/proc/task_mmu.c, show_vma_header_prefix).
func (a Area) String() string {
	s := fmt.Sprintf("%08x-%08x %s %08x %02x:%02x %d ", a.Start, a.End, a.Perms(), a.Offset, a.Major, a.Minor, a.Inode)
	if a.Name == "" {
		return s
	}
	// Names start in one column (seq_pad, by the size of a pointer).
	return fmt.Sprintf("%-*s%s", 25+6*a.word, s, a.Name)
}

// maxAreas limits the areas of a process: the default of vm.max_map_count.
const maxAreas = 1 << 16

const tries = 5

// ErrKernelThread means that a task has no memory areas.
var ErrKernelThread = outcome.New(outcome.BadInput, "it has no memory of its own: a kernel thread, or it has exited")

// Read lists the areas of the process of a task. A running process may change them
// meanwhile: torn says what did not fit together.
func Read(l *kern.Look, task uint64) (areas []Area, torn string, err error) {
	for range tries {
		l.Fresh()
		if areas, err = read(l, task); err == nil || !errors.Is(err, kern.ErrTorn) {
			break
		}
	}
	if errors.Is(err, kern.ErrTorn) && len(areas) > 0 {
		return areas, text.Line(err.Error(), 200), nil
	}
	return areas, "", err
}

func read(l *kern.Look, task uint64) ([]Area, error) {
	t := l.Object("task_struct", task)
	at := t.Uint("mm")
	if t.Err() != nil {
		return nil, t.Err()
	}
	if at == 0 {
		return nil, ErrKernelThread
	}
	mm := l.Object("mm_struct", at)
	r := reader{l: l, mm: mm}
	var err error
	if mm.Has("mm_mt") { // 6.1
		tree := l.Object("maple_tree", mm.At("mm_mt"))
		root := tree.Uint("ma_root")
		if err = tree.Err(); err == nil {
			err = r.tree(root)
		}
	} else {
		err = r.list(mm.Uint("mmap"))
	}
	if err == nil {
		err = mm.Err()
	}
	return r.areas, err
}

type reader struct {
	l     *kern.Look
	mm    *kern.Object
	areas []Area
	nodes int
}

// list walks the list of areas that kernels have to 6.0.
func (r *reader) list(at uint64) error {
	for at != 0 {
		vma := r.l.Object("vm_area_struct", at)
		if err := r.add(vma); err != nil {
			return err
		}
		at = vma.Uint("vm_next")
		if vma.Err() != nil {
			return fmt.Errorf("%w: %w", kern.ErrTorn, vma.Err())
		}
	}
	return nil
}

// The maple tree (include/linux/maple_tree.h, lib/maple_tree.c). A node is aligned to 256
// bytes; the bits below tell its type.
const (
	nodeAlign   = 256
	typeShift   = 3
	typeLeaf64  = 1
	typeRange64 = 2
	typeArange  = 3
	zeroEntry   = 257<<2 | 2 // XA_ZERO_ENTRY: reserved, empty
	maxNodes    = 1 << 14
	maxDepth    = 12
)

func isNode(entry uint64) bool { return entry&3 == 2 && entry > 4096 }

func (r *reader) tree(root uint64) error {
	if root == 0 {
		return nil
	}
	if !isNode(root) { // a single area that starts at 0
		return r.add(r.l.Object("vm_area_struct", root))
	}
	return r.node(root, 0, ^uint64(0)>>(64-8*uint(r.l.K.Word())), 0)
}

// node walks the areas below a node, which covers the addresses from min to max.
func (r *reader) node(entry, min, max uint64, depth int) error {
	if r.nodes++; depth > maxDepth || r.nodes > maxNodes {
		return fmt.Errorf("%w: a tree of areas that is too large or too deep", kern.ErrTorn)
	}
	addr, kind := entry&^(nodeAlign-1), entry>>typeShift&0xf
	typ := "maple_range_64"
	if kind == typeArange {
		typ = "maple_arange_64"
	} else if kind != typeLeaf64 && kind != typeRange64 {
		return fmt.Errorf("%w: a node of type %d in a tree of areas", kern.ErrTorn, kind)
	}
	pivots, err := r.l.K.Member(typ, "pivot")
	if err != nil {
		return err
	}
	slots, err := r.l.K.Member(typ, "slot")
	if err != nil {
		return err
	}
	word := r.l.K.Word()
	for i := range slots.Size / word {
		end := max
		if i < pivots.Size/word {
			p, err := r.l.Pointer(addr + uint64(pivots.Offset+i*word))
			if err != nil {
				return fmt.Errorf("%w: %w", kern.ErrTorn, err)
			}
			if p != 0 || i == 0 {
				end = p
			}
		}
		if end < min || end > max {
			return fmt.Errorf("%w: a node of a tree of areas is out of order", kern.ErrTorn)
		}
		slot, err := r.l.Pointer(addr + uint64(slots.Offset+i*word))
		if err != nil {
			return fmt.Errorf("%w: %w", kern.ErrTorn, err)
		}
		switch {
		case slot == 0 || slot == zeroEntry:
		case kind == typeLeaf64:
			if err := r.add(r.l.Object("vm_area_struct", slot)); err != nil {
				return err
			}
			if a := r.areas[len(r.areas)-1]; a.Start != min || a.End-1 != end {
				return fmt.Errorf("%w: an area from %#x to %#x is not where it belongs", kern.ErrTorn, a.Start, a.End)
			}
		default:
			if err := r.node(slot, min, end, depth+1); err != nil {
				return err
			}
		}
		if end == max {
			return nil
		}
		min = end + 1
	}
	return nil
}

// add reads an area. They come in ascending order.
func (r *reader) add(vma *kern.Object) error {
	a := Area{Addr: vma.Addr, word: r.l.K.Word(), Start: vma.Uint("vm_start"), End: vma.Uint("vm_end"), Flags: vma.Uint("vm_flags")}
	file := vma.Uint("vm_file")
	if vma.Err() != nil {
		return fmt.Errorf("%w: %w", kern.ErrTorn, vma.Err())
	}
	if n := len(r.areas); n == maxAreas || a.Start >= a.End || n > 0 && r.areas[n-1].End > a.Start {
		return fmt.Errorf("%w: an area from %#x to %#x behind others, or %d of them", kern.ErrTorn, a.Start, a.End, n)
	}
	if file != 0 {
		a.Offset = vma.Uint("vm_pgoff") * r.l.K.Table().Format.Page()
		r.file(&a, r.l.Object("file", file))
	} else {
		a.Name = r.special(vma, a)
	}
	r.areas = append(r.areas, a)
	return nil
}

func (r *reader) file(a *Area, f *kern.Object) {
	inode := f.Follow("f_inode", "inode")
	a.Inode = inode.Uint("i_ino")
	dev := inode.Follow("i_sb", "super_block").Uint("s_dev")
	a.Major, a.Minor = dev>>20, dev&(1<<20-1) // MAJOR and MINOR of include/linux/kdev_t.h
	a.Name = Path(r.l, f.Uint("f_path.dentry"), f.Uint("f_path.mnt"))
}

// special names an area without a file as the kernel does (get_vma_name).
func (r *reader) special(vma *kern.Object, a Area) string {
	// By the function, since kernels may have no symbols of data.
	name, ok := r.l.K.Addr("special_mapping_name")
	if ops := vma.Uint("vm_ops"); ok && ops != 0 && r.l.Object("vm_operations_struct", ops).Uint("name") == name {
		m := vma.Follow("vm_private_data", "vm_special_mapping")
		if name, err := r.l.CString(m.Uint("name"), 64); err == nil && m.Err() == nil {
			return text.Line(name, 64)
		}
	}
	switch {
	case a.Start <= r.mm.Uint("brk") && a.End >= r.mm.Uint("start_brk"):
		return "[heap]"
	case a.Start <= r.mm.Uint("start_stack") && a.End >= r.mm.Uint("start_stack"):
		return "[stack]"
	}
	return ""
}

// Limits on paths.
const (
	maxNames = 64
	maxName  = 256
)

// Path returns the path of a directory entry below a mount, as far as it can be read, ""
// if not at all (fs/d_path.c, d_path).
func Path(l *kern.Look, dentry, vfsmount uint64) string {
	inner, err := l.K.Member("mount", "mnt")
	if err != nil || dentry == 0 {
		return ""
	}
	deleted := ""
	if d := l.Object("dentry", dentry); d.Uint("d_parent") == dentry {
		// A file without a directory, such as a System V segment or a memfd, whose mount's
		// root is another.
		simple, ok := l.K.Addr("simple_dname")
		if ops := d.Uint("d_op"); ok && ops != 0 && l.Object("dentry_operations", ops).Uint("d_dname") == simple {
			if name, ok := dname(l, d); ok {
				return "/" + name + " (deleted)"
			}
		}
	} else if d.Uint("d_hash.pprev") == 0 && d.Err() == nil {
		deleted = " (deleted)"
	}
	var names []string
	for range maxNames {
		d := l.Object("dentry", dentry)
		root := l.Object("vfsmount", vfsmount).Uint("mnt_root")
		parent := d.Uint("d_parent")
		if d.Err() != nil {
			break
		}
		if dentry == root {
			m := l.Object("mount", vfsmount-uint64(inner.Offset))
			up, at := m.Uint("mnt_parent"), m.Uint("mnt_mountpoint")
			if m.Err() != nil || up == m.Addr || up == 0 {
				return "/" + strings.Join(names, "/") + deleted
			}
			dentry, vfsmount = at, up+uint64(inner.Offset)
			continue
		}
		if parent == dentry { // not below the mount, such as a pipe
			break
		}
		name, ok := dname(l, d)
		if !ok {
			break
		}
		names = append([]string{name}, names...)
		dentry = parent
	}
	return "/" + strings.Join(names, "/") + deleted
}

// dname is a directory entry's own name.
func dname(l *kern.Look, d *kern.Object) (string, bool) {
	b := make([]byte, min(d.Uint("d_name.len"), maxName))
	if d.Err() != nil || l.Read(b, d.Uint("d_name.name")) != nil {
		return "", false
	}
	return text.Line(string(b), maxName), true
}
