package decode

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"labctl/host/trace/event"
	"labctl/host/trace/internal/kerneltext"
	"labctl/host/trace/internal/sample"
)

func open1(t testing.TB, s sample.Sample) *Decoder {
	t.Helper()
	d, err := Open(s.Capture)
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	return d
}

// clone is the event to keep: nothing in it changes with the iteration.
func clone(e *Event) *Event {
	c := *e
	c.Data = slices.Clone(e.Data)
	c.Stack, c.UserStack = slices.Clone(e.Stack), slices.Clone(e.UserStack)
	c.stackBuf, c.userBuf = nil, nil
	return &c
}

// all are the events of a sample that must have no damage.
func all(t testing.TB, name string, d *Decoder) []*Event {
	t.Helper()
	var out []*Event
	for e, err := range d.Events() {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, clone(e))
	}
	return out
}

var (
	offset    = regexp.MustCompile(`\+0x[0-9a-f]+/0x[0-9a-f]+`)
	arguments = regexp.MustCompile(`\(.*\)`)
	pointer   = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
	hidden    = regexp.MustCompile(`\[unknown/kretprobe'd\]|arch_rethook_trampoline|(__)?kretprobe_trampoline`)
	page      = regexp.MustCompile(`^page=[0-9a-f]+`)
	callName  = regexp.MustCompile(`^(NR \d+) \w+`)
	errorName = regexp.MustCompile(`((?:=|ret=)[ ]?(?:-\d+|0xf+[0-9a-f]{3})) \(-E\w+\)`)
	zeros     = regexp.MustCompile(`\b(?:0x)?0*([0-9a-f]+)\b`)
)

// TestKernelText holds each event against the kernel's own text of it.
func TestKernelText(t *testing.T) {
	for _, s := range sample.All(t) {
		if strings.HasSuffix(s.Name, "/graph") {
			continue // see TestGraph
		}
		d := open1(t, s)
		text, err := kerneltext.Parse(bytes.NewReader(named(s.Text)))
		if err != nil || text.BadLines > 0 {
			t.Fatalf("%s: %v, %v", s.Name, err, text.Bad)
		}
		got := all(t, s.Name, d)
		if len(got) != len(text.Events) {
			t.Errorf("%s: %d events, the kernel has %d", s.Name, len(got), len(text.Events))
			continue
		}
		bad, failed := 0, map[string]bool{}
		for i, e := range got {
			f := d.Event(e)
			// Kernels up to 5.16 have one column less.
			f.Flags = f.Flags[:len(text.Events[i].Flags)]
			if f.Name == "function" { // the kernel has the names of arguments from BTF
				for _, e := range []*event.Event{&f, &text.Events[i]} {
					e.Text = hidden.ReplaceAllString(arguments.ReplaceAllString(e.Text, ""), "(return probe)")
				}
			}
			if strings.HasPrefix(f.Text, "page=?") { // an address that is not in the record
				text.Events[i].Text = page.ReplaceAllString(text.Events[i].Text, "page=?")
			}
			f.Text = errorName.ReplaceAllString(f.Text, "$1") // the kernel has numbers alone
			if e.Format.System == "raw_syscalls" {
				f.Text = callName.ReplaceAllString(f.Text, "$1")
			}
			if strings.HasPrefix(f.Name, "sys_") {
				f.Text = plain(f.Text)
				text.Events[i].Text = plain(text.Events[i].Text)
				if strings.Contains(e.Format.Print, "_val") {
					// What an argument points to: the kernel shows it, and the
					// numbers beside it, in a form of its own.
					f.Text, text.Events[i].Text = "", ""
				}
			}
			if strings.HasPrefix(s.Name, "6.1-") { // its text has pointers hashed
				f.Text = pointer.ReplaceAllString(f.Text, "P")
				text.Events[i].Text = pointer.ReplaceAllString(text.Events[i].Text, "P")
			}
			g, w := line(&f, (e.Time+500)/1000), line(&text.Events[i], uint64(text.Events[i].Time)/1000)
			if g != w {
				if bad++; bad <= 3 {
					t.Errorf("%s: event %d\n got %s\nwant %s", s.Name, i, g, w)
				}
			}
			if err := d.printer(e.Format).err; err != nil && !strings.HasPrefix(e.Name(), "mm_page_") && !failed[e.Format.String()] {
				failed[e.Format.String()] = true
				t.Errorf("%s: %v", s.Name, err)
			}
		}
		if bad > 3 {
			t.Errorf("%s: %d events differ", s.Name, bad)
		}
	}
}

