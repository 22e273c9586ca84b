package schedule

import (
	"runtime"
	"testing"
)

func TestHost(t *testing.T) {
	if got, want := Host(3), (Budget{Jobs: 3}); got != want {
		t.Errorf("Host(3) = %+v, want %+v", got, want)
	}
	cpus := runtime.GOMAXPROCS(0)
	if got := Host(0); got.CPUs <= cpus || got.CPUs > cpus+1+cpus/4 || got.Jobs != 0 || got.MemoryMB <= 0 {
		t.Errorf("Host(0) = %+v on %d CPUs; want one CPU more for each four, and memory", got, cpus)
	}
}

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
