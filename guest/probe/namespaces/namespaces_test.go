package namespaces

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNamespaces takes the kernel's refusal of single kinds: they need the
// capability, or an option of the kernel. What is made must be right.
func TestNamespaces(t *testing.T) {
	res, err := run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	outside, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	rows := res.Data["rows"].(map[string]row)
	if len(rows) != len(trials) {
		t.Errorf("%d rows; want %d", len(rows), len(trials))
	}
	made := 0
	for _, trial := range trials {
		r := rows[trial.name]
		if r.Errno != "" {
			if trial.flags == 0 || r.Errno != "EPERM" && r.Errno != "EINVAL" && r.Errno != "ENOSPC" {
				t.Errorf("%s: %s", trial.name, r.Errno)
			}
			t.Logf("%s: %s", trial.name, r.Errno)
			continue
		}
		made++
		want := []string{trial.name}
		switch trial.name {
		case "none":
			want = nil
		case "six":
			want = []string{"mnt", "uts", "ipc", "pid", "net", "user"}
		}
		if !slices.Equal(r.Differ, want) {
			t.Errorf("%s: %v are new; want %v", trial.name, r.Differ, want)
		}
		is := func(kind string) bool { return slices.Contains(want, kind) }
		if is("pid") != (r.PID == 1 && r.PPID == 0 && len(r.NSPID) >= 2 && r.NSPID[len(r.NSPID)-1] == 1) {
			t.Errorf("%s: pid %d, ppid %d, NSpid %v", trial.name, r.PID, r.PPID, r.NSPID)
		}
		if (r.UID == res.Data["overflow"]) != is("user") || r.Map == "" && r.Mapped != 0 && is("user") {
			t.Errorf("%s: uid %d, mapped %d (%s)", trial.name, r.UID, r.Mapped, r.Map)
		}
		if (r.Hostname == hostname) != is("uts") || r.Outside != outside {
			t.Errorf("%s: hostname %q inside, %q outside", trial.name, r.Hostname, r.Outside)
		}
		if r.Mount != [2]bool{is("mnt"), false} || r.Segment == is("ipc") || r.Socket == is("net") {
			t.Errorf("%s: mount %v, segment %t, socket %t", trial.name, r.Mount, r.Segment, r.Socket)
		}
		if is("net") && !slices.Equal(r.Links, []string{"lo"}) || !slices.Contains(r.Links, "lo") {
			t.Errorf("%s: interfaces %v", trial.name, r.Links)
		}
	}
	if made == 0 || len(res.Tasks) != made+1 {
		t.Errorf("%d children, %d tasks; want a task each and the probe", made, len(res.Tasks))
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4(-1) = %d, %v; want ECHILD: a child was left behind", pid, err)
	}
	if removeSegment() {
		t.Error("a segment was left behind")
	}
}

func TestBadParameters(t *testing.T) {
	if res, err := run(t.Context(), json.RawMessage(`{"x":1}`)); err == nil {
		t.Errorf("run = %+v; want an error", res)
	}
}

const (
	dev = "Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n" +
		"    lo:       0       0    0    0    0     0          0         0        0       0\n" +
		"enp0s1: 120 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
	mountinfo = "26 1 0:23 / /tmp rw,relatime - tmpfs labctl-namespaces rw\n27 1 0:24 / /a\\040-\\040b rw shared:3 - proc proc rw\n"
	status    = "Name:\tx\nNSpid:\t146\t1\n"
)

func TestFiles(t *testing.T) {
	if got, want := parseLinks(dev), []string{"lo", "enp0s1"}; !slices.Equal(got, want) {
		t.Errorf("links = %v; want %v", got, want)
	}
	for source, want := range map[string]bool{mount: true, "labctl": false, "rw": false, "tmpfs": false} {
		if got := hasMount(mountinfo, source); got != want {
			t.Errorf("mount of %s: %t; want %t", source, got, want)
		}
	}
	if got, err := parseNSPIDs(status); err != nil || !slices.Equal(got, []int{146, 1}) {
		t.Errorf("NSpid = %v, %v; want 146 and 1", got, err)
	}
	for _, bad := range []string{"", "Name:\tx\n", "NSpid:\tx\n", "NSpid:\t-1\n", "NSpid:\t99999999999999999999\n"} {
		if got, err := parseNSPIDs(bad); err == nil {
			t.Errorf("NSpid of %q = %v; want an error", bad, got)
		}
	}
}

func FuzzFiles(f *testing.F) {
	f.Add(dev)
	f.Add(mountinfo)
	f.Add(status)
	f.Add(" - \n - a\nNSpid:")
	f.Fuzz(func(t *testing.T, text string) {
		parseLinks(text)
		if hasMount(text, "") {
			t.Error("a mount without a source")
		}
		ids, err := parseNSPIDs(text)
		if err == nil && slices.ContainsFunc(ids, func(n int) bool { return n < 0 }) {
			t.Errorf("NSpid = %v", ids)
		}
	})
}
