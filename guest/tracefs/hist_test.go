package tracefs

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

// TestHists: histograms stand still until the capture begins and from its end on, are
// added beside other triggers, and taken away.
func TestHists(t *testing.T) {
	k, fsys := captureFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Hold: true, Hists: []wire.CaptureHist{
		{Name: "one", Event: "sched/sched_process_fork", Specs: []string{"keys=child_pid"}, Filter: "child_pid > 1"},
		{Name: "two", Event: "sched/sched_process_fork", Specs: []string{"keys=nosuch", "keys=child_comm:size=128"}},
		{Name: "a b", Event: "sched/nosuch", Specs: []string{"keys=x"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("# event histogram\n", 20_000) // more than one piece
	k.file("instances/lab/events/sched/sched_process_fork/hist", text)
	var out bytes.Buffer
	w := wire.NewChunkWriter(&out, 4096, false)
	stop := make(chan struct{})
	close(stop)
	if _, err := r.Run(stop, w, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for cr := wire.NewChunkReader(&out); ; {
		c, err := cr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.Kind == wire.ChunkHist {
			event, piece, _ := bytes.Cut(c.Payload, []byte{0})
			if string(event) != "sched/sched_process_fork" {
				t.Errorf("a histogram of %q", event)
			}
			got.Write(piece)
		}
	}
	if got.String() != text {
		t.Errorf("%d bytes came of the histograms, want %d, once", got.Len(), len(text))
	}
	if want := []wire.CaptureMissing{{What: "hist a b", Why: "no such file or directory"}}; cmp.Diff(want, r.armed.Missing) != "" {
		t.Errorf("missing %v, want %v", r.armed.Missing, want)
	}
	var commands []string
	for _, line := range k.log {
		if strings.Contains(line, "hist:") || strings.HasPrefix(line, "tracing_on") || strings.HasPrefix(line, "rmdir") {
			commands = append(commands, strings.Replace(line, "events/sched/sched_process_fork/trigger=", "", 1))
		}
	}
	if d := cmp.Diff([]string{
		"tracing_on=0",
		"hist:keys=child_pid:pause if child_pid > 1",
		"hist:keys=child_comm:size=128:pause",
		"tracing_on=1",
		"hist:keys=child_pid:continue if child_pid > 1",
		"hist:keys=child_comm:size=128:continue",
		"hist:keys=child_pid:pause if child_pid > 1",
		"hist:keys=child_comm:size=128:pause",
		"tracing_on=0",
		"tracing_on=0",
		"!hist:keys=child_comm:size=128",
		"!hist:keys=child_pid if child_pid > 1",
		"rmdir instances/lab",
	}, commands); d != "" {
		t.Errorf("commands (-want +got):\n%s", d)
	}
}

// TestHistRefused: the kernel's own words, and a kernel that has no histograms.
func TestHistRefused(t *testing.T) {
	k, fsys := captureFake(t)
	hist := []wire.CaptureHist{{Name: "one", Event: "sched/sched_process_fork", Specs: []string{"keys=nosuch,pid"}}}
	armed := func() string {
		r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Hists: hist})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Remove()
		return r.armed.Missing[0].String()
	}
	if got, want := armed(), "hist one: this kernel makes no histograms: it is built without HIST_TRIGGERS"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
	k.hists = true
	if got, want := armed(), "hist one: invalid argument (hist:sched:sched_process_fork: Couldn't find field at nosuch)"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
	for _, bad := range []wire.CaptureHist{
		{Event: "../x", Specs: []string{"keys=a"}}, {Event: "a/b"}, {Event: "a/b", Specs: []string{"keys=a b"}},
		{Event: "a/b", Specs: []string{"keys=a"}, Filter: "x\ny"}, {Event: "a/b", Specs: []string{"keys=a\n!hist"}},
	} {
		if err := check(wire.CaptureParams{Instance: "lab", Hists: []wire.CaptureHist{bad}}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// histTrigger is what the kernel says to a histogram by fields that it has not.
func (k *fakeKernel) histTrigger(rel, text string) error {
	if k.hists {
		k.file(filepath.Join(filepath.Dir(rel), "hist"), "")
	}
	if !strings.Contains(text, "keys=nosuch") {
		return nil
	}
	if k.hists {
		k.file("instances/lab/error_log", "[    1.5] hist:sched:sched_process_fork: error: Couldn't find field\n  Command: "+text+"\n"+
			strings.Repeat(" ", len("  Command: hist:keys="))+"^\n")
	}
	return errors.Join(syscall.EINVAL)
}
