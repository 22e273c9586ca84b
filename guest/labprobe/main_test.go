package labprobe

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"labctl/guest/catalogue"
	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/wire"
)

// The test binary, too, stays on the process's first thread.
func init() { runtime.LockOSThread() }

// TestMain lets the test binary be labprobe, which spawn needs.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "ids" {
		os.Exit(Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestCatalogueAndRegistryAgree(t *testing.T) {
	for _, info := range catalogue.Probes() {
		if _, ok := probe.Lookup(info.Name); !ok {
			t.Errorf("%s is in the catalogue and is not registered", info.Name)
		}
		if info.Summary == "" || strings.Contains(info.Summary, "\n") || strings.HasSuffix(info.Summary, ".") {
			t.Errorf("%s: summary %q; want one line without a full stop", info.Name, info.Summary)
		}
		if !slices.Contains([]string{"", "child", "thread", "kthread"}, info.Makes) {
			t.Errorf("%s makes %q; want a role of wire.Task", info.Name, info.Makes)
		}
	}
}

// TestCatalogueParameters runs each probe that is harmless here with the
// parameters that the catalogue gives, and wants what it gives without any.
func TestCatalogueParameters(t *testing.T) {
probes:
	for _, info := range catalogue.Probes() {
		if info.Makes == "kthread" {
			// Changes the machine's settings: its parameters alone are looked at here.
			if strings.Contains(stderrOf(t, info.Name, strings.Replace(info.Params, "null", `"none"`, 1)), "unknown field") {
				t.Errorf("%s does not know its own parameters %s", info.Name, info.Params)
			}
			continue
		}
		if slices.Contains([]string{"huge", "numa", "schedfiles"}, info.Name) {
			continue // one changes the machine's settings, others need two nodes or a file that a kernel may lack: labs run them
		}
		var with, without wire.ProbeResult
		for res, args := range map[*wire.ProbeResult][]string{&with: {info.Name, info.Params}, &without: {info.Name}} {
			var stdout, stderr bytes.Buffer
			code := Main(t.Context(), args, &stdout, &stderr)
			if strings.Contains(stderr.String(), mm.ErrUnseen.Error()) {
				// The right to that is a guest's; the host's user may lack it.
				t.Logf("labprobe %v: %s", args, stderr.String())
				continue probes
			}
			if code != 0 || stderr.Len() > 0 {
				t.Fatalf("labprobe %v = %d, %s", args, code, stderr.String())
			}
			if err := json.Unmarshal(stdout.Bytes(), res); err != nil {
				t.Fatalf("labprobe %v printed no JSON document: %v", args, err)
			}
		}
		if len(with.Tasks) != len(without.Tasks) || with.Method != without.Method {
			t.Errorf("%s with %s: %+v; without: %+v", info.Name, info.Params, with, without)
		}
		if last := with.Tasks[len(with.Tasks)-1]; info.Makes != "" && last.Role != info.Makes {
			t.Errorf("%s made a %s; the catalogue says %s", info.Name, last.Role, info.Makes)
		}
	}
}

func stderrOf(t *testing.T, args ...string) string {
	var stdout, stderr bytes.Buffer
	if code := Main(t.Context(), args, &stdout, &stderr); code == 0 {
		t.Errorf("labprobe %v = 0; want an error", args)
	}
	return stderr.String()
}

func TestRun(t *testing.T) {
	for _, tc := range []struct {
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{nil, 0, "clone3", ""},
		{[]string{"--help"}, 0, "usage: labprobe NAME [JSON]", ""},
		{[]string{"nope"}, 2, "", `no probe "nope"`},
		{[]string{"ids", "{}", "{}"}, 2, "", "one JSON object"},
		{[]string{"ids", "{"}, 2, "", "labprobe: ids: parameters {"},
		{[]string{"pids", `{"forks":0}`}, 2, "", "labprobe: pids: parameters: forks 0"},
		{[]string{"ids"}, 0, `"role": "self"`, ""},
		{[]string{"ps", "-z"}, 2, "", "option -z is not known"},
		{[]string{"ps", "-ely"}, 0, "  C PRI  NI   RSS    SZ WCHAN  TTY          TIME CMD", ""},
		{[]string{"clone3", `{"size":8}`}, 1, "", "invalid argument"},
	} {
		var stdout, stderr bytes.Buffer
		code := Main(t.Context(), tc.args, &stdout, &stderr)
		if code != tc.code || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("labprobe %v = %d\nstdout %s\nstderr %s\nwant %d, %q, %q", tc.args, code, stdout.String(), stderr.String(), tc.code, tc.stdout, tc.stderr)
		}
		if code != 0 && (stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1) {
			t.Errorf("labprobe %v: stdout %q, stderr %q; want nothing and one line", tc.args, stdout.String(), stderr.String())
		}
		if code == 0 && stderr.Len() > 0 {
			t.Errorf("labprobe %v: stderr %q; want nothing", tc.args, stderr.String())
		}
	}
}
