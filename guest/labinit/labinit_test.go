package labinit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	for _, tt := range []struct {
		line string
		want options
	}{
		{"", options{term: "linux"}},
		{"console=ttyS0 rdinit=/labctl/labinit labctl.link=virtio panic=-1\n", options{link: "virtio", term: "linux"}},
		{"labctl.link=virtio labctl.link=tty:ttyS1 labctl.term=xterm-256color labctl.quiet", options{link: "tty:ttyS1", term: "xterm-256color", quiet: true}},
		{"xlabctl.link=a labctl.linkx=b labctl.link", options{term: "linux"}},
	} {
		if got := parseOptions(tt.line); got != tt.want {
			t.Errorf("parseOptions(%q) = %+v, want %+v", tt.line, got, tt.want)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("console=ttyS0 labctl.link=virtio labctl.quiet")
	f.Fuzz(func(t *testing.T, line string) {
		if o := parseOptions(line); strings.ContainsAny(o.link+o.term, " \t\n") {
			t.Errorf("parseOptions(%q) = %+v", line, o)
		}
	})
}

func TestOpenLinkErrors(t *testing.T) {
	for _, tt := range []struct{ how, want string }{
		{"", "labctl.link= is missing"},
		{"carrier-pigeon", "want virtio or tty:NAME"},
		{"tty:", "want virtio or tty:NAME"},
		{"tty:../mem", "want virtio or tty:NAME"},
		{"tty:no-such-line", "no such file"},
	} {
		if _, err := openLink(tt.how, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("openLink(%q) = %v, want %q in it", tt.how, err, tt.want)
		}
	}
}

func TestOpenPort(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	for port, name := range map[string]string{"vport1p0": "other\n", "vport3p1": "labctl\n", "vport3p2": "labctl2\n"} {
		if err := os.Mkdir(filepath.Join(class, port), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, port, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openPort(class, dev); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("openPort before its node is there = %v, want %v", err, os.ErrNotExist)
	}
	want := filepath.Join(dev, "vport3p1")
	if err := os.WriteFile(want, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := openPort(class, dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Name() != want {
		t.Errorf("openPort() = %s, want %s", f.Name(), want)
	}
}

// Every byte must pass a raw line unchanged, both ways; a terminal shows that.
func TestOpenTTYRaw(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	var name string
	rc, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		n, _ := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		name = "/dev/pts/" + strconv.Itoa(n)
	})
	tty, err := openTTY(name)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, way := range []struct {
		name     string
		from, to *os.File
	}{{"in", master, tty}, {"out", tty, master}} {
		if _, err := way.from.Write(all); err != nil {
			t.Fatal(err)
		}
		way.to.SetReadDeadline(time.Now().Add(5 * time.Second))
		var got []byte
		for len(got) < len(all) {
			buf := make([]byte, len(all))
			n, err := way.to.Read(buf)
			if err != nil {
				t.Fatalf("%s: got %d bytes, then %v", way.name, len(got), err)
			}
			got = append(got, buf[:n]...)
		}
		if string(got) != string(all) {
			t.Errorf("%s: got %q", way.name, got)
		}
	}
}

func TestNotes(t *testing.T) {
	var n notes
	n.note("fine", nil)
	for range 100 {
		n.note("mount x", errors.New(strings.Repeat("e", 1000)))
	}
	if len(n) != 64 || len(n[0]) > 250 {
		t.Errorf("%d notes of %d bytes, want 64 of at most 250", len(n), len(n[0]))
	}
}

func TestLoadModulesNotes(t *testing.T) {
	var n notes
	loadModules(filepath.Join(t.TempDir(), "none"), &n)
	if len(n) != 0 {
		t.Errorf("without a list: %q", n)
	}
	list := filepath.Join(t.TempDir(), "modules")
	if err := os.WriteFile(list, []byte("\n/no/such.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	loadModules(list, &n)
	if len(n) != 1 || !strings.Contains(n[0], "/no/such.ko") {
		t.Errorf("notes = %q, want one on /no/such.ko", n)
	}
}

func TestOpenWindow(t *testing.T) {
	devices := t.TempDir()
	if mem, err := openWindow(devices); mem != nil || err != nil {
		t.Fatalf("openWindow() without devices = %d bytes, %v", len(mem), err)
	}
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(devices, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("0000:00:01.0/vendor", "0x1af4\n")
	write("0000:00:01.0/device", "0x1043\n")
	write("0000:00:02.0/vendor", "0x1af4\n")
	write("0000:00:02.0/device", "0x1110\n")
	write("0000:00:02.0/enable", "0\n")
	if _, err := openWindow(devices); err == nil {
		t.Error("openWindow() of a device without memory gave no error")
	}
	for _, name := range []string{"resource2", "resource2_wc"} { // the second is preferred
		write("0000:00:02.0/"+name, name)
		mem, err := openWindow(devices)
		if err != nil || string(mem) != name {
			t.Errorf("openWindow() = %q, %v; want %q", mem, err, name)
		}
	}
	if on, err := os.ReadFile(filepath.Join(devices, "0000:00:02.0/enable")); err != nil || string(on) != "1" {
		t.Errorf("enable holds %q, %v; want 1", on, err)
	}
}

// TestLineRate holds the rate of a mini UART against what the kernel's driver makes of it.
func TestLineRate(t *testing.T) {
	// The line's device is the UART's own, or one inside it.
	line := func(driver, clock, inside string) string {
		dir := t.TempDir()
		device := filepath.Join(dir, "fe215040.serial", inside)
		if err := os.MkdirAll(device, 0o755); err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{"device": device, "fe215040.serial/driver": "../../bus/platform/drivers/" + driver} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "uartclk"), []byte(clock), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	const mini = "bcm2835-aux-uart"
	// The clocks of a Raspberry Pi 4, of a 3, and of a 3 with firmware's own.
	for _, clock := range []uint32{1_125_000_000, 800_000_000, 500_000_000, 1 << 20} {
		for _, inside := range []string{"", "fe215040.serial:0/fe215040.serial:0.0"} {
			rate := lineRate(line(mini, fmt.Sprintf("%d\n", clock), inside))
			// serial8250_do_get_divisor in drivers/tty/serial/8250/8250_port.c
			if divisor := (clock + 8*rate) / (16 * rate); divisor>>8 != 1 {
				t.Errorf("clock %d, device %q: rate %d, divisor %#x: got the high byte %#x, want 1", clock, inside, rate, divisor, divisor>>8)
			}
		}
	}
	for name, dir := range map[string]string{
		"another driver": line("uart-pl011", "48000000\n", ""),
		"no clock":       line(mini, "", ""),
		"no number":      line(mini, "fast\n", ""),
		"a clock of 0":   line(mini, "0\n", ""),
		"no such line":   t.TempDir(),
	} {
		if got := lineRate(dir); got != usualRate {
			t.Errorf("%s: got %d, want %d", name, got, usualRate)
		}
	}
}
