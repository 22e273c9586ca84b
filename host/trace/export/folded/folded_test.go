package folded

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"labctl/host/trace/decode"
	"labctl/host/trace/internal/sample"
)

func foldedText(t testing.TB, s sample.Sample, events ...string) string {
	t.Helper()
	d, err := decode.Open(s.Capture)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, d, events...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var lineRE = regexp.MustCompile(`^[^; ]+(;[^; ]+)* ([1-9][0-9]*)$`)

// TestSamples: on every kernel, each line has the form, none comes twice, and the
// counts are those of the events with stacks.
func TestSamples(t *testing.T) {
	for _, s := range sample.All(t) {
		t.Run(s.Name, func(t *testing.T) {
			d, err := decode.Open(s.Capture)
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			for e, err := range d.Events() {
				if err != nil {
					t.Fatal(err)
				}
				if len(e.Stack)+len(e.UserStack) > 0 {
					want++
				}
			}
			var lines []string
			got := 0
			for l := range strings.Lines(foldedText(t, s)) {
				m := lineRE.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
				if m == nil {
					t.Fatalf("line %q is not of the form", l)
				}
				n, _ := strconv.Atoi(m[2])
				got += n
				lines = append(lines, strings.TrimSuffix(l, " "+m[2]+"\n"))
			}
			if got != want {
				t.Errorf("counts sum up to %d; %d events have stacks", got, want)
			}
			if len(slices.Compact(slices.Clone(lines))) != len(lines) {
				t.Error("a stack comes twice")
			}
		})
	}
}

// TestForks: on every kernel all stacks of forks end at the function that makes
// tasks, and lead there from a system call or from kthreadd.
func TestForks(t *testing.T) {
	from := map[string]string{
		"5.10-arm64": "el0_sync", "6.1-arm64": "el0t_64_sync", "6.12-arm64": "el0t_64_sync", "7.2-arm64": "el0t_64_sync",
		"5.10-amd64": "entry_SYSCALL_64_after_hwframe", "6.1-amd64": "entry_SYSCALL_64_after_hwframe",
		"6.12-amd64": "entry_SYSCALL_64_after_hwframe", "7.2-amd64": "entry_SYSCALL_64_after_hwframe",
	}
	for _, boot := range sample.Boots(t) {
		t.Run(boot, func(t *testing.T) {
			var tasks []string
			for l := range strings.Lines(foldedText(t, sample.Load(t, boot+"/creation"), "sched_process_fork")) {
				m := lineRE.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
				frames := strings.Split(strings.TrimSuffix(l, " "+m[2]+"\n"), ";")
				tasks = append(tasks, frames[0])
				want := from[boot]
				if frames[0] == "kthreadd" {
					want = "ret_from_fork"
				}
				if len(frames) < 4 || !strings.HasPrefix(frames[1], want) || frames[len(frames)-1] != "kernel_clone" {
					t.Errorf("%s: want a stack from %s to kernel_clone", strings.TrimSpace(l), want)
				}
			}
			if want := []string{"exe", "kthreadd", "record"}; !slices.Equal(slices.Compact(tasks), want) {
				t.Errorf("tasks %q; want %q", tasks, want)
			}
		})
	}
}
