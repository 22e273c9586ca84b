package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labctl/host/golden"
	"labctl/host/targets"
)

// TestCommand checks QEMU's command line for every target and every link.
func TestCommand(t *testing.T) {
	seen := map[string]bool{}
	for _, tgt := range targets.All {
		accels := []string{"tcg"}
		if !tgt.Board {
			accels = append(accels, "kvm")
		}
		for _, link := range tgt.Links {
			for _, accel := range accels {
				name := tgt.Name + "-" + link.Kind + "-" + accel
				t.Run(name, func(t *testing.T) {
					cfg := Config{
						Target: tgt, Link: link, Accel: accel,
						Image: "/k/vmlinuz", Initrd: "/k/initramfs.cpio", Append: []string{"quiet", `name="two words"`},
					}
					if tgt.DTB != "" {
						cfg.DTB = "/k/board.dtb"
					}
					if link.Kind == "virtio" && accel == "tcg" {
						cfg.Window = 1 << 20
					}
					cmd, err := command(cfg, nil, nil)
					if err != nil {
						t.Fatal(err)
					}
					golden.Check(t, filepath.Join("testdata", "command", name+".txt"), strings.ReplaceAll(cmd.String(), " -", " \\\n  -")+"\n")
				})
				seen[name+".txt"] = true
			}
		}
	}
	files, err := filepath.Glob("testdata/command/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[filepath.Base(f)] {
			t.Errorf("%s is of no target", f)
		}
	}
}

func row(t *testing.T, name string) targets.Target {
	t.Helper()
	tgt, ok := targets.Find(name)
	if !ok {
		t.Fatalf("no target %s", name)
	}
	return tgt
}

func TestCommandSizes(t *testing.T) {
	arm64, board := row(t, "arm64"), row(t, "raspi3b")
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the command line, or in the error
		bad  bool
	}{
		{"sizes", Config{Target: arm64, CPUs: 3, MemoryMB: 700}, "-m 700M -smp 3", false},
		{"the target's", Config{Target: arm64}, fmt.Sprintf("-m %dM -smp %d", arm64.MemoryMB, arm64.CPUs), false},
		{"a board's own", Config{Target: board, CPUs: board.CPUs, MemoryMB: board.MemoryMB}, "-machine raspi3b", false},
		{"a board with more memory", Config{Target: board, MemoryMB: 2048}, "raspi3b always has 4 CPUs and 1024 MB", true},
		{"a board with fewer CPUs", Config{Target: board, CPUs: 1}, "raspi3b always has 4 CPUs and 1024 MB", true},
		{"line break in an argument", Config{Target: arm64, Append: []string{"a\nb"}}, `kernel argument "a\nb": contains a line break`, true},
		{"NUL in an argument", Config{Target: arm64, Append: []string{"a\x00b"}}, `contains a line break`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Link, tt.cfg.Image, tt.cfg.Accel = tt.cfg.Target.Links[0], "/k", "tcg"
			cmd, err := command(tt.cfg, nil, nil)
			got := fmt.Sprint(err)
			if err == nil {
				got = cmd.String()
			}
			if (err != nil) != tt.bad || !strings.Contains(got, tt.want) {
				t.Errorf("command = %s; want %q, error %t", got, tt.want, tt.bad)
			}
		})
	}
}

// is returns which of a console's channels are closed.
func is(c *console) string {
	var b strings.Builder
	for _, s := range []struct {
		name string
		ch   chan struct{}
	}{{"first", c.first}, {"init", c.init}, {"panicked", c.panicked}, {"reported", c.reported}, {"ended", c.ended}} {
		select {
		case <-s.ch:
			b.WriteString(s.name + " ")
		default:
		}
	}
	return b.String()
}

func TestConsoleChannels(t *testing.T) {
	c, err := newConsole(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	c.start(ours)
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"[    0.000000] Linux version 6.12\r\n", "first "},
		{"[    1.000000] Run /labctl/labinit as init pro", "first "},
		{"cess\r\n", "first init "},
		{"[    2.000000] Kernel panic - not sync", "first init "},
		{"ing: x\r\n", "first init panicked "},
		{"[    2.000000] ---[ end Kernel panic - not syncing: x ]---\r\n", "first init panicked reported "},
	} {
		if _, err := io.WriteString(theirs, tt.in); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); is(c) != tt.want && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if got := is(c); got != tt.want {
			t.Errorf("after %q: %s; want %s", tt.in, got, tt.want)
		}
	}
	theirs.Close()
	if err := c.close(); err != nil {
		t.Errorf("close = %v", err)
	}
	if got, want := is(c), "first init panicked reported ended "; got != want {
		t.Errorf("after close: %s; want %s", got, want)
	}
	r, _ := c.report()
	r.Lines[0] = "changed"
	if again, _ := c.report(); again.Lines[0] == "changed" || again.Title != "x" || len(c.reports()) != 1 {
		t.Errorf("report = %+v; want a copy of the one panic", again)
	}
}

