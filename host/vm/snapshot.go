package vm

import (
	"context"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"
	"golang.org/x/sys/unix"

	"labctl/guest/wire"
	"labctl/host/outcome"
	"labctl/host/vm/qemu"
)

// Snapshot is a machine that was saved when its agent had said hello: its memory
// and the state of everything else. Any number of machines start from one; each
// maps the memory privately, so they share its pages and cannot change it.
type Snapshot struct {
	RAM   string // the memory, a file as long as it
	State string // QEMU's migration stream without the memory
	// BootTime is how long the boot took that the snapshot was taken after.
	BootTime time.Duration
}

// ignoreShared leaves memory that is shared with a file out of the migration
// stream (QEMU: migration/ram.c, ramblock_is_ignored). The side that loads sets
// it too, or the streams do not match. go-qemu's list of capabilities is older.
var ignoreShared = map[string]any{
	"capabilities": []map[string]any{{"capability": "x-ignore-shared", "state": true}},
}

// Save stops the machine for good and writes its state to w. The machine must
// have been booted with Config.RAM, which then holds the memory. Nothing may be
// under way on the link: half a frame would be half a frame in every clone.
func (v *VM) Save(ctx context.Context, w io.Writer) error {
	if err := v.save(ctx, w); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("save the machine: %w", v.Why(err)))
	}
	return nil
}

func (v *VM) save(ctx context.Context, w io.Writer) error {
	// Not stopped before: the stream says whether the machine ran, and one that
	// did runs on when it is loaded, without a command.
	if err := v.mon.Execute(ctx, "migrate-set-capabilities", ignoreShared, nil); err != nil {
		return err
	}
	// A socket, since QEMU does not like to write to a file that it has open (9.1,
	// docs/about/deprecated.rst), and one without a path.
	conn, theirs, err := qemu.SocketPair("state")
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	err = v.mon.GiveFile(ctx, "state", theirs)
	theirs.Close()
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, conn)
		copied <- err
	}()
	if err := v.mon.Commands(ctx).Migrate("fd:state", nil, nil, nil); err != nil {
		return err
	}
	if err := v.migrated(ctx); err != nil {
		return err
	}
	select {
	case err := <-copied:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// migrated waits for the end of the migration.
func (v *VM) migrated(ctx context.Context) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		st, err := v.mon.Commands(ctx).QueryMigrate()
		if err != nil {
			return err
		}
		if st.Status != nil { // it is not there before the first step
			switch *st.Status {
			case raw.MigrationStatusCompleted:
				return nil
			case raw.MigrationStatusFailed, raw.MigrationStatusCancelled:
				why := "QEMU gives no reason"
				if st.ErrorDesc != nil {
					why = *st.ErrorDesc
				}
				return fmt.Errorf("QEMU: migration %s: %s", st.Status, why)
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// restore is what a start from a snapshot needs of the host.
type restore struct {
	state *os.File
	fd    int // of state in QEMU
	head  *os.File
}

func (r *restore) open(cfg Config) (err error) {
	if r.state, err = os.Open(cfg.Snapshot.State); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	if r.head, err = headOf(cfg.Image); err != nil {
		r.state.Close()
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	return nil
}

func (r *restore) close() {
	r.state.Close()
	r.head.Close()
}

// headBytes is more than the setup code of a bzImage, 64 sectors at most
// (Documentation/arch/x86/boot.rst), and than the header of an Image, 64 bytes
// (Documentation/arch/arm64/booting.rst).
const headBytes = 64 << 10

// headOf is the beginning of a kernel's image, in memory. A restored machine has
// its kernel in its RAM and never boots another, but QEMU wants a -kernel to make
// the same machine, with the same option ROMs, and reads all of it: 40 MB of an
// arm64 Image take longer than the rest of QEMU's start. Of the initramfs nothing
// is left in the machine.
//
// An ELF file is given whole: QEMU maps it and reads no more than its headers
// (include/hw/elf_ops.h).
func headOf(image string) (*os.File, error) {
	src, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := src.ReadAt(magic, 0); err == nil && string(magic) == elf.ELFMAG {
		return src, nil
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("kernel-head", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	head := os.NewFile(uintptr(fd), "kernel-head")
	if _, err := io.CopyN(head, src, headBytes); err != nil && err != io.EOF {
		head.Close()
		return nil, err
	}
	return head, nil
}

// EntropyBytes is what the kernel's random pool takes for a full seed.
const EntropyBytes = 64

// restore brings the machine back and tells it what it cannot know: what time it
// is, and that its random numbers must be others than those of its twins.
func (v *VM) restore(r *restore, done func(Phase, time.Time)) error {
	if err := v.step(PhaseRestore, func(ctx context.Context) error {
		if err := v.mon.Execute(ctx, "migrate-set-capabilities", ignoreShared, nil); err != nil {
			return err
		}
		// It answers when it has begun. The agent's answer is the sign that all went
		// well, and a QEMU that cannot load the state leaves.
		return v.mon.Commands(ctx).MigrateIncoming(fmt.Sprintf("fd:%d", r.fd))
	}); err != nil {
		return err
	}
	done(PhaseRestore, time.Now())
	if err := v.step(PhaseResume, func(ctx context.Context) error {
		entropy := make([]byte, EntropyBytes)
		rand.Read(entropy)
		h, err := v.client.Resume(ctx, wire.ResumeParams{UnixNano: time.Now().UnixNano(), Entropy: entropy})
		v.hello = h
		return err
	}); err != nil {
		return err
	}
	done(PhaseResume, time.Now())
	return nil
}

// IsRestoreError says whether err is a snapshot that does not come back, which a
// boot from the kernel on may not share.
func IsRestoreError(err error) bool {
	var boot *BootError
	return errors.As(err, &boot) && (boot.Phase == PhaseRestore || boot.Phase == PhaseResume)
}

// CommandLine is the command line of a boot, as a text to tell machines apart by.
func CommandLine(cfg Config) (string, error) {
	cfg.RAM, cfg.Snapshot = nil, nil
	cmd, err := command(cfg, nil, nil)
	if err != nil {
		return "", err
	}
	return cmd.String(), nil
}
