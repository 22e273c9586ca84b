package ps

import (
	"bufio"
	"bytes"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"labctl/guest/probe/procfs"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// unpack writes the files of a capture below a temporary root.
func unpack(t *testing.T, capture string) string {
	t.Helper()
	text, err := os.ReadFile(capture)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
		content, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %s: %v", capture, name, err)
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestGuest(t *testing.T) {
	root := unpack(t, "testdata/arm64-6.12.txt")
	sys := System{Root: root, Page: 4096}
	if err := sys.load(); err != nil {
		t.Fatal(err)
	}
	sys.Now = sys.boot.Add(time.Minute).UTC()
	for _, option := range []string{"-ely", "-ejH", "-eLf", "-ef", "-el", "aux", "axjf", "axl", "-A -F", "-eT", "-eo pid,ni,cls,comm --sort -pid"} {
		t.Run(option, func(t *testing.T) {
			var got bytes.Buffer
			if err := printed(&got, option, System{Root: root, Page: sys.Page, Now: sys.Now}); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/arm64-6.12" + goldenName.ReplaceAllString("-"+strings.TrimPrefix(option, "-"), "-") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s, - want, + got (go test -update rewrites it):\n%s", golden, diff)
			}
		})
	}
}

// goldenName are the characters that are no part of a golden file's name.
var goldenName = regexp.MustCompile(`[^A-Za-z0-9-]+`)

// printed parses options and prints what they ask for.
func printed(w io.Writer, options string, sys System) error {
	l, err := Parse(strings.Fields(options))
	if err != nil {
		return err
	}
	return l.Print(w, 0, sys)
}

// TestProcps compares the columns of a process that sleeps with those that procps' own ps
// prints, where this host has it.
func TestProcps(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "ps", "--version").Output(); err != nil || !strings.Contains(string(out), "procps") {
		t.Skipf("no ps of procps' on this host: %s, %v", out, err)
	}
	sleeper := exec.CommandContext(t.Context(), "sleep", "1000")
	sleeper.Env = []string{"LC_ALL=C"}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleeper.Wait()
	defer sleeper.Process.Kill()
	pid := strconv.Itoa(sleeper.Process.Pid)
	lines := func(text string) string {
		head, _, _ := strings.Cut(text, "\n")
		for line := range strings.Lines(text) {
			if slices.Contains(strings.Fields(line), pid) && strings.Contains(line, "sleep") {
				return strings.TrimRight(head, " ") + "\n" + strings.TrimRight(line, " \n")
			}
		}
		return text
	}
	for _, options := range []string{
		"-e", "-ef", "-el", "-ely", "-ej", "-eLf", "-eL", "-eT", "-eF", "ax", "aux", "axl", "axj",
		"-p " + pid, "-C sleep", "-e -o pid,ppid,stat,ni,pri,cls,rtprio,nlwp,comm", "-o pid,args -p " + pid, "-eo user,pid,vsz,rss,tty,time,cmd",
		"-o pid=NUMBER -p " + pid, "--no-headers -p " + pid, "-e -o pid,etime,comm", "-e --sort=-rss -o pid,rss,args",
	} {
		t.Run(options, func(t *testing.T) {
			var got, want string
			for range 5 { // a minute, a page or a tick may pass between the two
				cmd := exec.CommandContext(t.Context(), "ps", append([]string{"ww"}, strings.Fields(options)...)...)
				if strings.HasPrefix(options, "-") {
					cmd.Args = append([]string{"ps"}, append(strings.Fields(options), "-ww")...)
				}
				cmd.Env = append(os.Environ(), "LC_ALL=C", "COLUMNS=1000")
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("ps %s: %v", options, err)
				}
				var b bytes.Buffer
				if err := printed(&b, options, Live()); err != nil {
					t.Fatal(err)
				}
				if got, want = lines(b.String()), lines(string(out)); got == want {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			t.Errorf("ps %s:\n%s\nprocps:\n%s", options, got, want)
		})
	}
}

func TestParseErrors(t *testing.T) {
	for options, want := range map[string]string{
		"-z": "option -z is not known", "--nosuch": "option --nosuch", "q": "option q is not known", "-p": "give its value", "-p x": `"x" is not a pid`,
		"-o nosuch": `column "nosuch"`, "-o ,": "give columns", "--sort nosuch": "key", "-o": "give its value",
	} {
		if _, err := Parse(strings.Fields(options)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%s) = %v; want an error with %q", options, err, want)
		}
	}
}

// TestLeads: lines of a tree lead from a task to the last of its children.
func TestLeads(t *testing.T) {
	got := leads([]int{0, 1, 2, 2, 1, 2, 0, 1}, true)
	want := []string{"", ` \_ `, ` |   \_ `, ` |   \_ `, ` \_ `, `     \_ `, "", ` \_ `}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("leads (-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"aux", "-eLf", "-o pid=,comm=X", "--sort=-rss,pid", "-p 1,2 axjf", "-eo pid,%cpu"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, options string) {
		l, err := Parse(strings.Fields(options))
		if err == nil && (len(l.columns) == 0 || l.wanted == nil) {
			t.Errorf("Parse(%q) has no columns", options)
		}
	})
}

