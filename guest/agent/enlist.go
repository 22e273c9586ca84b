package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EnlistName is what the agent starts its own program as to have a program
// recorded from before its first instruction: see Enlist.
const EnlistName = "labenlist"

// startEnlisted starts a program that first writes its number to each of lists.
// The error is that of the program's own start, as start's is.
func (c *children) startEnlisted(path string, argv []string, attr *syscall.ProcAttr, lists []*os.File) (*child, error) {
	if len(lists) == 0 {
		return c.start(path, argv, attr)
	}
	var why [2]int
	if err := unix.Pipe2(why[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open a pipe for the outcome: %w", err)
	}
	outcome := os.NewFile(uintptr(why[0]), "outcome")
	defer outcome.Close()
	with := *attr
	for _, f := range lists {
		with.Files = append(with.Files[:len(with.Files):len(with.Files)], f.Fd())
	}
	with.Files = append(with.Files, uintptr(why[1]))
	ch, err := c.start("/proc/self/exe", append([]string{EnlistName, strconv.Itoa(len(lists)), path}, argv...), &with)
	unix.Close(why[1])
	if err != nil {
		return nil, err
	}
	// Ended by the start of the program, which closes the other end.
	text, err := io.ReadAll(io.LimitReader(outcome, 8))
	if err != nil {
		return ch, nil
	}
	if len(text) == 8 {
		<-ch.done
		errno := syscall.Errno(binary.LittleEndian.Uint32(text))
		if text[4] == whyList {
			return nil, fmt.Errorf("trace one program: write its number: %w", errno)
		}
		return nil, errno
	}
	return ch, nil
}

// What an outcome reports.
const (
	whyList = 1 + iota
	whyExec
)

// Enlist is the program EnlistName: it writes the number of its process to files
// and becomes another program.
//
//	labenlist N PATH ARGV0 ARGV1 …
//
// The files are descriptors 3 to N+2. On descriptor N+3 it says what went wrong: an
// error number and what it is of, four bytes each; nothing when PATH runs. The
// caller is on the process's first thread, so that nobody else is enlisted. It does
// not return.
func Enlist(args []string) {
	n, err := 0, errors.New("too few arguments")
	if len(args) >= 4 {
		n, err = strconv.Atoi(args[1])
	}
	if err != nil || n < 1 || n > 8 {
		fmt.Fprintln(os.Stderr, EnlistName+": for labinit's use only")
		os.Exit(2)
	}
	const first = 3
	report := first + n
	for fd := first; fd <= report; fd++ {
		unix.CloseOnExec(fd)
	}
	end := func(what uint32, err error) {
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			errno = unix.EIO
		}
		out := binary.LittleEndian.AppendUint32(nil, uint32(errno))
		unix.Write(report, binary.LittleEndian.AppendUint32(out, what))
		os.Exit(127)
	}
	path := args[2]
	// Its few events before the other program's should bear that one's name.
	if name, err := unix.BytePtrFromString(filepath.Base(path)); err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	env, pid := os.Environ(), []byte(strconv.Itoa(os.Getpid()))
	for fd := first; fd < report; fd++ {
		if _, err := unix.Write(fd, pid); err != nil {
			end(whyList, err)
		}
	}
	end(whyExec, syscall.Exec(path, args[3:], env))
}
