package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	domain "github.com/digitalocean/go-qemu/qemu"
	goqmp "github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"

	"labctl/host/vm/qemu"
	"labctl/host/vm/qmp"
)

const binary = "qemu-system-x86_64"

// halted starts QEMU with its CPUs halted, until cont.
type halted struct{}

func (halted) Args(c *qemu.Cmdline) error { c.Add("-S"); return nil }

// real starts a QEMU with no machine and returns a session with it.
func real(t *testing.T, more ...qemu.Device) (*qmp.Monitor, *qemu.Process) {
	t.Helper()
	devices := append([]qemu.Device{qemu.Defaults{}, qemu.Sandbox{}, qemu.Machine{Type: "none"}, halted{}, qemu.QMP{}}, more...) // a later machine wins
	c, err := qemu.New(binary, devices...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	p, err := qemu.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	m, err := qmp.New(ctx, p.Conn(qemu.QMPName))
	if err != nil {
		t.Fatalf("New: %v; QEMU said %q", err, p.Stderr())
	}
	t.Cleanup(func() { m.Disconnect() })
	return m, p
}

func TestGoQEMUBindings(t *testing.T) {
	m, _ := real(t)
	rm := m.Commands(t.Context())
	st, err := rm.QueryStatus()
	if err != nil {
		t.Fatal(err)
	}
	if st.Running || st.Status != raw.RunStatePrelaunch {
		t.Errorf("QueryStatus() = %+v; want prelaunch, not running", st)
	}
	if _, err := rm.QueryCommands(); err != nil {
		t.Errorf("QueryCommands: %v", err)
	}
	if err := rm.Cont(); err != nil {
		t.Errorf("Cont: %v", err)
	}
	var e *qmp.Error
	if err := rm.DeviceDel("nothing"); !errors.As(err, &e) || e.Class != "DeviceNotFound" {
		t.Errorf("DeviceDel(nothing) = %v; want *Error of class DeviceNotFound", err)
	}
}

func TestGoQEMUDomain(t *testing.T) {
	m, _ := real(t)
	d, err := domain.NewDomain(m.Bound(t.Context()), "test")
	if err != nil {
		t.Fatal(err)
	}
	events, done, err := d.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { done <- struct{}{} }()
	cmds, err := d.Commands()
	if err != nil || len(cmds) < 100 {
		t.Errorf("Commands() = %d commands, %v; want over 100", len(cmds), err)
	}
	if _, err := d.Run(goqmp.Command{Execute: "cont"}); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		if e.Event != "RESUME" || e.Timestamp.Seconds == 0 {
			t.Errorf("event %+v; want RESUME with its time", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("no event")
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// The schema is over the 64 KiB at which a bufio.Scanner gives up.
func TestLongReply(t *testing.T) {
	m, _ := real(t)
	raw, err := m.Bound(t.Context()).Run([]byte(`{"execute":"query-qmp-schema"}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("query-qmp-schema: %d bytes", len(raw))
	if len(raw) < 100<<10 || !json.Valid(raw) {
		t.Errorf("got %d bytes; want valid JSON over 100 KiB", len(raw))
	}
}

// A dump of 256 KiB of guest memory is over 1 MiB of text in one reply.
func TestReplyOverOneMiB(t *testing.T) {
	m, _ := real(t, qemu.Machine{Type: "q35"}, qemu.Memory{MiB: 16})
	got, err := m.Commands(t.Context()).HumanMonitorCommand("xp /262144xb 0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("memory dump: %d bytes", len(got))
	if n := strings.Count(got, " 0x"); n != 256<<10 || len(got) < 1<<20 {
		t.Errorf("got %d bytes with %d values; want over 1 MiB with %d", len(got), n, 256<<10)
	}
}

func TestEventStormWithoutReader(t *testing.T) {
	m, _ := real(t)
	const rounds = 200
	begin := time.Now()
	for range rounds {
		if err := errors.Join(m.Commands(t.Context()).Cont(), m.Commands(t.Context()).Stop()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d commands in %v", 2*rounds, time.Since(begin))
	if got := m.Backlog(); got != 2*rounds {
		t.Errorf("Backlog() = %d; want %d", got, 2*rounds)
	}
	events, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * rounds {
		want := []string{"RESUME", "STOP"}[i%2]
		if e := <-events; e.Event != want {
			t.Fatalf("event %d = %s; want %s", i, e.Event, want)
		}
	}
}

func TestParallelCommands(t *testing.T) {
	m, _ := real(t)
	errs := make(chan error)
	for range 50 {
		go func() {
			v, err := m.Commands(t.Context()).QueryVersion()
			if err == nil && v.Qemu.Major == 0 {
				err = errors.New("empty version")
			}
			errs <- err
		}()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// An invalid string reaches QEMU, whose parser replies without an id.
func TestRefusalWithoutID(t *testing.T) {
	m, _ := real(t)
	_, err := m.Bound(t.Context()).Run([]byte(`{"execute":"qom-get","arguments":{"path":"\ud800","property":"x"}}`))
	var e *qmp.Error
	if !errors.As(err, &e) {
		t.Errorf("Run = %v; want *Error", err)
	}
	if _, err := m.Bound(t.Context()).Run([]byte(`{"execute":"query-status"}`)); err != nil {
		t.Errorf("Run after it: %v", err)
	}
}

// TestGiveFile makes QEMU write its state to a socket passed to it.
func TestGiveFile(t *testing.T) {
	m, _ := real(t)
	ours, theirs, err := qemu.SocketPair("state")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	err = m.GiveFile(t.Context(), "state", theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Commands(t.Context()).Migrate("fd:state", nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	ours.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(ours)
	if err != nil || !strings.HasPrefix(string(got), "QEVM") { // QEMU_VM_FILE_MAGIC
		t.Errorf("QEMU wrote %.20q, %v; want its state", got, err)
	}
}

func TestEndOfQEMU(t *testing.T) {
	m, p := real(t)
	if err := m.Commands(t.Context()).Quit(); err != nil && !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("Quit: %v", err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Wait = %v; want the clean end of a quit", err)
	}
	select {
	case <-m.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("session outlives QEMU")
	}
	if _, err := m.Bound(t.Context()).Run([]byte(`{"execute":"query-status"}`)); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("Run = %v; want ErrClosed", err)
	}
}