// TestConsoleAdopt: a panic in the kernel's memory counts when the console has none.
func TestConsoleAdopt(t *testing.T) {
	const panicked = "[    1.000000] Kernel panic - not syncing: "
	for _, tt := range []struct {
		name, console string
		found         Autopsy
		title         string
		hidden        bool
	}{
		{name: "neither"},
		{"both", panicked + "x\n", Autopsy{Log: panicked + "y\n", Panicked: "z:1 in f"}, "x", false},
		{"torn", "[    1.000000] Kernel pausagenic - not\n", Autopsy{Log: panicked + "y\n", Panicked: "z:1 in f"}, "y", true},
		{"no log", "", Autopsy{Panicked: "z\x1b:1 in f"}, "by z\ufffd:1 in f", true},
		{"no panic", "", Autopsy{Log: "[    1.000000] hello\n"}, "", false},
	} {
		c, err := newConsole(Config{})
		if err != nil {
			t.Fatal(err)
		}
		c.take([]byte(tt.console))
		c.adopt(tt.found)
		var title string
		r, hidden := c.report()
		if r != nil {
			title = r.Title
		}
		if all := c.reports(); title != tt.title || hidden != tt.hidden || len(all) != min(1, len(tt.title)) {
			t.Errorf("%s: %q, hidden %t, of %d reports; want %q, %t", tt.name, title, hidden, len(all), tt.title, tt.hidden)
		}
	}
}

// TestConsoleFull: a full disk is reported at the end and has no effect before that.
func TestConsoleFull(t *testing.T) {
	var live bytes.Buffer
	c, err := newConsole(Config{ConsoleLog: "/dev/full", Console: &live})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	c.start(ours)
	text := strings.Repeat("a line of the console\r\n", 10000)
	theirs.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(theirs, text); err != nil {
		t.Errorf("the console is not drained: %v", err)
	}
	theirs.Close()
	if err := c.close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close = %v, want ENOSPC", err)
	}
	if live.String() != text {
		t.Errorf("live got %d bytes, want %d", live.Len(), len(text))
	}
	if err := c.close(); err != nil {
		t.Errorf("second close = %v", err)
	}
}

func TestConsoleLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "console.log")
	c, err := newConsole(Config{ConsoleLog: name})
	if err != nil {
		t.Fatal(err)
	}
	want := "raw \x1b[2J\r\n\xff"
	c.stray([]byte(want)) // never started: close must not wait
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != want {
		t.Errorf("log = %q, %v, want %q", got, err, want)
	}
	c.stray([]byte("after the end"))
	if _, err := newConsole(Config{ConsoleLog: filepath.Join(name, "x")}); err == nil {
		t.Error("newConsole below a file = nil")
	}
}

func TestConsoleTail(t *testing.T) {
	c, err := newConsole(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.tail(); len(got) != 1 || got[0] != "" {
		t.Errorf("tail of nothing = %q", got)
	}
	for i := range 5000 {
		c.take([]byte(fmt.Sprintf("line %d \x1b[2J\r\n", i)))
		if len(c.last) > tailBytes {
			t.Fatalf("%d bytes are kept, want at most %d", len(c.last), tailBytes)
		}
	}
	c.take(bytes.Repeat([]byte("x"), 3*tailBytes))
	if len(c.last) > tailBytes {
		t.Errorf("%d bytes are kept, want at most %d", len(c.last), tailBytes)
	}
	c.take([]byte("\r\nlast \x1b[2J\r\n\r\n"))
	got := c.tail()
	if len(got) > tailLines || got[len(got)-1] != "last \ufffd[2J" {
		t.Errorf("tail = %d lines, last %q", len(got), got[len(got)-1])
	}
}

func TestBootErrorText(t *testing.T) {
	cause := errors.New("why")
	for _, tt := range []struct {
		err  *BootError
		want string
	}{
		{&BootError{Phase: PhaseHello, After: 1500 * time.Millisecond, Deadline: true}, "boot: phase hello took too long after 1.5 s"},
		{&BootError{Phase: PhaseQEMU, After: time.Second, Cause: cause}, "boot: phase qemu ended after 1.0 s: why"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() = %q, want %q", got, tt.want)
		}
		if tt.err.Cause != nil && !errors.Is(tt.err, cause) {
			t.Errorf("%v does not wrap its cause", tt.err)
		}
	}
}
