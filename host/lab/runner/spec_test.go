package runner

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/lab"
	"labctl/host/machine"
)

// What a lab needs is added to what nobody has asked for. What was asked for stays, and
// where it is too little the lab says so.
func TestSpec(t *testing.T) {
	type size struct{ CPUs, MemoryMB, Nodes int }
	for _, tt := range []struct {
		name  string
		needs lab.Needs
		asked machine.Spec
		want  size
		small []string
	}{
		{"nothing", lab.Needs{}, machine.Spec{Arch: "amd64"}, size{}, nil},
		{"what the machine has", lab.Needs{CPUs: 2, MemoryMB: 256}, machine.Spec{Arch: "amd64"}, size{}, nil},
		{"more than it has", lab.Needs{CPUs: 4, MemoryMB: 768, NUMANodes: 2}, machine.Spec{Arch: "arm64"}, size{4, 768, 2}, nil},
		{"asked for more", lab.Needs{CPUs: 2, MemoryMB: 768}, machine.Spec{Arch: "amd64", CPUs: 8, MemoryMB: 1024, Nodes: 4}, size{8, 1024, 4}, nil},
		{"asked for just so much", lab.Needs{CPUs: 1, MemoryMB: 256}, machine.Spec{Arch: "amd64", CPUs: 1, MemoryMB: 256}, size{1, 256, 0}, nil},
		{"asked for less", lab.Needs{CPUs: 2, MemoryMB: 768}, machine.Spec{Arch: "amd64", CPUs: 1, MemoryMB: 256}, size{1, 256, 0},
			[]string{"it needs 2 CPUs, --smp gives it 1", "it needs 768 MB of memory, --mem gives it 256"}},
		{"less than its nodes need", lab.Needs{NUMANodes: 2}, machine.Spec{Arch: "amd64", MemoryMB: 128}, size{0, 128, 2}, []string{"it needs 256 MB of memory, --mem gives it 128"}},
		{"less than any lab needs", lab.Needs{}, machine.Spec{Arch: "arm", MemoryMB: 64}, size{0, 64, 0}, []string{"it needs 128 MB of memory, --mem gives it 64"}},
	} {
		spec := Spec(&lab.Lab{Needs: tt.needs}, tt.asked)
		if got := (size{spec.CPUs, spec.MemoryMB, spec.Nodes}); got != tt.want {
			t.Errorf("%s: Spec = %+v, want %+v", tt.name, got, tt.want)
		}
		if diff := cmp.Diff(tt.small, tooSmall(tt.needs, tt.asked)); diff != "" {
			t.Errorf("%s: tooSmall (-want +got):\n%s", tt.name, diff)
		}
	}
}
