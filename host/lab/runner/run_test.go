package runner

import "testing"

func TestMemoryMB(t *testing.T) {
	const meminfo = "MemTotal: 64000000 kB\nMemAvailable:   2500000 kB\n"
	for _, tt := range []struct {
		name                          string
		meminfo, limit, current, stat string
		want                          int
	}{
		{"host", meminfo, "", "", "", 2441},
		{"not known", "", "", "", "", 0},
		{"no limit", meminfo, "max\n", "1000000\n", "", 2441},
		{"a limit", meminfo, "1073741824\n", "805306368\n", "anon 1\ninactive_file 104857600\nactive_file 52428800\n", 256 + 150},
		{"a wide limit", meminfo, "1073741824000\n", "805306368\n", "", 2441},
		{"above its limit", meminfo, "1048576\n", "2097152\n", "", 1},
	} {
		if got := memoryMB([]byte(tt.meminfo), []byte(tt.limit), []byte(tt.current), []byte(tt.stat)); got != tt.want {
			t.Errorf("%s: %d MB; want %d", tt.name, got, tt.want)
		}
	}
}

func TestQuoted(t *testing.T) {
	got := quoted([]string{"labprobe", "fork", `{"a":"it's"}`, "", "-n=3", "/run/x"})
	if want := `labprobe fork '{"a":"it'\''s"}' '' -n=3 /run/x`; got != want {
		t.Errorf("quoted = %s; want %s", got, want)
	}
}
