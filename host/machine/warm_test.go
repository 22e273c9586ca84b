package machine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/record"
	"labctl/host/stamp"
	"labctl/host/vm"
	"labctl/host/vm/agent"
	"labctl/host/vm/warm"
)

// ask runs a line in the guest's shell.
func ask(t *testing.T, v *vm.VM, line string) string {
	t.Helper()
	var out bytes.Buffer
	res, err := v.Agent().Exec(v.Context(), wire.ExecParams{Argv: []string{"/bin/sh", "-c", line}}, agent.IO{Stdout: &out})
	if err != nil || res.Code != 0 {
		t.Fatalf("%s: %+v, %v", line, res, v.Why(err))
	}
	return out.String()
}

// Many machines from one template: each has its own memory and random numbers, and the
// correct time.
func TestWarm(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			var said []string
			cache.Say = func(s string) { said = append(said, s) }
			env := Env{Cache: cache, Say: cache.Say}
			m, err := Prepare(t.Context(), env, Spec{Arch: arch, Kernel: "6.12", Commands: true})
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := m.Template(t.Context(), env)
			if err != nil {
				t.Fatal(err)
			}
			store, err := warm.Open("", 0)
			if err != nil {
				t.Fatal(err)
			}
			hits := func() int64 {
				all, err := store.List()
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range all {
					if x.Key == tmpl.Key {
						return x.Hits
					}
				}
				return -1
			}
			before := hits()

			random := map[string]bool{}
			var vms []*vm.VM
			for range 3 { // all at once
				v, dir := boot(t, m)
				vms = append(vms, v)
				var phases []string
				for _, p := range v.Timings() {
					phases = append(phases, string(p.Phase))
				}
				if got, want := strings.Join(phases, " "), "qemu restore resume"; got != want {
					t.Fatalf("phases %q, want %q (%v)", got, want, said)
				}
				if h := v.Hello(); h.Release != m.Kernel.Release || h.Arch != arch {
					t.Errorf("hello %+v after a restore", h)
				}
				if b, err := os.ReadFile(dir.File(record.ConsoleFile)); err != nil || !bytes.Contains(b, []byte("Linux version "+m.Kernel.Release)) {
					t.Errorf("console.log of %d bytes, %v: the template's boot is not in it", len(b), err)
				}
			}
			for i, v := range vms {
				r := ask(t, v, "head -c 32 /dev/urandom | hexdump")
				if random[r] {
					t.Errorf("two machines of one template gave the same random bytes:\n%s", r)
				}
				random[r] = true

				asked := time.Now()
				clock, err := time.Parse(time.UnixDate, strings.TrimSpace(ask(t, v, "date -u")))
				if err != nil {
					t.Fatal(err)
				}
				// The guest's clock is late by the transfer time; date truncates to
				// seconds.
				early := asked.Add(-resumed(v) - 2*time.Second)
				if late := time.Now().Add(time.Second); clock.Before(early) || clock.After(late) {
					t.Errorf("the guest's clock is %v, want between %v and %v", clock, early, late)
				}
				ask(t, v, fmt.Sprintf("echo machine %d > /tmp/mine", i))
			}
			for i, v := range vms {
				if got, want := ask(t, v, "cat /tmp/mine"), fmt.Sprintf("machine %d\n", i); got != want {
					t.Errorf("/tmp/mine of machine %d holds %q", i, got)
				}
			}
			// Tests of other packages may start from the same template meanwhile.
			if got, want := hits(), before+3; got < want {
				t.Errorf("%d starts counted, want %d or more", got, want)
			}
		})
	}
}

// A template that was damaged since it was stored is made again; one that was stored so,
// and cannot be restored, is removed, and the machine boots cold.
func TestDamagedTemplate(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		stored bool
		phase  vm.Phase
		said   string
	}{
		{"damaged", false, vm.PhaseRestore, "is not as it was stored; made again"},
		{"stored-so", true, vm.PhaseKernel, "falling back to a cold boot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var said []string
			cache.Say = func(s string) { said = append(said, s) }
			env := Env{Cache: cache, Say: cache.Say}
			// A distinct argument, so that no other test's template is damaged.
			m, err := Prepare(t.Context(), env, Spec{Arch: "arm64", Kernel: "6.12", Append: []string{"labctl.test=" + tt.name}})
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := m.Template(t.Context(), env)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { tmpl.Drop() })
			st, err := os.Stat(tmpl.State())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(tmpl.State(), st.Size()/2); err != nil {
				t.Fatal(err)
			}
			if tt.stored {
				storeAsIs(t, tmpl.State())
			}
			said = nil
			v, err := m.Boot(t.Context(), env, record.Dir{}, nil)
			if err != nil {
				t.Fatalf("Boot over a damaged template = %v, said %q", err, said)
			}
			defer v.Close()
			if got := v.Timings()[1].Phase; got != tt.phase {
				t.Errorf("second phase %s, want %s", got, tt.phase)
			}
			if len(said) == 0 || !strings.Contains(said[0], tt.said) {
				t.Errorf("said %q, want a line with %q", said, tt.said)
			}
			if _, err := os.Stat(tmpl.State()); os.IsNotExist(err) != tt.stored {
				t.Errorf("the template's state afterwards: %v", err)
			}
		})
	}
}

// storeAsIs makes a template's description one of the state as it is now.
func storeAsIs(t *testing.T, state string) {
	t.Helper()
	name := strings.TrimSuffix(state, ".state") + ".json"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var info map[string]any
	if err := json.Unmarshal(data, &info); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	now, _ := stamp.Of(fi)
	info["files"].(map[string]any)["state"] = now
	if data, err = json.Marshal(info); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// resumed returns how long the guest took to respond to Resume.
func resumed(v *vm.VM) time.Duration {
	for _, t := range v.Timings() {
		if t.Phase == vm.PhaseResume {
			return t.Took
		}
	}
	return 0
}
