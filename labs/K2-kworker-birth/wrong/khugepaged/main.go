// Has a kernel thread made, but not a worker.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const file = "/sys/kernel/mm/transparent_hugepage/enabled"

func main() {
	for _, word := range []string{"never", "always"} {
		if err := os.WriteFile(file, []byte(word), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		time.Sleep(50 * time.Millisecond)
	}
	files, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, f := range files {
		if comm, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(comm), "khugepaged") {
			fmt.Println("worker", filepath.Base(filepath.Dir(f)))
		}
	}
}
