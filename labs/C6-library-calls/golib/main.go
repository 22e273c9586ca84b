// Golib starts a program and makes a thread by Go's library, and prints their
// numbers as one JSON object.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// The main goroutine stays on the process's first thread, which nothing in the
// process has made.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 {
		return // what has been started
	}
	thread := make(chan int)
	go func() {
		runtime.LockOSThread()
		thread <- syscall.Gettid()
	}()
	child, err := os.StartProcess("/proc/self/exe", []string{"golib", "child"}, &os.ProcAttr{})
	if err == nil {
		_, err = child.Wait()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "golib:", err)
		os.Exit(1)
	}
	out := map[string]any{"library": runtime.Version(), "thread": <-thread, "child": child.Pid}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fmt.Fprintln(os.Stderr, "golib:", err)
		os.Exit(1)
	}
}
