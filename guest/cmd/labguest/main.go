// Labguest is all of the guest's own programs in one file, chosen by the name it
// is started as: labinit, which is PID 1, and labprobe.
//
// One file and not two, because an emulator translates a program's code page by
// page the first time it runs: a probe starts on pages that PID 1 has warmed,
// which takes 0.1 s where a program of its own takes 0.3.
package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"

	"labctl/guest/labinit"
	"labctl/guest/labprobe"
)

func isInit() bool { return len(os.Args) > 0 && filepath.Base(os.Args[0]) == "labinit" }

// A goroutine that is locked here stays on the process's first thread, which
// main's own start no longer is sure to be.
func init() {
	if !isInit() {
		runtime.LockOSThread()
	}
}

func main() {
	if isInit() {
		labinit.Main()
	}
	os.Exit(labprobe.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
