// Has the kernel make a kworker. See TASK.md.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const maskFile = "/sys/devices/virtual/workqueue/cpumask"

func main() {
	mask, err := os.ReadFile(maskFile)
	check(err)
	before := workers()
	check(os.WriteFile(maskFile, []byte("1"), 0))
	for pid := range workers() {
		if !before[pid] {
			fmt.Println("worker", pid)
		}
	}
	check(os.WriteFile(maskFile, mask, 0))
}

// workers are the unbound kworkers that /proc shows.
func workers() map[int]bool {
	found := map[int]bool{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	check(err)
	for _, f := range files {
		stat, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		pid, rest, _ := bytes.Cut(stat, []byte(" ("))
		name, fields, ok := bytes.Cut(rest, []byte(") "))
		if !ok || !strings.HasPrefix(string(name), "kworker/u") {
			continue
		}
		if f := bytes.Fields(fields); len(f) > 1 && string(f[1]) == "2" {
			n, err := strconv.Atoi(string(pid))
			check(err)
			found[n] = true
		}
	}
	return found
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
