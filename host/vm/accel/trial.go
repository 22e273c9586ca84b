package accel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/vm/qemu"
)

const (
	// guestLimit is the time limit of the trial guest, which takes 0.3 s including
	// QEMU's start under TCG on an idle host. A slower KVM is useless.
	guestLimit = 4 * time.Second
	// firstLine and life are the defaults of Options.
	firstLine = 4 * time.Second
	life      = time.Second
	// maxConsole limits the recorded console output, in bytes; the rest is
	// dropped.
	maxConsole = 256 << 10
)

// Options describes a trial.
type Options struct {
	Binary string
	Arch   string // GOARCH of the guest
	// Kernel, if set, is booted after the trial guest, with Initrd if that is set.
	// It must print its first line within FirstLine (default 4 s) and keep running
	// for Life (default 1 s).
	Kernel, Initrd  string
	FirstLine, Life time.Duration
}

// failure is a defect of the accelerator, as opposed to an error of the trial
// itself.
type failure struct{ why string }

func (f *failure) Error() string { return f.why }

// prove runs the trial with one accelerator. The error is nil, a *failure, or
// another one.
func prove(ctx context.Context, accel string, o Options) error {
	g, ok := guests[o.Arch]
	if !ok {
		return &failure{"no trial guest for " + o.Arch}
	}
	if err := g.run(ctx, accel, o.Binary); err != nil || o.Kernel == "" {
		return err
	}
	return g.boot(ctx, accel, o)
}

func (g guest) common(accel string) []qemu.Device {
	cpu := g.emuCPU
	if accel == "kvm" {
		cpu = "host"
	}
	return []qemu.Device{
		qemu.Defaults{}, qemu.Sandbox{}, qemu.Machine{Type: g.machine}, qemu.CPU(cpu),
		qemu.Accel{Name: accel, Thread: "single"}, qemu.Serial{Name: "console", Console: g.tty},
	}
}

// run runs the trial guest.
func (g guest) run(ctx context.Context, accel, binary string) error {
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("acceleration trial: %w", os.NewSyscallError("memfd_create", err)))
	}
	image := os.NewFile(uintptr(fd), "guest")
	defer image.Close()
	if _, err := image.Write(g.image()); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("acceleration trial: %w", err))
	}
	devices := append(g.common(accel), qemu.Memory{MiB: 32}, qemu.Firmware{Inherit: image})
	r, err := watch(ctx, binary, append(devices, g.devices...), func(_ string, age time.Duration) bool {
		return age > guestLimit
	})
	if err != nil {
		return err
	}
	why := g.judge(r.console)
	if why == "" && r.code() != g.exit {
		why = fmt.Sprintf("status %d after the end, want %d", r.code(), g.exit)
	}
	if why != "" {
		return &failure{"trial guest: " + why + r.because()}
	}
	return nil
}

// banner is the start of every Linux kernel's first line: linux_banner in
// init/version.c.
const banner = "Linux version "

// boot boots a real kernel.
func (g guest) boot(ctx context.Context, accel string, o Options) error {
	first, life := cmp.Or(o.FirstLine, firstLine), cmp.Or(o.Life, life)
	devices := append(g.common(accel), qemu.SMP(2), qemu.Memory{MiB: 512},
		qemu.Kernel{Image: o.Kernel, Initrd: o.Initrd, Append: []string{"earlyprintk=ttyS0", "earlycon", "panic=-1"}})
	born := time.Duration(0)
	r, err := watch(ctx, o.Binary, devices, func(console string, age time.Duration) bool {
		if born == 0 && strings.Contains(console, banner) {
			born = age
		}
		return born == 0 && age > first || born > 0 && age > born+life
	})
	if err != nil {
		return err
	}
	if why := judgeKernel(r); why != "" {
		return &failure{"kernel " + filepath.Base(o.Kernel) + ": " + why + r.because()}
	}
	return nil
}

// judgeKernel returns what is wrong with a kernel's run, "" if nothing is: the
// kernel must print its first line and then run until it is stopped, or end in the
// expected way: without an init it panics for lack of a root file system, and with
// panic=-1 QEMU exits.
func judgeKernel(r result) string {
	switch {
	case !strings.Contains(r.console, banner):
		return "no first line"
	case r.internal, r.err != nil && !r.stopped:
		return "QEMU stopped"
	case !r.stopped && !strings.Contains(r.console, "Kernel panic - not syncing: ") && !strings.Contains(r.console, "reboot: "):
		return "silent reset"
	}
	return ""
}

// result is the result of one run of QEMU.
type result struct {
	console   string
	complaint string        // the first line of QEMU's standard error
	internal  bool          // KVM gave up and QEMU had to be stopped
	stopped   bool          // by the trial, because its time was up
	age       time.Duration // when it ended
	err       error         // from Wait
}

// code returns QEMU's exit status, or -1 after a signal.
func (r result) code() int {
	var exit *qemu.ExitError
	if errors.As(r.err, &exit) {
		return exit.Code
	}
	return 0
}

// because returns the cause of a failure, if known, to append to its message.
func (r result) because() string {
	switch {
	case r.complaint != "":
		return ": " + r.complaint
	case r.stopped:
		return fmt.Sprintf(" after %.1f s", r.age.Seconds())
	case r.err != nil:
		return ": " + r.err.Error()
	}
	return ""
}

// internalError is QEMU's message if KVM cannot continue (kvm_handle_internal_error
// in accel/kvm/kvm-all.c). QEMU keeps running with the guest stopped.
const internalError = "KVM internal error"

// watch runs QEMU until it ends, KVM fails, or enough returns true for the console
// output so far and QEMU's age.
func watch(ctx context.Context, binary string, devices []qemu.Device, enough func(console string, age time.Duration) bool) (result, error) {
	c, err := qemu.New(binary, devices...)
	if err != nil {
		return result{}, err
	}
	p, err := qemu.Start(ctx, c)
	if err != nil {
		return result{}, err
	}
	begin := time.Now()
	conn := p.Conn("console")
	defer conn.Close()
	out := bounded.Head{Max: maxConsole}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(&out, conn) // ends with QEMU
	}()

	var r result
	for running := true; running; {
		select {
		case <-p.Done():
			running = false
		case <-time.After(10 * time.Millisecond):
			r.internal = strings.Contains(p.Stderr(), internalError)
			r.stopped = !r.internal && enough(out.String(), time.Since(begin))
			running = !r.internal && !r.stopped
		}
	}
	r.age = time.Since(begin)
	p.Kill()
	<-drained
	if ctx.Err() != nil {
		return result{}, fmt.Errorf("acceleration trial: %w", context.Cause(ctx))
	}
	r.err = p.Wait()
	r.console = out.String()
	r.complaint = complaint(p.Stderr(), filepath.Base(binary)+": ")
	return r, nil
}

// complaint returns the first line of QEMU's standard error that is not a warning.
// The first names the cause; the last may be a mere assertion.
func complaint(stderr, sign string) string {
	for l := range strings.Lines(stderr) {
		l = strings.TrimPrefix(strings.TrimSpace(l), sign)
		if l != "" && !strings.HasPrefix(l, "warning: ") {
			return l
		}
	}
	return ""
}
