package agent

import (
	"strings"
	"testing"
)

func TestReadSleepers(t *testing.T) {
	const one = `{"pid":1,"tid":1,"ppid":0,"comm":"lab\u001b[2J","state":"S","wchan":"do_wait","stack":["[<0>] do_wait+0x164/0x240"]}` + "\n"
	for _, tt := range []struct {
		name, in string
		max      int
		want     int
		err      string
	}{
		{"none", "", 1, 0, ""},
		{"one", one, 1, 1, ""},
		{"more than asked for", one + one, 1, 1, "more than requested"},
		{"no JSON", "x\n", 1, 0, "decode"},
		{"unknown field", `{"pid":1,"x":2}`, 1, 0, "unknown field"},
		{"a line too long", `{"comm":"` + strings.Repeat("x", maxSleeper) + `"}`, 1, 0, "too long"},
		{"a stack too deep", `{"stack":[` + strings.Repeat(`"f",`, maxFrames) + `"f"]}`, 1, 0, "more than requested"},
	} {
		got, err := readSleepers(strings.NewReader(tt.in), tt.max)
		if len(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: readSleepers = %d tasks, %v; want %d and %q", tt.name, len(got), err, tt.want, tt.err)
		}
		for _, s := range got {
			if strings.Contains(s.Comm, "\x1b") {
				t.Errorf("%s: comm %q would act on a terminal", tt.name, s.Comm)
			}
		}
	}
}

func FuzzReadSleepers(f *testing.F) {
	f.Add([]byte(`{"pid":1,"tid":1,"ppid":0,"comm":"labinit","state":"S","stack":["[<0>] do_wait+0x164/0x240"]}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, err := readSleepers(strings.NewReader(string(in)), 3); len(got) > 3 || err == nil && len(got) == 0 && len(strings.TrimSpace(string(in))) > 0 && in[0] == '{' {
			t.Errorf("readSleepers(%q) = %d tasks, %v", in, len(got), err)
		}
	})
}
