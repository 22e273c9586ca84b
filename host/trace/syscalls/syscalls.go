// Package syscalls has the names of system calls by their numbers, and of the errors
// that they return, on the architectures that Linux runs on. Events of raw_syscalls
// have numbers alone.
//
// A task of another ABI than its kernel's (a 32-bit program on a 64-bit kernel) has
// numbers of a table of its own, and the events do not tell which: names are those of
// the kernel's own ABI. Only x32 marks its numbers.
package syscalls

import (
	"bytes"
	_ "embed"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

//go:generate go run ./generate
//go:embed names.tsv
var numbers string

// Table is the system calls of one architecture. nil has none.
type Table struct {
	Arch  string // GOARCH, of the big-endian one for either byte order
	names map[int64]string
}

// machines are the names of machines, as uname -m prints them, by architecture.
var machines = []struct{ uname, arch string }{
	{"x86_64", "amd64"}, {"i[3-6]86", "386"}, {"aarch64", "arm64"}, {"aarch64_be", "arm64"}, {"armv[4-9]*", "arm"},
	{"riscv64", "riscv64"}, {"ppc64", "ppc64"}, {"ppc64le", "ppc64"}, {"ppc", "ppc"}, {"s390x", "s390x"},
	{"loongarch64", "loong64"}, {"mips64", "mips64"}, {"mips", "mips"}, {"sparc64", "sparc64"},
}

// Of is the table of a machine, of which uname is the text of uname(2) with the machine
// among its words: "Linux 6.12.107+deb13-arm64 aarch64". nil when it names none that is
// known.
func Of(uname string) *Table {
	for _, word := range slices.Backward(strings.Fields(uname)) {
		for _, m := range machines {
			if ok, _ := path.Match(m.uname, word); ok {
				return load(m.arch)
			}
		}
	}
	return nil
}

// OfSymbols is the table of the architecture whose name a kernel's functions of system
// calls have, as some do since 4.17: "__arm64_sys_read". kallsyms is /proc/kallsyms.
func OfSymbols(kallsyms []byte) *Table {
	for _, s := range []struct{ symbol, arch string }{
		{" __x64_sys_", "amd64"}, {" __arm64_sys_", "arm64"}, {" __riscv_sys_", "riscv64"}, {" __s390x_sys_", "s390x"},
	} {
		if bytes.Contains(kallsyms, []byte(s.symbol)) {
			return load(s.arch)
		}
	}
	return nil
}

// tables are made at the first use of each.
var tables = struct {
	sync.Mutex
	by map[string]*Table
}{by: map[string]*Table{}}

func load(arch string) *Table {
	tables.Lock()
	defer tables.Unlock()
	if t := tables.by[arch]; t != nil {
		return t
	}
	lines := strings.Split(strings.TrimSpace(numbers), "\n")
	column := slices.Index(strings.Split(lines[0], "\t"), arch)
	t := &Table{Arch: arch, names: make(map[int64]string, 512)}
	for _, line := range lines[1:] {
		row := strings.Split(line, "\t")
		if n, err := strconv.ParseInt(row[column], 10, 64); err == nil {
			t.names[n] = row[0]
		}
	}
	tables.by[arch] = t
	return t
}

// x32 is set in the numbers of that ABI (arch/x86/include/uapi/asm/unistd.h); up to
// x32Own they are those of 64-bit programs.
const (
	x32    = 0x40000000
	x32Own = 512
)

// Name is the call of a number, false when there is none: -1 is what a tracer or a
// filter makes of a call that is not to be.
func (t *Table) Name(number int64) (string, bool) {
	if t == nil {
		return "", false
	}
	if n := number &^ x32; t.Arch == "amd64" && n != number && n < x32Own {
		number = n
	}
	name, ok := t.names[number]
	return name, ok
}

// Error is the name of the error that a call's result, or that of a function of the
// kernel's, is: "ENOENT" of -2; false when it is none, or the architecture has numbers of
// its own.
func (t *Table) Error(result int64) (string, bool) {
	if t == nil || t.Arch == "mips" || t.Arch == "mips64" || t.Arch == "sparc64" {
		return "", false
	}
	return Error(result)
}

// Error is Table.Error of the architectures that have the common numbers, which are all
// that labctl boots.
func Error(result int64) (string, bool) {
	const most = 4095 // MAX_ERRNO in include/linux/err.h
	if result >= 0 || result < -most {
		return "", false
	}
	name, ok := inside[-result]
	if !ok {
		name = unix.ErrnoName(syscall.Errno(-result))
	}
	return name, name != ""
}

// inside are errors that programs do not see (include/linux/errno.h), and one that has
// two names.
var inside = map[int64]string{
	95:  "EOPNOTSUPP",
	512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 515: "ENOIOCTLCMD",
	516: "ERESTART_RESTARTBLOCK", 517: "EPROBE_DEFER", 518: "EOPENSTALE", 519: "ENOPARAM",
	521: "EBADHANDLE", 522: "ENOTSYNC", 523: "EBADCOOKIE", 524: "ENOTSUPP", 525: "ETOOSMALL",
	526: "ESERVERFAULT", 527: "EBADTYPE", 528: "EJUKEBOX", 529: "EIOCBQUEUED", 530: "ERECALLCONFLICT", 531: "ENOGRACE",
}
