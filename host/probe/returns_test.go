package probe_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/kernel"
	"labctl/host/machine"
	"labctl/host/probe"
	"labctl/host/record"
	"labctl/host/trace"
	"labctl/host/trace/collect"
	"labctl/host/trace/plan"
)

// TestReturnsDoNoDamage: where fprobe events at the returns of the functions that create
// tasks are armed, the stacks of their creations are those of a run without, and agree with
// the probes as there.
func TestReturnsDoNoDamage(t *testing.T) {
	for _, at := range []struct{ kernel, arch string }{{"6.12", "amd64"}, {"7.2", "amd64"}, {"7.2", "arm64"}} {
		t.Run(at.kernel+"/"+at.arch, func(t *testing.T) {
			cache, err := kernel.Open("")
			if err != nil {
				t.Fatal(err)
			}
			env := machine.Env{Cache: cache, Say: func(s string) { t.Log(s) }}
			m, err := machine.Prepare(t.Context(), env, machine.Spec{Kernel: at.kernel, Arch: at.arch})
			if err != nil {
				t.Fatal(err)
			}
			v, err := m.Boot(t.Context(), env, record.Dir{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			run := func() (stacks map[string][]string, made []int) {
				t.Helper()
				var asks []probe.Ask
				for _, name := range []string{"spawn", "fork", "vfork", "thread", "clone3", "kthread"} {
					asks = append(asks, probe.Ask{Name: name})
				}
				all, err := probe.Run(t.Context(), v, m.Kernel, asks, record.Dir{Path: t.TempDir()})
				if err != nil {
					t.Fatal(v.Why(err))
				}
				stacks = map[string][]string{}
				for i := range all {
					p := &all[i]
					for _, f := range p.Findings {
						if !f.OK {
							t.Errorf("%s: %+v", p.Name, f)
						}
					}
					if len(p.Creations) == 0 {
						t.Errorf("%s: no creations", p.Name)
					}
					for _, c := range p.Creations {
						var names []string
						for _, f := range c.Stack.Frames {
							names = append(names, f.Name)
						}
						if c.AskedBy != nil {
							for _, f := range c.AskedBy.Stack.Frames {
								names = append(names, "asked "+f.Name)
							}
						}
						if c.Stack.Truncated {
							names = append(names, "truncated")
						}
						stacks[p.Name] = append(stacks[p.Name], strings.Join(names, " "))
						made = append(made, c.Child.TID)
					}
					slices.Sort(stacks[p.Name])
					stacks[p.Name] = slices.Compact(stacks[p.Name]) // a runtime makes threads when it likes
				}
				return stacks, made
			}
			without, _ := run()
			request := plan.Request{Creations: plan.NoCreations, Fprobes: []string{"kernel_clone", "copy_process", "__kthread_create_on_node"}}
			look, err := trace.Look(t.Context(), v, m.Kernel, request)
			if err != nil {
				t.Fatal(err)
			}
			p, err := plan.Make(request, look)
			if err != nil {
				t.Fatal(err)
			}
			p.Params.Instance = "returns"
			c, err := collect.Start(t.Context(), v.Agent(), m.Kernel, p.Params)
			if err != nil {
				t.Fatal(v.Why(err))
			}
			with, made := run()
			res, err := c.Stop(t.Context())
			if err != nil {
				t.Fatal(v.Why(err))
			}
			defer res.Close()
			if diff := cmp.Diff(without, with); diff != "" {
				t.Errorf("stacks of creations (-without returns +with):\n%s", diff)
			}
			for _, miss := range c.Armed.Missing {
				t.Errorf("missing: %s", miss)
			}
			r, err := trace.NewReader(res.Capture)
			if err != nil {
				t.Fatal(err)
			}
			returned := map[int]bool{}
			for e := range r.Events() {
				if e.Format.Name == "kernel_clone__exit" {
					n, err := e.Int("ret")
					if err != nil {
						t.Error(err)
					}
					returned[int(n)] = true
				}
			}
			for _, tid := range made {
				if !returned[tid] {
					t.Errorf("no return of kernel_clone had %d; it returned %v", tid, fmt.Sprint(returned))
				}
			}
			t.Logf("%d creations, %d returns", len(made), len(returned))
		})
	}
}
