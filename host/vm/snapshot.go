package vm

import (
	"cmp"
	"context"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"
	"golang.org/x/sys/unix"

	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/outcome"
	"labctl/host/vm/qemu"
)

// Snapshot is a machine saved after its agent's hello: its memory and the state of
// everything else. Any number of machines can start from it; each maps the memory
// privately, so they share its pages and cannot modify it.
type Snapshot struct {
	Key   string // names the template
	RAM   string // file with the memory, of the same size
	State string // QEMU's migration stream without the memory
	// Stopped means that State is of Checkpoint: it has the pages of memory that differ
	// from RAM, and the machine stands still in it.
	Stopped bool
	// BootTime is the duration of the boot that preceded the snapshot.
	BootTime time.Duration
}

// ignoreShared omits memory that is shared with a file from the migration stream
// (QEMU: migration/ram.c, ramblock_is_ignored). The loading side must set it too, or
// the streams do not match. It is newer than go-qemu's list of capabilities.
func ignoreShared(on bool) map[string]any {
	return map[string]any{
		"capabilities": []map[string]any{{"capability": "x-ignore-shared", "state": on}},
	}
}

// Save stops the machine permanently and writes its state to w. The machine must have
// been booted with Config.RAM, which then contains the memory. The link must be idle:
// a partial frame would be in every clone.
func (v *VM) Save(ctx context.Context, w io.Writer) error {
	if err := v.save(ctx, w); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("save the machine: %w", v.Why(err)))
	}
	return nil
}

