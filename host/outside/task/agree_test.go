package task

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/outside/kern"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/vm"
)

var machines = flag.String("machines", "6.12/amd64,6.12/arm64", "KERNEL/MACHINE,… to hold outside against inside on")

// open boots a machine and finds its kernel from outside.
func open(t *testing.T, name string) (*vm.VM, *kern.Kernel) {
	t.Helper()
	ref, target, ok := strings.Cut(name, "/")
	if !ok {
		t.Fatalf("-machines %s: want KERNEL/MACHINE", name)
	}
	spec := machine.Spec{Kernel: ref, Arch: target}
	if strings.HasPrefix(target, "raspi") {
		spec.Arch, spec.Board = "", target
	}
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	env := machine.Env{Cache: cache, Say: func(s string) { t.Log(s) }}
	m, err := machine.Prepare(t.Context(), env, spec)
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.Boot(t.Context(), env, record.Dir{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	memory, err := v.Memory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	start := time.Now()
	k, err := kern.Open(t.Context(), m.Kernel, memory, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %+v, found in %v", m.Kernel, k.Anchor(), time.Since(start).Round(time.Microsecond))
	return v, k
}

// TestOutsideAgainstInside: what is read from outside is what the kernel says of itself.
func TestOutsideAgainstInside(t *testing.T) {
	for _, name := range strings.Split(*machines, ",") {
		t.Run(name, func(t *testing.T) {
			v, k := open(t, name)
			ctx, cancel := context.WithTimeout(v.Context(), v.Patient(time.Minute))
			defer cancel()

			// What has not run between the first look and the last must be the same.
			read := func() *Tasks {
				tasks, err := Read(k, nil)
				if err != nil {
					t.Fatal(err)
				}
				if tasks.Torn != "" {
					t.Logf("torn: %s", tasks.Torn)
				}
				return tasks
			}
			first := read()
			var err error
			start := time.Now()
			tasks := read()
			outside := map[int]stack.Stack{}
			for i := range tasks.List {
				if outside[tasks.List[i].TID], err = tasks.Stack(&tasks.List[i]); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d tasks with stacks in %v", len(tasks.List), time.Since(start).Round(time.Microsecond))
			inside, _, err := v.Agent().Sleepers(ctx, maxTasks)
			if err != nil {
				t.Fatal(err)
			}
			last := read()
			slept := func(tid int) bool {
				a, b := first.Find(tid), last.Find(tid)
				return a != nil && b != nil && a.switches == b.switches && !a.OnCPU && !b.OnCPU
			}
			compareTasks(t, tasks, inside)
			compareStacks(t, tasks, outside, inside, slept)
		})
	}
}

// compareTasks holds the list against /proc.
func compareTasks(t *testing.T, tasks *Tasks, inside []wire.Sleeper) {
	t.Helper()
	for _, s := range inside {
		one := tasks.Find(s.TID)
		if one == nil {
			t.Errorf("task %d %s is not seen from outside", s.TID, s.Comm)
			continue
		}
		got := fmt.Sprintf("%d %d %d %s %t", one.PID, one.TID, one.PPID, one.Comm, one.Kernel)
		if want := fmt.Sprintf("%d %d %d %s %t", s.PID, s.TID, s.PPID, s.Comm, s.Kernel); got != want && !workerName(s, one) {
			t.Errorf("outside: %s; inside: %s", got, want)
		}
		if one.State != s.State && !one.OnCPU && one.State != "R" {
			t.Errorf("task %d %s: state %s outside, %s inside", s.TID, s.Comm, one.State, s.State)
		}
	}
}

// workerName reports whether two names are of a worker thread, to whose name /proc adds
// what it does (fs/proc/array.c, wq_worker_comm).
func workerName(s wire.Sleeper, one *Task) bool {
	return s.Kernel && strings.HasPrefix(s.Comm, "kworker/") && strings.HasPrefix(one.Comm, "kworker/")
}

// lines are a stack as /proc/PID/stack prints it.
func lines(s stack.Stack) (out []string) {
	for _, f := range s.Frames {
		out = append(out, f.String())
	}
	return out
}

// compareStacks holds stacks against /proc/PID/stack. Those of tasks that slept throughout
// must be the same; of all tasks 98 of a hundred, since few run at a time.
func compareStacks(t *testing.T, tasks *Tasks, outside map[int]stack.Stack, inside []wire.Sleeper, slept func(tid int) bool) {
	t.Helper()
	same, compared, moved := 0, 0, 0
	for _, s := range inside {
		out, ok := outside[s.TID]
		if !ok || len(s.Stack) == 0 {
			continue
		}
		var want []string
		for _, line := range s.Stack {
			f, _ := stack.ParseFrame(line)
			want = append(want, f.String())
		}
		got := lines(tasks.TrimScheduler(out))
		if !slept(s.TID) {
			moved++
			continue
		}
		compared++
		if slices.Equal(got, want) {
			same++
			continue
		}
		t.Errorf("task %d %s:\n  outside %s\n  inside  %s", s.TID, s.Comm, strings.Join(got, "\n          "), strings.Join(want, "\n          "))
	}
	t.Logf("%d of %d stacks are the same; %d tasks ran meanwhile", same, compared, moved)
	if compared < 20 {
		t.Errorf("%d stacks could be compared, want at least 20", compared)
	}
}
