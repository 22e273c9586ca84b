package ksym

import (
	"flag"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

var kernels = []string{
	"amd64-5.10", "amd64-6.1", "amd64-6.12", "amd64-7.2",
	"arm64-5.10", "arm64-6.1", "arm64-6.12", "arm64-7.2",
}

// functionsOf reads testdata/functions.txt: kernel → functions.
func functionsOf(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile("testdata/functions.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		for _, kernel := range words[1:] {
			out[kernel] = append(out[kernel], words[0])
		}
	}
	return out
}

// Old names as they come out on real kernels.
func TestFunctionCandidatesOnKernels(t *testing.T) {
	old := []string{
		"_do_fork", "do_fork", "kernel_clone", "sys_clone", "SyS_clone", "__x64_sys_clone", "sys_read", "sys_pause", "sys_sigreturn", "sys_open", "sys_fork",
		"copy_process.part.5", "search_binary_handler", "ttwu_do_wakeup", "__vfs_read", "__vfs_write", "__close_fd",
		"kmem_cache_alloc_trace", "insert_work", "secondary_start_kernel", "generic_fillattr", "do_timer", "scheduler_tick", "send_signal",
		"tick_sched_timer", "__handle_domain_irq", "do_page_fault", "_raw_spin_unlock_irqrestore", "bcm2835_mmc_irq", "trace_function_dummy_call", "ext4_file_open",
	}
	functions := functionsOf(t)
	var b strings.Builder
	for _, name := range old {
		b.WriteString(name + "\n")
		for _, kernel := range kernels {
			became := "- " + Absent(name)
			for _, c := range FunctionCandidates(name) {
				if slices.ContainsFunc(functions[kernel], func(f string) bool { ok, _ := path.Match(c.Name, f); return ok }) {
					became = c.Name
					break
				}
			}
			b.WriteString("\t" + kernel + "\t" + became + "\n")
		}
	}
	const golden = "testdata/renames.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("names on kernels (-want +got):\n%s", diff)
	}
}

func TestCandidates(t *testing.T) {
	names := func(list []Candidate) string {
		var out []string
		for _, c := range list {
			out = append(out, c.Name)
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct {
		got  []Candidate
		want string
	}{
		{FunctionCandidates("do_exit"), "do_exit do_exit.*"},
		{FunctionCandidates("copy_process.part.5"), "copy_process.part.5 copy_process copy_process.*"},
		{FunctionCandidates("_do_fork"), "_do_fork _do_fork.* kernel_clone do_fork"},
		{FunctionCandidates("sys_clone"), "sys_clone __x64_sys_clone __arm64_sys_clone __do_sys_clone SyS_clone __se_sys_clone"},
		{FunctionCandidates("vfs_read"), "vfs_read vfs_read.*"}, // near is one way
		{EventCandidates("sched/sched_switch"), "sched/sched_switch"},
		{EventCandidates("kmem/kmalloc_node"), "kmem/kmalloc_node kmem/kmalloc"},
		{EventCandidates("timer/hrtimer_setup"), "timer/hrtimer_setup timer/hrtimer_init"},
	} {
		if got := names(tt.got); got != tt.want {
			t.Errorf("candidates = %q, want %q", got, tt.want)
		}
		if tt.got[0].Why != "" {
			t.Errorf("candidate %s has a reason to be itself: %q", tt.got[0].Name, tt.got[0].Why)
		}
		for _, c := range tt.got[1:] {
			if c.Why == "" {
				t.Errorf("candidate %s has no reason", c.Name)
			}
		}
	}
}

// Every candidate of a table names another function, once.
func TestIdle(t *testing.T) {
	for _, tt := range []struct {
		function, beside string
		want             bool
	}{
		{"close_fd", "file_close_fd", true}, {"close_fd", "x", false}, {"x", "file_close_fd", false},
	} {
		if got := Idle(tt.function, func(name string) bool { return name == tt.beside }); (got != "") != tt.want {
			t.Errorf("Idle(%s) on a kernel with %s = %q", tt.function, tt.beside, got)
		}
	}
}

func TestRenameTables(t *testing.T) {
	listed := map[string]bool{}
	for _, f := range functions {
		switch renamed := len(f.names) > 1; {
		case len(f.names) == 0, renamed != (f.why != ""), !renamed && f.family == "":
			t.Errorf("function %v: want a family, or two names or more and the reason", f.names)
		}
		for _, name := range f.names {
			if listed[name] {
				t.Errorf("function %s has two rows", name)
			}
			listed[name] = true
		}
	}
	for _, e := range eventRenames {
		if len(e.names) < 2 || e.why == "" {
			t.Errorf("event %v: want two names or more, and a reason", e.names)
		}
	}
	seen := map[string]bool{}
	for _, n := range slices.Concat(nearFunctions, nearEvents) {
		if seen[n.old] || slices.Contains(n.now, n.old) || len(n.now) == 0 || n.why == "" {
			t.Errorf("near %s: want one row of other names and a reason", n.old)
		}
		seen[n.old] = true
	}
}
