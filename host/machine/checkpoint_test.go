package machine

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/outcome"
	"labctl/host/vm/agent"
	"labctl/host/vm/warm"
)

// TestBack saves a guest that stands at a breakpoint in the middle of a system call, and
// goes back there twice.
func TestBack(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		arch string
		pc   string // number of the register in gdb's protocol
	}{{"arm64", "20"}, {"amd64", "10"}} {
		t.Run(tt.arch, func(t *testing.T) {
			env := Env{Cache: cache, Say: func(s string) { t.Log(s) }}
			m, err := Prepare(t.Context(), env, Spec{Arch: tt.arch, Kernel: "6.12"})
			if err != nil {
				t.Fatal(err)
			}
			v, _ := boot(t, m)
			ctx, cancel := context.WithTimeout(v.Context(), v.Patient(2*time.Minute))
			defer cancel()
			at := symbol(t, v, "kernel_clone")
			conn, err := v.GDB(ctx)
			if err != nil {
				t.Fatal(err)
			}
			gdb := &stub{t, conn, bufio.NewReader(conn)}
			if got := gdb.ask(fmt.Sprintf("Z0,%x,4", at)); got != "OK" {
				t.Fatalf("gdb: breakpoint = %q", got)
			}
			ran := make(chan error, 1)
			go func() {
				res, err := v.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "fork"}}, agent.IO{})
				if err == nil && res.Code != 0 {
					err = fmt.Errorf("%+v", res)
				}
				ran <- err
			}()
			if got := gdb.ask("c"); !strings.HasPrefix(got, "T05") {
				t.Fatalf("gdb: continue = %q, want a stop at the breakpoint", got)
			}
			pc := gdb.ask("p" + tt.pc)

			name := fmt.Sprintf("test-back-%s-%d", tt.arch, time.Now().UnixNano())
			if err := m.Save(ctx, v, name); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				store, err := warm.OpenCheckpoints()
				if err == nil {
					err = store.Remove(name)
				}
				if err != nil {
					t.Error(err)
				}
			})
			for range 2 {
				back, err := Prepare(t.Context(), env, Spec{From: name, Held: true})
				if err != nil {
					t.Fatal(err)
				}
				there, _ := boot(t, back)
				conn, err := there.GDB(ctx)
				if err != nil {
					t.Fatal(err)
				}
				gdb := &stub{t, conn, bufio.NewReader(conn)}
				if got := gdb.ask("p" + tt.pc); got != pc {
					t.Errorf("back at pc %s, want %s", got, pc)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
				if err := there.Wake(ctx); err != nil {
					t.Fatal(err)
				}
				res, err := there.Agent().Exec(ctx, wire.ExecParams{Argv: []string{"/labctl/labprobe", "fork"}}, agent.IO{})
				if err != nil || res.Code != 0 {
					t.Errorf("a program after going back = %+v, %v", res, there.Why(err))
				}
			}
			// The first one goes on from where it stood.
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ran; err != nil {
				t.Errorf("the program that was stopped: %v", v.Why(err))
			}
		})
	}
}

func TestFromRefuses(t *testing.T) {
	t.Setenv("LABCTL_CACHE", t.TempDir())
	for _, tt := range []struct {
		spec Spec
		want string
	}{
		{Spec{From: "none"}, `checkpoint "none" is not known`},
		{Spec{From: "../x"}, `machine name "../x": want`},
		{Spec{From: "none", MemoryMB: 512}, "--from none: the machine is as it was saved; omit --mem"},
	} {
		_, err := Prepare(t.Context(), Env{}, tt.spec)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || outcome.Of(err) != outcome.BadInput {
			t.Errorf("Prepare(%+v) = %v, want %q", tt.spec, err, tt.want)
		}
	}
}
