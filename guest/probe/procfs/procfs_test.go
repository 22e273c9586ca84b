package procfs

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// tail is the rest of a real line, from a Debian 6.12 arm64 guest.
const tail = " S 1 128 128 52288 128 4194304 178 0 0 0 3 10 0 0 20 -5 3 0 288 1256550400 514 18446744073709551615 65536 842292 281474222390880" +
	" 0 0 0 0 0 2143420159 0 0 0 17 0 99 1 0 0 0 1900544 1952352 441196544 281474222395187 281474222395197 281474222395197 281474222395380 0\n"

func TestParseStat(t *testing.T) {
	for _, comm := range []string{"init", "kworker/0:0H-events_highpri", "a) R (b\n\x1b[2J", "", ")", "((", "tmux: server", "\xff\xfe"} {
		got, err := ParseStat([]byte("128 (" + comm + ")" + tail))
		want := Stat{PID: 128, Comm: comm, State: 'S', PPID: 1, PGRP: 128, Session: 128, TTY: 52288, TPGID: 128, Flags: 4194304, MinFlt: 178, UTime: 3, STime: 10,
			Priority: 20, Nice: -5, Threads: 3, StartTime: 288, VSize: 1256550400, RSS: 514, ExitSignal: 17, RTPriority: 99, Policy: 1}
		if err != nil || got != want {
			t.Errorf("ParseStat of %q = %+v, %v; want %+v", comm, got, err, want)
		}
	}
	for name, line := range map[string]string{
		"empty":          "",
		"no comm":        "12 init S 1",
		"no pid":         "(init)" + tail,
		"pid is a word":  "x (init)" + tail,
		"cut short":      "12 (init) S 1 2 3",
		"parens crossed": "12 )init(" + tail,
		"long state":     "12 (init) SS" + tail[2:],
		"word for ppid":  strings.Replace("12 (init)"+tail, " S 1 ", " S x ", 1),
		"too wide":       strings.Replace("12 (init)"+tail, " 1256550400 ", " 99999999999999999999 ", 1),
	} {
		if s, err := ParseStat([]byte(line)); err == nil {
			t.Errorf("%s: ParseStat = %+v; want an error", name, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("128 (init)" + tail))
	f.Add([]byte("128 (a) R (b\n)" + tail))
	f.Add([]byte("1 (x) R"))
	f.Add([]byte(") ("))
	f.Fuzz(func(t *testing.T, line []byte) {
		s, err := ParseStat(line)
		if err != nil {
			return
		}
		if s.PID < 0 || len(s.Comm) > len(line) || !strings.Contains(string(line), "("+s.Comm+")") {
			t.Errorf("ParseStat(%q) = %+v", line, s)
		}
	})
}

func TestOwnProcess(t *testing.T) {
	self, err := ReadStat("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if self.PID != os.Getpid() || self.PPID != os.Getppid() || self.KernelThread() || self.Threads < 1 {
		t.Errorf("/proc/self/stat = %+v; want pid %d, ppid %d, no kernel thread", self, os.Getpid(), os.Getppid())
	}
	all, err := Processes("/proc")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for i, s := range all {
		found = found || s.PID == self.PID && s.StartTime == self.StartTime
		if i > 0 && s.PID <= all[i-1].PID {
			t.Errorf("pid %d after %d: not in rising order", s.PID, all[i-1].PID)
		}
	}
	if !found {
		t.Errorf("Processes does not list our own process %d", self.PID)
	}
}

// TestGone reads a task's file after its end, opened before and after.
func TestGone(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	path := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat"
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := f.Read(make([]byte, 10)); !Gone(err) || !errors.Is(err, syscall.ESRCH) {
		t.Errorf("read of an ended task's stat: %v; want ESRCH, which is Gone", err)
	}
	if _, err := ReadStat(path); !Gone(err) {
		t.Errorf("open of an ended task's stat: %v; want Gone", err)
	}
}
