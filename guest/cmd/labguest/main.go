// Labguest is all of the guest's own programs in one file, chosen by the name it
// is started as: labinit, which is PID 1, the shell, and labprobe.
//
// One file and not three, because an emulator translates a program's code page by
// page the first time it runs: a probe starts on pages that PID 1 has warmed,
// which takes 0.1 s where a program of its own takes 0.3.
package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"labctl/guest/agent"
	"labctl/guest/id"
	"labctl/guest/labinit"
	"labctl/guest/labprobe"
	"labctl/guest/modprobe"
	"labctl/guest/reboot"
	"labctl/guest/shell"
)

// name is what the program is started as; a login shell has a dash before it.
func name() string {
	if len(os.Args) == 0 {
		return ""
	}
	return strings.TrimPrefix(filepath.Base(os.Args[0]), "-")
}

func isShell() bool { return slices.Contains([]string{"sh", "bash", "labsh"}, name()) }

// A goroutine that is locked here stays on the process's first thread, which
// main's own start no longer is sure to be. Probes need that.
func init() {
	if name() != "labinit" && !isShell() {
		runtime.LockOSThread()
	}
}

func main() {
	switch {
	case name() == "labinit":
		labinit.Main()
	case name() == agent.EnlistName:
		agent.Enlist(os.Args)
	case name() == "modprobe":
		os.Exit(modprobe.Main(os.Args, os.Stdout, os.Stderr))
	case name() == "id":
		os.Exit(id.Main(os.Args, os.Stdout, os.Stderr))
	case name() == "reboot":
		os.Exit(reboot.Main(os.Args, os.Stderr))
	case name() == "ps":
		os.Args = append([]string{"labprobe", "ps"}, os.Args[1:]...)
	case isShell():
		os.Exit(shell.Main(os.Args))
	}
	os.Exit(labprobe.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
