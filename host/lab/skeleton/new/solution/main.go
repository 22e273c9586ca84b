// A process and its child.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "child" {
		if err := os.WriteFile("/proc/self/comm", []byte("child"), 0o644); err != nil {
			fail(err)
		}
		return
	}
	child, err := os.StartProcess("/proc/self/exe", []string{"child", "child"}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr}})
	if err != nil {
		fail(err)
	}
	fmt.Println("child", child.Pid)
	if _, err := child.Wait(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
