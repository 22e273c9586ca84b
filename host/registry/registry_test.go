package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"labctl/host/outcome"
)

// testDir makes the directory of running machines one of the test's.
func testDir(t *testing.T) *directory {
	t.Helper()
	base := filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // longer than a socket's address may be
	if err := os.MkdirAll(base, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", base)
	d, err := openDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if want := filepath.Join(base, "labctl"); d.path != want {
		t.Fatalf("the directory is %s, want %s", d.path, want)
	}
	return d
}

// dead makes the socket of a dead owner.
func dead(t *testing.T, d *directory, name string) {
	t.Helper()
	l, err := net.ListenUnix("unix", d.address(name))
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// answer makes an owner that answers every line by itself.
func answer(t *testing.T, d *directory, name string, f func(line []byte) string) {
	t.Helper()
	l, err := d.listen(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					line, _, err := receive(conn, maxRequest)
					if err != nil {
						return
					}
					if _, err := conn.Write([]byte(f(line))); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// says is an owner that says who it is.
func says(info Info) func([]byte) string {
	return func([]byte) string {
		b, _ := json.Marshal(info)
		return fmt.Sprintf("{\"schema\":%q,\"value\":%s}\n", schema, b)
	}
}

func TestFind(t *testing.T) {
	d := testDir(t)
	for _, name := range []string{"", "lab"} {
		_, err := Find(t.Context(), name)
		if err == nil || !strings.Contains(err.Error(), "labctl up") || outcome.Of(err) != outcome.BadInput {
			t.Errorf("Find(%q) without machines = %v, want what to do", name, err)
		}
	}
	auto := Info{Name: "exec-x-1", ID: "1"}
	answer(t, d, auto.Name, says(auto))
	expect := func(name, want string) {
		t.Helper()
		m, err := Find(t.Context(), name)
		switch {
		case err == nil && m.Name != want, err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("Find(%q) = %v, %v; want %q", name, m, err, want)
		case err == nil:
			m.Close()
		}
	}
	expect("", "exec-x-1") // the only one
	lab := Info{Name: "lab", ID: "2", Named: true}
	answer(t, d, lab.Name, says(lab))
	expect("", "lab") // the only one that has been named
	expect("lba", `machine "lba" is not running, did you mean lab? (running: exec-x-1, lab)`)
	expect("../lab", "want at most 40 lower-case letters")
	answer(t, d, "two", says(Info{Name: "two", ID: "3", Named: true}))
	expect("", "several machines are running; name one of: lab, two")
	expect("two", "two")
	if got := Names(t.Context(), false); !slices.Equal(got, []string{"lab", "two"}) {
		t.Errorf("Names = %q", got)
	}
	if err := CheckFree(t.Context(), "lab"); err == nil || outcome.Of(err) != outcome.BadInput {
		t.Errorf("CheckFree(lab) = %v, want that it is taken", err)
	}
	if err := CheckFree(t.Context(), "other"); err != nil {
		t.Errorf("CheckFree(other) = %v", err)
	}
	m, err := Find(t.Context(), "exec-x-1")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Down(t.Context()); err == nil || outcome.Of(err) != outcome.BadInput {
		t.Errorf("Down of a machine that is another command's = %v", err)
	}
}

// TestForeign lists owners that do not speak as they should: each is one clean line, and
// none keeps the others from being listed.
func TestForeign(t *testing.T) {
	d := testDir(t)
	answer(t, d, "good", says(Info{Name: "good", ID: "1", Run: "a\x1b[2Jb"}))
	for name, tt := range map[string]struct{ says, want string }{
		"older":    {`{"schema":"labctl/machine/v0","value":{}}`, `schema is "labctl/machine/v0", this labctl reads "labctl/machine/v1"`},
		"fields":   {`{"schema":"labctl/machine/v1","new":1}`, "unknown field"},
		"noise":    {"\x00\xff\x1b[2J", "invalid character"},
		"refuses":  {`{"schema":"labctl/machine/v1","error":{"kind":"bad input","text":"no\u001b[2J"}}`, "no"},
		"nothing":  {`{"schema":"labctl/machine/v1"}`, "unexpected end"},
		"another":  {`{"schema":"labctl/machine/v1","value":{"name":"good","id":"1","named":false,"run":"","labctl":"","command":null,"started":"2026-01-01T00:00:00Z","pid":1,"qemu":2,"target":"","arch":"","cpus":1,"memory_mb":1,"commands":false,"kernel":{"ref":"","source":"","release":"","image":"","sha256":""},"idle_seconds":0,"programs":0,"debugger":false}}`, "answers for another"},
		"files":    {`{"schema":"labctl/machine/v1","files":2}`, "0 files, want 2"},
		"minus":    {`{"schema":"labctl/machine/v1","files":-1}`, "-1 files"},
		"two":      {"{}\n{}", "more than one line"},
		"internal": {`{"schema":"labctl/machine/v1","error":{"kind":"made up","text":"x"}}`, "x"},
	} {
		answer(t, d, name, func([]byte) string { return tt.says + "\n" })
		m, err := d.find(t.Context(), name)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: find = %v, %v; want an error with %q, in one clean line", name, m, err, tt.want)
		}
	}
	all, err := List(t.Context())
	if err != nil || len(all) != 11 {
		t.Fatalf("List = %d machines, %v; want 11", len(all), err)
	}
	for _, i := range all {
		if (i.Trouble == "") != (i.Name == "good") || strings.ContainsAny(i.Trouble+i.Run, "\n\x1b") {
			t.Errorf("machine %+v", i)
		}
	}
}

// TestSilent finds an owner that accepts no connections.
func TestSilent(t *testing.T) {
	d := testDir(t)
	l, err := d.listen(t.Context(), "still")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	if _, err := Find(t.Context(), "still"); !errors.Is(err, errSilent) || outcome.Of(err) != outcome.HostLacks {
		t.Errorf("Find = %v, want %v", err, errSilent)
	}
	if took := time.Since(start); took > 10*infoWait {
		t.Errorf("Find took %v", took)
	}
}

// TestDead removes the sockets of dead owners, by whoever meets them.
func TestDead(t *testing.T) {
	d := testDir(t)
	left := func() []string {
		names, err := d.names()
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	dead(t, d, "a")
	if all, err := List(t.Context()); err != nil || len(all) != 0 || len(left()) != 0 {
		t.Errorf("List = %v, %v, and %q are left; want nothing", all, err, left())
	}
	dead(t, d, "a")
	if err := CheckFree(t.Context(), "a"); err != nil || len(left()) != 0 {
		t.Errorf("CheckFree = %v, and %q are left; want nothing", err, left())
	}
	dead(t, d, "a")
	l, err := d.listen(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var taken *TakenError
	if _, err := d.listen(t.Context(), "a"); !errors.As(err, &taken) {
		t.Errorf("listen on a name in use = %v, want a *TakenError", err)
	}
	if got := left(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q are left, want a", got)
	}
}

// TestRace has owners come, die and be looked for all at once: nobody loses a socket
// that is alive.
func TestRace(t *testing.T) {
	d := testDir(t)
	const names, rounds = 3, 40
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for n := range names {
					if conn, err := d.dial(t.Context(), fmt.Sprint("m", n)); err == nil {
						conn.Close()
					} else if !errors.Is(err, errNone) {
						t.Errorf("dial = %v", err)
					}
				}
			}
		})
	}
	var owners sync.WaitGroup
	for n := range names {
		name := fmt.Sprint("m", n)
		for range 2 {
			owners.Go(func() {
				for range rounds {
					l, err := d.listen(t.Context(), name)
					var taken *TakenError
					if errors.As(err, &taken) {
						continue
					}
					if err != nil {
						t.Errorf("listen(%s) = %v", name, err)
						return
					}
					// Alive, it keeps its name, and is found.
					conn, err := d.connect(t.Context(), name)
					if err != nil {
						t.Errorf("connect(%s) to its owner = %v", name, err)
					} else {
						conn.Close()
					}
					l.Close() // as a kill would: the socket stays
				}
			})
		}
	}
	owners.Wait()
	close(stop)
	wg.Wait()
}

// TestPrivate refuses directories that are open to others.
func TestPrivate(t *testing.T) {
	base := t.TempDir()
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(base, "cache")
	t.Setenv("LABCTL_CACHE", cache)
	for _, runtime := range []string{"", open, "relative", filepath.Join(base, "none")} {
		t.Setenv("XDG_RUNTIME_DIR", runtime)
		d, err := openDir()
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(cache, "run"); d.path != want {
			t.Errorf("with XDG_RUNTIME_DIR=%s the directory is %s, want %s", runtime, d.path, want)
		}
		d.Close()
	}
	run := filepath.Join(cache, "run")
	for _, tt := range []struct {
		what string
		make func() error
		want string
	}{
		{"open", func() error { return os.Chmod(run, 0o770) }, "open to others (mode 0770)"},
		{"link", func() error { return errors.Join(os.Remove(run), os.Symlink(open, run)) }, "is not a directory"},
		{"file", func() error { return errors.Join(os.Remove(run), os.WriteFile(run, nil, 0o600)) }, "not a directory"},
	} {
		if err := tt.make(); err != nil {
			t.Fatal(err)
		}
		if _, err := openDir(); err == nil || !strings.Contains(err.Error(), tt.want) || outcome.Of(err) != outcome.HostLacks {
			t.Errorf("%s: openDir = %v, want %q", tt.what, err, tt.want)
		}
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Remove(run), os.Mkdir(run, 0o700), os.Chown(run, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if _, err := openDir(); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
			t.Errorf("of another user: openDir = %v", err)
		}
	}
}

// TestStranger connects as another user, which takes root.
func TestStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	var conns [2]*net.UnixConn
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "\x00labctl-test-" + fmt.Sprint(os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connected := make(chan error, 1)
	go func() {
		// Credentials are those of the thread that connects.
		var err error
		conns[0], err = connectAs(65534, l.Addr().(*net.UnixAddr))
		connected <- err
	}()
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	if conns[1], err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	defer conns[1].Close()
	if err := samePeer(conns[1]); err == nil || outcome.Of(err) != outcome.HostLacks {
		t.Errorf("samePeer of another user's connection = %v, want an error", err)
	}
	if err := samePeer(conns[0]); err != nil { // the listener is root's
		t.Errorf("samePeer = %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"lab": true, "7": true, "a-b-1": true, strings.Repeat("a", 40): true,
		"": false, "-a": false, "A": false, "a_b": false, "a/b": false, "..": false, "a b": false, "é": false, strings.Repeat("a", 41): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v, want ok %t", name, err, ok)
		}
	}
	for _, run := range []string{"exec-prog", "trace-a.B_c", "", "---", strings.Repeat("x", 99), "lab-P1"} {
		name := autoName(run)
		if err := CheckName(name); err != nil || autoName(run) == name {
			t.Errorf("autoName(%q) = %q: %v", run, name, err)
		}
	}
	if name := autoName("lab-P1"); !strings.HasPrefix(name, "lab-p1-") {
		t.Errorf("autoName(lab-P1) = %q", name)
	}
}

// TestReceive passes lines and files through a socket.
func TestReceive(t *testing.T) {
	pair := func() (a, b *net.UnixConn) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		var conns [2]*net.UnixConn
		for i, fd := range fds {
			f := os.NewFile(uintptr(fd), "pair")
			c, err := net.FileConn(f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			conns[i] = c.(*net.UnixConn)
		}
		return conns[0], conns[1]
	}
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var sending sync.WaitGroup
	defer sending.Wait()

	a, b := pair()
	long := bytes.Repeat([]byte("x"), 100<<10)
	sending.Go(func() { send(a, append(slices.Clone(long), '\n'), f, f) })
	line, files, err := receive(b, maxReply)
	if err != nil || !bytes.Equal(line, long) || len(files) != 2 {
		t.Fatalf("receive = %d bytes, %d files, %v; want %d and 2", len(line), len(files), err, len(long))
	}
	if got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", files[1].Fd())); string(got) != "content" {
		t.Errorf("a file that was passed holds %q, %v", got, err)
	}
	closeFiles(files)

	a2, b2 := pair()
	sending.Go(func() { send(a2, append(bytes.Repeat([]byte("x"), maxRequest*4), '\n')) })
	if _, _, err := receive(b2, maxRequest); !errors.Is(err, errLong) {
		t.Errorf("receive of a long line = %v, want %v", err, errLong)
	}
	a3, b3 := pair()
	sending.Go(func() { send(a3, []byte("{}\n"), f, f, f, f, f, f) })
	if _, files, err := receive(b3, maxRequest); err == nil || len(files) > 0 || outcome.Of(err) != outcome.BadInput {
		t.Errorf("receive with six files = %d files, %v; want an error", len(files), err)
	}
	a4, b4 := pair()
	a4.Write([]byte("half"))
	a4.Close()
	if _, _, err := receive(b4, maxRequest); err == nil {
		t.Error("receive of half a line gave no error")
	}
}

