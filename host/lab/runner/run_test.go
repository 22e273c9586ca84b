package runner

import "testing"

func TestQuoted(t *testing.T) {
	got := quoted([]string{"labprobe", "fork", `{"a":"it's"}`, "", "-n=3", "/run/x"})
	if want := `labprobe fork '{"a":"it'\''s"}' '' -n=3 /run/x`; got != want {
		t.Errorf("quoted = %s; want %s", got, want)
	}
}
