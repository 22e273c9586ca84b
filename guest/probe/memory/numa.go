package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "numa", Run: numa}) }

// Of include/uapi/linux/mempolicy.h.
const (
	mpolBind       = 2
	mpolInterleave = 3
	mpolNode       = 1 << 0 // MPOL_F_NODE
	mpolAddr       = 1 << 1 // MPOL_F_ADDR
	mpolMove       = 1 << 1 // MPOL_MF_MOVE
)

// maxNodes bounds what sysfs is asked for.
const maxNodes = 64

// placed is where the pages of a mapping are.
type placed struct {
	Nodes []int     `json:"nodes"` // by get_mempolicy
	Maps  string    `json:"maps"`  // the line of numa_maps, without its address
	Pages []mm.Page `json:"pages"`
}

// numa has memory placed on one node, on another and on both by turns, and moves it.
var numa = staged("numa", "mbind, get_mempolicy and numa_maps of memory of one's own", numaOn)

// balancing is where the kernel is told whether to look for pages that are on the wrong node. To find out who uses
// them it takes entries away for a while, which would not be there when they are looked at.
const balancing = "/proc/sys/kernel/numa_balancing"

func numaOn(_ context.Context, st *stage) (err error) {
	cpus, distances, err := nodes()
	if err != nil {
		return err
	}
	if len(cpus) < 2 {
		return fmt.Errorf("this machine has %d NUMA node: start it with --numa 2", len(cpus))
	}
	if was, rerr := os.ReadFile(balancing); rerr == nil {
		if err := os.WriteFile(balancing, []byte("0"), 0); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.WriteFile(balancing, was, 0)) }()
	}
	st.data["cpus"] = cpus
	st.data["distances"] = distances
	var cpu, node uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), uintptr(unsafe.Pointer(&node)), 0); errno != 0 {
		return fmt.Errorf("getcpu: %w", errno)
	}
	st.data["here"] = map[string]uint32{"cpu": cpu, "node": node}

	far := 1 - int(node)&1 // one of the first two that is not ours
	near := int(node)
	const n = 4
	type part struct {
		name       string
		mode, mask uintptr
		b          []byte
	}
	parts := []*part{{name: "bound", mode: mpolBind, mask: 1 << far}, {name: "local"}, {name: "spread", mode: mpolInterleave, mask: 3}}
	for _, p := range parts {
		if p.b, err = st.pages(n, unix.MAP_PRIVATE); err != nil {
			return err
		}
		if p.mode != 0 {
			if err := mbind(p.b, p.mode, p.mask, 0); err != nil {
				return err
			}
		}
	}
	st.data["far"], st.data["near"] = far, near
	before := parts[0].b
	untouched, err := look(st.self.PID, before)
	if err != nil {
		return err
	}
	st.data["untouched"] = untouched
	point := map[string][]int64{"self": {int64(st.self.PID)}}
	for _, p := range parts {
		fill(p.b)
		where, err := placedOf(st.self.PID, p.b)
		if err != nil {
			return err
		}
		st.data[p.name] = where
		point[p.name] = said(p.b)
	}
	if err := probe.Look("placed", point); err != nil {
		return err
	}
	if err := mbind(before, mpolBind, 1<<near, mpolMove); err != nil {
		return err
	}
	where, err := placedOf(st.self.PID, before)
	if err != nil {
		return err
	}
	st.data["moved"] = where
	kept := true
	for i := range n {
		kept = kept && before[i*os.Getpagesize()] == byte(i+1)
	}
	st.data["kept"] = kept
	return probe.Look("moved", map[string][]int64{"self": {int64(st.self.PID)}, "bound": said(before)})
}

// mbind sets the policy of a mapping.
func mbind(b []byte, mode, mask, flags uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), mode, uintptr(unsafe.Pointer(&mask)), maxNodes, flags); errno != 0 {
		return fmt.Errorf("mbind: %w", errno)
	}
	return nil
}

// nodeOf is the node of the page that a slice starts in. It brings the page, if there is none.
func nodeOf(b []byte) (int, error) {
	node := int32(-1)
	if _, _, errno := unix.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&node)), 0, 0, uintptr(unsafe.Pointer(&b[0])), mpolNode|mpolAddr, 0); errno != 0 {
		return 0, fmt.Errorf("get_mempolicy: %w", errno)
	}
	return int(node), nil
}

func placedOf(pid int, b []byte) (p placed, err error) {
	page := os.Getpagesize()
	for i := 0; i < len(b); i += page {
		node, err := nodeOf(b[i:])
		if err != nil {
			return p, err
		}
		p.Nodes = append(p.Nodes, node)
	}
	if p.Pages, err = look(pid, b); err != nil {
		return p, err
	}
	text, err := mm.NUMAMaps(pid)
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(text) {
		if at, rest, _ := strings.Cut(line, " "); at == fmt.Sprintf("%08x", mm.Addr(b)) {
			p.Maps = strings.TrimSpace(rest)
		}
	}
	return p, nil
}

// nodes are the CPUs of each node and how far it is to the others, as sysfs has them.
func nodes() (cpus []string, distances [][]int, err error) {
	for node := range maxNodes {
		dir := fmt.Sprintf("/sys/devices/system/node/node%d", node)
		list, err := os.ReadFile(dir + "/cpulist")
		if os.IsNotExist(err) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		text, err := os.ReadFile(dir + "/distance")
		if err != nil {
			return nil, nil, err
		}
		var row []int
		for _, word := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				return nil, nil, fmt.Errorf("%s/distance: %q", dir, text)
			}
			row = append(row, n)
		}
		cpus = append(cpus, strings.TrimSpace(string(list)))
		distances = append(distances, row)
	}
	return cpus, distances, nil
}
