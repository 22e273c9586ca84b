package tracefs

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"labctl/guest/wire"
)

const headerPage = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n" +
	"\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n" +
	"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n" +
	"\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n"

// page is a ring-buffer page with data of one byte, all of fill.
func page(stamp uint64, fill byte, n int) []byte {
	p := bytes.Repeat([]byte{0xee}, 4096) // what was there before
	binary.NativeEndian.PutUint64(p, stamp)
	binary.NativeEndian.PutUint64(p[8:], uint64(n))
	for i := range n {
		p[16+i] = fill
	}
	return p
}

// captureFake is a tracefs with what a capture needs on top of newFake's. Its
// pages are in plain files, which read and splice as trace_pipe_raw does when
// there is nothing more.
func captureFake(t *testing.T) (*fakeKernel, *FS) {
	k, fsys := newFake(t)
	fsys.modules = filepath.Join(k.root, "module")
	k.symbols["kernel_clone"] = true
	k.pages = map[string][]byte{
		"cpu0": bytes.Join([][]byte{page(10, 'a', 4000), page(30, 'c', 100)}, nil),
		"cpu1": page(20, 'b', 8),
	}
	for name, text := range map[string]string{
		"available_tracers":                      "function_graph function nop\n",
		"current_tracer":                         "nop\n",
		"tracing_on":                             "1\n",
		"trace":                                  "",
		"trace_clock":                            "[local] global\n",
		"buffer_size_kb":                         "7 (expanded: 1408)\n",
		"saved_cmdlines_size":                    "128\n",
		"saved_cmdlines":                         "7 labprobe\n",
		"saved_tgids":                            "7 7\n",
		"printk_formats":                         "0xffff : \"x\"\n",
		"set_graph_function":                     "#### all functions enabled ####\n",
		"set_ftrace_filter":                      "",
		"set_event_pid":                          "",
		"set_ftrace_pid":                         "no pid\n",
		"max_graph_depth":                        "0\n",
		"options/overwrite":                      "1\n",
		"options/stacktrace":                     "0\n",
		"options/record-tgid":                    "0\n",
		"options/event-fork":                     "0\n",
		"options/function-fork":                  "0\n",
		"events/header_page":                     headerPage,
		"events/header_event":                    "# compressed entry header\n",
		"events/ftrace/kernel_stack/format":      "name: kernel_stack\n",
		"events/sched/sched_process_fork/format": "name: sched_process_fork\n",
		"events/sched/sched_process_fork/enable": "0\n",
		"proc/kallsyms":                          "0000000000000000 A fixed_percpu_data\nffffffff81000000 T startup_64\nffffffff81000000 T _text\n",
		"proc/meminfo":                           "MemTotal:         524288 kB\n",
		"proc/modules":                           "virtio 1 0 - Live 0x0\n",
		"proc/sys/kernel/pid_max":                "32768\n",
		"proc/sys/debug/kprobes-optimization":    "1\n",
		"module/virtio/sections/.text":           "0xffffffffc0000000\n",
	} {
		k.file(name, text)
	}
	for cpu, pages := range k.pages {
		k.file("per_cpu/"+cpu+"/trace_pipe_raw", string(pages))
		k.file("per_cpu/"+cpu+"/stats", "entries: 0\n")
	}
	return k, fsys
}

// captureFiles are what the kernel puts into a new instance for a capture.
func (k *fakeKernel) captureFiles(rel string) {
	for name, text := range map[string]string{
		"available_tracers":                       k.tracers,
		"current_tracer":                          "nop\n",
		"buffer_percent":                          "50\n",
		"trace_clock":                             "[local] global\n",
		"buffer_size_kb":                          "4096\n",
		"set_ftrace_filter":                       "",
		"set_event_pid":                           "",
		"set_ftrace_pid":                          "no pid\n",
		"options/overwrite":                       "1\n",
		"options/record-tgid":                     "0\n",
		"options/event-fork":                      "0\n",
		"options/function-fork":                   "0\n",
		"options/func_stack_trace":                "0\n",
		"options/func-no-repeats":                 "0\n",
		"events/header_page":                      headerPage,
		"events/header_event":                     "# compressed entry header\n",
		"events/ftrace/kernel_stack/format":       "name: kernel_stack\n",
		"events/sched/enable":                     "0\n",
		"events/sched/sched_process_fork/format":  "name: sched_process_fork\n",
		"events/sched/sched_process_fork/filter":  "none\n",
		"events/sched/sched_process_fork/trigger": "",
	} {
		k.file(rel+"/"+name, text)
	}
	for cpu, pages := range k.pages {
		k.file(rel+"/per_cpu/"+cpu+"/trace_pipe_raw", string(pages))
		k.file(rel+"/per_cpu/"+cpu+"/stats", "entries: 0\noverrun: 2\ncommit overrun: 1\nbytes: 100\ndropped events: 3\n")
	}
}

