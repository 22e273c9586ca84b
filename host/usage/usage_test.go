package usage

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	var m Meter
	ctx := context.WithoutCancel(With(t.Context(), &m)) // a derived context, as in host/vm
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	Add(context.Background(), cmd.ProcessState)
	if m.Total() != 0 {
		t.Errorf("without a meter %v were counted", m.Total())
	}
	Add(ctx, cmd.ProcessState)
	one := m.Total()
	if one < time.Millisecond || one > time.Minute {
		t.Errorf("a busy loop took %v", one)
	}
	Add(ctx, cmd.ProcessState)
	Add(ctx, nil)
	if m.Total() != 2*one {
		t.Errorf("twice the same is %v, want %v", m.Total(), 2*one)
	}
}

func TestSelf(t *testing.T) {
	before := Self()
	for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
	}
	if after := Self(); before <= 0 || after <= before {
		t.Errorf("Self = %v, then %v", before, after)
	}
}