// named puts the event's name into the lines where the kernel shows none.
func named(text []byte) []byte {
	for _, r := range []struct{ from, to string }{
		{"c='\n'", "c='\uFFFD'"}, // a character that ends the line
		{`(?m)^(.{30,90}[0-9]: )tracing_mark_write`, "${1}print: tracing_mark_write"},
		{`(?m)^(.{30,90}[0-9]: )# `, "${1}raw_data: # "},
		{`(?m)^(.{30,90}[0-9]: )sys_(\w+)\((.*)\)$`, "${1}sys_enter_$2: $3"},
		{`(?m)^(.{30,90}[0-9]: )sys_(\w+) -> `, "${1}sys_exit_$2: "},
	} {
		text = regexp.MustCompile(r.from).ReplaceAll(text, []byte(r.to))
	}
	return text
}

// plain leaves the numbers of a system call's arguments: the kernel and its own
// print format pad them otherwise.
func plain(text string) string {
	return zeros.ReplaceAllString(text, "$1")
}

func line(e *event.Event, usec uint64) string {
	text := strings.ReplaceAll(offset.ReplaceAllString(e.Text, ""), "\uFFFD", " ") // a tab, or what is not for terminals
	s := fmt.Sprintf("%s-%d [%d] %s %d %s %s", e.Task, e.PID, e.CPU, e.Flags, usec, e.Name, text)
	if e.Stack != nil {
		for i, f := range e.Stack.Frames {
			// The kernel shows the function after a call that does not return.
			if i > 0 && (f.Offset == 0 || f.Offset == f.Size) && f.Name != "" {
				f.Name = "(start)"
				f.Size = 0
			}
			s += "\n=> " + f.String()
		}
	}
	return s
}

// TestGraph holds entries and exits of function_graph against the kernel's own
// drawing of them.
func TestGraph(t *testing.T) {
	for _, boot := range sample.Boots(t) {
		s := sample.Load(t, boot+"/graph")
		d := open1(t, s)
		events := all(t, s.Name, d)
		got := graph(t, d, events)
		var want []string
		for _, l := range strings.Split(string(s.Text), "\n") {
			columns := strings.Split(l, "|")
			if strings.HasPrefix(l, "#") || len(columns) < 4 {
				continue
			}
			cpu, _, _ := strings.Cut(strings.TrimSpace(columns[1]), ")")
			call := arguments.ReplaceAllString(offset.ReplaceAllString(columns[len(columns)-1], ""), "()")
			if before, _, ok := strings.Cut(call, "}"); ok {
				call = before + "}"
			}
			if strings.TrimSpace(call) == "" { // an interrupt's borders
				continue
			}
			want = append(want, cpu+strings.TrimPrefix(call, " "))
		}
		if len(want) < 100 {
			t.Errorf("%s: the kernel has %d calls, want more", s.Name, len(want))
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Errorf("%s: call %d of %d and %d:\n got %q\nwant %q", s.Name, i, len(got), len(want), got[min(i, len(got)):min(i+5, len(got))], want[min(i, len(want)):min(i+5, len(want))])
				break
			}
		}
	}
}