// ship runs a capture for a moment and returns its chunks as text.
func ship(t *testing.T, r *Capture, max int64) (chunks []string, armed wire.CaptureArmed, st wire.CaptureStopped, pages map[int][]byte) {
	t.Helper()
	var out bytes.Buffer
	w := wire.NewChunkWriter(&out, 4096, false)
	stop := make(chan struct{})
	close(stop)
	st, err := r.Run(stop, w, max)
	if err != nil {
		t.Fatal(err)
	}
	pages = map[int][]byte{}
	for cr := wire.NewChunkReader(&out); ; {
		c, err := cr.Next()
		if err == io.EOF {
			return chunks, armed, st, pages
		}
		if err != nil {
			t.Fatal(err)
		}
		switch c.Kind {
		case wire.ChunkArmed:
			if err := json.Unmarshal(c.Payload, &armed); err != nil {
				t.Fatal(err)
			}
			chunks = append(chunks, "armed")
		case wire.ChunkPages:
			pages[c.CPU] = append(pages[c.CPU], c.Payload...)
		default:
			chunks = append(chunks, fmt.Sprintf("%d/%d %.60q", c.Kind, c.CPU, c.Payload))
		}
	}
}

func TestArm(t *testing.T) {
	for _, hold := range []bool{false, true} {
		t.Run(fmt.Sprintf("hold %v", hold), func(t *testing.T) {
			k, fsys := captureFake(t)
			r, err := fsys.Arm(wire.CaptureParams{
				Instance: "lab", PIDOnly: true, Hold: hold, BufferKB: 512,
				Probes: []wire.Kprobe{forkFamily, {Event: "opt", Optional: true, Alternatives: []wire.KprobeTry{{Symbol: "nosuch"}}}},
				Events: []wire.CaptureEvent{
					{Name: "sched/sched_process_fork", Filter: "child_pid > 1", Stack: true},
					{Name: "sched/nosuch"},
				},
				Options: map[string]bool{"nosuch": true}, Files: map[string]string{"max_graph_depth": "3"},
			})
			if err != nil {
				t.Fatal(err)
			}
			lists, err := r.Lists()
			if err != nil || len(lists) != 1 || filepath.Base(lists[0].Name()) != "set_event_pid" {
				t.Errorf("Lists() = %v, %v; want set_event_pid", lists, err)
			}
			for _, f := range lists {
				f.Close()
			}
			chunks, armed, st, pages := ship(t, r, 1<<20)
			if err := r.Remove(); err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff([]string{
				fmt.Sprintf("%d/0 %.60q", wire.ChunkHeaderPage, headerPage),
				fmt.Sprintf("%d/0 %q", wire.ChunkHeaderEvent, "# compressed entry header\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkClock, "[local] global\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkFormat, "ftrace/kernel_stack\x00name: kernel_stack\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkFormat, "labctl/clone\x00name: clone\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkFormat, "sched/sched_process_fork\x00name: sched_process_fork\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkSymbols, "ffffffff81000000 T startup_64\n"),
				"armed",
				fmt.Sprintf("%d/0 %.60q", wire.ChunkStats, "entries: 0\noverrun: 2\ncommit overrun: 1\nbytes: 100\ndropped e"),
				fmt.Sprintf("%d/1 %.60q", wire.ChunkStats, "entries: 0\noverrun: 2\ncommit overrun: 1\nbytes: 100\ndropped e"),
				fmt.Sprintf("%d/0 %q", wire.ChunkCmdlines, "7 labprobe\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkTgids, "7 7\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkPrintk, "0xffff : \"x\"\n"),
				fmt.Sprintf("%d/0 %q", wire.ChunkModules, "virtio .text 0xffffffffc0000000\n"),
			}, chunks); diff != "" {
				t.Errorf("chunks (-want +got):\n%s", diff)
			}
			armed.Uname = ""
			if diff := cmp.Diff(wire.CaptureArmed{
				Symbols: map[string]string{"clone": "kernel_clone"},
				Events:  []string{"labctl/clone", "sched/sched_process_fork"},
				Missing: []wire.CaptureMissing{
					{What: "probe opt", Why: "no alternative taken (nosuch: invalid argument (trace_kprobe: Invalid probed address or symbol at nosuch))"},
					{What: "event sched/nosuch", Why: "no such file or directory"},
					{What: "option nosuch", Why: "no such file or directory"},
				},
				Tracer: "nop", Clock: "local", BufferKB: 512, CPUs: 2, PageSize: 4096,
			}, armed); diff != "" {
				t.Errorf("armed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wire.CaptureStopped{Bytes: 3 * 4096, CPUs: []wire.CaptureCPU{
				{CPU: 0, Bytes: 2 * 4096, Overrun: 2, Commit: 1, Dropped: 3},
				{CPU: 1, Bytes: 4096, Overrun: 2, Commit: 1, Dropped: 3},
			}}, st); diff != "" {
				t.Errorf("stopped (-want +got):\n%s", diff)
			}
			for cpu, got := range pages {
				want := k.pages[fmt.Sprintf("cpu%d", cpu)]
				if len(got) != len(want) || got[16] != want[16] || !bytes.Equal(got[:24], want[:24]) {
					t.Errorf("CPU %d: %d bytes that are not its pages", cpu, len(got))
				}
			}
			if hold && bytes.Contains(pages[1][24+8:], []byte{0xee}) {
				t.Error("a page that was not full has old bytes behind its data")
			}

			want := []string{
				"mkdir instances/lab",
				"tracing_on=0",
				"buffer_size_kb=512",
				"options/overwrite=0",
				"options/stacktrace=0",
				"options/record-tgid=1",
				"max_graph_depth=3", // the top instance's: no other has it
				"options/event-fork=1",
				"options/function-fork=1",
				"set_event_pid=32767",
				"buffer_percent=25",
				"saved_cmdlines_size=4096",
				"proc/sys/debug/kprobes-optimization=0",
				"p:labctl_lab/clone kernel_clone flags=+0(%di):x64",
				"events/labctl_lab/clone/enable=1",
				"events/sched/sched_process_fork/filter=child_pid > 1",
				"events/sched/sched_process_fork/trigger=stacktrace",
				"events/sched/sched_process_fork/enable=1",
				"tracing_on=1",
				"tracing_on=0",
				"tracing_on=0",
				"events/labctl_lab/clone/enable=0",
				"saved_cmdlines_size=128",
				"max_graph_depth=0",
				"rmdir instances/lab",
				"-:labctl_lab/clone",
			}
			if hold { // nobody waits for pages
				want = slices.DeleteFunc(want, func(s string) bool { return s == "buffer_percent=25" })
			}
			if diff := cmp.Diff(want, k.log); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
		})
	}
}

