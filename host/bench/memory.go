package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/targets"
	"labctl/host/vm"
)

const (
	clones = 20
	// cloneBound is what that many idle machines may take together, in cold ones.
	cloneBound = "8"
	// idle is how long machines are left alone before they are weighed.
	idle = 2 * time.Second
)

// parts is proportional memory (Pss) by what it holds, in MB.
type parts struct{ ram, text, jit, anon float64 }

func (p parts) sum() float64 { return p.ram + p.text + p.jit + p.anon }

func (p parts) plus(q parts) parts {
	return parts{p.ram + q.ram, p.text + q.text, p.jit + q.jit, p.anon + q.anon}
}

func (p parts) String() string {
	return fmt.Sprintf("%.0f MB: guest RAM %.0f, programs and libraries %.0f, translated code %.0f, heap and the rest %.0f", p.sum(), p.ram, p.text, p.jit, p.anon)
}

// readSmaps sums the Pss of /proc/PID/smaps (proc_pid_smaps(5)) for a QEMU whose
// guest has ram bytes. The kernel splits a mapping where its properties differ,
// so pieces of anonymous guest RAM are known by lying in a run of neighbours that
// is as long as the RAM.
func readSmaps(r io.Reader, ram uint64) (parts, error) {
	type mapping struct {
		from, to   uint64
		perms, who string
		pss        float64
	}
	var all []mapping
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) >= 5 && strings.Contains(f[0], "-") && !strings.HasSuffix(f[0], ":") {
			a, b, _ := strings.Cut(f[0], "-")
			from, err1 := strconv.ParseUint(a, 16, 64)
			to, err2 := strconv.ParseUint(b, 16, 64)
			if err := errors.Join(err1, err2); err != nil {
				return parts{}, fmt.Errorf("read smaps: %w", err)
			}
			who := ""
			if len(f) > 5 {
				who = f[5]
			}
			all = append(all, mapping{from: from, to: to, perms: f[1], who: who})
			continue
		}
		if len(f) >= 2 && f[0] == "Pss:" && len(all) > 0 {
			kb, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return parts{}, fmt.Errorf("read smaps: %w", err)
			}
			all[len(all)-1].pss += float64(kb) / 1024
		}
	}
	if err := s.Err(); err != nil {
		return parts{}, fmt.Errorf("read smaps: %w", err)
	}
	var p parts
	for i := 0; i < len(all); {
		// A run is neighbours of one file and one set of permissions.
		end, sum := i+1, all[i].pss
		for end < len(all) && all[end].from == all[end-1].to && all[end].perms == all[i].perms && all[end].who == all[i].who {
			sum += all[end].pss
			end++
		}
		m := all[i]
		switch size := all[end-1].to - m.from; {
		case strings.HasSuffix(m.who, ".ram"), m.who == "" && size >= ram && !strings.Contains(m.perms, "x"):
			p.ram += sum
		case m.who == "" && strings.Contains(m.perms, "x"):
			p.jit += sum
		case strings.HasPrefix(m.who, "/"):
			p.text += sum
		default:
			p.anon += sum
		}
		i = end
	}
	return p, nil
}

func weigh(pid, memoryMB int) (parts, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return parts{}, err
	}
	defer f.Close()
	return readSmaps(f, uint64(memoryMB)<<20)
}

// memory weighs machines: 20 idle warm ones, all at once, against one that was
// booted. Pss counts a page that n processes share as an nth for each, so the sum
// is what all of them take.
func (b *bench) memory() error {
	cache, err := kernel.Open("")
	if err != nil {
		return err
	}
	env := machine.Env{Cache: cache, Say: func(s string) { b.say("  %s", s) }}
	for _, arch := range b.arches {
		t, ok := targets.Find(arch)
		if !ok {
			return fmt.Errorf("-arch: %q is not known", arch)
		}
		start := func(cold bool) (*vm.VM, error) {
			m, err := machine.Prepare(b.ctx, env, machine.Spec{Arch: arch, Kernel: b.kernel, Cold: cold})
			if err != nil {
				return nil, err
			}
			return m.Boot(b.ctx, env, record.Dir{}, nil)
		}
		one, err := start(true)
		if err != nil {
			return err
		}
		time.Sleep(idle)
		base, err := weigh(one.PID(), t.MemoryMB)
		one.Close()
		if err != nil {
			return err
		}
		many, err := weighClones(start, t.MemoryMB)
		if err != nil {
			return err
		}
		b.table.add(row{
			what: fmt.Sprintf("%s: memory of %d idle warm machines together (Pss)", arch, clones), baseline: "one cold machine",
			got: sample{many.sum()}, base: sample{base.sum()}, unit: "MB", bound: cloneBound,
		})
		b.table.note("%s: %d warm machines: %s", arch, clones, many)
		b.table.note("%s: one cold machine: %s", arch, base)
		b.say("  %s: %d warm: %s; one cold: %s", arch, clones, many, base)
		if err := b.own(arch); err != nil {
			return err
		}
	}
	return nil
}

func weighClones(start func(bool) (*vm.VM, error), memoryMB int) (sum parts, err error) {
	var vms []*vm.VM
	defer func() {
		for _, v := range vms {
			v.Close()
		}
	}()
	for range clones {
		v, err := start(false)
		if err != nil {
			return sum, err
		}
		vms = append(vms, v)
	}
	time.Sleep(idle)
	for _, v := range vms {
		p, err := weigh(v.PID(), memoryMB)
		if err != nil {
			return sum, err
		}
		sum = sum.plus(p)
	}
	return sum, nil
}

// own compares the peak of labctl's own memory with that of the QEMU it runs.
func (b *bench) own(arch string) error {
	cmd := exec.CommandContext(b.ctx, b.labctl, "probe", "run", "fork", "-q", "--cold", "--arch", arch, "--kernel", b.kernel, "--out", b.folder())
	if err := cmd.Start(); err != nil {
		return err
	}
	// The kernel keeps the peaks, but gives them to living processes only.
	var wg sync.WaitGroup
	done := make(chan struct{})
	var mine, qemu float64
	wg.Go(func() {
		for {
			mine = max(mine, peak(cmd.Process.Pid))
			for _, pid := range children(cmd.Process.Pid) {
				qemu = max(qemu, peak(pid))
			}
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	err := cmd.Wait()
	close(done)
	wg.Wait()
	if err != nil {
		return fmt.Errorf("labctl probe run fork: %w", err)
	}
	b.table.add(row{
		what: arch + ": peak memory of labctl itself (RSS), probe run --cold", baseline: "peak of the QEMU it runs",
		got: sample{mine}, base: sample{qemu}, unit: "MB",
	})
	return nil
}

// peak is VmHWM of /proc/PID/status in MB, 0 when the process is gone.
func peak(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	kb, _ := strconv.ParseFloat(f[0], 64)
	return kb / 1024
}

// children are the processes that any thread of pid has started.
func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var pids []int
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(s); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}
