package convert

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"testing"

	"labctl/host/stack"
	"labctl/host/trace/decode"
	"labctl/host/trace/internal/sample"
	"labctl/host/trace/stats"
)

// written is a real capture in one form, and how many events and stacks went into it: a
// stack that belongs to an event is not an event of its own.
func written(t *testing.T, s sample.Sample, form string) (b []byte, events, stacks int) {
	t.Helper()
	d, err := decode.Open(s.Capture)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range d.Events() {
		if err != nil {
			t.Fatal(err)
		}
		events++
		if len(e.Stack)+len(e.UserStack) > 0 {
			stacks++
		}
	}
	f, ok := Find(form)
	if !ok {
		t.Fatalf("no form %s", form)
	}
	style, _ := stack.FindStyle("ftrace")
	var out bytes.Buffer
	if err := f.Write(&out, d, Options{Style: style}); err != nil {
		t.Fatalf("write %s: %v", form, err)
	}
	return out.Bytes(), events, stacks
}

func TestJSON(t *testing.T) {
	for _, s := range sample.All(t) {
		b, events, stacks := written(t, s, "json")
		d := json.NewDecoder(bytes.NewReader(b))
		n, withStack := 0, 0
		var last uint64
		for ; ; n++ {
			var e struct {
				Time   uint64
				PID    *int
				Comm   string
				System string
				Event  string
				Fields map[string]any
				Stack  []string
				User   []string `json:"user_stack"`
			}
			if err := d.Decode(&e); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: object %d: %v", s.Name, n, err)
			}
			if e.PID == nil || e.Comm == "" || e.System == "" || e.Event == "" || e.Time < last {
				t.Fatalf("%s: object %d, after %d: %+v", s.Name, n, last, e)
			}
			if e.Event == "sched_process_fork" && e.Fields["child_pid"] == nil {
				t.Errorf("%s: object %d: fields %v; want child_pid", s.Name, n, e.Fields)
			}
			if len(e.Stack)+len(e.User) > 0 {
				withStack++
			}
			last = e.Time
		}
		// Of a stack nothing may be left but the tracing's own frames.
		if n != events || withStack > stacks || stacks > 0 && withStack == 0 {
			t.Errorf("%s: %d objects, %d with stacks; want %d and up to %d", s.Name, n, withStack, events, stacks)
		}
	}
}

var eventLine = regexp.MustCompile(`(?m)^ *.+-\d+ +\[\d{3}\] .{5} \d+\.\d{6}: `)

func TestText(t *testing.T) {
	for _, s := range sample.All(t) {
		b, events, _ := written(t, s, "text")
		if n := len(eventLine.FindAll(b, -1)); n != events {
			t.Errorf("%s: %d lines of events; want %d", s.Name, n, events)
		}
	}
}

// TestFirefox holds the tables to what the viewer takes for granted: columns of one
// length, and numbers that are in the table which they point into.
func TestFirefox(t *testing.T) {
	type columns map[string]any
	length := func(what string, c columns) int {
		n := int(c["length"].(float64))
		for name, v := range c {
			if l, ok := v.([]any); ok && len(l) != n {
				t.Errorf("%s.%s has %d values; want %d", what, name, len(l), n)
			}
		}
		return n
	}
	inside := func(what string, v any, n int) {
		for i, x := range v.([]any) {
			if f, ok := x.(float64); ok && (f < 0 || int(f) >= n) {
				t.Errorf("%s[%d] is %v; want less than %d", what, i, f, n)
				return
			}
		}
	}
	for _, s := range sample.All(t) {
		b, events, stacks := written(t, s, "firefox")
		var p struct {
			Meta struct {
				Version int `json:"preprocessedProfileVersion"`
			}
			Shared struct {
				Strings                     []string `json:"stringArray"`
				Stacks                      columns  `json:"stackTable"`
				Frames                      columns  `json:"frameTable"`
				Funcs                       columns  `json:"funcTable"`
				Resources, Symbols, Sources columns
			}
			Threads []struct {
				Name    string
				PID     string
				Samples columns
				Markers columns
			}
		}
		if err := json.Unmarshal(b, &p); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		nStacks, nFrames, nFuncs := length("stackTable", p.Shared.Stacks), length("frameTable", p.Shared.Frames), length("funcTable", p.Shared.Funcs)
		inside("stackTable.prefix", p.Shared.Stacks["prefix"], nStacks)
		inside("stackTable.frame", p.Shared.Stacks["frame"], nFrames)
		inside("frameTable.func", p.Shared.Frames["func"], nFuncs)
		inside("funcTable.name", p.Shared.Funcs["name"], len(p.Shared.Strings))
		samples, markers := 0, 0
		for _, th := range p.Threads {
			samples += length("samples", th.Samples)
			markers += length("markers", th.Markers)
			inside("samples.stack", th.Samples["stack"], nStacks)
			inside("markers.name", th.Markers["name"], len(p.Shared.Strings))
		}
		if p.Meta.Version == 0 || markers != events || samples > stacks || stacks > 0 && samples == 0 {
			t.Errorf("%s: version %d, %d markers, %d samples; want %d and up to %d", s.Name, p.Meta.Version, markers, samples, events, stacks)
		}
	}
}

// TestStats: the counts of all lists are those of the events.
func TestStats(t *testing.T) {
	for _, s := range sample.All(t) {
		got, err := stats.Of(s.Capture)
		if err != nil {
			t.Fatal(err)
		}
		_, events, _ := written(t, s, "folded")
		sum := func(counts []stats.Count) (n int64) {
			for _, c := range counts {
				n += c.N
			}
			return n
		}
		if got.Events != int64(events)+got.Stacks || sum(got.Kinds) != int64(events) || sum(got.Tasks) != int64(events) {
			t.Errorf("%s: %d events, %d stacks, %d by kind, %d by task; want %d events beside the stacks", s.Name, got.Events, got.Stacks, sum(got.Kinds), sum(got.Tasks), events)
		}
	}
}

// TestRawSyscalls: every form has the names of system calls beside their numbers, of any
// capture that tells its architecture by its machine, or by its symbols.
func TestRawSyscalls(t *testing.T) {
	forms := map[string]*regexp.Regexp{
		"text":     regexp.MustCompile(`sys_enter: NR \d+ (write|close) \(`),
		"json":     regexp.MustCompile(`"system":"raw_syscalls","event":"sys_enter","fields":\{"id":\d+,"args":\[[\d,]+\],"syscall":"(write|close)"\}`),
		"firefox":  regexp.MustCompile(`NR \d+ (write|close) \(`),
		"perfetto": regexp.MustCompile("\x05(write|close)"), // a text of five bytes,
	}
	for _, boot := range sample.Boots(t) {
		for _, uname := range []bool{true, false} {
			s := sample.Load(t, boot+"/syscalls")
			if !uname {
				s.Capture.Uname = ""
			}
			for form, want := range forms {
				if b, _, _ := written(t, s, form); !want.Match(b) {
					t.Errorf("%s, uname known: %t: %s has no %s", s.Name, uname, form, want)
				}
			}
		}
	}
}
