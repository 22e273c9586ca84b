package folded

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/ftrace/internal/sample"
	"labctl/host/ftrace/raw"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func foldedText(t testing.TB, s sample.Sample, events ...string) string {
	t.Helper()
	d, err := raw.Open(s.Capture)
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
			d, err := raw.Open(s.Capture)
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

func TestGolden(t *testing.T) {
	for _, boot := range sample.Boots(t) {
		t.Run(boot, func(t *testing.T) {
			file := filepath.Join("testdata", boot+".folded")
			got := foldedText(t, sample.Load(t, boot+"/creation"), "sched_process_fork")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("the stacks differ from %s (-want +got); -update rewrites it:\n%s", file, diff)
			}
		})
	}
}
