// Starts itself again: Go makes the child by vfork, shares all memory with it,
// and is let go by the execve.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) == 2 {
		time.Sleep(250 * time.Millisecond)
		return
	}
	child, err := os.StartProcess("/proc/self/exe", []string{"child", "child"}, &os.ProcAttr{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("child", child.Pid)
	fmt.Println("state D")
	child.Wait()
}
