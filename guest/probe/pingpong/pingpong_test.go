package pingpong

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"labctl/guest/rawclone"

	"golang.org/x/sys/unix"
)

func TestPingPong(t *testing.T) {
	for _, flags := range []uint64{0, unix.CLONE_VM, rawclone.PThreadFlags} {
		res, err := run(t.Context(), json.RawMessage(fmt.Sprintf(`{"flags":%d,"rounds":40}`, flags)))
		if err != nil {
			t.Fatalf("flags %#x: %v", flags, err)
		}
		if len(res.Tasks) != 3 || res.Tasks[1].Comm != "ping" || res.Tasks[2].Comm != "pong" || res.Tasks[1].Asked.Flags != flags {
			t.Errorf("flags %#x: tasks %+v", flags, res.Tasks)
		}
		// Most turns block; on a loaded machine another task may come between.
		for name, n := range res.Data["voluntary"].(map[string]any) {
			if n := n.(int64); n < 20 || n > 60 {
				t.Errorf("flags %#x: %s switched %d times; want about 40", flags, name, n)
			}
		}
	}
}

func TestParams(t *testing.T) {
	for _, params := range []string{`{"flags":1024}`, `{"rounds":0}`, `{"rounds":101}`, `{"x":1}`} {
		if res, err := run(t.Context(), json.RawMessage(params)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s gave %+v, %v; want an error of one line", params, res, err)
		}
	}
}

func TestCalledOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if res, err := run(ctx, nil); err == nil {
		t.Errorf("run = %+v; want an error", res)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); err != unix.ECHILD {
		t.Errorf("wait4 = %d, %v; want ECHILD", pid, err)
	}
}
