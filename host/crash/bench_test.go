package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkScanner reads consoles in pieces as QEMU's socket hands them over: one
// without a report, which nearly all are, and all of testdata.
func BenchmarkScanner(b *testing.B) {
	var quiet bytes.Buffer
	var logs [][]byte
	for i := range 2000 {
		at := float64(i) / 100
		fmt.Fprintf(&quiet, "[%12.6f] pci 0000:00:%02x.0: BAR 4 [mem 0xfe%06x-0xfe%06xfff 64bit pref]\r\n", at, i&31, i, i)
		fmt.Fprintf(&quiet, "[%12.6f] ACPI: PCI: Interrupt link LNKA configured for IRQ %d\r\n", at, i)
		fmt.Fprintf(&quiet, "[%12.6f] Memory: %dK/523768K available (20480K kernel code, 3311K rwdata)\r\n", at, i)
		fmt.Fprintf(&quiet, "=== RUN   TestProgram/%d\r\n", i)
		fmt.Fprintf(&quiet, "[%12.6f] systemd[1]: Received SIGRTMIN+20 from PID %d (plymouthd).\r\n", at, i)
	}
	files, err := filepath.Glob("testdata/*.log")
	if err != nil || len(files) == 0 {
		b.Fatalf("no logs: %v", err)
	}
	for _, file := range files {
		log, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		_, body := split(string(log))
		logs = append(logs, []byte(body))
	}
	for name, consoles := range map[string][][]byte{"quiet": {quiet.Bytes()}, "logs": logs} {
		b.Run(name, func(b *testing.B) {
			lines := bytes.Count(bytes.Join(consoles, nil), []byte("\n"))
			for b.Loop() {
				for _, rest := range consoles {
					s := new(Scanner)
					for len(rest) > 0 {
						n := min(len(rest), 4<<10)
						s.Write(rest[:n])
						rest = rest[n:]
					}
				}
			}
			b.ReportMetric(float64(lines)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// BenchmarkStack extracts stacks and tasks: of all of testdata, and of as many reports
// as a scanner keeps, of long lines that are nearly frames.
func BenchmarkStack(b *testing.B) {
	files, err := filepath.Glob("testdata/*.log")
	if err != nil || len(files) == 0 {
		b.Fatalf("no logs: %v", err)
	}
	logs := map[string][]*Report{}
	for _, file := range files {
		log, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		_, body := split(string(log))
		logs["logs"] = append(logs["logs"], scan(body, 4096).Reports()...)
	}
	for _, words := range []string{"x", " f from x ", "a R 0x", "Call Trace:"} {
		s := new(Scanner)
		for i := range maxReports {
			fmt.Fprintf(s, "rcu: INFO: rcu_sched self-detected stall on CPU %d\n", i)
			s.Write(bytes.Repeat([]byte(strings.Repeat(words, 790/len(words))+"\n"), maxLines))
		}
		logs["worst "+words] = s.Reports()
	}
	for name, reports := range logs {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, r := range reports {
					r.Stack()
					r.Task()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(reports)), "µs/report")
		})
	}
}

// BenchmarkStarts reads lines that are nearly the first of a report.
func BenchmarkStarts(b *testing.B) {
	for _, words := range []string{"BUG: ", "WARNING: x ", "INFO: task x:1 ", "[ INFO: possible ", "a [# "} {
		b.Run(words, func(b *testing.B) {
			line := []byte(strings.Repeat(words, maxLine/len(words)) + "\n")
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				new(Scanner).Write(line)
			}
		})
	}
}

// BenchmarkFlood reads lines that each begin another report.
func BenchmarkFlood(b *testing.B) {
	s := new(Scanner)
	for i := 0; b.Loop(); i++ {
		fmt.Fprintf(s, "BUG: %d %s\n", i, strings.Repeat("CPU: 1 PID: ", 70))
	}
}