// The bound cuts all CPUs at one time: the oldest pages are taken.
func TestBound(t *testing.T) {
	_, fsys := captureFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Remove()
	_, _, st, pages := ship(t, r, 2*4096+100)
	if len(pages[0]) != 4096 || len(pages[1]) != 4096 || pages[0][16] != 'a' {
		t.Errorf("CPU 0 %d bytes, CPU 1 %d; want the first page of each", len(pages[0]), len(pages[1]))
	}
	if st.Truncated == "" || st.Bytes != 2*4096 || st.Left < 4096 {
		t.Errorf("stopped %+v; want 2 pages and what was left", st)
	}
}

// A tracer that private instances cannot have is in the top one, which gets back
// what it had.
func TestTop(t *testing.T) {
	k, fsys := captureFake(t)
	k.tracers = "function nop\n"
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Tracer: "function_graph", Functions: []string{"kernel_clone"}, Graph: []string{"kernel_clone"}})
	if err != nil {
		t.Fatal(err)
	}
	if other, err := fsys.Arm(wire.CaptureParams{Instance: "other", Tracer: "function_graph"}); err != nil {
		t.Error(err)
	} else {
		if len(other.armed.Missing) != 1 || !strings.Contains(other.armed.Missing[0].Why, "capture lab has current_tracer") {
			t.Errorf("second capture: missing %+v; want the tracer, which the first has", other.armed.Missing)
		}
		if err := other.Remove(); err != nil {
			t.Error(err)
		}
	}
	_, armed, _, _ := ship(t, r, 1<<20)
	if !armed.Top || armed.Tracer != "function_graph" || armed.Matched != 1 {
		t.Errorf("armed %+v; want function_graph in the top instance", armed)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"current_tracer": "nop", "tracing_on": "1", "buffer_size_kb": "1408", "set_graph_function": "", "set_ftrace_filter": "",
		"options/overwrite": "1", "saved_cmdlines_size": "128",
	} {
		got, err := os.ReadFile(filepath.Join(k.root, file))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s = %q, %v; want %q", file, got, err, want)
		}
	}
}

