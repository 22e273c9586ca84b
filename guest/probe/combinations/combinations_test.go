package combinations

import (
	"encoding/json"
	"testing"

	"golang.org/x/sys/unix"
)

// answers are what kernels say since they have had these flags. They differ over
// clone with "pidfd and thread" and "signal 65", which are not here.
var answers = map[string]map[string]string{
	"clone": {
		"nothing": "", "vm": "", "sighand": "EINVAL", "thread": "EINVAL", "vm and sighand": "", "vm and thread": "EINVAL",
		"sighand and thread": "EINVAL", "vm, sighand and thread": "", "fs and files": "", "newns": "", "newns and fs": "EINVAL",
		"newuser and fs": "EINVAL", "newuser and thread": "EINVAL", "newpid and thread": "EINVAL", "newipc and sysvsem": "EINVAL",
		"pidfd": "", "pidfd and detached": "EINVAL", "thread with a signal": "", "detached": "",
	},
	"clone3": {
		"nothing": "", "sighand": "EINVAL", "vm and thread": "EINVAL", "vm, sighand and thread": "", "thread with a signal": "EINVAL",
		"detached": "EINVAL", "signal among the flags": "EINVAL", "signal 65": "EINVAL", "unknown flag": "EINVAL",
		"clear_sighand": "", "clear_sighand and sighand": "EINVAL",
	},
}

// privileged is what the kernel refuses to tasks without CAP_SYS_ADMIN before it
// looks at the rest.
func privileged(name string) bool { return name == "newns" || name == "newipc and sysvsem" }

func TestCombinations(t *testing.T) {
	for by, want := range answers {
		res, err := run(t.Context(), json.RawMessage(`{"by":"`+by+`"}`))
		if err != nil {
			t.Fatalf("%s: %v", by, err)
		}
		rows := res.Data["rows"].([]row)
		if len(rows) < len(want) {
			t.Errorf("%s: %d rows; want at least %d", by, len(rows), len(want))
		}
		for _, r := range rows {
			if w, known := want[r.Name]; known && r.Errno != w && !(privileged(r.Name) && r.Errno == "EPERM") {
				t.Errorf("%s with %s (%#x): %q; want %q", by, r.Name, r.Flags, r.Errno, w)
			}
			if (r.TID == 0) != (r.Errno != "") {
				t.Errorf("%s with %s: tid %d, errno %q; want one of them", by, r.Name, r.TID, r.Errno)
			}
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
}

func TestBadParameters(t *testing.T) {
	for _, bad := range []string{`{"x":1}`, `{"by":"fork"}`, `{"by":1}`} {
		if res, err := run(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("%s gave %+v; want an error", bad, res)
		}
	}
}
