package wire

import (
	"reflect"
	"strings"
	"testing"
)

func TestLook(t *testing.T) {
	want := Look{Name: "shared", Said: map[string][]int64{"child": {12}, "page": {0x7f0000001000, -1}}}
	line := want.String()
	if line != "@look shared child=0xc page=0x7f0000001000,0xffffffffffffffff" || !IsLook(line) {
		t.Errorf("String() = %q", line)
	}
	for _, line := range []string{line, "@look shared page=0x7f0000001000 child=12 page=18446744073709551615"} {
		if got, err := ParseLook(line); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseLook(%q) = %+v, %v; want %+v", line, got, err, want)
		}
	}
	for _, tt := range []struct{ line, want string }{
		{"@look ", "want @look, a name"},
		{"@look Shared", "want @look, a name"},
		{"@look a child", "want NAME=NUMBER"},
		{"@look a child=", "want NAME=NUMBER"},
		{"@look a child=-1", "want NAME=NUMBER"},
		{"@look a CHILD=1", "want NAME=NUMBER"},
		{"@look a b=" + strings.Repeat("1,", 64) + "1", "more than 64 numbers"},
		{"@look a" + strings.Repeat(" b=1", 40), "at most 32"},
		{"@look a b=" + strings.Repeat("1", 5000), "more than 4096 bytes"},
	} {
		if _, err := ParseLook(tt.line); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseLook(%.40q) = %v; want %q", tt.line, err, tt.want)
		}
	}
}

func FuzzLook(f *testing.F) {
	f.Add("@look shared child=12 page=0x1000,0x2000")
	f.Fuzz(func(t *testing.T, line string) {
		l, err := ParseLook(line)
		if err != nil {
			return
		}
		if again, err := ParseLook(l.String()); err == nil && !reflect.DeepEqual(again, l) {
			t.Errorf("%q gives %+v, and that %+v", line, l, again)
		}
	})
}
