package tracedat

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/trace/capture"
	"labctl/host/trace/decode"
)

// TestInstances: of a file with two instances the events of both are there, in the order
// in which trace-cmd reports them.
func TestInstances(t *testing.T) {
	b := unzst(t, "7.2-amd64-two.dat")
	f, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Notes) != 0 {
		t.Errorf("notes %q; want none", f.Notes)
	}
	var instances []string
	for _, c := range f.CPUs {
		instances = append(instances, fmt.Sprintf("%s %d", c.Instance, c.ID))
	}
	if diff := cmp.Diff([]string{" 0", " 1", "foo 0", "foo 1"}, instances); diff != "" {
		t.Errorf("buffers differ (-want +got):\n%s", diff)
	}
	d, err := decode.Open(&f.Capture)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for l := range strings.Lines(string(unzst(t, "7.2-amd64-two.report"))) {
		m := lineRE.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			continue
		}
		instance := ""
		if strings.HasPrefix(l, "foo: ") {
			instance = "foo"
		}
		want = append(want, fmt.Sprintf("%s %s %s %s %s", instance, m[1], m[2], m[3], m[4]))
	}
	for e, err := range d.Events() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s-%d %03d %d.%09d %s", e.Instance, d.Comm(e.PID), e.PID, e.CPU, e.Time/1e9, e.Time%1e9, e.Name()))
	}
	if len(want) < 1000 {
		t.Errorf("%d events in trace-cmd's report; want over 1000", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events differ (-trace-cmd +here):\n%s", diff)
	}
	if err := Write(&bytes.Buffer{}, &f.Capture); err == nil {
		t.Error("Write wrote two instances as one; want an error")
	}
}

// TestTimes: what the options say of times is applied as trace-cmd does.
func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		times capture.Times
		in    uint64
		want  uint64
	}{
		{capture.Times{}, 1 << 62, 1 << 62},
		{capture.Times{Add: -5}, 100, 95},
		{capture.Times{Mult: 3 << 20, Shift: 20}, 1 << 40, 3 << 40}, // more than 64 bits on the way
		{capture.Times{Mult: 1, Shift: 1, Add: 7}, 11, 12},
	} {
		if got := tt.times.Of(tt.in); got != tt.want {
			t.Errorf("%+v.Of(%d) = %d; want %d", tt.times, tt.in, got, tt.want)
		}
	}
	option := func(id uint16, data []byte) []byte {
		b := put.AppendUint16(nil, id)
		return append(put.AppendUint32(b, uint32(len(data))), data...)
	}
	v6 := image(t)
	at := after(t, v6, "options  \x00")
	for name, tt := range map[string]struct {
		option []byte
		want   capture.Times
		note   string
	}{
		"date":      {option(optDate, []byte("0x10\x00")), capture.Times{Add: 16000}, ""},
		"offset":    {option(optOffset, []byte("-3\x00")), capture.Times{Add: -3}, ""},
		"no offset": {option(optOffset, []byte("x\x00")), capture.Times{}, "an offset of times is not a number"},
		"tsc":       {option(optTSC, put.AppendUint64(put.AppendUint32(put.AppendUint32(nil, 5), 9), 0)), capture.Times{Mult: 5, Shift: 9}, ""},
	} {
		b := append(append(bytes.Clone(v6[:at]), tt.option...), v6[at:]...)
		// The pages are elsewhere now.
		f, err := Read(bytes.NewReader(b), int64(len(b)))
		if f == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f.Times != tt.want || !strings.Contains(strings.Join(f.Notes, "\n"), tt.note) {
			t.Errorf("%s: times %+v, notes %q; want %+v, %q", name, f.Times, f.Notes, tt.want, tt.note)
		}
	}
}
