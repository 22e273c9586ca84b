package runner

import (
	"os"
	"strings"
	"testing"

	"labctl/host/kernel"
	"labctl/host/lab"
	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/session"
)

// TestLook runs a lab whose program is looked at from outside, at a mark of its own and
// where it sleeps. What it says of others' tasks is not read.
func TestLook(t *testing.T) {
	cache, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.One(os.DirFS("testdata/labs"), "T1")
	if err != nil {
		t.Fatal(err)
	}
	env := session.Env{Env: machine.Env{Cache: cache, Say: func(line string) { t.Log(line) }}}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			dir := t.TempDir() + "/out"
			r, err := Lab(t.Context(), env, session.Options{Spec: machine.Spec{Arch: arch, Kernel: "6.12"}, Out: dir}, l)
			if err != nil {
				t.Errorf("Lab: %v", err)
			}
			if r.Report == nil {
				t.Fatal("nothing was judged")
			}
			for _, c := range r.Report.Checks {
				if c.Verdict.Failed() {
					t.Errorf("%s: %s %v", c.ID, c.Error, c.Seen)
				}
			}
			text, err := os.ReadFile(r.Dir.File(record.OutsideFile))
			if err != nil || !strings.Contains(string(text), "== step prog at here\n") || !strings.Contains(string(text), "|do_sigtimedwait") {
				t.Errorf("%s, %v: %.2000s", record.OutsideFile, err, text)
			}
		})
	}
}
