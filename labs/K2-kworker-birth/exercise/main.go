// Has the kernel make a kworker. See TASK.md.
package main

import (
	"fmt"
	"os"
)

const maskFile = "/sys/devices/virtual/workqueue/cpumask"

func main() {
	mask, err := os.ReadFile(maskFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	// TODO: look which kworkers there are, write a smaller mask, and look again.
	workers := map[int]bool{}

	for pid := range workers {
		fmt.Println("worker", pid)
	}

	// The same mask as before asks for nothing new.
	if err := os.WriteFile(maskFile, mask, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
