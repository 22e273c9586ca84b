package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"labctl/host/debug/vmlinux"
	"labctl/host/outcome"
	"labctl/host/outside"
	"labctl/host/registry"
	"labctl/host/scratch"
	"labctl/host/vm"
)

func (a *app) gdbCmd() *cobra.Command {
	var serve bool
	var program, debuginfo string
	c := &cobra.Command{
		Use:   "gdb [NAME] [-- ARGS]",
		Short: "Run gdb on the kernel of a running machine",
		Long: `Run gdb on the kernel of a running machine. For it labctl writes a vmlinux with the
kernel's symbols at the addresses where they run, its types (BTF) and how its frames are
left, and opens QEMU's gdbstub on a unix socket. No debug information is needed; the guest
stands still while gdb is connected, and runs on afterwards. ARGS are gdb's.

--serve starts no gdb, but says where vmlinux and socket are, and serves until Ctrl-C, one
debugger after another.`,
		Example: `  labctl gdb lab
  labctl gdb lab -- -batch -ex 'break kernel_clone' -ex continue -ex bt
  labctl gdb lab --serve`,
		ValidArgsFunction: machineNames(true),
		RunE: func(c *cobra.Command, args []string) error {
			names := args
			var more []string
			if n := c.ArgsLenAtDash(); n >= 0 {
				names, more = args[:n], args[n:]
			}
			if err := atMostOne("a machine's name, and gdb's arguments after --")(c, names); err != nil {
				return err
			}
			if serve && len(more) > 0 {
				return outcome.Inputf("gdb --serve starts no gdb to pass %q to", strings.Join(more, " "))
			}
			name := ""
			if len(names) > 0 {
				name = names[0]
			}
			if !serve {
				var err error
				if program, err = findGDB(program); err != nil {
					return err
				}
			}
			m, err := registry.Find(c.Context(), name)
			if err != nil {
				return err
			}
			defer m.Close()
			g, err := a.guest(c.Context(), m, debuginfo)
			if err != nil {
				return err
			}
			defer g.Close()
			s, err := a.serveGDB(c.Context(), m, g)
			if err != nil {
				return err
			}
			defer s.Close()
			if serve {
				fmt.Fprintln(a.stdout, s.usage())
				<-c.Context().Done()
				return context.Cause(c.Context())
			}
			return a.runGDB(c.Context(), program, s, more)
		},
	}
	f := c.Flags()
	f.BoolVar(&serve, "serve", false, "start no gdb: say how to, and serve until Ctrl-C")
	f.StringVar(&program, "gdb", "", "the gdb to run (default: gdb-multiarch, else gdb)")
	f.StringVar(&debuginfo, "debuginfo", "", "vmlinux with BTF or DWARF of a kernel that was built without BTF")
	return c
}

// findGDB finds gdb. That of Debian's package gdb-multiarch knows all architectures.
func findGDB(program string) (string, error) {
	for _, name := range []string{program, "gdb-multiarch", "gdb"} {
		if name == "" {
			continue
		}
		path, err := exec.LookPath(name)
		if err == nil {
			return path, nil
		}
		if name == program {
			return "", outcome.Hostf("--gdb: %v", err)
		}
	}
	return "", outcome.Hostf("there is no gdb here: install gdb-multiarch, or use --serve")
}

// runGDB runs gdb. Ctrl-C is for it.
func (a *app) runGDB(ctx context.Context, program string, s *gdbServer, more []string) error {
	ints := make(chan os.Signal, 1)
	signal.Notify(ints, syscall.SIGINT)
	defer signal.Stop(ints)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, append(s.args(), more...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return outcome.Inputf("gdb has ended with status %d", exit.ExitCode())
	}
	return outcome.Default(outcome.HostLacks, err)
}

// gdbServer serves a machine's gdbstub on a unix socket, with a vmlinux beside it.
type gdbServer struct {
	folder *scratch.Folder
	l      net.Listener
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  map[net.Conn]bool // nil when it is closed
}

// serveGDB writes the vmlinux and opens the socket, in a directory of the user's own.
func (a *app) serveGDB(ctx context.Context, i vm.Inspector, g *outside.Guest) (*gdbServer, error) {
	folder, err := scratch.MakeFolder(os.TempDir(), "labctl-gdb-")
	if err != nil {
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	s := &gdbServer{folder: folder, conns: map[net.Conn]bool{}}
	f, err := os.Create(s.vmlinux())
	if err == nil {
		err = errors.Join(vmlinux.Write(f, g), f.Close())
	}
	if err == nil {
		s.l, err = net.Listen("unix", s.socket())
	}
	if err != nil {
		folder.Close()
		return nil, outcome.Default(outcome.HostLacks, err)
	}
	s.wg.Go(func() {
		for {
			conn, err := s.l.Accept()
			if err != nil {
				return
			}
			// One at a time: the stub has one connection.
			if err := s.serve(ctx, conn, i); err != nil {
				a.report(err)
			}
		}
	})
	return s, nil
}

func (s *gdbServer) vmlinux() string { return filepath.Join(s.folder.Path, "vmlinux") }
func (s *gdbServer) socket() string  { return filepath.Join(s.folder.Path, "gdb.sock") }

// args are gdb's arguments.
func (s *gdbServer) args() []string {
	return []string{"-iex", "set confirm off", s.vmlinux(), "-ex", "target remote " + s.socket()}
}

// usage says how to connect.
func (s *gdbServer) usage() string {
	return fmt.Sprintf("gdb-multiarch %s -ex 'target remote %s'", s.vmlinux(), s.socket())
}

// serve joins a debugger to the stub.
func (s *gdbServer) serve(ctx context.Context, conn net.Conn, i vm.Inspector) error {
	s.mu.Lock()
	if s.conns == nil {
		s.mu.Unlock()
		return conn.Close()
	}
	s.conns[conn] = true
	s.mu.Unlock()
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	stub, err := i.GDB(ctx)
	if err != nil {
		return err
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		io.Copy(conn, stub)
		conn.Close()
	}()
	io.Copy(stub, conn)
	// The stub's replies to its own detachment are for who sends that.
	stub.SetReadDeadline(time.Unix(1, 0))
	<-back
	return stub.Close()
}

// Close ends the connections and removes the files.
func (s *gdbServer) Close() error {
	err := s.l.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
	return errors.Join(err, s.folder.Close())
}
