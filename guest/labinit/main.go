// Package labinit is PID 1 of the guest: it makes the system usable, finds the link to
// the host, and serves it until the host asks for power off or goes away.
//
// Options on the kernel command line:
//
//	labctl.link=virtio    the virtio-serial port named "labctl"
//	labctl.link=tty:NAME  a serial line: tty:ttyS1, tty:ttyAMA0
//	labctl.term=NAME      TERM of the programs that the guest runs
//	labctl.quiet          kernel messages below "alert" stay off the console
//
// The archive that holds it must have /dev/console and /dev/null: the Go runtime
// opens /dev/null, before any mount, for standard files that it lacks.
//
// When labinit cannot go on it says why in one line, "labinit: …", and exits,
// on which the kernel panics: the host sees that, and a silent guest it does not.
package labinit

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"labctl/guest/agent"
	"labctl/guest/tracefs"
	"labctl/guest/wire"
)

// Main is the program. It does not return.
func Main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "labinit: runs as PID 1 of a guest only")
		os.Exit(2)
	}
	// A collection during boot costs more than the memory it would free.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(64 << 20)
	// Left alone, Go would die of these, and the kernel with it. Ignoring them
	// instead would pass on to every program.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE)

	say(run().Error())
	os.Exit(1)
}

// run returns only when the guest cannot even power off, with the reason.
func run() error {
	start, err := agent.BootTime()
	if err != nil {
		return err
	}
	notes := setUp()
	opts, err := readOptions("/proc/cmdline")
	if err != nil {
		return err
	}
	if opts.quiet {
		notes.note("lower console log level", os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0))
	}
	for name, value := range map[string]string{
		"PATH": searchPath(), "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh",
		"TERM": opts.term, "ZONEINFO": wire.Zones,
	} {
		os.Setenv(name, value)
	}
	notes.note("change to /", os.Chdir("/"))
	loadModules("/labctl/modules", &notes)
	if err := agent.UnpackFile(wire.CarriedFile, "/"); err != nil {
		return err
	}

	window, err := openWindow("/sys/bus/pci/devices")
	notes.note("open window", err)

	link, err := openLink(opts.link, linkWait)
	if err != nil {
		return err
	}
	hello := wire.Hello{
		Version:   wire.Version,
		Arch:      runtime.GOARCH,
		CPUs:      runtime.NumCPU(),
		Transport: link.transport,
		Window:    int64(len(window)),
		InitSec:   start,
		Tracefs:   tracefs.Find(),
		Notes:     notes,
	}
	if err := describe(&hello); err != nil {
		return err
	}
	guest := agent.Guest{
		Tracefs: hello.Tracefs, Proc: "/proc", Chunk: link.chunk, Window: window, Kept: "/labctl/kept", Sandbox: true,
		SetClock: agent.SetClock, AddEntropy: agent.AddEntropy,
	}
	say(agent.Serve(context.Background(), link, guest, hello).Error())
	unix.Sync()
	return fmt.Errorf("power off: %w", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

// searchPath is PATH: labctl's programs, those of the distribution, u-root's. A guest
// that is to run one program has no u-root.
func searchPath() string {
	var dirs []string
	for _, dir := range []string{"/labctl", "/usr/local/bin", "/usr/bin", "/bbin"} {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, ":")
}

// describe fills in what the machine is.
func describe(h *wire.Hello) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	h.Release, h.Machine = unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	var si syscall.Sysinfo_t
	if err := syscall.Sysinfo(&si); err != nil {
		return fmt.Errorf("sysinfo: %w", err)
	}
	h.MemoryKB = int64(uint64(si.Totalram) * uint64(si.Unit) / 1024)
	var err error
	h.HelloSec, err = agent.BootTime()
	return err
}

// notes collects what went wrong but does not keep the guest from serving.
type notes []string

func (n *notes) note(what string, err error) {
	if err != nil && len(*n) < 64 {
		*n = append(*n, fmt.Sprintf("%s: %.200v", what, err))
	}
}

// say puts one line where the host can see it: the kernel log, which reaches
// the console even when there is only an early one, and no /dev/console.
func say(what string) {
	line := "labinit: " + what
	kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, line)
		return
	}
	defer kmsg.Close()
	fmt.Fprintf(kmsg, "<1>%.900s\n", line)
}