// TestHost lists the running system, where tasks come and go meanwhile.
func TestHost(t *testing.T) {
	for _, option := range []string{"-ely", "-ejH", "-eLf", "auxf"} {
		var got bytes.Buffer
		if err := printed(&got, option, Live()); err != nil {
			t.Errorf("%s: %v", option, err)
		}
		if name := "ps.test"; !strings.Contains(got.String(), name) {
			t.Errorf("%s: no line of %s in\n%s", option, name, got.String())
		}
	}
}

func TestMissingProc(t *testing.T) {
	if err := printed(&bytes.Buffer{}, "-ely", System{Root: t.TempDir(), Page: 4096}); err == nil {
		t.Error("an empty root gave a listing; want an error")
	}
}

func TestForest(t *testing.T) {
	mk := func(pid, ppid int, start uint64) task {
		return task{Stat: procfs.Stat{PID: pid, PPID: ppid, StartTime: start}}
	}
	for _, tc := range []struct {
		name  string
		tasks []task
		pids  []int
		depth []int
	}{
		{"kthreadd before init", []task{mk(1, 0, 0), mk(2, 0, 1), mk(3, 2, 1), mk(9, 1, 5)}, []int{2, 3, 1, 9}, []int{0, 1, 0, 1}},
		{"siblings by birth, not by pid", []task{mk(1, 0, 0), mk(300, 1, 9), mk(301, 1, 4), mk(302, 301, 5)}, []int{1, 301, 302, 300}, []int{0, 1, 2, 1}},
		{"parent gone", []task{mk(1, 0, 0), mk(7, 5, 3)}, []int{7, 1}, []int{0, 0}},
		{"own parent", []task{mk(4, 4, 0)}, []int{4}, []int{0}},
		{"ring", []task{mk(1, 0, 0), mk(5, 6, 2), mk(6, 5, 3)}, []int{1, 5, 6}, []int{0, 0, 1}},
		{"none", nil, nil, nil},
	} {
		ordered, depth := forest(tc.tasks)
		var pids []int
		for _, o := range ordered {
			pids = append(pids, o.PID)
		}
		if !slices.Equal(pids, tc.pids) || !slices.Equal(depth, tc.depth) {
			t.Errorf("%s: pids %v, depth %v; want %v, %v", tc.name, pids, depth, tc.pids, tc.depth)
		}
	}
}

func TestRowGivesBackWhatAWideCellTook(t *testing.T) {
	columns := []column{{title: "RSS", width: 5}, {title: "SZ", width: 5}, {title: "TTY", width: -8}, {title: "TIME", width: 8}, {title: "CMD", width: -1}}
	for _, tc := range []struct{ cells, want string }{
		{"1 2 ? 00:00:00 sh", "    1     2 ?        00:00:00 sh\n"},
		{"1234567 2 ? 00:00:00 sh", "1234567   2 ?        00:00:00 sh\n"},
		{"1 2 a-long-tty 00:00:00 sh", "    1     2 a-long-tty 00:00:00 sh\n"},
	} {
		cells := strings.Fields(tc.cells)
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		row(w, 0, 5, columns, func(c column) string {
			return cells[slices.IndexFunc(columns, func(o column) bool { return o.title == c.title })]
		})
		w.Flush()
		if b.String() != tc.want {
			t.Errorf("row(%s) = %q; want %q", tc.cells, b.String(), tc.want)
		}
	}
}

func TestCells(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	sys := &System{Now: now, boot: now.Add(-400 * 24 * time.Hour), up: 400 * 24 * 3600 * procfs.Hz, names: map[int]string{0: "root", 5: "systemd-network"}}
	at := func(ago time.Duration) task {
		return task{Stat: procfs.Stat{StartTime: sys.up - uint64(ago.Seconds())*procfs.Hz, UTime: 150 * procfs.Hz}}
	}
	for _, tc := range []struct{ what, got, want string }{
		{"STIME today", sys.started(at(90 * time.Minute)), "10:30"},
		{"STIME this year", sys.started(at(40 * 24 * time.Hour)), "Jan21"},
		{"STIME another year", sys.started(at(300 * 24 * time.Hour)), "2025"},
		{"C half", sys.percent(at(300 * time.Second)), "50"},
		{"C two CPUs", sys.percent(at(75 * time.Second)), "99"},
		{"C just born", sys.percent(at(0)), "0"},
		{"TIME", duration(3*3600 + 62), "03:01:02"},
		{"TIME in days", duration(2*86400 + 5), "2-00:00:05"},
		{"WCHAN", wchan("__do_sys_nanosleep"), "do_sys"},
		{"WCHAN on 4.x", wchan("SyS_epoll_wait"), "SyS_ep"},
		{"WCHAN of a runner", wchan("0"), "-"},
		{"WCHAN hidden", wchan(""), "-"},
		{"UID name", sys.user(0), "root"},
		{"UID long name", sys.user(5), "systemd+"},
		{"UID unknown", sys.user(1000), "1000"},
		{"CMD", command(task{cmdline: "sh -c x"}), "sh -c x"},
		{"CMD of a kernel thread", command(task{Stat: procfs.Stat{Comm: "ksmd"}}), "[ksmd]"},
		{"CMD of a zombie", command(task{Stat: procfs.Stat{Comm: "sh", State: 'Z'}}), "[sh] <defunct>"},
		{"NI", nice(task{Stat: procfs.Stat{Nice: -5}}), "-5"},
		{"NI in SCHED_FIFO", nice(task{Stat: procfs.Stat{Policy: 1}}), "-"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s = %q; want %q", tc.what, tc.got, tc.want)
		}
	}
}

