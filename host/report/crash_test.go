package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/record"
	"labctl/host/stack"
)

func TestCrash(t *testing.T) {
	s := stack.Stack{
		Frames:  []stack.Frame{{Name: "x", Offset: 1, Size: 2, Kind: stack.Function}, {Name: "el0_sync", Kind: stack.Asm, Exception: true, Note: "a\nb"}},
		Trimmed: []stack.Frame{{Name: "irq", Kind: stack.Function}},
	}
	for _, tt := range []struct {
		name string
		c    record.Crash
		o    Options
		want string
	}{
		{"panic", record.Crash{Kind: "panic", Title: "a\n-000|b\x1b[2J", Cause: "oops", Task: &record.Task{Comm: "in\nit", PID: 1, CPU: 2}, Stack: &s}, Options{Style: TRACE32},
			"kernel panic: a -000|b\ufffd[2J\n   cause: oops\n   task: in it-1 on CPU 2\n-000|x(...)\n-001|el0_sync(asm)  // a b\n -->|exception\n ---|end of frame\n"},
		{"raw", record.Crash{Kind: "stall", Title: "a", Stack: &s}, Options{Style: "ftrace", Raw: true},
			"kernel stall: a\n => irq\n => x+0x1/0x2\n => el0_sync\n"},
		{"oom", record.Crash{Kind: "oom", Title: "a", Victim: &record.Task{Comm: "v", PID: 7, CPU: -1}}, Options{}, "kernel oom: a\n   killed: v-7\n"},
		{"again", record.Crash{Kind: "stall", Title: "a", Count: 3, Last: "b\x1b"}, Options{}, "kernel stall: a\n   3 times, the last: b\ufffd\n"},
		{"again, the same", record.Crash{Kind: "stall", Title: "a", Count: 3, Last: "a"}, Options{}, "kernel stall: a\n   3 times\n"},
		{"again, as records say it", record.Crash{Kind: "stall", Title: "a", Count: 3}, Options{}, "kernel stall: a\n   3 times\n"},
		{"a CPU alone", record.Crash{Kind: "hard lockup", Title: "a", Task: &record.Task{CPU: 0}}, Options{}, "kernel hard lockup: a\n   task: not named on CPU 0\n"},
	} {
		var b strings.Builder
		if err := Crash(&b, &tt.c, tt.o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, b.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	var b strings.Builder
	r := &record.Run{Outcome: record.Outcome{Kind: "deadline", CPUs: []string{"CPU 0: pc 0x1\x1b"}, Crash: &record.Crash{Kind: "stall", Title: "a"}}}
	if err := Probes(&b, r, Options{Style: TRACE32}); err != nil || !strings.Contains(b.String(), "kernel stall: a\nCPU 0: pc 0x1\ufffd\n") {
		t.Errorf("Probes = %q, %v; want the hang and the CPU", b.String(), err)
	}
}
