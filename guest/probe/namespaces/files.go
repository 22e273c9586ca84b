package namespaces

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"labctl/guest/probe/procfs"

	"golang.org/x/sys/unix"
)

// text is a string up to its closing zero.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// listen makes a socket with an abstract name, which belongs to the network
// namespace that it is made in.
func listen() (name string, close func() error, err error) {
	name = fmt.Sprintf("@labctl-namespaces-%d", unix.Getpid())
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(fd)
		return "", nil, fmt.Errorf("bind socket %s: %w", name, err)
	}
	return name, func() error { return unix.Close(fd) }, nil
}

// hasSocket looks for a name in a file like /proc/PID/net/unix.
func hasSocket(path, name string) (bool, error) {
	all, err := procfs.ReadFile(path)
	return bytes.Contains(all, []byte(" "+name+"\n")), err
}

// links reads the names of a file like /proc/PID/net/dev: two lines of headings,
// then "lo: 0 0 …" each.
func links(path string) ([]string, error) {
	all, err := procfs.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseLinks(string(all)), nil
}

func parseLinks(dev string) []string {
	names := []string{}
	for line := range strings.Lines(dev) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// mounted looks for a mount's source in a file like /proc/PID/mountinfo: the
// second word after the lone dash, proc(5).
func mounted(path, source string) (bool, error) {
	all, err := procfs.ReadFile(path)
	return hasMount(string(all), source), err
}

func hasMount(mountinfo, source string) bool {
	for line := range strings.Lines(mountinfo) {
		_, rest, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(rest); ok && len(fields) >= 2 && fields[1] == source {
			return true
		}
	}
	return false
}

// nsPIDs reads the numbers of a task in its PID namespaces, the outermost first.
func nsPIDs(path string) ([]int, error) {
	all, err := procfs.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ids, err := parseNSPIDs(string(all))
	if errors.Is(err, errNoNSPID) {
		return []int{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ids, nil
}

// errNoNSPID is of kernels before 4.1 (e4bc33245124).
var errNoNSPID = errors.New("no line NSpid")

func parseNSPIDs(status string) ([]int, error) {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		var ids []int
		for _, f := range strings.Fields(rest) {
			id, err := strconv.Atoi(f)
			if err != nil || id < 0 {
				return nil, fmt.Errorf("NSpid has %.20q", f)
			}
			ids = append(ids, id)
		}
		return ids, nil
	}
	return nil, errNoNSPID
}

// overflowUID is what a user id is called that is not mapped.
func overflowUID() (int, error) {
	const path = "/proc/sys/kernel/overflowuid"
	b, err := procfs.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}
