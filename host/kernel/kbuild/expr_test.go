package kbuild

import "testing"

func TestExpr(t *testing.T) {
	cfg := values{"A": "y", "B": "m", "N": "116", "S": "gcc"}
	for _, tt := range []struct {
		in    string
		want  truth
		blame string // what keeps it from y
	}{
		{"A", yes, ""},
		{"B", module, "B is m"},
		{"C", no, "C is not set"},
		{"!C", yes, ""},
		{"!A", no, "A is y"},
		{"A && B", module, "B is m"},
		{"A || C", yes, ""},
		{"C || D", no, "C is not set and D is not set"},
		{"A && (C || !A) && D", no, "C is not set and A is y and D is not set"},
		{"N >= 116", yes, ""},
		{"N > 0x80", no, "N > 0x80 is false: N is 116"},
		{`S = "clang"`, no, `S = "clang" is false: S is gcc`},
		{"A=y", yes, ""},
		{"C=n", yes, ""},
		{"C != n", no, "C != n is false: C is not set"},
		{"$(cc-option,-mfoo (bar)) && A", cannotTell, ""},
		{"$(x) && C", no, "C is not set"},
		{"$(x) || A", yes, ""},
		{"A &&", cannotTell, ""},
		{"", cannotTell, ""},
		{"!(A && C)", yes, ""},
		{"!(A || C)", no, "not !(A || C)"},
	} {
		e := parseExpr(tt.in)
		if got := e.eval(cfg); got != tt.want {
			t.Errorf("%q: got %d, want %d", tt.in, got, tt.want)
		}
		if got, _ := e.blame(cfg, yes); got != tt.blame {
			t.Errorf("blame of %q: got %q, want %q", tt.in, got, tt.blame)
		}
	}
}

func FuzzExpr(f *testing.F) {
	for _, s := range []string{"A && !B || (C != \"x\")", "$(a,b(c)", "((((", "!!!!A", "A = = B", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := parseExpr(s)
		tr := e.eval(values{"A": "y"})
		if tr < cannotTell || tr > yes {
			t.Errorf("%q is %d", s, tr)
		}
		e.blame(values{"A": "y"}, yes)
		// Written out, it means the same.
		if again := parseExpr(e.String()).eval(values{"A": "y"}); e.op != "" && again != tr {
			t.Errorf("%q is %d, written %q it is %d", s, tr, e, again)
		}
	})
}