func FuzzRequest(f *testing.F) {
	for _, o := range []op{opInfo, opMemory, opRegisters, opStop, opCont, opGDB, opJoin, opSave, opDetached, opWait, opDown} {
		b, _ := json.Marshal(request{Schema: schema, Op: o, Machine: "ID"})
		f.Add(b)
	}
	f.Add([]byte(`{"schema":"labctl/machine/v2","op":"info"}`))
	f.Add([]byte(`{"schema":"labctl/machine/v1","op":"info","x":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := decodeRequest(line)
		if err == nil && q.Schema != schema {
			t.Errorf("decodeRequest took schema %q", q.Schema)
		}
		if err != nil && (outcome.Of(err) != outcome.BadInput || strings.ContainsAny(err.Error(), "\n\x1b")) {
			t.Errorf("decodeRequest = %q: want one clean line, bad input", err)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"schema":"labctl/machine/v1","value":{"name":"lab"},"files":1}`))
	f.Add([]byte(`{"schema":"labctl/machine/v1","error":{"kind":"bad input","text":"no"}}`))
	f.Add([]byte(`{"schema":"labctl/machine/v1","error":{"kind":"","text":"\u001b"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decodeReply(line)
		if err == nil && r.Error != nil {
			err = r.Error.err()
		}
		var info Info
		if err == nil {
			err = decodeValue(r, &info)
		}
		if err != nil && (!outcome.Of(err).Known() || strings.ContainsAny(err.Error(), "\n\x1b")) {
			t.Errorf("an error %q of outcome %q: want one clean line", err, outcome.Of(err))
		}
	})
}
