package kernel

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSpan(t *testing.T) {
	for in, want := range map[string]struct {
		span Span
		ok   bool
		err  string
	}{
		"6.1..7.2":             {Span{"6.1", "7.2", ""}, true, ""},
		"6.1..6.1":             {Span{"6.1", "6.1", ""}, true, ""},
		"6.1..":                {Span{"6.1", "", ""}, true, ""},
		"..6.12":               {Span{"", "6.12", ""}, true, ""},
		"6.1-cloud..7.2-cloud": {Span{"6.1", "7.2", "cloud"}, true, ""},
		"6.9..6.10":            {Span{"6.9", "6.10", ""}, true, ""},
		"6.1":                  {},
		"cached":               {},
		"..":                   {},
		"../linux":             {},
		"./a..b":               {},
		"6.10..6.9":            {Span{}, true, "the older series comes first: 6.9..6.10"},
		"6.1-cloud..7.2":       {Span{}, true, "both ends want the same flavour"},
		"6..7":                 {Span{}, true, "want two series, such as 6.1..7.2"},
		"6.1...7.2":            {Span{}, true, "want two series"},
		"6.1..7.2-":            {Span{}, true, "want two series"},
		"debian:trixie..7.2":   {Span{}, true, "want two series"},
		"\x1b..7.2":            {Span{}, true, "want two series"},
	} {
		got, ok, err := ParseSpan(in)
		if got != want.span || ok != want.ok || (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("ParseSpan(%q) = %+v, %t, %v; want %+v", in, got, ok, err, want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("ParseSpan(%q): error is not one clean line: %q", in, err)
		}
		if ok && err == nil && got.String() != in {
			t.Errorf("ParseSpan(%q).String() = %q", in, got)
		}
	}
}

func FuzzParseSpan(f *testing.F) {
	f.Add("6.1-cloud..7.2-cloud")
	f.Fuzz(func(t *testing.T, in string) {
		got, ok, err := ParseSpan(in)
		if err != nil || !ok {
			return
		}
		if again, ok, err := ParseSpan(got.String()); again != got || !ok || err != nil {
			t.Errorf("%q is %+v, whose String is %+v, %v", in, got, again, err)
		}
	})
}

func TestWithin(t *testing.T) {
	c, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutBuild(t.Context(), "mine", "arm64", Built{Key: "k"}, fillArm64("6.6.3-labctl", nil)); err != nil {
		t.Fatal(err)
	}
	for span, want := range map[string]string{
		"6.1..7.2":             "6.1[arm64 arm] build:mine[arm64] 6.12[arm64 arm] 7.2[arm64 arm]",
		"6.7..6.12":            "6.12[arm64 arm]",
		"6.6..6.6":             "build:mine[arm64]",
		"..6.1":                "5.10[arm64 arm] 6.1[arm64 arm]",
		"7.0..":                "7.2[arm64 arm] 7.3[arm64 arm]",
		"6.1-cloud..7.2-cloud": "6.1-cloud[arm64] 6.12-cloud[arm64] 7.2-cloud[arm64]",
		"6.13..7.1":            "kernels 6.13..7.1: none for arm64, arm is between these; offered: 5.10, 6.1, 6.12, 7.2, 7.3",
		"6.1-rt..6.12-rt":      "kernels 6.1-rt..6.12-rt: none for arm64, arm is between these; offered: none",
	} {
		r, _, err := ParseSpan(span)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		found, err := c.Within(r, []string{"arm64", "arm"})
		for _, f := range found {
			got = append(got, fmt.Sprint(f.Name, f.Archs))
		}
		if err != nil {
			got = append(got, err.Error())
		}
		if d := cmp.Diff(want, strings.Join(got, " ")); d != "" {
			t.Errorf("Within %s (-want +got):\n%s", span, d)
		}
	}
}
