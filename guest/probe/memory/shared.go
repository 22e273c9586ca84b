package memory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"

	"golang.org/x/sys/unix"
)

func init() {
	probe.Register(probe.Probe{Name: "shm", Run: shm})
	probe.Register(probe.Probe{Name: "filemap", Run: filemap})
}

// shm has a child attach a System V segment that it has from its parent a second time, at
// another address, and write there.
var shm = staged("shm", "shmat in parent and child, reads of pagemap of both, IPC_STAT", shmOn)

func shmOn(ctx context.Context, st *stage) (err error) {
	id, err := unix.SysvShmGet(0, os.Getpagesize(), 0o600|unix.IPC_CREAT) // key 0 is IPC_PRIVATE
	if err != nil {
		return fmt.Errorf("shmget: %w", err)
	}
	first, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return fmt.Errorf("shmat: %w", err)
	}
	defer func() { err = errors.Join(err, unix.SysvShmDetach(first)) }()
	removed := false
	remove := func() error {
		if removed {
			return nil
		}
		removed = true
		_, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	first[0] = 7

	s, err := newScript("child")
	if err != nil {
		return err
	}
	idle := s.act()
	attach := s.act()
	second := s.prog.Syscall(unix.SYS_SHMAT, s.prog.Const(uintptr(id)))
	s.prog.Store(second, s.prog.Const(42))
	touch := s.act()
	value := s.read(s.prog.Const(mm.Addr(first)), 1)
	detach := s.act()
	s.prog.Syscall(unix.SYS_SHMDT, second)
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	child := s.child.TID
	attached := map[string]uint64{}
	count := func(when string) error {
		var d unix.SysvShmDesc
		if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d); err != nil {
			return fmt.Errorf("shmctl: %w", err)
		}
		attached[when] = uint64(d.Nattch)
		return nil
	}
	if err := s.play(ctx, idle); err != nil {
		return err
	}
	if err := count("forked"); err != nil {
		return err
	}
	inherited, err := mm.Look(child, mm.Addr(first))
	if err != nil {
		return err
	}
	if err := s.play(ctx, attach); err != nil {
		return err
	}
	at, err := s.prog.Result(second)
	if err != nil {
		return fmt.Errorf("shmat in the child: %w", err)
	}
	if err := count("attached"); err != nil {
		return err
	}
	st.data["parent_reads"] = first[0]
	if err := s.play(ctx, touch); err != nil {
		return err
	}
	pages, err := behind(map[string]spot{"parent_first": {st.self.PID, mm.Addr(first)}, "child_first": {child, mm.Addr(first)}, "child_second": {child, at}})
	if err != nil {
		return err
	}
	areas, err := mm.Maps(child)
	if err != nil {
		return err
	}
	a, ok := mm.Find(areas, at)
	if !ok {
		return fmt.Errorf("maps of the child: nothing at %#x", at)
	}
	if err := probe.Look("attached", map[string][]int64{"parent": {int64(st.self.PID)}, "child": {int64(child)},
		"first": {int64(mm.Addr(first))}, "second": {int64(at)}}); err != nil {
		return err
	}
	if err := s.play(ctx, detach); err != nil {
		return err
	}
	if err := count("detached"); err != nil {
		return err
	}
	// The segment outlives its removal for as long as it is attached.
	if err := remove(); err != nil {
		return fmt.Errorf("shmctl: %w", err)
	}
	st.data["after_removal"] = first[0]
	st.data["inherited"] = inherited
	st.data["pages"] = pages
	st.data["area"] = a
	st.data["nattch"] = attached
	st.data["child_reads"] = s.prog.Get(value) & 0xff
	return nil
}

// filemap maps one file three times, by opens of its own: shared for the parent, shared and
// private for the child. The child writes to its shared mapping, reads the private one and
// writes to that.
var filemap = staged("filemap", "three mappings of a file of /tmp, writes in the child, pagemap, mincore and pread", filemapOn)

func filemapOn(ctx context.Context, st *stage) error {
	f, err := os.CreateTemp("", "labctl-filemap-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := os.Getpagesize()
	if err := f.Truncate(int64(page)); err != nil {
		return err
	}
	open := func(flags int) ([]byte, error) {
		f, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close() // the mapping keeps the file
		b, err := unix.Mmap(int(f.Fd()), 0, page, unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", f.Name(), err)
		}
		st.mapped = append(st.mapped, b)
		return b, nil
	}
	mine, err := open(unix.MAP_SHARED)
	if err != nil {
		return err
	}
	shared, err := open(unix.MAP_SHARED)
	if err != nil {
		return err
	}
	private, err := open(unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	cached, err := mm.Mincore(mm.Addr(mine), uintptr(page))
	if err != nil {
		return err
	}
	st.data["cached_at_first"] = cached[0]

	s, err := newScript("child")
	if err != nil {
		return err
	}
	write := s.act()
	s.write(s.prog.Const(mm.Addr(shared)), 1, 42)
	read := s.act()
	value := s.read(s.prog.Const(mm.Addr(private)), 1)
	own := s.act()
	s.write(s.prog.Const(mm.Addr(private)), 1, 99)
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	child := s.child.TID
	if err := s.play(ctx, write); err != nil {
		return err
	}
	// No msync: what is read is what the page cache has.
	word := make([]byte, 4)
	if _, err := f.ReadAt(word, 0); err != nil {
		return err
	}
	st.data["file_has"] = binary.LittleEndian.Uint32(word)
	st.data["parent_reads"] = mine[0]
	if err := s.play(ctx, read); err != nil {
		return err
	}
	spots := map[string]spot{"parent": {st.self.PID, mm.Addr(mine)}, "child": {child, mm.Addr(shared)}, "private": {child, mm.Addr(private)}}
	three := func(name string) (err error) {
		if st.data[name], err = behind(spots); err != nil {
			return err
		}
		return probe.Look(name, map[string][]int64{"parent": {int64(st.self.PID)}, "child": {int64(child)},
			"mine": said(mine), "shared": said(shared), "own": said(private)})
	}
	if err := three("read"); err != nil {
		return err
	}
	if err := s.play(ctx, own); err != nil {
		return err
	}
	if err := three("written"); err != nil {
		return err
	}
	st.data["child_read"] = s.prog.Get(value) & 0xff
	st.data["parent_after"] = mine[0]
	return nil
}
