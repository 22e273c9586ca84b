package ending

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEndings(t *testing.T) {
	for params, want := range map[string]struct {
		told
		raw int // wait status
	}{
		``:                           {told{1, 0}, 0},
		`{"by":"exit","status":7}`:   {told{1, 7}, 7 << 8},
		`{"by":"exit","status":255}`: {told{1, 255}, 255 << 8},
		`{"by":"signal"}`:            {told{2, 9}, 9},
	} {
		res, err := run(t.Context(), json.RawMessage(params))
		if err != nil {
			t.Fatalf("%s: %v", params, err)
		}
		got := told{res.Data["code"].(int), res.Data["status"].(int)}
		if got != want.told || *res.Tasks[1].Status != want.raw {
			t.Errorf("%s: siginfo %+v, wait status %#x; want %+v, %#x", params, got, *res.Tasks[1].Status, want.told, want.raw)
		}
		if res.Data["state"] != "Z" || res.Data["rss"] != int64(0) || res.Data["gone"] != true {
			t.Errorf("%s: data %v; want a zombie without memory, then nothing", params, res.Data)
		}
	}
}

func TestParams(t *testing.T) {
	for _, params := range []string{`{"by":"abort"}`, `{"status":256}`, `{"status":-1}`, `{"by":"signal","signal":15}`, `{"x":1}`} {
		if res, err := run(t.Context(), json.RawMessage(params)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s gave %+v, %v; want an error of one line", params, res, err)
		}
	}
}

// A run that is called off leaves no child behind.
func TestCalledOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	run(ctx, nil)
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4 = %d, %v; want ECHILD", pid, err)
	}
}