func TestParsers(t *testing.T) {
	if got, err := parseUptime("12.34 56.78\n"); got != 1234 || err != nil {
		t.Errorf("parseUptime = %d, %v; want 1234", got, err)
	}
	for _, bad := range []string{"", "x", "NaN 1", "-1 2", "1e300 1", "+Inf 1"} {
		if got, err := parseUptime(bad); err == nil {
			t.Errorf("parseUptime(%q) = %d; want an error", bad, got)
		}
	}
	if got, err := parseBootTime("cpu 1\nbtime 1700000000\n"); got.Unix() != 1700000000 || err != nil {
		t.Errorf("parseBootTime = %v, %v; want 1700000000", got, err)
	}
	for _, bad := range []string{"", "btime x\n"} {
		if got, err := parseBootTime(bad); err == nil {
			t.Errorf("parseBootTime(%q) = %v; want an error", bad, got)
		}
	}
	for text, want := range map[string]int{"32768\n": 5, "4194304\n": 7, "400": 5, "": 5, "x": 5} {
		if got := pidWidth(text); got != want {
			t.Errorf("pidWidth(%q) = %d; want %d", text, got, want)
		}
	}
	if got, want := parsePasswd("root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:\n#\nbad:x:y\na\x1b:x:7:7::/:\n"), (map[int]string{0: "root", 7: `a\033`}); !cmp.Equal(got, want) {
		t.Errorf("parsePasswd = %v; want %v", got, want)
	}
	for text, want := range map[string]int{"Name:\tsh\nUid:\t1\t2\t3\t4\n": 2, "Uid:\t1\n": -1, "": -1} {
		got, err := parseUID(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("parseUID(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	if got, want := parseCmdline([]byte("sh\x00-c\x00a\nb\x00\x00")), `sh -c a\012b`; got != want {
		t.Errorf("parseCmdline = %q; want %q", got, want)
	}
}

func TestTTYName(t *testing.T) {
	drivers := parseDrivers(`/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
/dev/vc/0            /dev/vc/0       4       0 system:vtmaster
ttyAMA               /dev/ttyAMA   204 64-77 serial
serial               /dev/ttyS       4 64-111 serial
hvc                  /dev/hvc      229 0-7 system
pty_slave            /dev/pts      136 0-1048575 pty:slave
unknown              /dev/tty        4 1-63 console
short line
bad                  /dev/bad        x 1-y serial
`)
	for device, want := range map[int]string{
		0:              "?",
		136<<8 | 3:     "pts/3",
		136<<8 | 1<<20: "pts/256",
		4<<8 | 1:       "tty1",
		4<<8 | 64:      "ttyS0",
		204<<8 | 64:    "ttyAMA0",
		5<<8 | 1:       "console",
		229 << 8:       "hvc0",
		99 << 8:        "?",
	} {
		if got := ttyName(drivers, device); got != want {
			t.Errorf("ttyName(%d:%d) = %q; want %q", device>>8, device&0xff, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"init", "a) (b\n\x1b[2J", "\xff\u0085\u200e한글", "\ufffd", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		if i := strings.IndexFunc(got, func(r rune) bool { return unicode.IsControl(r) }); i >= 0 || !strings.Contains(strings.ToValidUTF8(got, ""), got) {
			t.Errorf("printable(%q) = %q: not printable", s, got)
		}
	})
}

func FuzzParsers(f *testing.F) {
	f.Add("pty_slave /dev/pts 136 0-1048575 pty:slave\nroot:x:0:0\nUid:\t1\t2\t3\t4\nbtime 12\n", 136<<8)
	f.Add("1.5 2", -1)
	f.Fuzz(func(t *testing.T, text string, device int) {
		parseUptime(text)
		parseBootTime(text)
		parseUID(text)
		for _, s := range append([]string{ttyName(parseDrivers(text), device), parseCmdline([]byte(text)), wchan(text)}, parsePasswd(text)[0]) {
			if strings.ContainsAny(s, "\n\x1b\x00") {
				t.Errorf("%q in a cell", s)
			}
		}
		if w := pidWidth(text); w < 5 || w > 20 {
			t.Errorf("pidWidth(%q) = %d", text, w)
		}
	})
}