func (v *VM) save(ctx context.Context, w io.Writer) error {
	// Do not stop it first: the stream records whether the machine was running, and
	// if so, it continues when loaded, without a command.
	if err := v.mon.Execute(ctx, "migrate-set-capabilities", ignoreShared(true), nil); err != nil {
		return err
	}
	return v.migrate(ctx, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// migrate has copy read the machine's state.
func (v *VM) migrate(ctx context.Context, copy func(io.Reader) error) error {
	// A socket without a path, since writing to an inherited file is deprecated (QEMU
	// 9.1, docs/about/deprecated.rst).
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
		err := copy(conn)
		if err != nil {
			conn.Close() // QEMU is not to wait for it
		}
		copied <- err
	}()
	if err := v.mon.Commands(ctx).Migrate("fd:state", nil, nil, nil); err != nil {
		return err
	}
	if err := v.migrated(ctx); err != nil {
		select {
		case cerr := <-copied: // the reason, if it is one
			return cmp.Or(cerr, err)
		default:
		}
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
		if st.Status != nil { // absent before the first step
			switch *st.Status {
			case raw.MigrationStatusCompleted:
				return nil
			case raw.MigrationStatusFailed, raw.MigrationStatusCancelled:
				why := "QEMU reported no reason"
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

// restore has the host resources for a start from a snapshot.
type restore struct {
	base  *os.File // the memory; the VM takes it
	state *os.File
	feed  net.Conn // takes state to QEMU, which may no longer read files so (11.1)
	inlet *os.File // QEMU's end of feed
	fd    int      // descriptor of inlet in QEMU
	head  *os.File
	ram   *os.File   // a copy of the memory, if the file cannot be written
	nodes []*os.File // copies of the parts of the memory, of a machine of several nodes
}

func (r *restore) open(cfg Config) (err error) {
	if r.state, err = os.Open(cfg.Snapshot.State); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	if r.feed, r.inlet, err = qemu.SocketPair("state"); err != nil {
		r.close()
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	if r.base, err = os.Open(cfg.Snapshot.RAM); err != nil {
		r.close()
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	if r.head, err = headOf(cfg.Image); err != nil {
		r.close()
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	if cfg.Nodes > 1 {
		// QEMU before 8.1 cannot begin in the middle of a file.
		r.nodes, err = split(r.base, cfg.Nodes)
	} else {
		r.ram, err = writable(cfg.Snapshot.RAM)
	}
	if err != nil {
		r.close()
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	return nil
}

func (r *restore) close() {
	for _, f := range append([]*os.File{r.base, r.state, r.inlet, r.head, r.ram}, r.nodes...) {
		f.Close() // nothing for one that is nil
	}
	if r.feed != nil {
		r.feed.Close() // ends send, too
	}
}

// send writes the state to QEMU. What it returns is told by QEMU as well, which gets too
// little, unless it is that the state cannot be read.
func (r *restore) send() error {
	defer r.feed.Close()
	_, err := io.Copy(r.feed, r.state)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("start from a snapshot: %w", err))
	}
	return nil
}

// writable returns a copy in memory of a file that may not be written, nil for one that
// may be: QEMU opens the file that backs RAM for writing, however it maps it, as long as
// the RAM is not to be read-only itself (backends/hostmem-file.c; 8.2 has rom=off).
func writable(path string) (*os.File, error) {
	if unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil {
		return nil, nil
	}
	return inMemory(path)
}

// inMemory copies a sparse file to one in memory.
func inMemory(path string) (*os.File, error) {
	src, err := bounded.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return nil, err
	}
	dst, err := memory(st.Size())
	if err != nil {
		return nil, err
	}
	if err := copyData(dst, 0, src, 0, st.Size()); err != nil {
		dst.Close()
		return nil, err
	}
	return dst, nil
}

// memory makes a file in memory, of holes.
func memory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "ram")
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// copyData copies size bytes of a sparse file, from an offset on, to an offset of one of holes.
func copyData(dst *os.File, to int64, src *os.File, from, size int64) error {
	for off := from; off < from+size; { // most of it is holes
		data, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= from+size {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		hole = min(hole, from+size)
		if _, err := io.Copy(io.NewOffsetWriter(dst, to+data-from), io.NewSectionReader(src, data, hole-data)); err != nil {
			return err
		}
		off = hole
	}
	return nil
}

// NodeMemory makes the files of Config.NodeRAM.
func NodeMemory(bytes int64, nodes int) (files []*os.File, err error) {
	for range nodes {
		f, err := memory(bytes / int64(nodes))
		if err != nil {
			CloseAll(files)
			return nil, outcome.Default(outcome.HostLacks, fmt.Errorf("create the guest's memory: %w", err))
		}
		files = append(files, f)
	}
	return files, nil
}

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// JoinMemory writes the memories of nodes to one file, one behind the other, as a snapshot has them.
func JoinMemory(dst *os.File, nodes []*os.File) error {
	to := int64(0)
	for _, f := range nodes {
		st, err := f.Stat()
		if err == nil {
			err = copyData(dst, to, f, 0, st.Size())
		}
		if err != nil {
			return outcome.Default(outcome.HostLacks, fmt.Errorf("save the guest's memory: %w", err))
		}
		to += st.Size()
	}
	return nil
}

// split undoes JoinMemory, in memory.
func split(src *os.File, nodes int) ([]*os.File, error) {
	st, err := src.Stat()
	if err != nil {
		return nil, err
	}
	files, err := NodeMemory(st.Size(), nodes)
	if err != nil {
		return nil, err
	}
	part := st.Size() / int64(nodes)
	for i, f := range files {
		if err := copyData(f, 0, src, int64(i)*part, part); err != nil {
			CloseAll(files)
			return nil, err
		}
	}
	return files, nil
}

// headBytes is more than the setup code of a bzImage, at most 64 sectors
// (Documentation/arch/x86/boot.rst), and the header of an Image, 64 bytes
// (Documentation/arch/arm64/booting.rst).
const headBytes = 64 << 10

// headOf returns the start of a kernel's image, as a file in memory. A restored
// machine has its kernel in RAM and never boots another, but QEMU needs a -kernel to
// create the same machine, with the same option ROMs, and reads all of it: for the
// 40 MB of an arm64 Image that takes longer than the rest of QEMU's start. The
// initramfs is no longer needed at all.
//
// An ELF file is passed whole: QEMU maps it and reads only its headers
// (include/hw/elf_ops.h).
func headOf(image string) (*os.File, error) {
	src, err := bounded.Open(image)
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

// EntropyBytes is the size of a full seed for the kernel's random pool.
const EntropyBytes = 64

// restore restores the machine and sends it what it cannot know: the time, and random
// bytes, so that its random numbers differ from those of other clones.
func (v *VM) restore(r *restore, done func(Phase, time.Time)) (err error) {
	r.inlet.Close() // QEMU has it; so its end ends send
	sent := make(chan error, 1)
	go func() {
		defer close(sent)
		sent <- r.send()
	}()
	defer func() {
		if err == nil {
			return
		}
		r.feed.Close()
		err = cmp.Or(<-sent, err)
	}()
	if err := v.step(PhaseRestore, func(ctx context.Context) error {
		if err := v.mon.Execute(ctx, "migrate-set-capabilities", ignoreShared(!v.cfg.Snapshot.Stopped), nil); err != nil {
			return err
		}
		// QEMU replies when loading has started. Success is shown by the agent's
		// response; a QEMU that cannot load the state exits.
		if err := v.mon.Commands(ctx).MigrateIncoming(fmt.Sprintf("fd:%d", r.fd)); err != nil || !v.cfg.Snapshot.Stopped {
			return err
		}
		return v.loaded(ctx)
	}); err != nil {
		return err
	}
	done(PhaseRestore, time.Now())
	if v.cfg.Held {
		return <-sent
	}
	if err := v.step(PhaseResume, v.greet); err != nil {
		return err
	}
	done(PhaseResume, time.Now())
	return nil
}

// Wake lets a machine that is Held go on, unless a debugger has it, and makes its agent
// ready for use. A debugger must let it go on meanwhile.
func (v *VM) Wake(ctx context.Context) error {
	v.holds.mu.Lock()
	debugged := v.holds.debugged
	v.holds.mu.Unlock()
	if !debugged {
		if err := v.mon.Commands(ctx).Cont(); err != nil {
			return fmt.Errorf("resume the guest: %w", v.Why(err))
		}
	}
	if err := v.greet(ctx); err != nil {
		return fmt.Errorf("wake the guest's agent: %w", v.Why(err))
	}
	v.openWindow()
	return nil
}

// greet sends the agent what it cannot know.
func (v *VM) greet(ctx context.Context) error {
	entropy := make([]byte, EntropyBytes)
	rand.Read(entropy)
	h, err := v.client.Resume(ctx, wire.ResumeParams{UnixNano: time.Now().UnixNano(), Entropy: entropy})
	v.hello = h
	return err
}

// loaded waits until a machine is loaded that was saved while it was stopped, and
// resumes it unless it is to stand still.
func (v *VM) loaded(ctx context.Context) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		st, err := v.mon.Commands(ctx).QueryStatus()
		if err != nil {
			return err
		}
		if st.Status != raw.RunStateInmigrate {
			if v.cfg.Held {
				return nil
			}
			return v.mon.Commands(ctx).Cont()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fast is a rate that no memory has, in bytes per second: the guest stands still while
// it is saved.
const fast = 1 << 40

// Checkpoint writes the machine's state to w: that of the devices, and the pages of
// memory that differ from those of the template (TemplateRAM). The guest stands still
// meanwhile, and goes on unless somebody else has stopped it. Whatever it is at, it is in
// the checkpoint: programs, too, which nobody listens to any more in a machine that is
// started from it.
func (v *VM) Checkpoint(ctx context.Context, w io.Writer) error {
	if v.mon == nil || v.template == nil {
		return outcome.Inputf("this guest was not started from a template, from which a checkpoint could differ")
	}
	if v.cfg.Nodes > 1 {
		return outcome.Inputf("this guest has several NUMA nodes; checkpoints are of machines with one")
	}
	cont, err := v.Stop(ctx)
	if err != nil {
		return err
	}
	err = v.checkpoint(ctx, w)
	if cerr := cont(); err == nil {
		err = cerr
	}
	if err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("save the machine: %w", v.Why(err)))
	}
	return nil
}

// TemplateRAM returns the memory of the template that the guest was started from, nil if
// it was booted. It must not be closed or written to.
func (v *VM) TemplateRAM() *os.File { return v.template }

func (v *VM) checkpoint(ctx context.Context, w io.Writer) error {
	if err := v.mon.Execute(ctx, "migrate-set-capabilities", ignoreShared(false), nil); err != nil {
		return err
	}
	if err := v.mon.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(fast)}, nil); err != nil {
		return err
	}
	return v.migrate(ctx, func(r io.Reader) error {
		_, err := thin(w, r, v.template)
		return err
	})
}

// IsRestoreError reports whether err is a failure to restore a snapshot. A cold boot
// may succeed then.
func IsRestoreError(err error) bool {
	var boot *BootError
	return errors.As(err, &boot) && (boot.Phase == PhaseRestore || boot.Phase == PhaseResume)
}

// CommandLine returns the command line of a boot, as text that identifies the
// machine.
func CommandLine(cfg Config) (string, error) {
	cfg.RAM, cfg.NodeRAM, cfg.Snapshot = nil, nil, nil
	cmd, err := command(cfg, nil, nil)
	if err != nil {
		return "", err
	}
	return cmd.String(), nil
}