// Without its functions a tracer would trace all of the kernel's.
func TestNoFunctions(t *testing.T) {
	k, fsys := captureFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Tracer: "function", Functions: []string{"nosuch"}, Options: map[string]bool{"func_stack_trace": true}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Remove()
	var what []string
	for _, m := range r.armed.Missing {
		what = append(what, m.What)
	}
	if diff := cmp.Diff([]string{"function nosuch", "tracer function", "option func_stack_trace"}, what); diff != "" || r.armed.Tracer != "nop" {
		t.Errorf("tracer %s, missing (-want +got):\n%s", r.armed.Tracer, diff)
	}
	for _, line := range k.log {
		if strings.HasPrefix(line, "current_tracer=") || strings.HasPrefix(line, "options/func_stack_trace=") {
			t.Errorf("wrote %s", line)
		}
	}
}

// On an error nothing is left behind, the name is free again, and the error says
// what the kernel said.
func TestArmErrors(t *testing.T) {
	nowhere := wire.Kprobe{Event: "nowhere", Alternatives: []wire.KprobeTry{{Symbol: "a1"}, {Symbol: "a2"}}}
	old := wire.Kprobe{Event: "clone", Alternatives: forkFamily.Alternatives[1:]}
	for _, tt := range []struct {
		name   string
		probes []wire.Kprobe
		fail   string
		want   string
	}{
		{"probe refused", []wire.Kprobe{forkFamily, nowhere}, "", "probe nowhere: no alternative taken (a1: invalid argument (trace_kprobe: Invalid probed address or symbol at a1); a2: "},
		{"cannot enable", []wire.Kprobe{old}, "instances/lab/events/labctl_lab/clone/enable", "_do_fork: input/output error"},
		{"cannot start", nil, "instances/lab/tracing_on", "hold trace: input/output error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, fsys := captureFake(t)
			k.fail[tt.fail] = syscall.EIO
			for range 2 {
				_, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Probes: tt.probes})
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Arm() = %v, want %q in it", err, tt.want)
				}
				if _, err := os.Stat(filepath.Join(k.root, "instances/lab")); !errors.Is(err, fs.ErrNotExist) || len(k.probes) != 0 {
					t.Errorf("left behind: instance (%v), probes %v", err, k.probes)
				}
			}
		})
	}
}

