// Package accel selects the accelerator for guests: KVM if a trial has shown that
// it works, else TCG. The presence of /dev/kvm proves nothing: KVM may create
// virtual machines that crash on a model-specific register or an ordinary
// instruction, or that are extremely slow.
package accel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"labctl/host/outcome"
	"labctl/host/vm/qemu"
)

// Verdict is the accelerator to use, and why.
type Verdict struct {
	Arch   string    `json:"arch"`   // GOARCH of the guest
	Accel  string    `json:"accel"`  // "kvm" or "tcg", as for -accel
	Reason string    `json:"reason"` // one line
	QEMU   string    `json:"qemu"`   // version: "7.2.22"
	When   time.Time `json:"when"`
}

// Env is the environment variable that forces the accelerator: "kvm" or "tcg".
// KVM cannot run guests of another architecture; they always use TCG.
const Env = "LABCTL_ACCEL"

// Best returns the verdict for guests of arch under binary. The result of a trial
// is cached for as long as QEMU, the host's kernel, its boot and its /dev/kvm stay
// the same, but a verdict against KVM for at most a day, since it may be due to a
// busy host. The error is a *qemu.NotFoundError, ctx's, or about Env.
func Best(ctx context.Context, binary, arch string) (Verdict, error) {
	return decide(ctx, binary, arch, true)
}

// Fresh is like Best, but runs a new trial.
func Fresh(ctx context.Context, binary, arch string) (Verdict, error) {
	return decide(ctx, binary, arch, false)
}

func decide(ctx context.Context, binary, arch string, useCache bool) (Verdict, error) {
	f, err := qemu.Inspect(binary)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Arch: arch, Accel: "tcg", QEMU: f.Version, When: time.Now()}
	forced := os.Getenv(Env)
	switch {
	case forced != "" && forced != "tcg" && forced != "kvm":
		return Verdict{}, outcome.Inputf("%s=%q: want kvm or tcg", Env, forced)
	case runtime.GOARCH != arch:
		v.Reason = fmt.Sprintf("KVM on %s cannot run %s guests", runtime.GOARCH, arch)
		return v, nil
	case forced != "":
		v.Accel, v.Reason = forced, Env+"="+forced
		return v, nil
	}
	if why := deviceTrouble(kvmDevice); why != "" {
		v.Reason = why
		return v, nil
	}
	key := hostKey(f)
	if useCache {
		if kept, ok := load(binary, arch, key); ok {
			return kept, nil
		}
	}
	v, err = Trial(ctx, Options{Binary: binary, Arch: arch})
	if err != nil {
		return Verdict{}, err
	}
	// Without a cache the next call runs another trial; that is not an error.
	_ = store(binary, key, v)
	return v, nil
}

// Trial tries KVM now, in less than 10 s, and caches nothing. Best runs it without a
// kernel.
func Trial(ctx context.Context, o Options) (Verdict, error) {
	f, err := qemu.Inspect(o.Binary)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Arch: o.Arch, Accel: "kvm", Reason: "a trial guest ran", QEMU: f.Version, When: time.Now()}
	if o.Kernel != "" {
		v.Reason = "a trial guest and a kernel ran"
	}
	var found *failure
	if err := prove(ctx, "kvm", o); errors.As(err, &found) {
		v.Accel, v.Reason = "tcg", "KVM is not usable: "+found.why
	} else if err != nil {
		return Verdict{}, err
	}
	return v, nil
}

const kvmDevice = "/dev/kvm"

// deviceTrouble returns why KVM's device cannot be used, "" if it can be opened.
func deviceTrouble(path string) string {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return ""
	case errors.Is(err, os.ErrNotExist):
		return "no " + path
	case errors.Is(err, os.ErrPermission):
		return "no permission for " + path + ": add yourself to its group (usermod -aG kvm USER) and log in again"
	}
	return err.Error()
}