// graph draws calls as the kernel does: one that calls nothing else has one line.
func graph(t *testing.T, d *Decoder, events []*Event) []string {
	var out []string
	leaf := map[*Event]bool{}
	for i, e := range events {
		if leaf[e] {
			continue
		}
		fn, err := e.Uint("func")
		if err != nil {
			t.Fatal(err)
		}
		depth, err := e.Int("depth")
		if err != nil || depth < 0 || depth > 50 {
			t.Fatalf("%s: depth %d, %v", e.Name(), depth, err)
		}
		drawn := strings.Repeat("  ", int(depth)) + d.function(fn, false)
		if e.Name() == "funcgraph_exit" {
			drawn = strings.Repeat("  ", int(depth)) + "} /* " + d.function(fn, false) + " */"
		}
		if text := d.Text(e); !strings.HasPrefix(text, drawn) || e.Name() != "funcgraph_exit" && !strings.HasSuffix(text, ") {") {
			t.Errorf("%s prints as %q, want %q first", e.Name(), text, drawn)
		}
		at := fmt.Sprint(e.CPU, " ", strings.Repeat("  ", int(depth)))
		if e.Name() == "funcgraph_exit" {
			out = append(out, at+"}")
			continue
		}
		end := "() {"
		for _, next := range events[i+1:] {
			if next.CPU != e.CPU {
				continue
			}
			if f, _ := next.Uint("func"); next.Name() == "funcgraph_exit" && f == fn && next.PID == e.PID {
				leaf[next] = true
				end = "();"
			}
			break
		}
		out = append(out, at+d.function(fn, false)+end)
	}
	return out
}

// handlers are calls whose function in the kernel, and so its events, have another name
// than their number has for programs.
var handlers = map[string]string{
	"fstat": "newfstat", "stat": "newstat", "lstat": "newlstat", "uname": "newuname", "umount2": "umount",
	"sendfile": "sendfile64",
}

// TestSystemCalls: events whose text has no key=value have the record's fields, and the
// name of the call by its number. The kernel's events of single calls, which have its
// names, are the witness for those of raw_syscalls, too.
func TestSystemCalls(t *testing.T) {
	enter, exit, raw := 0, 0, 0
	for _, s := range sample.All(t) {
		d := open1(t, s)
		numbers := map[int]string{} // what the kernel calls them
		events := all(t, s.Name, d)
		for _, e := range events {
			if e.Format.System != "syscalls" {
				continue
			}
			f := d.Event(e)
			if _, failed := f.Field("error"); failed {
				f.Fields = f.Fields[:len(f.Fields)-1]
			}
			if len(f.Fields) != len(e.Format.Fields)+1 {
				t.Fatalf("%s: %s has fields %v; want those of its format, and its name", s.Name, f.Name, f.Fields)
			}
			nr, err := f.Int("__syscall_nr")
			if err != nil || nr < 0 {
				t.Errorf("%s: %s: number %d, %v", s.Name, f.Name, nr, err)
			}
			_, kernels, _ := strings.Cut(strings.TrimPrefix(f.Name, "sys_"), "_")
			numbers[nr] = kernels
			name, _ := f.Field("syscall")
			if name != kernels && handlers[name] != kernels {
				t.Errorf("%s: call %d is %q; the kernel calls it %s", s.Name, nr, name, kernels)
			}
			if _, ok := f.Field("ret"); ok != strings.HasPrefix(f.Name, "sys_exit_") {
				t.Errorf("%s: %s has a result: %t", s.Name, f.Name, ok)
			} else if ok {
				exit++
			} else {
				enter++
			}
		}
		for _, e := range events {
			if e.Format.System != "raw_syscalls" {
				continue
			}
			f := d.Event(e)
			nr, err := f.Int("id")
			name, _ := f.Field("syscall")
			if kernels := numbers[nr]; err != nil || kernels != "" && name != kernels && handlers[name] != kernels {
				t.Errorf("%s: %s of %d is %q, %v; the kernel calls it %s", s.Name, f.Name, nr, name, err, kernels)
			}
			if nr == -1 { // the return of a call that is none any more
				name = "="
			}
			if want := fmt.Sprintf("NR %d %s ", nr, name); !strings.HasPrefix(f.Text, want) {
				t.Errorf("%s: %s: text %q; want it to begin with %q", s.Name, f.Name, f.Text, want)
			}
			if numbers[nr] != "" {
				raw++
			}
		}
	}
	if enter == 0 || exit == 0 || raw == 0 {
		t.Errorf("%d calls, %d returns, %d raw ones in all samples; want some", enter, exit, raw)
	}
}
