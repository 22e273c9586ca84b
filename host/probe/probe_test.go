package probe

import (
	"strings"
	"testing"
	"unicode/utf8"

	"labctl/guest/wire"
)

const good = `{"probe":"fork","method":"m","tasks":[{"role":"self","pid":1,"tid":1,"tgid":1,"ppid":0},{"role":"child","pid":2,"tid":2,"tgid":2,"ppid":1}]}`

func TestParseResult(t *testing.T) {
	for _, tt := range []struct {
		name, out string
		want      string // in the error; "" for none
	}{
		{"good", good + "\n", ""},
		{"nothing", "", "invalid result: line 1: unexpected end of JSON input"},
		{"cut short", good[:40], "unexpected end of JSON input"},
		{"more after it", good + "{}", "after top-level value"},
		{"words after it", good + "\x1b[2J", "after top-level value"},
		{"unknown field", `{"probe":"fork","\u001b[2J":1}`, "unknown field"},
		{"another probe's", strings.Replace(good, `"probe":"fork"`, `"probe":"vfork"`, 1), "does not name the probe"},
		{"no tasks", `{"probe":"fork","method":"","tasks":[]}`, "itself first"},
		{"itself not first", strings.Replace(good, `"self"`, `"child"`, 1), "itself first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := ParseResult("fork", []byte(tt.out))
			if tt.want == "" {
				if err != nil || len(res.Tasks) != 2 || !made(res, 2) || made(res, 1) || made(res, 3) {
					t.Errorf("ParseResult = %+v, %v", res, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ParseResult = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func FuzzParseResult(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"probe":"fork","tasks":[{"role":"self","status":256}],"data":{"\ud800":1e400}}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		res, err := ParseResult("fork", out)
		if err != nil {
			if s := err.Error(); strings.ContainsAny(s, "\n\x1b") || !utf8.ValidString(s) || len(s) > 400 {
				t.Errorf("error is not one clean line: %q", s)
			}
			return
		}
		if res.Probe != "fork" || len(res.Tasks) == 0 || made(&wire.ProbeResult{Tasks: res.Tasks[:1]}, res.Tasks[0].TID) {
			t.Errorf("ParseResult took %+v", res)
		}
	})
}

func TestWhy(t *testing.T) {
	for _, tt := range []struct {
		exit   wire.ExecResult
		stderr string
		want   string
	}{
		{wire.ExecResult{Exited: true, Code: 2}, "", "exit status 2"},
		{wire.ExecResult{Exited: true, Code: 2}, "labprobe: no\n \x1b[2Jsuch", "labprobe: no \ufffd[2Jsuch"},
		{wire.ExecResult{Signaled: true, Signal: 11}, "last words\n", "ended by signal 11: last words"},
	} {
		if got := why(tt.exit, tt.stderr); got != tt.want {
			t.Errorf("why(%+v, %q) = %q, want %q", tt.exit, tt.stderr, got, tt.want)
		}
	}
}
