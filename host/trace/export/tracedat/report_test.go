package tracedat

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"labctl/host/trace/capture"
)

// line is one event of trace-cmd report -N -t -R.
type line struct {
	Task   string // "labprobe-137"
	CPU    string // "001"
	Time   string // "12.578983808"
	Event  string // "sched_process_fork"
	Fields string // "parent_comm=labprobe parent_pid=137 …"
}

// An instance's name comes first, and some versions put flags behind the CPU.
var lineRE = regexp.MustCompile(`^(?:\S+: )? *(.+-\d+) +\[(\d+)\]\S* +(\d+\.\d+): (\S+): *(.*)$`)

// report is what trace-cmd makes of the file at path. It must find no fault.
func report(t testing.TB, path string) []line {
	t.Helper()
	name, err := exec.LookPath("trace-cmd")
	if err != nil {
		t.Fatal("no trace-cmd on PATH: run apt-get install trace-cmd")
	}
	cmd := exec.CommandContext(t.Context(), name, "report", "-N", "-t", "-R", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("trace-cmd report %s: %v\n%s", path, err, &stderr)
	}
	return lines(t, string(out))
}

func lines(t testing.TB, text string) (events []line) {
	t.Helper()
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if strings.HasPrefix(l, "cpus=") || strings.HasPrefix(l, "CPU ") && strings.HasSuffix(l, " is empty") {
			continue
		}
		m := lineRE.FindStringSubmatch(l)
		if m == nil && len(events) > 0 { // a text with a newline
			events[len(events)-1].Fields += "\n" + l
			continue
		}
		if m == nil {
			t.Fatalf("trace-cmd report: no event in %q", l)
		}
		events = append(events, line{m[1], m[2], m[3], m[4], m[5]})
	}
	return events
}

// write writes c to a file of the test's.
func write(t testing.TB, c *capture.Capture) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.dat")
	if err := WriteFile(path, c); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Close()); err != nil {
			t.Error(err)
		}
	})
	return f
}
