package run

import "testing"

func TestJobs(t *testing.T) {
	for _, tt := range []struct {
		name         string
		meminfo      string
		memory, cpus int
		want         int
	}{
		{"CPUs", "MemTotal: 64000000 kB\nMemAvailable:   60000000 kB\n", 512, 8, 8},
		{"memory", "MemTotal: 64000000 kB\nMemAvailable:   2500000 kB\n", 512, 8, 3},
		{"little of it", "MemAvailable: 1000 kB\n", 512, 8, 1},
		{"not known", "", 512, 8, 8},
	} {
		if got := jobs([]byte(tt.meminfo), tt.memory, tt.cpus); got != tt.want {
			t.Errorf("%s: %d jobs; want %d", tt.name, got, tt.want)
		}
	}
}

func TestQuoted(t *testing.T) {
	got := quoted([]string{"labprobe", "fork", `{"a":"it's"}`, "", "-n=3", "/run/x"})
	if want := `labprobe fork '{"a":"it'\''s"}' '' -n=3 /run/x`; got != want {
		t.Errorf("quoted = %s; want %s", got, want)
	}
}
