package slurm

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/outcome"
)

// TestScript runs the scripts with a program in labctl's place that prints its words.
func TestScript(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b'c $HOME")
	labctl := filepath.Join(t.TempDir(), "lab ctl")
	if err := os.WriteFile(labctl, []byte("#!/bin/sh\nfor w; do echo \"[$w]\"; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := &Array{Labctl: labctl, Dir: dir, Shards: 4, Args: []string{"--labs=P*", "--timeout=2m", "--", "./prog", "it's", "", "$x"}, Merge: []string{"--junit=a b.xml"}}
	run := func(script string) []string {
		c := exec.Command("sh")
		c.Stdin, c.Env = strings.NewReader(script), append(os.Environ(), "SLURM_ARRAY_TASK_ID=3")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	shard := dir + "/shard-3"
	want := []string{"[matrix]", "[run]", "[--shard]", "[3/4]", "[--out]", "[" + shard + "]"}
	rest := []string{"[--labs=P*]", "[--timeout=2m]", "[--]", "[./prog]", "[it's]", "[]", "[$x]"}
	if d := cmp.Diff(append(want, rest...), run(a.Script())); d != "" {
		t.Errorf("the first start (-want +got):\n%s", d)
	}
	if err := os.MkdirAll(shard, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shard, "plan.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(shard+".log", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(append(append(want, "[--resume]"), rest...), run(a.Script())); d != "" {
		t.Errorf("a start after a node failed (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"[matrix]", "[merge]", "[--out]", "[" + dir + "/merged]", "[--junit=a b.xml]", "[" + shard + "/]"}, run(a.MergeScript())); d != "" {
		t.Errorf("the merge (-want +got):\n%s", d)
	}
	a.Whole = "merged-2"
	if got := run(a.MergeScript()); !slices.Contains(got, "["+dir+"/merged-2]") {
		t.Errorf("the merge of what was resumed: %q", got)
	}
	if got := (&Array{Dir: "/a%b", Shards: 2}).Options(); !strings.Contains(strings.Join(got, " "), "--output=/a%%b/shard-%a.log") {
		t.Errorf("Options = %q", got)
	}
}

// TestSubmit: what sbatch says is believed only if it is a job's id.
func TestSubmit(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	a := &Array{Name: "labctl", Labctl: "labctl", Dir: "/out", Shards: 2}
	if _, err := a.Submit(t.Context()); outcome.Of(err) != outcome.HostLacks || !strings.Contains(err.Error(), "no sbatch on PATH") {
		t.Errorf("without sbatch: %v", err)
	}
	for script, want := range map[string]string{
		"echo 12":                              "",
		"echo '12;east'":                       "",
		"echo Submitted batch job 12":          "sbatch printed no job id but",
		"printf '12\\n13\\n'":                  "sbatch printed no job id but",
		"echo 'no such partition' >&2; exit 1": "sbatch: no such partition: exit status 1",
	} {
		if err := os.WriteFile(filepath.Join(bin, "sbatch"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		jobs, err := a.Submit(t.Context())
		switch {
		case want == "" && (err != nil || jobs.Array != "12" || jobs.Merge != "12" || jobs.Tasks != 2):
			t.Errorf("%s: %+v, %v", script, jobs, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v; want %q", script, err, want)
		}
	}
}
