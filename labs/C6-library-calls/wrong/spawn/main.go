// Leaves it to Go's library.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) == 2 {
		return
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"exercise", "child"}, &os.ProcAttr{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("child", p.Pid)
	p.Wait()
}
