package report

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
	"labctl/host/golden"
	"labctl/host/record"
	"labctl/host/stack"
	"labctl/host/trace/creation"
)

// real is a record of `labctl probe run fork kthread --arch arm64`.
func real(t *testing.T) *record.Run {
	t.Helper()
	b, err := os.ReadFile("../record/testdata/real-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func render(t *testing.T, r *record.Run, o Options) string {
	t.Helper()
	var b strings.Builder
	if err := Probes(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestProbes(t *testing.T) {
	for name, o := range map[string]Options{
		"trace32":     {Style: TRACE32},
		"trace32-raw": {Style: TRACE32, Raw: true},
		"ftrace":      {Style: "ftrace"},
		"ftrace-raw":  {Style: "ftrace", Raw: true},
		"json":        {Style: JSON},
		"gdb":         {Style: "gdb"},
		"crash":       {Style: "crash"},
		"drgn":        {Style: "drgn"},
		"folded":      {Style: "folded"},
	} {
		t.Run(name, func(t *testing.T) {
			got := render(t, real(t), o)
			file := filepath.Join("testdata", name+".txt")
			golden.Check(t, file, got)
		})
	}
}

func TestVerdicts(t *testing.T) {
	r := real(t)
	r.Probes = r.Probes[:1]
	p := &r.Probes[0]
	p.Findings = append(p.Findings, record.Finding{What: "flags of child 9", Got: "0x100", Want: "0"})
	p.Armed.Missing = []wire.CaptureMissing{{What: "probe kthread_request", Why: "no such symbol"}}
	got := render(t, r, Options{})
	for _, want := range []string{"  NO  ", "   FAIL flags of child 9: got 0x100, want 0\n", "   not traced: probe kthread_request: no such symbol\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	r.Probes = []record.Probe{{Name: "fork"}}
	if got, want := render(t, r, Options{}), "fork   -          -      -      failed  -\n"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
	r.Probes = []record.Probe{{Name: "clone3", NotApplicable: "this kernel has no system call clone3"}}
	got = render(t, r, Options{})
	for _, want := range []string{"  not applicable  ", "== clone3: not applicable: this kernel has no system call clone3\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	r.Probes = nil
	if got := render(t, r, Options{}); strings.Contains(got, "PROBE") {
		t.Errorf("a run without probes prints a table:\n%s", got)
	}
}

// TestHostile puts escapes and line ends into every word of a record.
func TestHostile(t *testing.T) {
	const bad = "\x1b]0;x\a\r\n== forged\u202e\u009b\xff\x00"
	r := real(t)
	r.Kernel.Release, r.Target.Name, r.QEMU.Version, r.QEMU.Accel, r.Phases[0].Name = bad, bad, bad, bad, bad
	for i := range r.Probes {
		p := &r.Probes[i]
		p.Name, p.Result.Method = bad, bad
		for j := range p.Result.Tasks {
			task := &p.Result.Tasks[j]
			task.Role, task.Comm, task.Asked = bad, bad, &wire.Asked{Syscall: bad}
		}
		p.Armed.Missing = []wire.CaptureMissing{{What: bad, Why: bad}}
		p.Findings = append(p.Findings, record.Finding{What: bad, Got: bad, Want: bad})
		for j := range p.Creations {
			c := &p.Creations[j]
			c.Via, c.Symbol, c.Requester.Comm, c.Notes = bad, bad, bad, []string{bad}
			c.Child = creation.Child{TID: 3, Comm: bad, Name: bad, Exec: bad}
			c.Args = &creation.Args{Text: bad}
			spoil(&c.Stack, bad)
			c.AskedBy = &creation.Request{Task: creation.Task{Comm: bad}, Format: bad, Function: bad, Stack: c.Stack}
		}
	}
	for _, style := range Styles {
		for _, raw := range []bool{false, true} {
			got := render(t, r, Options{Style: style, Raw: raw})
			if at := strings.IndexAny(got, "\x1b\a\r\x00\u202e\u009b"); at >= 0 || !utf8.ValidString(got) {
				t.Errorf("%s, raw %t: control character reaches the output: %.60q", style, raw, got[max(0, at-30):])
			}
			for line := range strings.Lines(got) {
				if strings.HasPrefix(line, "== forged") {
					t.Errorf("%s, raw %t: a name makes a line of its own: %q", style, raw, line)
				}
			}
		}
	}
}

func spoil(s *stack.Stack, bad string) {
	f := stack.Frame{Name: bad, Module: bad, Note: bad, Kind: stack.Kind(bad), Args: []stack.Arg{{Name: bad, Value: bad}}}
	s.Frames, s.Trimmed, s.Origin = append(s.Frames, f), append(s.Trimmed, f), bad
}

// TestLeavesRecordAlone: printing changes nothing in the record.
func TestLeavesRecordAlone(t *testing.T) {
	r := real(t)
	for _, style := range Styles {
		render(t, r, Options{Style: style, Raw: true})
	}
	if diff := cmp.Diff(real(t), r); diff != "" {
		t.Errorf("after printing (-want +got):\n%s", diff)
	}
}

// fullAfter fails once n bytes have been written.
type fullAfter int

var errFull = errors.New("full")

func (n *fullAfter) Write(p []byte) (int, error) {
	if *n -= fullAfter(len(p)); *n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteError(t *testing.T) {
	all := len(render(t, real(t), Options{}))
	for n := 0; n < all; n += 100 {
		w := fullAfter(n)
		if err := Probes(&w, real(t), Options{}); !errors.Is(err, errFull) {
			t.Errorf("Probes on a disk of %d bytes = %v, want the disk's error", n, err)
		}
	}
}
