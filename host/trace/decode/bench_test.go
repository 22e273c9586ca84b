package decode

import (
	"testing"

	"labctl/host/trace/internal/sample"
)

// BenchmarkEvents decodes and merges two CPUs' small events without stacks.
func BenchmarkEvents(b *testing.B) {
	d, err := Open(large(b.N + 400))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for _, err := range d.Events() {
		if err != nil {
			b.Fatal(err)
		}
		if n++; n == b.N {
			break
		}
	}
	if n != b.N {
		b.Fatalf("%d events, want %d", n, b.N)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mevents/s")
}

// BenchmarkSample goes through a real capture again and again: with a stack for
// each event, and with the text of each.
func BenchmarkSample(b *testing.B) {
	for _, name := range []string{"sched", "io"} {
		s := sample.Load(b, "6.12-arm64/"+name)
		d := open1(b, s)
		for _, withText := range []bool{false, true} {
			what := name
			if withText {
				what += "-text"
			}
			b.Run(what, func(b *testing.B) {
				b.ReportAllocs()
				n := 0
				for n < b.N {
					for e, err := range d.Events() {
						if err != nil {
							b.Fatal(err)
						}
						if withText {
							d.Text(e)
						}
						n++
					}
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mevents/s")
			})
		}
	}
}