// What an agent before this one left behind is removed first.
func TestArmOverLeftovers(t *testing.T) {
	k, before := captureFake(t)
	p := wire.CaptureParams{Instance: "lab", Probes: []wire.Kprobe{forkFamily}}
	if _, err := before.Arm(p); err != nil {
		t.Fatal(err)
	}
	fsys, err := Open(k.root, filepath.Join(k.root, "proc"))
	if err != nil {
		t.Fatal(err)
	}
	fsys.files = k
	r, err := fsys.Arm(p)
	if err != nil {
		t.Fatalf("Arm over leftovers: %v", err)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if len(k.probes) != 0 {
		t.Errorf("probes left: %v", k.probes)
	}
}

// A name has one capture at a time, and a link that is gone ends it.
func TestArmTwice(t *testing.T) {
	_, fsys := captureFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Arm(wire.CaptureParams{Instance: "lab"}); err == nil || !strings.Contains(err.Error(), "another capture has it") {
		t.Errorf("second Arm of one name = %v", err)
	}
	// A link that is gone ends the capture, however much it would ship.
	w := wire.NewChunkWriter(closedLink{}, 64, false)
	done := make(chan error, 1)
	go func() {
		_, err := r.Run(make(chan struct{}), w, 1<<20)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Run on a closed link = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on, though its link is gone")
	}
	if err := r.Remove(); err != nil {
		t.Error(err)
	}
}

// An instance is busy as long as a program that is being started has its files.
func TestRemoveBusy(t *testing.T) {
	k, fsys := captureFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	k.busy = 3
	if err := r.Remove(); err != nil {
		t.Errorf("Remove of an instance that is busy three times = %v", err)
	}
}

type closedLink struct{}

func (closedLink) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCheck(t *testing.T) {
	probe := func(event, symbol string, args ...string) wire.CaptureParams {
		return wire.CaptureParams{Instance: "i", Probes: []wire.Kprobe{{Event: event, Alternatives: []wire.KprobeTry{{Symbol: symbol, Args: args}}}}}
	}
	for _, tt := range []struct {
		p    wire.CaptureParams
		want string
	}{
		{wire.CaptureParams{Instance: "lab_1", Events: []wire.CaptureEvent{{Name: "sched"}, {Name: "sched/sched_switch", Filter: "prev_pid > 1"}}}, ""},
		{wire.CaptureParams{Instance: "lab", Tracer: "function", Functions: []string{"sched_*", "*:mod:ext4"}}, ""},
		{probe("clone", "kernel_clone+0x4", "flags=+0(%di):x64", "s=+u8($stack2):ustring"), ""},
		{probe("clone", "virtio_console:port_fops_open"), ""},
		{wire.CaptureParams{}, "trace instance"},
		{wire.CaptureParams{Instance: "../x"}, "C identifier"},
		{wire.CaptureParams{Instance: "a/b"}, "C identifier"},
		{wire.CaptureParams{Instance: "a-b"}, "C identifier"},
		{wire.CaptureParams{Instance: strings.Repeat("x", 40)}, ""},
		{wire.CaptureParams{Instance: strings.Repeat("x", 41)}, "at most 40"},
		{wire.CaptureParams{Instance: "i", BufferKB: -1}, "0 or more"},
		{wire.CaptureParams{Instance: "i", Max: -1}, "0 or more"},
		{wire.CaptureParams{Instance: "i", Tracer: "a/b"}, "tracer"},
		{wire.CaptureParams{Instance: "i", Functions: []string{"f"}}, "without a tracer"},
		{wire.CaptureParams{Instance: "i", Tracer: "nop", Graph: []string{"f"}}, "without a tracer"},
		{wire.CaptureParams{Instance: "i", Functions: []string{"f"}, Graph: []string{"f"}}, "without a tracer"},
		{wire.CaptureParams{Instance: "i", Tracer: "function", Functions: []string{strings.Repeat("f", 120)}}, ""},
		{wire.CaptureParams{Instance: "i", Tracer: "function", Functions: []string{strings.Repeat("f", 121)}}, "one word"},
		{wire.CaptureParams{Instance: "i", Tracer: "function", Functions: []string{"a b"}}, "one word"},
		{wire.CaptureParams{Instance: "i", Clock: "x y"}, "clock"},
		{wire.CaptureParams{Instance: "i", Events: []wire.CaptureEvent{{Name: "../.."}}}, "SYSTEM/EVENT"},
		{wire.CaptureParams{Instance: "i", Events: []wire.CaptureEvent{{Name: "a b"}}}, "SYSTEM/EVENT"},
		{wire.CaptureParams{Instance: "i", Events: []wire.CaptureEvent{{Name: "a/b", Filter: "x\ny"}}}, "one line"},
		{wire.CaptureParams{Instance: "i", Options: map[string]bool{"../x": true}}, "option"},
		{wire.CaptureParams{Instance: "i", Files: map[string]string{"../x": "1"}}, "file"},
		{wire.CaptureParams{Instance: "i", Files: map[string]string{"tracing_on": "1"}}, "does not set itself"},
		{wire.CaptureParams{Instance: "i", Events: []wire.CaptureEvent{{Name: "a b"}}}, "SYSTEM/EVENT"},
		{wire.CaptureParams{Instance: "i", Probes: []wire.Kprobe{forkFamily, forkFamily}}, "named twice"},
		{wire.CaptureParams{Instance: "i", Probes: []wire.Kprobe{{Event: "e"}}}, "no alternatives"},
		{probe("1x", "f"), "C identifier"},
		{probe("a/b", "f"), "C identifier"},
		{probe("e", ""), "empty"},
		{probe("e", "f\n-:x"), "not one word"},
		{probe("e", "f", "a b"), "not one word"},
		{probe("e", "f", "a;b"), "not one word"},
		{probe("e", "f", "ä"), "not one word"},
		{wire.CaptureParams{Instance: "i", Keep: true, Hold: true, Max: 1, Formats: []string{"signal", "a/b"}}, ""},
		{wire.CaptureParams{Instance: "i", Keep: true, Formats: []string{"../x"}}, "SYSTEM/EVENT"},
		{wire.CaptureParams{Instance: "i", Keep: true, Formats: []string{"a b"}}, "SYSTEM/EVENT"},
		{wire.CaptureParams{Instance: "i", Keep: true, Tracer: "function"}, "a kept instance"},
		{wire.CaptureParams{Instance: "i", Keep: true, Options: map[string]bool{"o": true}}, "a kept instance"},
		{wire.CaptureParams{Instance: "i", Keep: true, Files: map[string]string{"f": "1"}}, "a kept instance"},
		{wire.CaptureParams{Instance: "i", Keep: true, Options: map[string]bool{"o": true}, Files: map[string]string{"f": "1"}}, "a kept instance"},
		{wire.CaptureParams{Instance: "i", Keep: true, BufferKB: 1}, "a kept instance"},
		{wire.CaptureParams{Instance: "i", Formats: []string{"a/b"}}, "without a kept instance"},
	} {
		err := check(tt.p)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("check(%+v) = %v, want %q", tt.p, err, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	for s, want := range map[string]struct{ name, ident bool }{
		"azAZ_09": {true, true}, "0x": {true, false}, "9x": {true, false}, "a-b": {true, false}, "": {},
		"a/": {}, "a:": {}, "a@": {}, "a[": {}, "a`": {}, "a{": {}, // beside those in ASCII
		strings.Repeat("x", 63): {true, true}, strings.Repeat("x", 64): {true, false}, strings.Repeat("x", 65): {},
	} {
		if name, ident := isName(s), isIdent(s); name != want.name || ident != want.ident {
			t.Errorf("%q is a name: %t, an identifier: %t; want %+v", s, name, ident, want)
		}
	}
	for s, want := range map[string]bool{"~!x": true, "a\x7f": false, "": false} {
		if err := checkWord(s); (err == nil) != want {
			t.Errorf("checkWord(%q) = %v", s, err)
		}
	}
}

// TestAnchor: the first address in the upper half is the kernel's.
func TestAnchor(t *testing.T) {
	for text, want := range map[string]string{
		"00000000 A percpu\n7fffffff T x\n80000000 T y\nc0008000 T z\n": "80000000 T y\n",
		"ffffffff81000000 T _text\n":                                    "ffffffff81000000 T _text\n",
		"00000000 T hidden\n":                                           "",
	} {
		proc := t.TempDir()
		if err := os.WriteFile(filepath.Join(proc, "kallsyms"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := Capture{instance: instance{fs: &FS{proc: proc}}}
		if got, err := r.anchor(); got != want || (err == nil) != (want != "") {
			t.Errorf("anchor of %q = %q, %v; want %q", text, got, err, want)
		}
	}
}

// TestScrub: what is behind a page's data, and a count of lost events behind
// that, is cleared.
func TestScrub(t *testing.T) {
	for n, want := range map[int]int{0: 24, 4: 28, 40: 64, 41: 64, 1<<20 - 1: 64} {
		page := bytes.Repeat([]byte{0xff}, 64)
		binary.NativeEndian.PutUint32(page[8:], uint32(n)|1<<31) // RB_MISSED_EVENTS
		layout{page: 64, commit: 8, long: 4, data: 16}.scrub(page)
		if got := len(bytes.TrimRight(page, "\x00")); got != want {
			t.Errorf("of a page with %d bytes of data %d are left, want %d", n, got, want)
		}
	}
}

func TestParseLayout(t *testing.T) {
	page := func(commit, long, data, size int) string {
		return fmt.Sprintf("\tfield: local_t commit;\toffset:%d;\tsize:%d;\tsigned:1;\n\tfield: char data;\toffset:%d;\tsize:%d;\tsigned:1;\n", commit, long, data, size)
	}
	for text, want := range map[string]layout{
		page(8, 4, 12, 4084):             {page: 4096, commit: 8, long: 4, data: 12},
		page(8, 8, 16, wire.MaxChunk-16): {page: wire.MaxChunk, commit: 8, long: 8, data: 16},
		page(8, 8, 16, wire.MaxChunk-15): {},
		page(8, 8, 12, 4084):             {},
		page(8, 8, 16, 0):                {},
	} {
		if l, err := parseLayout(text); l != want || (err == nil) != (want != layout{}) {
			t.Errorf("parseLayout(%q) = %+v, %v; want %+v", text, l, err, want)
		}
	}
	if l, err := parseLayout(headerPage); err != nil || l != (layout{page: 4096, commit: 8, long: 8, data: 16}) {
		t.Errorf("parseLayout = %+v, %v", l, err)
	}
	for _, bad := range []string{"", "field: char data;\toffset:16;\tsize:4080;\n", strings.ReplaceAll(headerPage, "size:8", "size:3"), strings.ReplaceAll(headerPage, "4080", "9999999")} {
		if l, err := parseLayout(bad); err == nil {
			t.Errorf("parseLayout(%q) = %+v; want an error", bad, l)
		}
	}
}

func FuzzParseLayout(f *testing.F) {
	f.Add(headerPage)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLayout(text)
		if err != nil {
			return
		}
		p := bytes.Repeat([]byte{0xff}, l.page)
		l.scrub(p) // must stay inside
	})
}

// A probe at a function's return goes to dynamic_events, comes back with the function that
// the kernel took, and leaves with the capture.
func TestArmFprobe(t *testing.T) {
	k, fsys := captureFake(t)
	k.symbols["kernel_clone%return"] = true
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Probes: []wire.Kprobe{{Event: "r", Optional: true, Fprobe: true, Alternatives: []wire.KprobeTry{
		{Symbol: "_do_fork%return", Args: []string{"ret=$retval"}},
		{Symbol: "kernel_clone%return", Args: []string{"ret=$retval"}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.armed.Symbols["r"]; got != "kernel_clone%return" {
		t.Errorf("armed %q; want kernel_clone%%return", got)
	}
	const command = "f:labctl_lab/r kernel_clone%return ret=$retval"
	if !slices.Contains(k.log, command) {
		t.Errorf("log %q; want %q", k.log, command)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(k.log, "-:labctl_lab/r") || len(k.probes) > 0 {
		t.Errorf("probes %v, log %q; want none left", k.probes, k.log)
	}
}

// A live capture sends what names the pages before them, and all that is in the buffers in
// one round, with the names that are new.
func TestLiveRounds(t *testing.T) {
	_, fsys := captureFake(t)
	r, err := fsys.Arm(wire.CaptureParams{Instance: "lab", Live: true})
	if err != nil {
		t.Fatal(err)
	}
	out, in := io.Pipe()
	w := wire.NewChunkWriter(in, 4096, false)
	stop := make(chan struct{})
	go func() {
		_, err := r.Run(stop, w, 1<<20)
		in.CloseWithError(errors.Join(err, w.Close()))
	}()
	var got []string
	for cr := wire.NewChunkReader(out); ; {
		c, err := cr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch c.Kind {
		case wire.ChunkModules, wire.ChunkArmed, wire.ChunkPages:
			got = append(got, fmt.Sprintf("%d/%d %d bytes", c.Kind, c.CPU, len(c.Payload)/4096*4096))
		case wire.ChunkRound:
			if got = append(got, fmt.Sprintf("round %q", c.Payload)); len(c.Payload) == 0 {
				select {
				case <-stop:
				default:
					close(stop)
				}
			}
		}
	}
	want := []string{
		fmt.Sprintf("%d/0 0 bytes", wire.ChunkModules), fmt.Sprintf("%d/0 0 bytes", wire.ChunkArmed),
		fmt.Sprintf("%d/0 8192 bytes", wire.ChunkPages), fmt.Sprintf("%d/1 4096 bytes", wire.ChunkPages),
		`round "7 labprobe\n"`, `round ""`,
	}
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("chunks %q; want %q first", got, want)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
}
