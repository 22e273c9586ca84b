// A child of its own that takes a kworker's name.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) == 2 {
		os.WriteFile("/proc/self/comm", []byte("kworker/u9:0"), 0)
		time.Sleep(20 * time.Millisecond)
		return
	}
	child, err := os.StartProcess("/proc/self/exe", []string{"child", "child"}, &os.ProcAttr{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("worker", child.Pid)
	child.Wait()
}
