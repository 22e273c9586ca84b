package main

import (
	"archive/tar"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"labctl/guest/wire"
	"labctl/host/machine"
	"labctl/host/vm"
)

const channelBytes = 100 << 20

// channel sends a file into the guest's tmpfs and brings it back, as `exec
// --file --get` does. What carries the bytes on the host is a socket pair to
// QEMU, so a socket pair alone is the most there can be.
func (b *bench) channel() error { return b.onEach(b.channelOf) }

func (b *bench) channelOf(arch string, _ *machine.Machine, v *vm.VM) error {
	in := row{what: arch + ": 100 MB host to guest", baseline: "socket pair on the host", unit: "MB/s"}
	out := row{what: arch + ": 100 MB guest to host", baseline: "socket pair on the host", unit: "MB/s"}
	rate := func(start time.Time) float64 { return float64(channelBytes) / (1 << 20) / time.Since(start).Seconds() }
	for range b.pairs {
		start := time.Now()
		if err := socketPair(); err != nil {
			return err
		}
		base := rate(start)

		r, w := io.Pipe()
		go func() { w.CloseWithError(writeTar(w)) }()
		start = time.Now()
		if _, err := v.Agent().Unpack(b.ctx, "/tmp", r); err != nil {
			return v.Why(err)
		}
		sent := rate(start)

		var n count
		start = time.Now()
		if _, err := v.Agent().Pack(b.ctx, wire.PackParams{Dir: "/tmp", Paths: []string{"bytes"}, Max: channelBytes}, &n); err != nil {
			return v.Why(err)
		}
		came := rate(start)
		if n < channelBytes {
			return fmt.Errorf("%s: %d bytes came back, want at least %d", arch, n, channelBytes)
		}
		in.got, in.base, in.ratios = append(in.got, sent), append(in.base, base), append(in.ratios, sent/base)
		out.got, out.base, out.ratios = append(out.got, came), append(out.base, base), append(out.ratios, came/base)
	}
	b.table.add(in)
	b.table.add(out)
	b.say("  %s: in %s, out %s", arch, in.got.text("MB/s", 0), out.got.text("MB/s", 0))
	return nil
}

type count int64

func (c *count) Write(p []byte) (int, error) { *c += count(len(p)); return len(p), nil }

func writeTar(w io.Writer) error {
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "bytes", Mode: 0o644, Size: channelBytes}); err != nil {
		return err
	}
	if err := blocks(t); err != nil {
		return err
	}
	return t.Close()
}

// blocks writes channelBytes bytes.
func blocks(w io.Writer) error {
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = byte(i * 7)
	}
	for n := 0; n < channelBytes; n += len(block) {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func socketPair() error {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			return err
		}
		defer ends[i].Close()
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, ends[1], channelBytes)
		done <- err
	}()
	if err := blocks(ends[0]); err != nil {
		return err
	}
	return <-done
}
