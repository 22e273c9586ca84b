package targets

import (
	"testing"

	"labctl/host/arch"
)

// Each architecture has a plain target with its name, and no target has an unlisted
// architecture.
func TestArchitectures(t *testing.T) {
	for _, a := range arch.All {
		if row, ok := Find(a.Name); !ok || row.Board || row.Arch != a.Name {
			t.Errorf("target of architecture %s = %+v, %t; want a plain one", a.Name, row, ok)
		}
	}
	for _, row := range All {
		if _, ok := arch.Find(row.Arch); !ok {
			t.Errorf("target %s: no row of host/arch for %q", row.Name, row.Arch)
		}
	}
}
